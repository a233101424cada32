"""The durable-jobs library reports a lost database several times a second, from each of its threads; we say it once."""

from __future__ import annotations

import logging
import re

from node.database_outage import Outage

LIBRARY = "dbos"
# as SQLAlchemy renders a driver's error, wherever in its text the library puts it; a lock is a conflict, no outage
_LOST = re.compile(r"\((?:psycopg|sqlite3)\.(OperationalError|InterfaceError)\) ((?!database is locked)[^\n]*)")


class OneOutage(logging.Filter):
    """Takes what the library logs of a lost database into the one outage that is told, and out of the log."""

    def __init__(self, outage: Outage) -> None:
        super().__init__()
        self._outage = outage

    def filter(self, record: logging.LogRecord) -> bool:
        found = _LOST.search(record.getMessage())
        if found is None:
            return True
        self._outage.note(f"{found[1]}: {found[2].strip()}")
        return False


def join_logs(outage: Outage) -> None:
    """Have the library's records go where ours go, those of a lost database through `outage`."""
    library = logging.getLogger(LIBRARY)
    if not library.handlers:
        # with a handler of ours in place the library adds none of its own
        library.addHandler(logging.NullHandler())
    for former in [each for each in library.filters if isinstance(each, OneOutage)]:
        library.removeFilter(former)
    library.addFilter(OneOutage(outage))
