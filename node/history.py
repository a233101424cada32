"""What is known here of a patient beside the study in question: therapies, earlier studies, and what peers said.

    question_of       what a peer should be asked about a study, None where it need not be
    known_time_point  a study's time point by all of it
    touched_by        whose time point may be another one now

Whoever writes what these read has the touched studies looked at again. Nothing here waits for a peer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta

from node.config import Config
from node.database import Rows
from node.database_history import lookups_of
from node.database_studies import Study, list_therapies, studies_of_patient, study_of
from node.domain import Reason, TimePoint, TimePointFinding
from node.evidence_facts import StudyHeader
from node.timepoint import NOBODY, Therapy, time_point_of
from node.timepoint_earlier import EARLIER_STUDY, Earlier, EarlierStudy

OURSELVES = "this node"
NOT_YET_ASKED = "was not asked yet"


@dataclass(frozen=True)
class Question:
    """Which studies a peer is asked for: of whom, and the first and last day."""

    patient_key: str
    since: date
    until: date

    def __str__(self) -> str:
        return f"{self.patient_key} {self.since} {self.until}"

    @classmethod
    def of_text(cls, text: str) -> Question:
        """Inverse of `str`."""
        patient_key, since, until = text.rsplit(" ", 2)
        return cls(patient_key, date.fromisoformat(since), date.fromisoformat(until))


def known_time_point(rows: Rows, header: StudyHeader, config: Config) -> TimePointFinding:
    """The time point of a study that is in the database, by all that is known there of study and patient."""
    study = study_of(rows, header.study_uid)
    assert study is not None  # only studies that were written are asked about
    therapies = _therapies(rows, study.patient_key)
    return time_point_of(
        header,
        operator=study.operator_time_point,
        called=config.called_time_point(header.called_ae),
        therapies=therapies,
        settings=config.node.time_point,
        site_issuer=config.node.site.patient_id_issuer,
        earlier=_earlier(rows, study, header, therapies, config),
    )


def question_of(rows: Rows, header: StudyHeader, config: Config) -> Question | None:
    """What peers should be asked about the study; None where nothing depends on it.

    That is where a higher source has spoken, where earlier studies known so far tell the time point, and where
    patient or day are not told.
    """
    if not config.asked_for_earlier_studies or not header.patient_id:
        return None
    finding = known_time_point(rows, header, config)
    if finding.word is not None or finding.source not in (EARLIER_STUDY, NOBODY):
        return None
    study = study_of(rows, header.study_uid)
    return None if study is None else _question(study, header, config)


def touched_by(rows: Rows, before: Study | None, after: Study, config: Config) -> frozenset[str]:
    """Spool keys of the later studies that must be decided anew, because this one tells them something else now."""
    if not config.node.time_point.earlier_studies or (before is not None and _told(before) == _told(after)):
        return frozenset()
    versions = [study for study in (before, after) if study is not None]
    days = [study.study_date for study in versions if study.study_date]
    others = {other for study in versions for other in studies_of_patient(rows, study.patient_key)}
    return frozenset(
        other.spool_key
        for other in others
        if other.study_uid != after.study_uid and other.study_date and days and other.study_date >= min(days)
    )


def _told(study: Study) -> tuple[object, ...]:
    """All that a study tells of others, but for its patient's therapies."""
    return (
        study.patient_key,
        study.study_date,
        study.called_ae,
        study.operator_time_point,
        study.tag_rule_time_point,
        study.study_description,
        study.modalities,
    )


def _therapies(rows: Rows, patient_key: str) -> list[Therapy]:
    return [
        Therapy.from_iso(
            patient_id=row.patient_id,
            issuer=row.issuer,
            name=row.name,
            start=row.start_date,
            end=row.end_date,
            surgery=row.surgery_date,
            source=row.source,
        )
        for row in list_therapies(rows, patient_key=patient_key)
    ]


def _earlier(
    rows: Rows, study: Study, header: StudyHeader, therapies: Sequence[Therapy], config: Config
) -> Earlier | None:
    if header.study_date is None or not config.node.time_point.earlier_studies:
        return None
    known = [
        EarlierStudy(days, OURSELVES, _attributes(other), _word(other, header, therapies, config))
        for other, days in _before(rows, study, header.study_date)
    ]
    lookups, question = lookups_of(rows, study.study_uid), str(_question(study, header, config))
    unanswered = []
    for peer in config.asked_for_earlier_studies:
        lookup = lookups.get(peer)
        if lookup is None or lookup.question != question:
            unanswered.append(Reason(False, f"{peer} {NOT_YET_ASKED}", peer))
        elif not lookup.is_answer:
            unanswered.append(Reason(False, f"{peer}: {lookup.reason}", peer))
        else:
            known += [EarlierStudy(days, peer, tuple(attributes.items())) for days, attributes in lookup.found]
    return Earlier(tuple(known), tuple(unanswered))


def _before(rows: Rows, study: Study, day: date) -> Iterator[tuple[Study, int]]:
    """The patient's other studies of the same day or before, and how many days before."""
    for other in studies_of_patient(rows, study.patient_key):
        if other.study_uid != study.study_uid and other.study_date:
            days = (day - date.fromisoformat(other.study_date)).days
            if days >= 0:
                yield other, days


def _attributes(study: Study) -> tuple[tuple[str, str], ...]:
    told = (("StudyDescription", study.study_description), ("ModalitiesInStudy", study.modalities))
    return tuple((keyword, value) for keyword, value in told if value)


def _word(other: Study, header: StudyHeader, therapies: Sequence[Therapy], config: Config) -> TimePoint | None:
    """What person, AE title, therapy or tag rule say of another study of the same patient; not what others make likely.

    So no study is told by a chain of others, and what one tells depends on nothing that is told to it.
    """
    day = date.fromisoformat(other.study_date) if other.study_date else None
    found = time_point_of(
        replace(header, study_uid=other.study_uid, study_date=day, attributes=()),
        operator=other.operator_time_point,
        called=config.called_time_point(other.called_ae or ""),
        therapies=therapies,
        settings=config.node.time_point.model_copy(update={"tag_rules": (), "earlier_studies": ()}),
        site_issuer=config.node.site.patient_id_issuer,
    )
    return other.tag_rule_time_point if found.source == NOBODY else found.word


def _question(study: Study, header: StudyHeader, config: Config) -> Question | None:
    days = config.node.time_point.days_looked_up
    if header.study_date is None or days is None:
        return None
    nearest, farthest = days
    return Question(
        study.patient_key, header.study_date - timedelta(days=farthest), header.study_date - timedelta(days=nearest)
    )
