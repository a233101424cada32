"""Studies between complete and decided: each goes its way, and none waits for another.

    read      what its images tell, its header into the database, its questions to the peers
    wait      for answers that may come soon; the study keeps what was read of it meanwhile
    decide    by what is known then; what comes later has it looked at again

Until a study is decided its claims stand in the spool, so whatever ends the process loses none: at the next start it
is complete once more. Deciding twice is harmless (node/orders.py).
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from node import logs
from node.assembly import Assembler, StudyReady, WaitingSeries
from node.database import AWAY, Database
from node.errors import NodeError
from node.history_lookup import HistoryLookUp
from node.orders import Dossier, Orders

ANSWER_PATIENCE_S = 15.0
"""So long a study waits for peers that were asked about it, before it is decided without their answer."""
MAX_FAILURES = 3

log = logging.getLogger("node.work")


@dataclass
class _Undecided:
    """A study on its way. `dossier` is None until it is read."""

    ready: StudyReady
    dossier: Dossier | None = None
    until_s: float = 0.0


class Deciding:
    """The undecided studies of one spool. For one thread."""

    def __init__(
        self,
        assembler: Assembler,
        orders: Orders,
        history: HistoryLookUp,
        database: Database,
        enqueue: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._assembler = assembler
        self._orders = orders
        self._history = history
        self._database = database
        self._enqueue = enqueue
        self._clock = clock
        self._undecided: dict[str, _Undecided] = {}
        self._failures: Counter[str] = Counter()

    def step(self) -> None:
        """Take in what is complete now, and bring every undecided study as far as it comes."""
        for ready in self._assembler.step():
            self._undecided[ready.study_key] = _Undecided(ready)  # an older version of it is not decided any more
        for study in list(self._undecided.values()):
            if self._database.outage.is_on:
                return  # whoever asks it next finds out when it is over
            self._advance(study)

    def waiting(self) -> list[WaitingSeries]:
        """Every series that moved and is not decided, and what it waits for."""
        why = "waits for the database" if self._database.outage.is_on else "earlier studies are being looked up"
        arriving = self._assembler.waiting()
        moving = {series.key for series in arriving}
        return arriving + [
            WaitingSeries(series.key, len(series.headers), why)
            for study in self._undecided.values()
            for series in study.ready.series
            if series.key not in moving
        ]

    def _advance(self, study: _Undecided) -> None:
        key = study.ready.study_key
        try:
            to_run = self._decided(study)
        except AWAY:
            return  # no fault of the study's, and told by the database's outage
        except NodeError as error:
            logs.event(log, "study not decided", logging.ERROR, study=logs.pseudonym(key), reason=str(error))
            self._failed(study)
            return
        except Exception:  # whatever one study's headers do to us, the other studies go on
            log.exception("study not decided", extra={"facts": {"study": logs.pseudonym(key)}})
            self._failed(study)
            return
        if to_run is None:
            return
        self._failures.pop(key, None)
        for job_id in to_run:
            self._enqueue(job_id)
        self._assembler.done(study.ready)
        del self._undecided[key]

    def _decided(self, study: _Undecided) -> list[str] | None:
        """The jobs to run; None while the study waits."""
        if study.dossier is None:
            dossier = self._orders.read(study.ready)
            if dossier is None:
                return []
            self._history.put(dossier.header)
            study.dossier, study.until_s = dossier, self._clock() + ANSWER_PATIENCE_S
        if self._clock() < study.until_s and self._history.is_awaited(study.dossier.header.study_uid):
            return None
        return self._orders.decide(study.dossier)

    def _failed(self, study: _Undecided) -> None:
        """It is tried again after a quiet period, and after so many failures only when it moves again."""
        key = study.ready.study_key
        self._failures[key] += 1
        del self._undecided[key]
        if self._failures[key] < MAX_FAILURES:
            self._assembler.put_back(study.ready)
        else:
            logs.event(log, "study left undecided until it moves again", logging.ERROR, study=logs.pseudonym(key))
            self._assembler.done(study.ready)
