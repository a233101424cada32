"""The walk of a scanner that makes no trace: three directions come in, and the same lesions go out as of its twin."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from model.metrics_lesions import match_lesions
from model.phantom import make_phantom
from node.dicom.seg_read import read_seg_labels
from node.domain import JobState
from simulator.directions import ORTHOGONAL
from simulator.identity import study_of
from simulator.modality import write_series
from simulator.sending import send
from simulator.truth import read_truth
from tests.serving import DEMO_BUNDLES, ServedNode, serving, write_config

CONDITION = "pre-nact-dwi"
SEED = 910001
STUDIES = {"trace": study_of(CONDITION, SEED), "directions": study_of(CONDITION, SEED + 1)}
"""One phantom under two identities."""
ENDED = {JobState.COMMITTED, JobState.FAILED, JobState.HELD}
SAME_VOLUME_PART = 0.05
"""Stored values are whole numbers, rounded once in a trace and three times in its directions."""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """The phantom as a scanner writes it that makes traces, and as one that does not."""
    phantom = make_phantom(CONDITION, SEED, lesion_count=2, b_values=(0.0, 50.0, 1000.0))
    folder = tmp_path_factory.mktemp("phantoms")
    for kind, study in STUDIES.items():
        directions = ORTHOGONAL if kind == "directions" else ()
        write_series(phantom, folder / kind, study=study, dialect="siemens", directions=directions)
    return {kind: folder / kind for kind in STUDIES}


@pytest.fixture(scope="module")
def walked(written: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedNode]:
    """A node that was sent both and has delivered both."""
    folder = tmp_path_factory.mktemp("walk")
    results = {"protocol": "folder", "path": str(folder / "results"), "may_receive": True}
    config = write_config(
        folder,
        peers={"results": {**results, "accepts_demo_results": True}},
        bundles=DEMO_BUNDLES,
        deliver_to=["results"],
    )
    with serving(config) as node:
        for kind, study in STUDIES.items():
            send(sorted(written[kind].glob("*.dcm")), "127.0.0.1", node.port, "CRLM-PRE", "STORESCU")
            (job,) = node.wait_for_job(study.study_instance_uid, ENDED)
            assert job.state is JobState.COMMITTED, job.reason
        yield node


def file_of(node: ServedNode, kind: str, name: str) -> Path:
    (job,) = node.jobs(STUDIES[kind].study_instance_uid)
    return node.config.spool_path / "jobs" / job.job_id / name


def findings(node: ServedNode, kind: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file_of(node, kind, "findings.json").read_text(encoding="utf-8"))
    return content


def sources(written: Mapping[str, Path]) -> set[str]:
    """SOP Instance UIDs of the directions at b = 1000."""
    headers = [dcmread(path, stop_before_pixels=True) for path in written["directions"].glob("*.dcm")]
    return {header.SOPInstanceUID for header in headers if "b1000#" in header.SequenceName}


def test_the_mean_of_directions_shows_the_lesions_of_the_trace(walked: ServedNode, written: Mapping[str, Path]) -> None:
    truth = read_truth(written["trace"])
    labels = [
        read_seg_labels(file_of(walked, kind, "seg.dcm"), truth.labels_DHW.shape, truth.affine_lps_mm)
        for kind in STUDIES
    ]
    of_trace, of_mean = (findings(walked, kind) for kind in STUDIES)
    assert of_trace["lesion_count"] == of_mean["lesion_count"] > 0
    assert len(match_lesions(labels[1], labels[0], minimum_iou=0.9).pairs) == of_trace["lesion_count"]
    assert of_mean["total_volume_ml"] == pytest.approx(of_trace["total_volume_ml"], rel=SAME_VOLUME_PART)


def test_the_segmentation_names_every_direction_as_its_source(walked: ServedNode, written: Mapping[str, Path]) -> None:
    seg = dcmread(file_of(walked, "directions", "seg.dcm"))
    assert {item.ReferencedSOPInstanceUID for item in seg.SourceImageSequence} == sources(written)
    derivation = seg.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0]
    assert len(derivation.SourceImageSequence) == 3
    assert "geometric mean of 3 directions" in derivation.DerivationDescription


def test_the_report_says_in_words_that_the_image_was_derived_here(
    walked: ServedNode, written: Mapping[str, Path]
) -> None:
    report = dcmread(file_of(walked, "directions", "sr.dcm"))
    told = [item.TextValue for item in _items(report) if item.ValueType == "TEXT"]
    assert any("Analysed: the geometric mean of 3 directions, derived in the node." in words for words in told)
    evidence = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    named = {item.ReferencedSOPInstanceUID for series in evidence for item in series.ReferencedSOPSequence}
    assert sources(written) < named


def test_findings_say_so_too_and_those_of_the_trace_do_not(walked: ServedNode) -> None:
    assert findings(walked, "directions")["derivation"] == "geometric mean of 3 directions, derived in the node"
    assert findings(walked, "trace")["derivation"] is None


@pytest.mark.parametrize("name", ["seg.dcm", "sr.dcm"])
def test_the_objects_satisfy_other_peoples_validators(
    walked: ServedNode, require_peer: Callable[[str], Path], name: str
) -> None:
    path = file_of(walked, "directions", name)
    told = subprocess.run([require_peer("/usr/bin/dciodvfy"), "-new", path], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr


def _items(item: Dataset) -> Iterator[Dataset]:
    for child in item.get("ContentSequence", ()):
        yield child
        yield from _items(child)
