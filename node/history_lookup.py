"""Peers are asked for a patient's earlier studies, and what they say is kept.

A question is asked while its study is decided, outside any transaction. A peer that gives no answer leaves a row with
the reason, and is let alone for a while (its `retry` in peers.yaml): a hundred studies do not wait a hundred times
for a machine that is off. Then the studies with open questions are looked at again, and so asked for again. The rows
are durable, the pauses are not: a node that starts anew asks at once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

from node import logs
from node.config import Config, DimsePeer, OrthancPeer
from node.database import Database
from node.database_history import Lookup, forget_lookup, lookups_of, open_lookups, record_lookup
from node.errors import PeerError
from node.evidence_facts import StudyHeader
from node.evidence_slices import parse_date
from node.history import Question, question_of
from node.peers import StudyMatch, StudyQuery, find_studies
from node.spool import Spool
from node.timepoint import is_same_patient

log = logging.getLogger("node.history")


@dataclass(frozen=True)
class _Pause:
    """A peer that is not asked until then (by our clock), and why."""

    until_s: float
    attempts: int
    reason: str


class HistoryLookUp:
    """Asks, keeps, and has asked again. For one thread."""

    def __init__(
        self, config: Config, spool: Spool, database: Database, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._config = config
        self._spool = spool
        self._database = database
        self._clock = clock
        self._pauses: dict[str, _Pause] = {}

    def look_up(self, header: StudyHeader) -> None:
        """Ask about a study what must be asked; never raises for what a peer or a wire may do."""
        if not self._config.asked_for_earlier_studies:
            return
        with self._database.read() as rows:
            question = question_of(rows, header, self._config)
            known = lookups_of(rows, header.study_uid)
        if question is None:
            return
        for name, peer in self._config.asked_for_earlier_studies.items():
            lookup = self._ask(name, peer, header, question)
            before = known.get(name)
            if not lookup.is_answer and before and before.is_answer and before.question == lookup.question:
                continue  # what it said before still stands: a study does not change with the weather on the wire
            with self._database.begin() as rows:
                record_lookup(rows, header.study_uid, name, lookup)

    def look_again(self) -> int:
        """Have the studies decided anew whose open questions may be asked now; returns how many questions."""
        with self._database.read() as rows:
            found = open_lookups(rows)
        due = [item for item in found if not self._is_paused(item.peer)]
        count = 0
        for item in due:
            if not self._spool.mark_study(item.spool_key):
                continue  # its images are gone, or lie in another node's spool
            # only when the marker is durable
            with self._database.begin() as rows:
                forget_lookup(rows, item.study_uid, item.peer)
            count += 1
        return count

    def _is_paused(self, peer: str) -> bool:
        pause = self._pauses.get(peer)
        return pause is not None and peer in self._config.asked_for_earlier_studies and self._clock() < pause.until_s

    def _ask(self, name: str, peer: DimsePeer | OrthancPeer, header: StudyHeader, question: Question) -> Lookup:
        if self._is_paused(name):
            return Lookup(str(question), self._pauses[name].reason)
        query = StudyQuery(header.patient_id, question.since, question.until)
        try:
            matches = find_studies(peer, query, self._config.node.dicom.ae_title)
        except PeerError as error:
            attempts = self._pauses[name].attempts + 1 if name in self._pauses else 1
            self._pauses[name] = _Pause(self._clock() + peer.retry.delay_s(attempts), attempts, str(error))
            logs.event(log, "earlier studies not looked up", logging.WARNING, peer=name, reason=str(error))
            return Lookup(str(question), str(error))
        self._pauses.pop(name, None)
        assert header.study_date is not None  # or there was no question
        found = [item for match in matches if (item := self._found(match, header, header.study_date))]
        logs.event(log, "earlier studies looked up", peer=name, answers=len(matches), of_the_patient=len(found))
        return Lookup(str(question), found=tuple(found))

    def _found(self, match: StudyMatch, header: StudyHeader, day: date) -> tuple[int, dict[str, str]] | None:
        """The answer as it is kept; None where it is no earlier study of this patient, whatever was asked for."""
        issuer, site_issuer = match.issuer_of_patient_id, self._config.node.site.patient_id_issuer
        then = parse_date(match.study_date)
        if match.study_uid == header.study_uid or then is None or then > day:
            return None
        if not is_same_patient(match.patient_id, issuer, header, site_issuer):
            return None
        told = {"StudyDescription": match.description, "ModalitiesInStudy": "\\".join(match.modalities)}
        return (day - then).days, {keyword: value for keyword, value in told.items() if value}
