"""A served node whose PostgreSQL goes away: it lives on, says so in a line, and loses no study that came meanwhile."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from pydicom import dcmread

from model.phantom import GEOMETRIES, make_phantom
from node.domain import JobState
from simulator.modality import write_series
from tests.node.jobs.house import Postgres
from tests.real_peers import free_port
from tests.serving import DEMO_BUNDLES, serving, write_config


def test_a_study_that_came_while_the_database_was_away_is_decided_when_it_is_back(
    postgres: Postgres, tmp_path: Path, require_peer: Callable[[str], Path], wait_until: Callable[..., None]
) -> None:
    storescu = require_peer("/usr/bin/storescu")
    phantom = make_phantom("pre-nact-t2wi", 910077, geometry=GEOMETRIES["pre-nact-t2wi"].resampled(32, 32))
    files = write_series(phantom, tmp_path / "t2")
    url = postgres.create_database()
    config = write_config(
        tmp_path,
        peers={"results": {"protocol": "folder", "path": str(tmp_path / "results"), "may_receive": True}},
        bundles=DEMO_BUNDLES,
        deliver_to=["results"],
        node={"dicom": {"port": free_port()}, "database": {"url": url}},
    )
    with serving(config) as node:
        worker = node.pid("work")
        with postgres.away(url):
            command = [str(storescu), "-aec", "CRLM-PRE", "127.0.0.1", str(node.port), *map(str, files)]
            subprocess.run(command, check=True, env={**os.environ, "TCP_NODELAY": "1"})
            told = config.spool_path / "waiting.json"
            wait_until(lambda: "waits for the database" in told.read_text(), "a complete study", deadline_s=60)
        node.wait_for_job(str(dcmread(files[0]).StudyInstanceUID), {JobState.HELD, JobState.QUEUED})
        wait_until(lambda: "database answers again" in node.log.read_text(), "the end of the outage")
        assert node.pid("work") == worker, "the worker lived through it"
    log = node.log.read_text()
    assert log.count("database does not answer") == 1
    assert log.count("database answers again") == 1
    assert "where=" not in log, "no traceback"
    assert "left undecided" not in log
