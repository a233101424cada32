"""Houses to test in: a spool with its databases, on SQLite and on a PostgreSQL of our own."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.node.jobs.house import House, Nursery, Postgres, open_house


@pytest.fixture(scope="session")
def nurseries() -> Iterator[dict[str, Nursery]]:
    """Where workers of two pipeline versions come from."""
    opened = {version: Nursery(version) for version in ("1", "2")}
    yield opened
    for nursery in opened.values():
        nursery.close()


@pytest.fixture(scope="session")
def blank(tmp_path_factory: pytest.TempPathFactory, wait_until: Callable[..., None]) -> Path:
    """A spool with an empty database, which others are copied from: making its tables takes longer."""
    opened = open_house(tmp_path_factory.mktemp("blank"), wait_until, {})
    opened.stop()
    return opened.config.spool_path


@pytest.fixture(scope="session")
def lived_in(
    tmp_path_factory: pytest.TempPathFactory, wait_until: Callable[..., None], nurseries: dict[str, Nursery]
) -> Path:
    """A spool on which a worker has run once, and which others are copied from: the first start takes a second more."""
    opened = open_house(tmp_path_factory.mktemp("lived-in"), wait_until, nurseries)
    worker = opened.start()
    worker.terminate()
    assert worker.wait() == 0, "SIGTERM ends a worker cleanly"
    opened.stop()
    return opened.config.spool_path


@pytest.fixture
def house(
    tmp_path: Path, wait_until: Callable[..., None], nurseries: dict[str, Nursery], lived_in: Path
) -> Iterator[House]:
    """A house on SQLite."""
    opened = open_house(tmp_path, wait_until, nurseries, like=lived_in)
    yield opened
    opened.stop()


@pytest.fixture(scope="session")
def postgres(require_peer: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A temporary cluster; PostgreSQL refuses to run as root, so it runs as `postgres` where we are."""
    initdb = require_peer("/usr/lib/postgresql/*/bin/initdb")
    folder = Path(tmp_path_factory.mktemp("postgres"))
    user = "postgres" if os.getuid() == 0 else None
    if user:
        # pytest's folders are closed to others
        folder = Path(tempfile.mkdtemp(prefix="crlm-postgres-"))
        shutil.chown(folder, user)
    data = folder / "data"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    run = {"user": user, "cwd": folder, "check": True, "capture_output": True, "text": True}
    subprocess.run([initdb, "-D", data, "-A", "trust", "-U", "crlm", "--no-sync", "-E", "UTF8"], **run)
    settings = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off -c max_connections=200"
    control = initdb.with_name("pg_ctl")
    subprocess.run([control, "-D", data, "-w", "-l", folder / "log", "-o", settings, "start"], **run)
    yield Postgres(port)
    with contextlib.suppress(subprocess.CalledProcessError):
        subprocess.run([control, "-D", data, "-m", "immediate", "stop"], **run)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_schema(postgres: Postgres) -> str:
    """URL of a schema that tests of rows share, each after emptying it: making tables takes longer than a test."""
    return postgres.create_schema()


@pytest.fixture
def postgres_house(
    tmp_path: Path, wait_until: Callable[..., None], nurseries: dict[str, Nursery], postgres: Postgres
) -> Iterator[House]:
    """A house on PostgreSQL."""
    opened = open_house(tmp_path, wait_until, nurseries, postgres.create_database())
    yield opened
    opened.stop()


@pytest.fixture
def other_postgres_house(
    tmp_path: Path, wait_until: Callable[..., None], nurseries: dict[str, Nursery], postgres_house: House
) -> Iterator[House]:
    """A house with a spool of its own in the database of `postgres_house`."""
    folder = tmp_path / "other"
    folder.mkdir()
    opened = open_house(folder, wait_until, nurseries, postgres_house.config.database_url)
    yield opened
    opened.stop()
