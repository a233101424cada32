"""A database that does not answer, told in few words: once when it is gone, ever less often, once when it is back.

Everybody who asks it sees the same outage: the work loop, the sweep, the threads of the durable jobs. So the outage
is one value, kept with the database (`Database.outage`), and whoever meets it adds nothing to the log but through it.
What was to be written is still known where it was known before (spool, rows, workflows), and is looked at again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from node import logs

AWAY: tuple[type[DBAPIError], ...] = (OperationalError, InterfaceError)
"""What the drivers raise while a server is gone or starting, a file is locked, a disk is full: ask again."""
FIRST_PAUSE_S = 10.0
LONGEST_PAUSE_S = 600.0

log = logging.getLogger("node.database")


class Outage:
    """Whether the database is away, and when that was last said. For any number of threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._since_s: float | None = None
        self._again_at_s = 0.0
        self._pause_s = FIRST_PAUSE_S

    @property
    def is_on(self) -> bool:
        """Whether the last that was heard of the database is that it does not answer."""
        return self._since_s is not None

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Note what comes of asking the database in this block; errors go on to the caller."""
        try:
            yield
        except AWAY as error:
            self.note(told(error))
            raise
        self.over()

    def note(self, reason: str) -> None:
        """It did not answer. Said at the first time, and again when a pause has passed, each twice the one before."""
        with self._lock:
            now = self._clock()
            if self._since_s is None:
                self._since_s, self._pause_s = now, FIRST_PAUSE_S
                words, away_s = "database does not answer; what is to be written waits for it", 0.0
            elif now < self._again_at_s:
                return
            else:
                self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
                words, away_s = "database still does not answer", now - self._since_s
            self._again_at_s = now + self._pause_s
        logs.event(log, words, logging.ERROR, reason=reason, for_s=round(away_s), said_again_in_s=round(self._pause_s))

    def over(self) -> None:
        """It answered."""
        with self._lock:
            since_s, self._since_s = self._since_s, None
        if since_s is not None:
            logs.event(log, "database answers again", was_away_s=round(self._clock() - since_s, 1))


def told(error: DBAPIError) -> str:
    """The driver's own words, in one line. They name server and fault, and quote no row."""
    lines = str(error.orig).strip().splitlines()
    return f"{type(error.orig).__name__}: {lines[0].strip()}" if lines else type(error.orig).__name__
