"""The one home of progress: how the database is opened, and what a transaction is.

SQLite (WAL) inside the spool, or PostgreSQL by URL. The verbs on its rows stand in node/database_*.py. Each takes
the rows of a transaction that its caller opened (`with database.begin() as rows:`), so that facts which belong
together are written together.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, OperationalError

from node.config import Config
from node.database_outage import AWAY, Outage
from node.errors import ConfigurationError, DatabaseAway, NodeError
from node.tables import REVISION

Rows = Connection
"""An open transaction on the tables."""

__all__ = ["AWAY", "Database", "Rows", "create_database_engine", "iso", "moment_of", "read_revision", "utc_now"]

MIGRATIONS = Path(__file__).parent / "migrations"
BUSY_TIMEOUT_S = 30.0
CONNECT_TIMEOUT_S = 10
"""A PostgreSQL whose machine is off is given up then; the URL may say another `connect_timeout`."""
_MIGRATION_LOCK = 0x43524C4D  # one migrator at a time on PostgreSQL; any number that nobody else uses


@dataclass(frozen=True)
class Database:
    """An opened database at the revision that this code knows."""

    engine: Engine
    outage: Outage = field(default_factory=Outage, compare=False, repr=False)

    @classmethod
    def open(cls, config: Config) -> Database:
        """Connect, create what is missing and upgrade the schema.

        Raises ConfigurationError where the URL is of another kind, the server does not answer, or the schema is newer.
        """
        config.spool_path.mkdir(parents=True, exist_ok=True, mode=0o700)
        engine = create_database_engine(config.database_url)
        try:
            _upgrade(engine)
        except OperationalError as error:
            engine.dispose()
            raise _cannot_open(engine, error) from error
        except ConfigurationError:
            engine.dispose()
            raise
        return cls(engine)

    @contextmanager
    def begin(self) -> Iterator[Rows]:
        """A transaction that may write: all of it or nothing."""
        with self.outage.watch(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Rows]:
        """A transaction that only reads, and on SQLite keeps no writer waiting."""
        with self.outage.watch(), self.engine.connect().execution_options(only_reads=True) as connection:
            yield connection

    def close(self) -> None:
        """Give the connections back."""
        self.engine.dispose()


def create_database_engine(url: str) -> Engine:
    """Engine for a SQLite file or a PostgreSQL database. Raises ConfigurationError for anything else."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ConfigurationError(
            "node.yaml: database.url: no SQLAlchemy URL; write sqlite:////path/node.sqlite "
            "or postgresql+psycopg://user@host/name, or leave it out"
        ) from error
    if parsed.get_backend_name() == "sqlite":
        return _sqlite_engine(parsed)
    if parsed.get_backend_name() == "postgresql":
        patience = {} if "connect_timeout" in parsed.query else {"connect_timeout": CONNECT_TIMEOUT_S}
        named = parsed.set(drivername="postgresql+psycopg")
        return create_engine(named, pool_pre_ping=True, connect_args=patience)
    raise ConfigurationError(
        f"node.yaml: database.url: {parsed.get_backend_name()} is not supported; write sqlite or postgresql+psycopg"
    )


def read_revision(url: str) -> str | None:
    """The schema's revision as it stands, None where there is no schema yet; creates and upgrades nothing.

    Raises ConfigurationError as `Database.open` does.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite" and not Path(str(parsed.database)).exists():
        return None
    engine = create_database_engine(url)
    try:
        with engine.connect().execution_options(only_reads=True) as connection:
            return _revision(connection)
    except OperationalError as error:
        raise _cannot_open(engine, error) from error
    finally:
        engine.dispose()


def create_wal_file(path: Path) -> None:
    """Create a SQLite file in write-ahead-log mode, readable by us alone, before anything else opens it.

    The mode is kept in the file: a writer then waits for no reader, and a commit is one fsync.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise ConfigurationError(
            f"{path}: the database cannot be made there ({error.strerror}); correct database.url or spool.path in "
            "node.yaml"
        ) from error
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
    finally:
        connection.close()


def _sqlite_engine(url: URL) -> Engine:
    if url.database in (None, "", ":memory:"):
        raise ConfigurationError("node.yaml: database.url: SQLite in memory would forget; name a file")
    create_wal_file(Path(str(url.database)))
    engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_S})

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: Any) -> None:
        # transactions are begun below: the driver's own begin comes only before the first write, too late for
        # a read that the write depends on
        connection.isolation_level = None
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA synchronous=FULL")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        only_reads = connection.get_execution_options().get("only_reads")
        connection.exec_driver_sql("BEGIN" if only_reads else "BEGIN IMMEDIATE")

    return engine


def _cannot_open(engine: Engine, error: OperationalError) -> NodeError:
    place = engine.url.render_as_string(hide_password=True)
    told = (
        f"node.yaml: database.url = {place}: cannot be opened ({type(error.orig).__name__}); "
        "check that the server runs and the URL is right"
    )
    # a server may come up after us, as after a power cut; a file does not
    return ConfigurationError(told) if engine.url.get_backend_name() == "sqlite" else DatabaseAway(told)


def _upgrade(engine: Engine) -> None:
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _MIGRATION_LOCK})
        found = _revision(connection)
        if found == REVISION:
            return
        # imported where needed: only the first start after an update pays for it
        from alembic import command
        from alembic.config import Config as AlembicConfig
        from alembic.util import CommandError

        settings = AlembicConfig()
        settings.set_main_option("script_location", str(MIGRATIONS))
        settings.attributes["connection"] = connection
        try:
            command.upgrade(settings, "head")
        except CommandError as error:
            raise ConfigurationError(
                f"the database is at revision {found}, this node knows up to {REVISION}: "
                "it was used by a newer node; update this one"
            ) from error


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()


def utc_now() -> datetime:
    """The present moment in UTC."""
    return datetime.now(UTC)


def iso(moment: datetime) -> str:
    """ISO 8601 in UTC with milliseconds: text order is time order."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")


def moment_of(at: str) -> datetime:
    """Inverse of `iso`."""
    return datetime.fromisoformat(at)
