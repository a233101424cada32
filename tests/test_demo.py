"""`crlm-node demo`, as a newcomer runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydicom import dcmread

from node.demo import PLAYS
from tests.serving import ROOT


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    """The demo's output, and the folder that it left."""
    out = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "node", "demo", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, cwd=ROOT, env=_environment())
    (folder,) = out.iterdir()
    return done, folder


def test_the_demo_brings_six_studies_to_committed(played: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    done, _ = played
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_leaves_a_report_and_a_picture_for_each_study(
    played: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    _, folder = played
    studies = [path for path in sorted(folder.iterdir()) if path.name != "work"]
    assert len(studies) == len(PLAYS)
    for study in studies:
        assert {"sr.dcm", "overlay.png", "findings.json", "truth.json"} <= {path.name for path in study.iterdir()}


def test_everything_it_leaves_says_that_the_weights_are_for_demonstration(
    played: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    done, folder = played
    objects = [dcmread(path) for path in folder.glob("[0-9]*/*.dcm")]
    assert objects
    assert all("DEMO WEIGHTS" in item.SeriesDescription for item in objects)
    assert "demo weights" in done.stdout


def _environment() -> dict[str, str]:
    """A terminal as wide as any, and nothing of the caller's configuration."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CRLM_NODE_")}
    return {**kept, "COLUMNS": "80"}
