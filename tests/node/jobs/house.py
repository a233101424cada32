"""A spool, its databases and worker processes that can be killed."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, text

from node.config import Config, load_config
from node.database import Database
from node.database_deliveries import Delivery, deliveries_of
from node.database_jobs import Job, add_job, events_of, job_of
from node.domain import InstanceRef, JobOrder, JobState, RoleInput, TimePoint
from node.spool import Spool
from node.tables import metadata

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
DEADLINE_S = 90.0  # a busy machine is slow; a test that passes never waits so long

PEERS = """
peers:
  archive:            # takes everything, is not asked to commit
    {host: 127.0.0.1, port: 104, ae_title: ARCHIVE, may_receive: true, storage_commitment: false, retry: &retry
      {first_s: 0.2, factor: 1, give_up_h: 1}}
  second:
    {host: 127.0.0.1, port: 104, ae_title: SECOND, may_receive: true, storage_commitment: false, retry: *retry}
  pacs:               # commits to what it took
    {host: 127.0.0.1, port: 104, ae_title: PACS, may_receive: true, storage_commitment: true, retry: *retry}
  demo-archive:
    {host: 127.0.0.1, port: 104, ae_title: DEMO, may_receive: true, storage_commitment: false,
      accepts_demo_results: true, retry: *retry}
  attentive:          # wants to hear of what could not be analysed
    {host: 127.0.0.1, port: 104, ae_title: ATTENTIVE, may_receive: true, storage_commitment: false, retry: *retry,
      results: {objects: [seg, sr, refusal]}}
  folder:
    {protocol: folder, path: results, may_receive: true}
"""


def make_order(number: int = 1, deliver_to: tuple[str, ...] = ("archive",), instances: int = 3) -> JobOrder:
    """An order like no other of another number."""
    refs = tuple(
        InstanceRef(f"1.2.3.{number}.{i}", "1.2.840.10008.5.1.4.1.1.4", Path(f"/spool/{i}.dcm"), f"{i:064x}")
        for i in range(instances)
    )
    return JobOrder(
        study_uid=f"1.2.3.{number}",
        condition="pre-nact-dwi",
        route_revision="r1",
        bundle="demo-pre-nact-dwi",
        bundle_sha256="b" * 64,
        time_point=TimePoint.PRE,
        inputs={"image": RoleInput("1.2.3.4", refs, b_value_s_mm2=1000.0)},
        deliver_to=deliver_to,
    )


def write_config(folder: Path, spool: Path, database_url: str | None = None) -> Path:
    """A configuration folder for tests."""
    folder.mkdir(exist_ok=True)
    database = f"database: {{url: '{database_url}'}}\n" if database_url else ""
    (folder / "node.yaml").write_text(f"spool: {{path: '{spool}', min_free_mb: 0}}\n{database}")
    (folder / "peers.yaml").write_text(PEERS)
    (folder / "routes.yaml").write_text("routes: []\n")
    (folder / "terminology.yaml").write_text("terms: {}\n")
    return folder


class Nursery:
    """Forks workers of one pipeline version, so that each start costs no second of importing."""

    def __init__(self, version: str) -> None:
        command = [sys.executable, "-W", "error", str(HERE / "worker.py"), version]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, request: dict[str, Any]) -> Any:
        """Its answer to one request; see worker.py."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate(timeout=10)


@dataclass
class Worker:
    """A process that may be killed."""

    pid: int
    nursery: Nursery
    workshop: Path
    wait_until: Callable[..., None]
    exit_code: int | None = None

    @property
    def said(self) -> str:
        file = self.workshop / f"said-{self.pid}"
        return file.read_text() if file.exists() else ""

    @property
    def is_over(self) -> bool:
        if self.exit_code is None:
            self.exit_code = self.nursery.ask({"poll": self.pid})
        return self.exit_code is not None

    def wait(self) -> int:
        """Its exit code, once it is over."""
        self.wait_until(lambda: self.is_over, "the end of a worker")
        assert self.exit_code is not None
        return self.exit_code

    def kill(self) -> None:
        """kill -9, and wait for the body."""
        os.kill(self.pid, signal.SIGKILL)
        self.wait()

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGTERM)


@dataclass
class House:
    """One spool with its databases, and the workers started on it."""

    config: Config
    workshop: Path
    database: Database
    spool: Spool
    nurseries: Mapping[str, Nursery]
    wait_until: Callable[..., None]
    workers: list[Worker] = field(default_factory=list)

    def start(self, *, index: int = 0, version: str = "1") -> Worker:
        """A worker, when it is ready."""
        return self.ready(self.spawn(index=index, version=version))

    def spawn(self, *, index: int = 0, version: str = "1") -> Worker:
        """A worker, perhaps not ready yet."""
        request = {"config": str(self.config.folder), "workshop": str(self.workshop), "index": index}
        nursery = self.nurseries[version]
        worker = Worker(nursery.ask(request), nursery, self.workshop, self.wait_until)
        self.workers.append(worker)
        return worker

    def ready(self, worker: Worker) -> Worker:
        """The worker, once it is ready."""
        self.wait_until(lambda: worker.said.endswith("\n") or worker.is_over, "a worker to start")
        assert worker.said == "ready\n", f"the worker did not start: {worker.said}"
        return worker

    def stop(self) -> None:
        """End every worker that still lives."""
        for worker in self.workers:
            if not worker.is_over:
                worker.kill()
        self.database.close()

    def add(self, order: JobOrder, *, is_demo: bool = False, state: JobState = JobState.QUEUED) -> str:
        """Write a job's row, as orders do; its worker's sweep finds it."""
        with self.database.begin() as rows:
            add_job(rows, order, spool_id=self.spool.spool_id, is_demo=is_demo, state=state)
        return order.job_id

    def tell(self, name: str, content: str = "") -> None:
        """Leave a word in the workshop."""
        (self.workshop / name).write_text(content)

    def untell(self, name: str) -> None:
        """Take it back."""
        (self.workshop / name).unlink()

    def job(self, job_id: str) -> Job:
        with self.database.read() as rows:
            return job_of(rows, job_id)

    def states(self, job_id: str) -> list[JobState]:
        """Every state that a job has been in, repeats included."""
        with self.database.read() as rows:
            return [event.state for event in events_of(rows, job_id)]

    def deliveries(self, job_id: str) -> dict[str, Delivery]:
        with self.database.read() as rows:
            return {delivery.peer: delivery for delivery in deliveries_of(rows, job_id)}

    def wait_for(self, job_id: str, state: JobState) -> Job:
        """The job, once it is in that state."""
        self.wait_until(lambda: self.job(job_id).state == state, f"job {state}")
        return self.job(job_id)

    def calls(self, step: str, what: str = "begin") -> list[str]:
        """Subjects of a step's calls so far."""
        file = self.workshop / "calls"
        lines = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
        return [line[2] for line in lines if line[1] == step and line[3].startswith(what)]

    def call_log(self) -> list[list[str]]:
        """All calls: pid, step, subject, what."""
        return [line.split() for line in (self.workshop / "calls").read_text().splitlines()]

    def query(self, statement: str, **values: Any) -> list[Any]:
        """Rows of the library's own tables."""
        file = self.config.spool_path / "dbos.sqlite"
        engine = create_engine(f"sqlite:///{file}") if file.exists() else self.database.engine
        try:
            with engine.connect() as connection:
                return list(connection.execute(text(statement), values))
        finally:
            if file.exists():
                engine.dispose()


def open_house(
    folder: Path,
    wait_until: Callable[..., None],
    nurseries: Mapping[str, Nursery],
    database_url: str | None = None,
    like: Path | None = None,
) -> House:
    """A house in `folder`, its spool and databases copied from another's where one is given."""
    if like is not None:
        shutil.copytree(like, folder / "spool")
    config = load_config(write_config(folder / "config", folder / "spool", database_url), environment={})
    workshop = folder / "workshop"
    workshop.mkdir(exist_ok=True)
    patiently = partial(wait_until, deadline_s=DEADLINE_S)
    return House(config, workshop, Database.open(config), Spool.open(config.spool_path), nurseries, patiently)


def empty(database: Database) -> None:
    """Leave the tables and take the rows."""
    names = ", ".join(table.name for table in metadata.sorted_tables)
    with database.begin() as rows:
        rows.execute(text(f"TRUNCATE {names} RESTART IDENTITY CASCADE"))


@dataclass(frozen=True)
class Postgres:
    """A PostgreSQL server of our own."""

    port: int

    def create_database(self) -> str:
        """URL of a new, empty database."""
        name = _unique_name()
        self._execute("postgres", f"CREATE DATABASE {name} STRATEGY file_copy")
        return self._url(name)

    def create_schema(self) -> str:
        """URL of a new, empty schema that stands for a database: a hundred times cheaper."""
        name = _unique_name()
        self._execute("postgres", f"CREATE SCHEMA {name}")
        return f"{self._url('postgres')}?options=-csearch_path%3D{name}"

    @contextmanager
    def away(self, url: str) -> Iterator[None]:
        """In this block a database that `create_database` made takes no connection, and has lost those it had."""
        name = url.rpartition("/")[2]
        self._execute("postgres", f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false")
        self._execute("postgres", f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        try:
            yield
        finally:
            self._execute("postgres", f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS true")

    def _execute(self, database: str, statement: str) -> None:
        engine = create_engine(self._url(database), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(statement))
        engine.dispose()

    def _url(self, name: str) -> str:
        return f"postgresql+psycopg://crlm@127.0.0.1:{self.port}/{name}"


def _unique_name() -> str:
    return f"crlm_{secrets.token_hex(4)}"
