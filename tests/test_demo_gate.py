"""Results of demo weights never leave the node but to a peer that says it takes them. Proved on a real patient's CT."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import dcmread

from model.phantom import make_phantom
from model.training.demo_card import save_untrained_bundle
from node.config import load_config
from node.domain import JobState
from node.operator import confirm_job
from node.spool import Spool
from simulator.modality import write_series
from simulator.sending import send
from tests.real_peers import running_storescp
from tests.serving import SHIPPED, serving, write_config

ENDED = {JobState.COMMITTED, JobState.FAILED, JobState.HELD}
DEMO_HOLD = "demo weights"


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Networks with random weights: demo weights by their cards."""
    folder = tmp_path_factory.mktemp("bundles")
    for route in load_config(SHIPPED, environment={}).routes:
        save_untrained_bundle(folder / route.bundle, route.condition)
    return folder


def test_a_real_ct_analysed_with_a_demo_bundle_never_leaves_the_node(
    tmp_path: Path,
    bundles: Path,
    shared_data: Path,
    require_peer: Callable[[str], Path],
    wait_until: Callable[..., None],
) -> None:
    files = sorted((shared_data / "ct-liver" / "crlm-ct-1004").glob("*.dcm"))
    study_uid = str(dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)
    with running_storescp(require_peer("/usr/bin/storescp"), tmp_path, []) as pacs:
        peers = {
            "pacs": {"ae_title": "STORESCP", "host": "127.0.0.1", "port": pacs.port, "may_receive": True},
            "folder": {"protocol": "folder", "path": str(tmp_path / "results"), "may_receive": True},
        }
        config = write_config(tmp_path / "node", peers=peers, bundles=bundles, deliver_to=["pacs", "folder"])
        with serving(config) as node:
            send(files, "127.0.0.1", node.port, "CRLM-NODE", "STORESCU")
            (asked,) = node.wait_for_job(study_uid, ENDED)
            assert asked.reason.startswith("needs confirmation")  # its phase stands in no header
            spool = Spool.open(config.spool_path)
            confirm_job(config, spool, node.database, asked.job_id, condition=None, time_point=None)
            wait_until(lambda: any(job.summary for job in node.jobs(study_uid)), "it is analysed", 120)
            (job,) = node.wait_for_job(study_uid, ENDED)
        assert (job.state, job.is_demo) == (JobState.HELD, True)
        assert DEMO_HOLD in job.reason
        assert job.summary["lesion_count"] >= 0
        assert not pacs.files
        assert not (tmp_path / "results").exists()


def test_a_phantom_goes_to_the_one_peer_that_takes_demo_results(tmp_path: Path, bundles: Path) -> None:
    files = write_series(make_phantom("ct-portal-venous", 910020), tmp_path / "ct")
    study_uid = str(dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)
    takes, takes_not = tmp_path / "takes", tmp_path / "takes-not"
    peers = {
        "archive": {"protocol": "folder", "path": str(takes), "may_receive": True, "accepts_demo_results": True},
        "clinic": {"protocol": "folder", "path": str(takes_not), "may_receive": True},
    }
    config = write_config(tmp_path / "node", peers=peers, bundles=bundles, deliver_to=["archive", "clinic"])
    with serving(config) as node:
        send(files, "127.0.0.1", node.port, "CRLM-NODE", "STORESCU")
        node.wait_for_job(study_uid, ENDED)
    assert list(takes.rglob("sr.dcm"))
    assert not takes_not.exists()


@pytest.fixture(autouse=True)
def _free_the_disk(tmp_path: Path) -> object:
    """A spool with a real CT is large."""
    yield
    shutil.rmtree(tmp_path / "node" / "spool", ignore_errors=True)
