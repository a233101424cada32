"""The one way in: a complete study becomes decisions, and decisions become jobs. Also for what a person says later.

Considering a study again is harmless: a job's id is its content, so the same content is the same job. What is no
longer wanted and was not delivered is superseded; what was delivered is replaced by a new job that names it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from node.assembly import SeriesReady, StudyReady, generation_of
from node.bundles import BundleCard
from node.config import Config
from node.database import Database, Rows, iso, utc_now
from node.database_jobs import job_of
from node.database_studies import (
    known_markers,
    patient_key,
    record_series,
    record_study,
    series_of_study,
    set_look_again,
    studies_to_look_at,
    study_of,
)
from node.dicom.header import text
from node.domain import Decision, JobOrder, SeriesKey
from node.evidence import StudyHeader
from node.evidence_study import StudyEvidence, read_study, rejections
from node.history import known_time_point, touched_by
from node.inputs import role_input
from node.orders_jobs import Wanted, end_waiting, judged, settle, take_back
from node.routing import Pick, StudyDecision, Wait, as_json, decide
from node.routing_criteria import SEVERITY
from node.spool import Spool
from node.timepoint import by_tag_rules


@dataclass(frozen=True)
class Dossier:
    """A complete study with all that its own images tell, not decided yet. Its header stands in the database."""

    header: StudyHeader
    series: Mapping[SeriesKey, SeriesReady]
    evidence: StudyEvidence


class Orders:
    """Decides studies and writes the jobs that follow. For one thread."""

    def __init__(self, config: Config, spool: Spool, database: Database, cards: Mapping[str, BundleCard]) -> None:
        self._config = config
        self._spool = spool
        self._database = database
        self._cards = cards

    def consider(self, ready: StudyReady) -> list[str]:
        """Read and decide a study at once, by what is known now; returns the ids of jobs to enqueue."""
        dossier = self.read(ready)
        return [] if dossier is None else self.decide(dossier)

    def read(self, ready: StudyReady) -> Dossier | None:
        """What a study's images tell, its header written to the database; None where it has no image."""
        series = {item.key: item for item in ready.series if item.headers}
        if not series:
            return None
        headers = {key: item.headers for key, item in series.items()}
        evidence = read_study(headers, self._config.node.time_point.keywords, self._config.trust)
        with self._database.begin() as rows:
            header = self._record_study(rows, ready, series, evidence)
        return Dossier(header, series, evidence)

    def decide(self, dossier: Dossier) -> list[str]:
        """Decide a study and write all that follows in one transaction; returns the ids of jobs to enqueue."""
        header, series, evidence = dossier.header, dossier.series, dossier.evidence
        with self._database.read() as rows:
            finding = known_time_point(rows, header, self._config)
        decision = decide(evidence.volumes, self._config.routes, finding, waited_s=waited_s)
        # files are hashed here, while no transaction keeps other writers waiting
        offers = [self._offer(header, series, pick) for pick in decision.picks]
        with self._database.begin() as rows:
            # this first: who answers now waits for us, or has answered before we read on
            set_look_again(rows, header.study_uid, _end_of_patience(decision))
            if known_time_point(rows, header, self._config) != finding:
                set_look_again(rows, header.study_uid, iso(utc_now()))
            self._record_series(rows, header, series, evidence, decision)
            confirmed = {
                row.series_uid: row.confirmed_condition
                for row in series_of_study(rows, header.study_uid)
                if row.confirmed_condition
            }
            wanted = [judged(offer, confirmed) for offer in offers]
            rejected = rejections(dataset for item in series.values() for dataset in item.headers.values())
            taken_back = take_back(rows, header.study_uid, rejected)
            return settle(rows, self._spool, header.study_uid, wanted, taken_back)

    def remind(self) -> int:
        """Have studies looked at again whose moment has come (a route has waited long enough, …); returns how many.

        One whose images have left the spool is never decided again, and what waits for that says so.
        """
        with self._database.read() as rows:
            due = studies_to_look_at(rows, iso(utc_now()), self._spool.spool_id)
        count = 0
        for study in due:
            is_here = self._spool.has_instances(study.spool_key) and self._spool.mark_study(study.spool_key)
            # after the markers: a crash in between marks twice, and forgets nothing
            with self._database.begin() as rows:
                set_look_again(rows, study.study_uid, None)
                if not is_here:
                    end_waiting(rows, study.study_uid)
            count += is_here
        return count

    def reconcile(self) -> int:
        """At start: have every series looked at that the database does not know; returns how many.

        A marker may be lost where a disk loses power, or a crash came between file and marker; the file is the truth.
        """
        with self._database.read() as rows:
            known = known_markers(rows)
        unknown = [
            key for study in self._spool.studies() for key in self._spool.series_of(study) if key.marker not in known
        ]
        for key in unknown:
            self._spool.mark_dirty(key)
        return len(unknown)

    def is_current(self, order: JobOrder) -> bool:
        """Whether the series of an order are still what they were when it was made."""
        with self._database.read() as rows:
            made_for = job_of(rows, order.job_id).generation
        return made_for == self._generation(_keys(order))

    # --- what is known

    def _record_study(
        self,
        rows: Rows,
        ready: StudyReady,
        series: Mapping[SeriesKey, SeriesReady],
        evidence: StudyEvidence,
    ) -> StudyHeader:
        newest, oldest = _newest_and_oldest(series.values())
        dataset = next(item.headers[newest] for item in series.values() if newest in item.headers)
        header = replace(
            next(found.header for key, found in evidence.series.items() if newest in series[key].headers),
            called_ae=_ae(dataset, "ReceivingApplicationEntityTitle"),
            calling_ae=_ae(dataset, "SendingApplicationEntityTitle"),
        )
        key = patient_key(
            rows,
            header.patient_id,
            header.issuer or self._config.node.site.patient_id_issuer,
            text(dataset, "PatientName"),
        )
        by_rules = by_tag_rules(header, self._config.node.time_point)
        modalities = {volume.modality for volume in evidence.volumes}
        before = study_of(rows, header.study_uid)
        after = record_study(
            rows,
            header.study_uid,
            spool_key=ready.study_key,
            patient_key=key,
            study_date=header.study_date.isoformat() if header.study_date else None,
            called_ae=header.called_ae,
            calling_ae=header.calling_ae,
            first_instance_at=_modified(oldest),
            last_instance_at=_modified(newest),
            study_description=text(dataset, "StudyDescription").replace("\0", ""),
            modalities="\\".join(sorted(modalities - {""})),
            tag_rule_time_point=by_rules.word if by_rules else None,
            spool_id=self._spool.spool_id,
        )
        # before the commit: a crash in between has studies looked at once too often, not once too little
        for study_key in touched_by(rows, before, after, self._config):
            self._spool.mark_study(study_key)
        return header

    # --- what follows

    def _record_series(
        self,
        rows: Rows,
        header: StudyHeader,
        series: Mapping[SeriesKey, SeriesReady],
        evidence: StudyEvidence,
        decision: StudyDecision,
    ) -> None:
        explained = as_json(decision)
        for key, item in series.items():
            series_uid = evidence.series[key].series_uid
            told = told_of_series(explained, series_uid)
            record_series(
                rows,
                key.marker,
                study_uid=header.study_uid,
                series_uid=series_uid,
                generation=item.generation,
                instance_count=len(item.headers),
                decision=told.decision,
                condition=told.condition,
                reason=told.reason,
                explanation=told.volumes,
            )

    def _offer(self, header: StudyHeader, series: Mapping[SeriesKey, SeriesReady], pick: Pick) -> Wanted:
        """What a pick comes to as an order."""
        folders = {self._spool.series_folder(key): item for key, item in series.items()}
        used = {path.parent for _, volume in pick.inputs for path, _ in volume.every_member}
        sources = tuple(item for folder, item in folders.items() if folder in used)
        headers = {path: dataset for item in sources for path, dataset in item.headers.items()}
        route = self._config.route(pick.condition) if pick.condition else None
        card = self._cards[route.bundle] if route else None
        order = JobOrder(
            study_uid=header.study_uid,
            condition=pick.condition or " or ".join(pick.candidates),
            route_revision=route.revision if route else "",
            bundle=route.bundle if route else "",
            bundle_sha256=card.sha256 if card else "",
            time_point=pick.time_point,
            inputs={role: role_input(volume, headers) for role, volume in pick.inputs},
            deliver_to=route.deliver_to if route else (),
        )
        return Wanted(
            order=order,
            pick=pick,
            sources=sources,
            # as the images were read: more may have come since
            generation=_joined([series[key].generation for key in _keys(order)]),
            is_demo=card.card.is_demo if card else False,
        )

    def _generation(self, keys: Sequence[SeriesKey]) -> str:
        return _joined([generation_of(self._spool.instances(key)) for key in keys])


def _joined(generations: Sequence[str]) -> str:
    """The generation of several series together."""
    if len(generations) == 1:
        return generations[0]
    return hashlib.sha256("".join(generations).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class SeriesTold:
    """The decision on a series: that on its best volume, with all volumes' explanations."""

    decision: str
    condition: str | None
    reason: str
    volumes: list[dict[str, Any]]


def told_of_series(explained: Sequence[dict[str, Any]], series_uid: str) -> SeriesTold:
    """What an explained decision says of one series."""
    volumes = [told for told in explained if told["series_uid"] == series_uid]
    best = min(volumes, key=lambda told: SEVERITY[Decision(told["decision"])], default=None)
    if best is None:
        return SeriesTold(Decision.REFUSE.value, None, "no image in it", volumes)
    condition = best["condition"] or " or ".join(best["candidates"]) or None
    return SeriesTold(best["decision"], condition, _first_reason(best), volumes)


def waited_s(wait: Wait) -> float:
    """How long ago the last image came of what a route has already: other images of the study prolong nothing."""
    return (utc_now() - _waits_since(wait)).total_seconds()


def _waits_since(wait: Wait) -> datetime:
    files = {
        path for volume in wait.held for members in (volume.members, *volume.other_directions) for path, _ in members
    }
    return datetime.fromtimestamp(max(path.stat().st_mtime for path in files), UTC)


def _end_of_patience(decision: StudyDecision) -> str | None:
    """When the first of the routes that wait for other roles gives up."""
    ends = [_waits_since(wait) + timedelta(seconds=wait.route.patience_s) for wait in decision.waits]
    return iso(min(ends)) if ends else None


def _keys(order: JobOrder) -> list[SeriesKey]:
    """The series whose folders hold the order's instances."""
    folders = dict.fromkeys(item.path.parent for given in order.inputs.values() for item in given.every_instance)
    return [SeriesKey(folder.parent.name, folder.name) for folder in folders]


def _first_reason(told: Mapping[str, Any]) -> str:
    if told["hold_reason"]:
        return str(told["hold_reason"])
    is_taken = told["decision"] == Decision.ACCEPT.value
    fitting = [reason["what"] for reason in told["reasons"] if reason["for"] == is_taken]
    return str(fitting[0]) if fitting else ""


def _newest_and_oldest(series: Iterable[SeriesReady]) -> tuple[Path, Path]:
    by_time = sorted((path.stat().st_mtime_ns, path) for item in series for path in item.headers)
    return by_time[-1][1], by_time[0][1]


def _modified(path: Path) -> str:
    """When the file was written: the receiver writes each once, at its arrival."""
    return iso(datetime.fromtimestamp(path.stat().st_mtime, UTC))


def _ae(dataset: Dataset, keyword: str) -> str:
    """An AE title that the receiver kept in the file meta (0002,0016-0018)."""
    return str(dataset.file_meta.get(keyword, "") or "").strip()
