"""Real DICOM of many vendors, and malformed files: each series gets a result or a reason, and nothing else stops."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from model.training.demo_card import save_untrained_bundle
from node.config import Config, load_config
from node.database_studies import list_studies, series_of_study
from node.domain import JobState
from node.offline import segment_files
from tests.serving import SHIPPED, ServedNode, serving, write_config

CT = "ct-liver/crlm-ct-1004"
TOPS = ("ct-liver", "malformed", "mr-body", "mr-liver", "mr-vendor-dwi", "negatives", "seg-sr")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """The shipped routes on tiny networks with random weights."""
    folder = tmp_path_factory.mktemp("real")
    for route in load_config(SHIPPED, environment={}).routes:
        save_untrained_bundle(folder / "bundles" / route.bundle, route.condition)
    archive = {"protocol": "folder", "path": str(folder / "results"), "may_receive": True}
    node = {"assembly": {"gap_patience_s": 0.5}}
    return write_config(
        folder / "node",
        peers={"archive": archive},
        bundles=folder / "bundles",
        deliver_to=["archive"],
        quiet_s=1.0,
        node=node,
    )


@pytest.mark.parametrize("top", TOPS)
def test_every_real_file_gets_an_answer_off_line(top: str, config: Config, shared_data: Path, tmp_path: Path) -> None:
    answers = list(segment_files([shared_data / top], tmp_path, config, None))
    assert answers
    assert all(answer.is_segmented or answer.reason for answer in answers)
    assert not [answer for answer in answers if answer.is_segmented], "nothing of it may be taken unattended"


@pytest.mark.parametrize("condition", ["pre-nact-dwi", "post-nact-t2wi", "ct-portal-venous"])
def test_a_persons_word_overrules_no_contradiction(
    condition: str, config: Config, shared_data: Path, tmp_path: Path
) -> None:
    answers = list(segment_files([shared_data], tmp_path, config, condition))
    taken = {Path(answer.source).relative_to(shared_data).as_posix() for answer in answers if answer.is_segmented}
    assert taken == ({CT} if condition == "ct-portal-venous" else set())


def test_a_real_portal_venous_ct_is_segmented_where_a_person_says_what_it_is(
    config: Config, shared_data: Path, tmp_path: Path
) -> None:
    (answer,) = segment_files([shared_data / CT], tmp_path, config, "ct-portal-venous")
    assert answer.is_segmented, answer.reason
    assert answer.folder is not None
    made = {path.name for path in answer.folder.iterdir()}
    assert {"sr.dcm", "findings.json", "overlay.png"} <= made


@pytest.fixture(scope="module")
def fed(config: Config, shared_data: Path, require_peer: Callable[[str], Path]) -> Iterator[ServedNode]:
    """A node to which dcmtk has sent everything that it can read, whatever the answer to each."""
    storescu = require_peer("/usr/bin/storescu")
    with serving(config) as node:
        for folder in sorted({path.parent for path in shared_data.rglob("*") if path.is_file()}):
            # -R proposes what the files need; -nh goes on after a refusal
            command = [storescu, "-nh", "-R", "+sd", "-aec", "CRLM-NODE", "127.0.0.1", str(node.port), str(folder)]
            subprocess.run(command, capture_output=True, env={**os.environ, "TCP_NODELAY": "1"}, timeout=120)
        yield node


def test_every_series_that_was_received_is_decided_with_a_reason(
    fed: ServedNode, wait_until: Callable[..., None]
) -> None:
    spool = fed.config.spool_path

    def is_settled() -> bool:
        return not any((spool / "dirty").iterdir()) and not any((spool / "claimed").iterdir())

    wait_until(is_settled, "all studies are decided", 120)
    with fed.database.read() as rows:
        decided = {row.marker: row for s in list_studies(rows) for row in series_of_study(rows, s.study_uid)}
    received = {
        f"{folder.parent.name}~{folder.name}" for folder in (spool / "series").glob("*/*") if any(folder.iterdir())
    }
    assert received
    assert received <= set(decided)
    assert all(row.decision == "accept" or row.reason for row in decided.values())


def test_of_all_that_was_sent_only_what_a_person_must_confirm_waits(fed: ServedNode) -> None:
    assert {job.state for job in fed.jobs()} <= {JobState.HELD}
    assert any(job.reason.startswith("needs confirmation") for job in fed.jobs())


def test_the_node_is_still_there_after_all_of_it(fed: ServedNode, require_peer: Callable[[str], Path]) -> None:
    echo = [require_peer("/usr/bin/echoscu"), "-aec", "CRLM-NODE", "-aet", "STORESCU", "127.0.0.1", str(fed.port)]
    subprocess.run(echo, check=True)
    assert "role ended" not in fed.log.read_text()
