"""Who is an executor, and who is no more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from node.database import create_database_engine
from node.errors import ConfigurationError
from node.jobs_executor import ExecutorLease
from node.jobs_queues import executor_id, is_of_spool
from tests.node.jobs.house import Postgres


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """Either kind of database; on both the spool's folder is shared."""
    is_postgres = request.param == "postgresql"
    url = request.getfixturevalue("postgres_schema") if is_postgres else f"sqlite:///{tmp_path / 'node.sqlite'}"
    opened = create_database_engine(url)
    yield opened
    opened.dispose()


def test_an_executor_lives_as_long_as_its_lease(engine: Engine, tmp_path: Path) -> None:
    with ExecutorLease.take("spool-0", tmp_path, engine) as observer:
        with ExecutorLease.take("spool-1", tmp_path, engine):
            assert observer.is_alive("spool-1")
            assert observer.is_alive("spool-1"), "asking does not end it"
        assert not observer.is_alive("spool-1")
        assert not observer.is_alive("spool-7"), "it never was"
        assert observer.is_alive("spool-0")


def test_nobody_can_be_an_executor_that_another_is(engine: Engine, tmp_path: Path) -> None:
    with (
        ExecutorLease.take("spool-0", tmp_path, engine),
        pytest.raises(ConfigurationError, match="worker 0 of this spool is running already"),
    ):
        ExecutorLease.take("spool-0", tmp_path, engine)
    with ExecutorLease.take("spool-0", tmp_path, engine) as again:
        assert again.is_alive("spool-0")


def test_on_postgresql_the_lock_counts_even_where_the_folder_is_another(postgres_schema: str, tmp_path: Path) -> None:
    engine = create_database_engine(postgres_schema)
    (tmp_path / "elsewhere").mkdir()
    with (
        ExecutorLease.take("spool-0", tmp_path, engine),
        pytest.raises(ConfigurationError, match="running already"),
    ):
        ExecutorLease.take("spool-0", tmp_path / "elsewhere", engine)
    engine.dispose()


def test_on_postgresql_a_lease_outlives_a_lost_connection(postgres_schema: str, tmp_path: Path) -> None:
    engine, other = create_database_engine(postgres_schema), create_database_engine(postgres_schema)
    with ExecutorLease.take("spool-0", tmp_path, engine) as lease:
        with other.connect() as server:
            held = text("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")
            assert server.execute(held).scalars().all() == [True]
        lease.hold()
        with ExecutorLease.take("spool-1", tmp_path, other) as observer:
            assert observer.is_alive("spool-0")
    engine.dispose()
    other.dispose()


def test_on_postgresql_a_lease_is_taken_again_when_a_server_that_was_away_is_back(
    postgres: Postgres, tmp_path: Path
) -> None:
    url = postgres.create_database()
    engine, other = create_database_engine(url), create_database_engine(url)
    with ExecutorLease.take("spool-0", tmp_path, engine) as lease:
        with postgres.away(url):
            for _ in range(2):
                with pytest.raises(OperationalError):
                    lease.hold()
        lease.hold()
        with ExecutorLease.take("spool-1", tmp_path, other) as observer:
            assert observer.is_alive("spool-0")
    engine.dispose()
    other.dispose()


def test_a_lease_is_given_back_while_the_server_is_away(postgres: Postgres, tmp_path: Path) -> None:
    url = postgres.create_database()
    engine = create_database_engine(url)
    lease = ExecutorLease.take("spool-0", tmp_path, engine)
    with postgres.away(url):
        with pytest.raises(OperationalError):
            lease.hold()
        lease.release()
    with ExecutorLease.take("spool-0", tmp_path, engine) as again:
        assert again.is_alive("spool-0")
    engine.dispose()


def test_an_executors_name_tells_its_spool() -> None:
    assert is_of_spool(executor_id("1f2e", 3), "1f2e")
    assert not is_of_spool(executor_id("1f2e", 3), "ffff")
