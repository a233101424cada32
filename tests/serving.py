"""A real `crlm-node serve` for tests: its configuration, its processes, and a look into its database."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from node.config import Config, load_config
from node.database import Database
from node.database_jobs import Job, JobEvent, events_of, list_jobs, objects_of
from node.domain import JobState, ResultObject

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = ROOT / "dicom_config"
DEMO_BUNDLES = ROOT / "model" / "bundles"
START_DEADLINE_S = 90.0
SENDER: dict[str, Any] = {"ae_title": "STORESCU", "host": "127.0.0.1", "port": 104, "may_send": True}


def write_config(
    folder: Path,
    *,
    peers: Mapping[str, Mapping[str, Any]],
    bundles: Path,
    deliver_to: list[str],
    quiet_s: float = 0.5,
    node: Mapping[str, Mapping[str, Any]] | None = None,
    own_routes: Sequence[Mapping[str, Any]] | None = None,
) -> Config:
    """The shipped routes (or a test's own) and terms with peers and patience of a test; relative to nothing outside
    `folder`."""
    yaml = YAML()
    target = folder / "dicom_config"
    target.mkdir(parents=True)
    routes = yaml.load((SHIPPED / "routes.yaml").read_text(encoding="utf-8"))
    if own_routes is not None:
        routes["routes"] = [dict(route) for route in own_routes]
    for route in routes["routes"]:
        route["deliver_to"] = deliver_to
    settings: dict[str, Any] = {
        "dicom": {
            "host": "127.0.0.1",
            "port": 0,
            "called_ae_titles": {"CRLM-PRE": {"time_point": "pre"}, "CRLM-POST": {"time_point": "post"}},
        },
        "spool": {"path": str(folder / "spool"), "min_free_mb": 1},
        "assembly": {"series_quiet_s": quiet_s, "study_quiet_s": quiet_s, "poll_s": 0.05, "gap_patience_s": 1.0},
        "compute": {"device": "cpu"},
        "bundles": str(bundles),
    }
    for name, values in (node or {}).items():
        settings[name] = {**settings.get(name, {}), **values}
    contents = {"node.yaml": settings, "peers.yaml": {"peers": {"scanner": SENDER, **peers}}, "routes.yaml": routes}
    for name, content in contents.items():
        with (target / name).open("w", encoding="utf-8") as file:
            yaml.dump(content, file)
    (target / "terminology.yaml").write_bytes((SHIPPED / "terminology.yaml").read_bytes())
    return load_config(target, environment={})


@dataclass
class ServedNode:
    """A node that serves. `database` is a second door to its rows."""

    config: Config
    process: subprocess.Popen[str]
    ready_line: str
    database: Database
    log: Path
    _rest: list[str] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self._ready()["port"])

    def pid(self, role: str) -> int:
        """Process id of a role as it is now."""
        return int(self._ready()["pids"][role])

    def _ready(self) -> dict[str, Any]:
        content = json.loads((self.config.spool_path / "ready.json").read_text(encoding="utf-8"))
        assert isinstance(content, dict)
        return content

    def jobs(self, study_uid: str | None = None) -> list[Job]:
        with self.database.read() as rows:
            return list_jobs(rows, study_uid=study_uid)

    def events(self, job_id: str) -> list[JobEvent]:
        with self.database.read() as rows:
            return events_of(rows, job_id)

    def objects(self, job_id: str) -> list[ResultObject]:
        with self.database.read() as rows:
            return objects_of(rows, job_id)

    def wait_for_job(
        self, study_uid: str, states: set[JobState], *, deadline_s: float = 60.0, count: int = 1
    ) -> list[Job]:
        """The study's jobs once `count` of them are in one of the states; fails with the log's end otherwise."""
        end = time.monotonic() + deadline_s
        while True:
            found = [job for job in self.jobs(study_uid) if job.state in states]
            if len(found) >= count:
                return found
            if time.monotonic() > end:
                told = [f"{job.condition} {job.state}: {job.reason}" for job in self.jobs(study_uid)]
                pytest.fail(f"no job in {states} within {deadline_s} s but {told}\n{self.log_end()}")
            time.sleep(0.02)

    def log_end(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]

    def stop(self) -> int:
        """SIGTERM, as a service manager does; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@contextmanager
def serving(config: Config, *, environment: Mapping[str, str] | None = None) -> Iterator[ServedNode]:
    """`crlm-node serve` until the end of the block."""
    log = config.folder.parent / f"node-{time.monotonic_ns()}.log"
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("CRLM_NODE_")}
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "node", "serve", "--config", str(config.folder)],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**inherited, "OMP_NUM_THREADS": "1", **(environment or {})},
            cwd=ROOT,
        )
    try:
        assert process.stdout is not None  # opened with a pipe
        line = process.stdout.readline()
        if not line:
            pytest.fail(f"the node did not start:\n{log.read_text(errors='replace')[-3000:]}")
        database = Database.open(config)
        try:
            yield ServedNode(config, process, line, database, log)
        finally:
            database.close()
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if process.stdout is not None:
            process.stdout.close()
