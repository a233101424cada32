"""Peers are asked for a patient's earlier studies beside the decisions, and what they say is kept.

    work loop    put         a question becomes a row
    a thread     ask         row → peer → row; what is news has the study looked at again
    each peer    is_awaited  may an answer come soon? so long the study may wait, and no other with it

A question is a row until it is answered, so it survives `kill -9` at any line: between question and answer it is asked
once more, after the answer the study's reminder stands in the same transaction. Each peer has one thread and one
question at a time. One that gives no answer is let alone for a while (its `retry` in peers.yaml), with all that is
open at it: a hundred studies do not wait a hundred times for a machine that is off. The pauses are not durable: a
node that starts anew asks at once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

from node import logs
from node.config import Config
from node.config_peers import QueriedPeer
from node.database import AWAY, Database, Rows, iso, moment_of, utc_now
from node.database_history import (
    NOT_YET_ANSWERED,
    Lookup,
    WantedLookup,
    answer_lookup,
    fail_lookups,
    forget_wanted,
    is_wanted,
    lookups_of,
    renew_lookup,
    want_lookup,
    wanted_lookups,
    withdraw_peers,
    withdraw_questions,
)
from node.database_studies import set_look_again
from node.errors import PeerError
from node.evidence_facts import StudyHeader
from node.evidence_slices import parse_date
from node.history import Question, question_of
from node.peers import StudyMatch, StudyQuery, find_studies
from node.spool import Spool
from node.timepoint import is_same_patient

ANSWER_HOLDS = timedelta(minutes=5)
"""So long a peer that has answered is not asked the same again, however often the study is looked at."""
IDLE_S = 60.0
"""A thread looks for questions that nobody told it of."""
DATABASE_PAUSE_S = 5.0
_BATCH = 20

log = logging.getLogger("node.history")


@dataclass(frozen=True)
class _Pause:
    """A peer that is not asked until then (by our clock), and why."""

    until_s: float
    attempts: int
    reason: str


@dataclass
class _Asked:
    """A peer that is asked. Only its own thread changes it."""

    peer: QueriedPeer
    wake: threading.Event = field(default_factory=threading.Event)
    pause: _Pause | None = None

    def paused(self, now_s: float) -> _Pause | None:
        """The pause that it has now."""
        pause = self.pause
        return pause if pause is not None and now_s < pause.until_s else None


class HistoryLookUp:
    """Asks, keeps, and has studies looked at again. `put` and `is_awaited` never wait for a peer."""

    def __init__(
        self,
        config: Config,
        spool: Spool,
        database: Database,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._config = config
        self._spool = spool
        self._database = database
        self._clock = clock
        self._now = now
        self._asked = {name: _Asked(peer) for name, peer in config.asked_for_earlier_studies.items()}
        self._is_closing = threading.Event()
        self._threads: list[threading.Thread] = []

    # --- for the work loop

    def start(self) -> None:
        """Take back what is open at peers that are asked no more, and begin to ask the others."""
        with self._database.begin() as rows:
            for study_uid in withdraw_peers(rows, self._spool.spool_id, list(self._asked)):
                self._have_looked_at(rows, study_uid)
        for name in self._asked:
            # daemons: a peer that hangs must not keep the process from its end
            thread = threading.Thread(target=self._run, args=(name,), name=f"earlier studies at {name}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def close(self) -> None:
        """Ask no more. What is open stands in the database."""
        self._is_closing.set()
        for asked in self._asked.values():
            asked.wake.set()

    def put(self, header: StudyHeader) -> None:
        """Have the peers asked what must be asked about a study that is in the database."""
        if not self._asked:
            return
        with self._database.begin() as rows:
            question = question_of(rows, header, self._config)
            if question is None:
                withdraw_questions(rows, header.study_uid)
                return
            known = lookups_of(rows, header.study_uid)
            for name, asked in self._asked.items():
                self._put(rows, header.study_uid, name, asked, str(question), known.get(name))
        for asked in self._asked.values():
            asked.wake.set()

    def is_awaited(self, study_uid: str) -> bool:
        """Whether an answer about the study may come soon: one is wanted, and of a peer that has no pause."""
        now_s = self._clock()
        names = [name for name, asked in self._asked.items() if not asked.paused(now_s)]
        if not names:
            return False
        with self._database.read() as rows:
            return is_wanted(rows, study_uid, names)

    def _put(self, rows: Rows, study_uid: str, name: str, asked: _Asked, question: str, known: Lookup | None) -> None:
        now, pause = self._now(), asked.paused(self._clock())
        if known is None or known.question != question:
            want_lookup(rows, study_uid, name, question, now, pause.reason if pause else NOT_YET_ANSWERED)
        elif known.is_answer and pause is None and now - moment_of(known.asked_at) > ANSWER_HOLDS:
            renew_lookup(rows, study_uid, name, now)

    # --- for the threads

    def ask(self, name: str) -> int:
        """Put to a peer what it is to be asked, until nothing is left or it does not answer; returns how many."""
        asked, count = self._asked[name], 0
        while not self._is_closing.is_set() and not asked.paused(self._clock()):
            wanted = self._next(name)
            if wanted is None:
                break
            self._ask(asked, wanted)
            count += 1
        return count

    def _run(self, name: str) -> None:
        asked = self._asked[name]
        while not self._is_closing.is_set():
            wait_s = IDLE_S
            try:
                self.ask(name)
                if pause := asked.paused(self._clock()):
                    wait_s = pause.until_s - self._clock()
            except AWAY:
                wait_s = DATABASE_PAUSE_S  # told by the database's outage; what is to be asked stands there
            except Exception:  # a thread that ended would leave every study held, and nobody would know why
                log.exception("earlier studies not asked for", extra={"facts": {"peer": name}})
            asked.wake.wait(wait_s)
            asked.wake.clear()

    def _next(self, name: str) -> WantedLookup | None:
        """The question that is wanted longest; those about studies whose images are gone are taken back."""
        while True:
            with self._database.read() as rows:
                found = wanted_lookups(rows, self._spool.spool_id, name, _BATCH)
            for wanted in found:
                if wanted.study_date and self._spool.has_instances(wanted.spool_key):
                    return wanted
                with self._database.begin() as rows:
                    forget_wanted(rows, wanted)
            if not found:
                return None

    def _ask(self, asked: _Asked, wanted: WantedLookup) -> None:
        question = Question.of_text(wanted.lookup.question)
        query = StudyQuery(wanted.patient_id, question.since, question.until)
        try:
            matches = find_studies(asked.peer, query, self._config.node.dicom.ae_title)
        except PeerError as error:
            self._failed(asked, wanted, str(error))
        except Exception as error:
            # a foreign error's text may quote a patient: only its type goes on
            log.exception("earlier studies not looked up", extra={"facts": {"peer": wanted.peer}})
            self._failed(asked, wanted, f"internal error ({type(error).__name__}); see the log")
        else:
            asked.pause = None
            self._answered(wanted, matches)

    def _failed(self, asked: _Asked, wanted: WantedLookup, reason: str) -> None:
        attempts = asked.pause.attempts + 1 if asked.pause else 1
        with self._database.begin() as rows:
            for study_uid in fail_lookups(rows, self._spool.spool_id, wanted, reason, self._now()):
                self._have_looked_at(rows, study_uid)
        # only when that is written: who waits for an answer then finds why there is none
        asked.pause = _Pause(self._clock() + asked.peer.retry.delay_s(attempts), attempts, reason)
        logs.event(log, "earlier studies not looked up", logging.WARNING, peer=wanted.peer, reason=reason)

    def _answered(self, wanted: WantedLookup, matches: list[StudyMatch]) -> None:
        assert wanted.study_date is not None  # or it was not asked
        day = date.fromisoformat(wanted.study_date)
        header = StudyHeader(wanted.study_uid, wanted.patient_id, wanted.issuer, day)
        found = [item for match in matches if (item := self._found(match, header, day))]
        with self._database.begin() as rows:
            if answer_lookup(rows, wanted, found, self._now()):
                self._have_looked_at(rows, wanted.study_uid)
        facts = {"answers": len(matches), "of_the_patient": len(found)}
        logs.event(log, "earlier studies looked up", peer=wanted.peer, **facts)

    def _have_looked_at(self, rows: Rows, study_uid: str) -> None:
        """In the transaction of what is news: whoever decides meanwhile without it has the study looked at again."""
        set_look_again(rows, study_uid, iso(utc_now()))

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
