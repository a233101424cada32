"""What is known of patients, studies and series: rows, and the questions asked of them.

Who a patient is stands in `patients` and nowhere else. Every function takes the connection of a transaction that
its caller opened.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, delete, insert, or_, select, update

from node.database import Rows, iso, utc_now
from node.domain import TimePoint
from node.tables import lesions, patients, series, studies, therapies


@dataclass(frozen=True)
class Study:
    """A row of `studies`."""

    study_uid: str
    spool_key: str
    patient_key: str
    study_date: str | None
    called_ae: str | None
    calling_ae: str | None
    operator_time_point: TimePoint | None
    first_instance_at: str
    last_instance_at: str
    look_again_at: str | None
    study_description: str | None
    modalities: str | None
    """Of the series that are here, joined by a backslash."""
    tag_rule_time_point: TimePoint | None
    """What the tag rules said of its headers."""
    spool_id: str | None
    """The spool in which its images lie; None where that was not written yet."""


@dataclass(frozen=True)
class SeriesRow:
    """A row of `series`: what was decided of it, and why."""

    marker: str
    study_uid: str
    series_uid: str
    generation: str
    instance_count: int
    decision: str | None
    condition: str | None
    reason: str
    explanation: list[dict[str, Any]]
    confirmed_condition: str | None
    updated_at: str


@dataclass(frozen=True)
class TherapyRow:
    """A row of `therapies` with the identity it belongs to. Dates are ISO (YYYY-MM-DD)."""

    therapy_id: int
    patient_id: str
    issuer: str
    name: str
    start_date: str
    end_date: str | None
    surgery_date: str | None
    source: str


def patient_key(rows: Rows, patient_id: str, issuer: str, name: str = "") -> str:
    """The minted key of a patient, made at the first meeting. A later name replaces the earlier one."""
    known = rows.execute(
        select(patients.c.patient_key, patients.c.name).where(
            patients.c.patient_id == patient_id, patients.c.issuer == issuer
        )
    ).first()
    if known is None:
        key = uuid.uuid4().hex
        rows.execute(insert(patients).values(patient_key=key, patient_id=patient_id, issuer=issuer, name=name))
        return key
    if name and name != known.name:
        rows.execute(update(patients).where(patients.c.patient_key == known.patient_key).values(name=name))
    return str(known.patient_key)


def record_study(
    rows: Rows,
    study_uid: str,
    *,
    spool_key: str,
    patient_key: str,
    study_date: str | None,
    called_ae: str | None,
    calling_ae: str | None,
    first_instance_at: str,
    last_instance_at: str,
    study_description: str | None = None,
    modalities: str | None = None,
    tag_rule_time_point: TimePoint | None = None,
    spool_id: str | None = None,
) -> Study:
    """Write or refresh a study's row; an operator's word on it stays."""
    facts = {
        "spool_key": spool_key,
        "patient_key": patient_key,
        "study_date": study_date,
        "called_ae": called_ae,
        "calling_ae": calling_ae,
        "last_instance_at": last_instance_at,
        "study_description": study_description,
        "modalities": modalities,
        "tag_rule_time_point": tag_rule_time_point.value if tag_rule_time_point else None,
        "spool_id": spool_id,
    }
    if study_of(rows, study_uid) is None:
        rows.execute(insert(studies).values(study_uid=study_uid, first_instance_at=first_instance_at, **facts))
    else:
        rows.execute(update(studies).where(studies.c.study_uid == study_uid).values(**facts))
    found = study_of(rows, study_uid)
    assert found is not None  # written two lines above
    return found


def study_of(rows: Rows, study_uid: str) -> Study | None:
    """The study's row, None where it is not known."""
    row = rows.execute(select(studies).where(studies.c.study_uid == study_uid)).first()
    return None if row is None else _study(row)


def list_studies(rows: Rows, limit: int | None = None) -> list[Study]:
    """Studies, the last received first."""
    query = select(studies).order_by(studies.c.last_instance_at.desc()).limit(limit)
    return [_study(row) for row in rows.execute(query)]


def set_operator_time_point(rows: Rows, study_uid: str, time_point: TimePoint | None) -> None:
    """An operator's word, which goes before all other evidence."""
    value = time_point.value if time_point else None
    rows.execute(update(studies).where(studies.c.study_uid == study_uid).values(operator_time_point=value))


def set_look_again(rows: Rows, study_uid: str, at: str | None) -> None:
    """When the study is to be decided again though nothing came; None where it is not."""
    rows.execute(update(studies).where(studies.c.study_uid == study_uid).values(look_again_at=at))


def studies_to_look_at(rows: Rows, now: str, spool_id: str) -> list[Study]:
    """Studies of a spool whose moment to be decided again has come."""
    query = select(studies).where(studies.c.look_again_at <= now, is_of_spool(spool_id))
    return [_study(row) for row in rows.execute(query)]


def is_of_spool(spool_id: str) -> ColumnElement[bool]:
    """Of which study the images lie in that spool, or may: of the oldest rows nobody wrote where."""
    return or_(studies.c.spool_id == spool_id, studies.c.spool_id.is_(None))


def record_series(
    rows: Rows,
    marker: str,
    *,
    study_uid: str,
    series_uid: str,
    generation: str,
    instance_count: int,
    decision: str | None,
    condition: str | None,
    reason: str,
    explanation: list[dict[str, Any]],
) -> None:
    """Write or replace what was decided of a series. A confirmation holds for the content it was given for."""
    facts: dict[str, Any] = {
        "study_uid": study_uid,
        "series_uid": series_uid,
        "generation": generation,
        "instance_count": instance_count,
        "decision": decision,
        "condition": condition,
        "reason": reason,
        "explanation": explanation,
        "updated_at": iso(utc_now()),
    }
    known = rows.execute(select(series.c.generation).where(series.c.marker == marker)).first()
    if known is None:
        rows.execute(insert(series).values(marker=marker, **facts))
        return
    if known.generation != generation:
        facts["confirmed_condition"] = None
    rows.execute(update(series).where(series.c.marker == marker).values(**facts))


def studies_since(rows: Rows, at: str) -> list[Study]:
    """Studies of which an image came at or after that moment, the oldest first."""
    query = select(studies).where(studies.c.last_instance_at >= at).order_by(studies.c.last_instance_at)
    return [_study(row) for row in rows.execute(query)]


def series_of_study(rows: Rows, study_uid: str) -> list[SeriesRow]:
    """The study's series and what was decided of each."""
    query = select(series).where(series.c.study_uid == study_uid).order_by(series.c.marker)
    return [SeriesRow(**dict(row._mapping)) for row in rows.execute(query)]


def give_series_reason(rows: Rows, marker: str, reason: str) -> None:
    """Say another reason of a series; what was decided of it stays."""
    rows.execute(update(series).where(series.c.marker == marker).values(reason=reason, updated_at=iso(utc_now())))


def known_markers(rows: Rows) -> frozenset[str]:
    """Markers of all series that were ever decided."""
    return frozenset(rows.execute(select(series.c.marker)).scalars())


def series_by_uid(rows: Rows, series_uid: str) -> list[SeriesRow]:
    """The rows of that Series Instance UID; more than one only where a sender reused it in another study."""
    query = select(series).where(series.c.series_uid == series_uid)
    return [SeriesRow(**dict(row._mapping)) for row in rows.execute(query)]


def list_refused_series(rows: Rows, limit: int | None = None) -> list[SeriesRow]:
    """Series that no route takes, the latest first."""
    query = select(series).where(series.c.decision == "refuse").order_by(series.c.updated_at.desc()).limit(limit)
    return [SeriesRow(**dict(row._mapping)) for row in rows.execute(query)]


def confirm_series(rows: Rows, marker: str, condition: str) -> None:
    """A person says that this series is of that condition."""
    rows.execute(update(series).where(series.c.marker == marker).values(confirmed_condition=condition))


def add_therapy(
    rows: Rows,
    *,
    patient_id: str,
    issuer: str,
    name: str,
    start_date: str,
    end_date: str | None,
    surgery_date: str | None,
    source: str,
) -> str:
    """Enter a therapy, or replace the one with the same patient, name and start; returns the patient's key."""
    key = patient_key(rows, patient_id, issuer)
    rows.execute(
        delete(therapies).where(
            therapies.c.patient_key == key, therapies.c.name == name, therapies.c.start_date == start_date
        )
    )
    rows.execute(
        insert(therapies).values(
            patient_key=key,
            name=name,
            start_date=start_date,
            end_date=end_date,
            surgery_date=surgery_date,
            source=source,
            entered_at=iso(utc_now()),
        )
    )
    return key


def remove_therapy(rows: Rows, therapy_id: int) -> str | None:
    """Remove a therapy; returns the key of its patient, None where there is no such row."""
    row = rows.execute(select(therapies.c.patient_key).where(therapies.c.therapy_id == therapy_id)).first()
    rows.execute(delete(therapies).where(therapies.c.therapy_id == therapy_id))
    return None if row is None else str(row.patient_key)


def list_therapies(rows: Rows, *, patient_key: str | None = None) -> list[TherapyRow]:
    """Therapies, of one patient or of all, by start."""
    query = (
        select(therapies, patients.c.patient_id, patients.c.issuer)
        .join(patients, patients.c.patient_key == therapies.c.patient_key)
        .order_by(therapies.c.start_date, therapies.c.therapy_id)
    )
    if patient_key is not None:
        query = query.where(therapies.c.patient_key == patient_key)
    return [
        TherapyRow(
            row.therapy_id,
            row.patient_id,
            row.issuer,
            row.name,
            row.start_date,
            row.end_date,
            row.surgery_date,
            row.source,
        )
        for row in rows.execute(query)
    ]


def studies_of_patient(rows: Rows, patient_key: str) -> list[Study]:
    """All known studies of a patient, by date."""
    query = select(studies).where(studies.c.patient_key == patient_key).order_by(studies.c.study_date)
    return [_study(row) for row in rows.execute(query)]


def lesions_of(rows: Rows, job_id: str) -> list[tuple[str, str]]:
    """(tracking UID, tracking id) of a job's lesions in the order of their numbers."""
    query = (
        select(lesions.c.tracking_uid, lesions.c.tracking_id)
        .where(lesions.c.job_id == job_id)
        .order_by(lesions.c.number)
    )
    return [(row.tracking_uid, row.tracking_id) for row in rows.execute(query)]


def record_lesions(
    rows: Rows, job_id: str, *, patient_key: str, study_uid: str, identities: Sequence[tuple[str, str]]
) -> list[tuple[str, str]]:
    """Keep the minted (or inherited) identities of a job's lesions; a second call returns what the first kept."""
    known = lesions_of(rows, job_id)
    if known:
        return known
    at = iso(utc_now())
    for number, (tracking_uid, tracking_id) in enumerate(identities, start=1):
        rows.execute(
            insert(lesions).values(
                job_id=job_id,
                number=number,
                tracking_uid=tracking_uid,
                tracking_id=tracking_id,
                patient_key=patient_key,
                study_uid=study_uid,
                minted_at=at,
            )
        )
    return list(identities)


def _study(row: Any) -> Study:
    values = dict(row._mapping)
    for word in ("operator_time_point", "tag_rule_time_point"):
        values[word] = TimePoint(values[word]) if values[word] else None
    return Study(**values)
