"""Who works: one process an executor id, and how the others learn that it died.

Two processes under one id would run each other's live jobs a second time. So the id is held by a lock that the
kernel (flock) or the server (PostgreSQL's advisory lock) takes back when the process dies, however it dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from pathlib import Path
from typing import Self

from dbos import DBOS
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError

from node.errors import ConfigurationError

FOLDER = "executors"
_PATIENCE_S = 1.0  # somebody may hold our lock for the instant in which it asks whether we live


class ExecutorLease:
    """The right to be one executor. Held until `release` or death."""

    def __init__(self, executor_id: str, folder: Path, engine: Engine, descriptor: int) -> None:
        self.executor_id = executor_id
        self._folder = folder
        self._engine = engine
        self._descriptor = descriptor
        self._session: Connection | None = None

    @classmethod
    def take(cls, executor_id: str, spool_path: Path, engine: Engine) -> Self:
        """Become that executor. Raises ConfigurationError while another process is."""
        folder = spool_path / FOLDER
        folder.mkdir(mode=0o700, exist_ok=True)
        until_s = time.monotonic() + _PATIENCE_S
        while (descriptor := _try_flock(folder / executor_id)) is None:
            if time.monotonic() > until_s:
                raise ConfigurationError(_taken(executor_id))
            time.sleep(0.02)
        lease = cls(executor_id, folder, engine, descriptor)
        try:
            lease.hold()
        except ConfigurationError:
            lease.release()
            raise
        return lease

    def hold(self) -> None:
        """Hold the server's lock, again after a lost connection; on SQLite the file's lock is enough.

        Raises ConfigurationError where another process has become this executor meanwhile.
        """
        if self._engine.dialect.name != "postgresql" or (self._session and _is_connected(self._session)):
            return
        self._session = None  # where the server is away, the next call begins here again
        session = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        until_s = time.monotonic() + _PATIENCE_S
        while not _try_advisory(session, self.executor_id):
            if time.monotonic() > until_s:
                session.close()
                raise ConfigurationError(_taken(self.executor_id))
            time.sleep(0.02)
        self._session = session

    def is_alive(self, other: str) -> bool:
        """Whether some process is that executor now."""
        if other == self.executor_id:
            return True
        if self._engine.dialect.name == "postgresql":
            with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as session:
                if is_dead := _try_advisory(session, other):
                    session.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _advisory_key(other)})
                return not is_dead
        descriptor = _try_flock(self._folder / other)
        if descriptor is not None:
            os.close(descriptor)
        return descriptor is None

    def release(self) -> None:
        """Let another process be this executor."""
        if self._session is not None:
            with contextlib.suppress(OperationalError):
                # by word, for the server notices a closed connection only a while later
                self._session.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _advisory_key(self.executor_id)})
            # a pooled connection would keep the lock: end the server's session itself
            self._session.invalidate()
            self._session.close()
            self._session = None
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.release()


def recover_executor(executor_id: str) -> int:
    """Queue again what a dead executor of this pipeline version was running; returns how many workflows.

    The one place that uses a private function of dbos (3.4, pinned, with its own test): without the vendor's
    paid conductor nothing else re-queues them but a restart under the same id. Idempotent: a row that a live
    executor has taken meanwhile no longer names the dead one.
    """
    return len(DBOS._recover_pending_workflows([executor_id]))


def _taken(executor_id: str) -> str:
    index = executor_id.rpartition("-")[2]
    return (
        f"worker {index} of this spool is running already; stop it first, or start this one with another index "
        "(two workers under one index would run each other's jobs)"
    )


def _try_flock(path: Path) -> int | None:
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _try_advisory(session: Connection, executor_id: str) -> bool:
    query = text("SELECT pg_try_advisory_lock(:key)")
    return bool(session.execute(query, {"key": _advisory_key(executor_id)}).scalar_one())


def _advisory_key(executor_id: str) -> int:
    return int.from_bytes(hashlib.sha256(executor_id.encode()).digest()[:8], "big", signed=True)


def _is_connected(session: Connection) -> bool:
    try:
        session.execute(text("SELECT 1"))
    except OperationalError:
        session.invalidate()
        session.close()
        return False
    return True
