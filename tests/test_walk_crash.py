"""`kill -9` at the worst moments: what was acknowledged is on disk whole, and the study ends committed once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from pydicom import dcmread

from model.phantom import make_phantom
from model.training.demo_card import save_untrained_bundle
from node.config import load_config
from node.domain import JobState
from simulator.identity import study_of
from simulator.modality import write_series
from simulator.sending import SendFailed, send
from tests.serving import SHIPPED, ServedNode, serving, write_config

SEED = 910010
CONDITION = "ct-portal-venous"
STUDY = study_of(CONDITION, SEED).study_instance_uid


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny network with random weights for every shipped route."""
    folder = tmp_path_factory.mktemp("bundles")
    for route in load_config(SHIPPED, environment={}).routes:
        save_untrained_bundle(folder / route.bundle, route.condition)
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A CT study as a scanner writes it."""
    return write_series(make_phantom(CONDITION, SEED), tmp_path_factory.mktemp("ct"))


@pytest.fixture
def peers(tmp_path: Path) -> Mapping[str, Mapping[str, object]]:
    """A folder that takes demo results."""
    return {
        "results": {
            "protocol": "folder",
            "path": str(tmp_path / "results"),
            "may_receive": True,
            "accepts_demo_results": True,
        }
    }


def test_a_worker_killed_while_it_segments_leaves_a_study_that_is_delivered_once(
    tmp_path: Path, bundles: Path, files: list[Path], peers: Mapping[str, Mapping[str, object]]
) -> None:
    config = write_config(tmp_path, peers=peers, bundles=bundles, deliver_to=["results"])
    with serving(config) as node:
        send(files, "127.0.0.1", node.port, "CRLM-NODE", "STORESCU")
        node.wait_for_job(STUDY, {JobState.SEGMENTING})
        os.kill(node.pid("work"), signal.SIGKILL)
        (job,) = node.wait_for_job(STUDY, {JobState.COMMITTED, JobState.FAILED}, deadline_s=120)
        states = [event.state for event in node.events(job.job_id)]
    assert job.state is JobState.COMMITTED, job.reason
    assert states.count(JobState.COMMITTED) == 1
    assert states.count(JobState.SEGMENTING) >= 2
    assert len(list((tmp_path / "results").iterdir())) == 1


def test_a_node_stopped_while_it_segments_goes_on_at_its_next_start(
    tmp_path: Path, bundles: Path, files: list[Path], peers: Mapping[str, Mapping[str, object]]
) -> None:
    config = write_config(tmp_path, peers=peers, bundles=bundles, deliver_to=["results"])
    with serving(config) as node:
        send(files, "127.0.0.1", node.port, "CRLM-NODE", "STORESCU")
        node.wait_for_job(STUDY, {JobState.SEGMENTING})
        assert node.stop() == 0
    with serving(config) as node:
        (job,) = node.wait_for_job(STUDY, {JobState.COMMITTED, JobState.FAILED}, deadline_s=120)
    assert job.state is JobState.COMMITTED, job.reason


def test_a_receiver_killed_in_a_transfer_has_kept_whole_all_that_it_acknowledged(
    tmp_path: Path,
    bundles: Path,
    files: list[Path],
    peers: Mapping[str, Mapping[str, object]],
    wait_until: Callable[..., None],
) -> None:
    config = write_config(tmp_path, peers=peers, bundles=bundles, deliver_to=["results"], quiet_s=1.5)
    with serving(config) as node:
        acknowledged = _kill_receiver_while_sending(node, files, after=10)
        kept = _kept(config.spool_path)
        for path in files:
            dataset = dcmread(path)
            if dataset.SOPInstanceUID in acknowledged:
                assert kept[dataset.SOPInstanceUID].PixelData == dataset.PixelData
        receiver = node.pid("receive-1")
        wait_until(lambda: node.pid("receive-1") != receiver or _is_alive(receiver), "a receiver is back")
        send(files, "127.0.0.1", node.port, "CRLM-NODE", "STORESCU")
        (job,) = node.wait_for_job(STUDY, {JobState.COMMITTED, JobState.FAILED}, deadline_s=120)
    assert job.state is JobState.COMMITTED, job.reason
    assert len(_kept(config.spool_path)) == len(files)
    assert not list((config.spool_path / "incoming").glob("*.part"))


def _kill_receiver_while_sending(node: ServedNode, files: list[Path], *, after: int) -> set[str]:
    """Send, kill the receiver once `after` instances are acknowledged, and return all that were."""
    acknowledged: set[str] = set()
    enough = threading.Event()

    def heard(uid: str, status: int) -> None:
        if status == 0:
            acknowledged.add(uid)
        if len(acknowledged) >= after:
            enough.set()

    def transfer() -> None:
        try:
            send(files, "127.0.0.1", node.port, "CRLM-NODE", "STORESCU", heard=heard)
        except SendFailed:
            enough.set()

    sender = threading.Thread(target=transfer)
    sender.start()
    assert enough.wait(60)
    os.kill(node.pid("receive-1"), signal.SIGKILL)
    sender.join(60)
    assert len(acknowledged) >= after
    return acknowledged


def _kept(spool: Path) -> dict[str, object]:
    return {ds.SOPInstanceUID: ds for ds in map(dcmread, (spool / "series").glob("*/*/*.dcm"))}  # type: ignore[misc]  # UIDs are text


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
