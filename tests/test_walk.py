"""The walk: a study comes in by C-STORE, and its results lie in the PACS. Everything real, on loopback."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import Comprehensive3DSRStorage, SegmentationStorage

from model.metrics_lesions import match_lesions
from model.phantom import make_phantom
from model.volume import Volume
from node.dicom.seg_read import read_seg_labels
from node.domain import JobState
from simulator.identity import study_of
from simulator.modality import write_series
from simulator.truth import read_truth
from tests.real_peers import OrthancServer, free_port
from tests.serving import DEMO_BUNDLES, ServedNode, serving, write_config

DWI, CT = "pre-nact-dwi", "ct-portal-venous"
SEEDS = {DWI: 910001, CT: 910002}
ENDED = {JobState.COMMITTED, JobState.FAILED, JobState.CANCELLED, JobState.SUPERSEDED, JobState.HELD}


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """A DWI study and a CT study as DICOM with their truth; the DWI with three b-values, to be quick."""
    folder = tmp_path_factory.mktemp("phantoms")
    for condition, seed in SEEDS.items():
        b_values = (0.0, 50.0, 1000.0) if condition == DWI else None
        write_series(make_phantom(condition, seed, lesion_count=2, b_values=b_values), folder / condition)
    return {condition: folder / condition for condition in SEEDS}


@pytest.fixture(scope="module")
def walked(
    orthanc_server: OrthancServer,
    phantoms: Mapping[str, Path],
    require_peer: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ServedNode]:
    """A node that delivers to a real Orthanc, and has been sent both studies by dcmtk."""
    storescu = require_peer("/usr/bin/storescu")
    pacs = {
        "ae_title": orthanc_server.ae_title,
        "host": "127.0.0.1",
        "port": orthanc_server.dicom_port,
        "may_receive": True,
        "accepts_demo_results": True,
    }
    config = write_config(
        tmp_path_factory.mktemp("walk"),
        peers={"pacs": pacs},
        bundles=DEMO_BUNDLES,
        deliver_to=["pacs"],
        node={"dicom": {"port": free_port()}},
    )
    orthanc_server.clear()
    with serving(config) as node:
        orthanc_server.register("CRLM-NODE", node.port)
        for condition, called in ((DWI, "CRLM-PRE"), (CT, "CRLM-NODE")):
            files = sorted(map(str, phantoms[condition].glob("*.dcm")))
            command = [str(storescu), "-aec", called, "127.0.0.1", str(node.port), *files]
            subprocess.run(command, check=True, env={**os.environ, "TCP_NODELAY": "1"})
        for condition in SEEDS:
            node.wait_for_job(_study(condition), ENDED)
        yield node


@pytest.mark.parametrize("condition", [DWI, CT])
def test_a_study_sent_by_dcmtk_ends_committed_by_orthanc(walked: ServedNode, condition: str) -> None:
    (job,) = walked.jobs(_study(condition))
    assert (job.condition, job.state) == (condition, JobState.COMMITTED), job.reason


@pytest.mark.parametrize("condition", [DWI, CT])
def test_segmentation_and_report_are_found_in_orthanc(
    walked: ServedNode, orthanc_server: OrthancServer, condition: str
) -> None:
    found = orthanc_server.find("Series", StudyInstanceUID=_study(condition))
    assert sorted(item["MainDicomTags"]["Modality"] for item in found) == ["SEG", "SR"]


@pytest.mark.parametrize("condition", [DWI, CT])
def test_what_orthanc_keeps_is_what_was_encoded(
    walked: ServedNode, orthanc_server: OrthancServer, condition: str, tmp_path: Path
) -> None:
    (job,) = walked.jobs(_study(condition))
    for item in walked.objects(job.job_id):
        kept = tmp_path / f"{item.kind}.dcm"
        kept.write_bytes(orthanc_server.file_of(item.sop_instance_uid))
        assert dcmread(kept) == dcmread(item.path)


@pytest.mark.parametrize("condition", [DWI, CT])
def test_centres_of_lesions_that_were_found_lie_within_a_voxel_diagonal_of_the_truth(
    walked: ServedNode, phantoms: Mapping[str, Path], condition: str
) -> None:
    (job,) = walked.jobs(_study(condition))
    seg = next(item for item in walked.objects(job.job_id) if item.sop_class_uid == SegmentationStorage)
    truth = read_truth(phantoms[condition])
    labels_DHW = read_seg_labels(seg.path, truth.labels_DHW.shape, truth.affine_lps_mm)
    pairs = match_lesions(labels_DHW, truth.labels_DHW, minimum_iou=0.5).pairs
    assert pairs, "at least one lesion is found well"
    grid = Volume(np.zeros(labels_DHW.shape, np.float32), truth.affine_lps_mm)
    diagonal_mm = float(np.linalg.norm(grid.spacing_mm))
    for found, true in pairs:
        centres = [
            grid.to_lps_mm(np.argwhere(labels == number).mean(axis=0, keepdims=True))
            for labels, number in ((labels_DHW, found), (truth.labels_DHW, true))
        ]
        assert np.linalg.norm(centres[0] - centres[1]) <= diagonal_mm


@pytest.mark.parametrize("condition", [DWI, CT])
def test_the_objects_satisfy_other_peoples_validators(
    walked: ServedNode, require_peer: Callable[[str], Path], condition: str
) -> None:
    (job,) = walked.jobs(_study(condition))
    objects = walked.objects(job.job_id)
    for item in objects:
        told = subprocess.run([require_peer("/usr/bin/dciodvfy"), "-new", item.path], capture_output=True, text=True)
        assert told.returncode == 0, told.stderr
    subprocess.run([require_peer("/usr/bin/dcmftest"), *(item.path for item in objects)], check=True)
    report = next(item for item in objects if item.sop_class_uid == Comprehensive3DSRStorage)
    subprocess.run([require_peer("/usr/bin/dsrdump"), "-q", report.path], check=True, capture_output=True)


def test_of_a_multi_b_series_the_segmentation_points_at_the_b1000_images_only(
    walked: ServedNode, phantoms: Mapping[str, Path]
) -> None:
    (job,) = walked.jobs(_study(DWI))
    seg = dcmread(next(item.path for item in walked.objects(job.job_id) if item.kind == "seg"))
    referenced = {item.ReferencedSOPInstanceUID for item in seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence}
    datasets = [dcmread(path, stop_before_pixels=True) for path in phantoms[DWI].glob("*.dcm")]
    at_b1000 = {ds.SOPInstanceUID for ds in datasets if ds.get("DiffusionBValue") == 1000 or _ge_b(ds) == 1000}
    assert referenced
    assert referenced == at_b1000


def test_the_log_names_no_patient_and_no_study(walked: ServedNode) -> None:
    text = walked.log.read_text()
    for condition, seed in SEEDS.items():
        identity = study_of(condition, seed)
        for secret in (identity.patient_id, identity.patient_name, identity.study_instance_uid):
            assert secret not in text


def test_a_study_sent_a_second_time_makes_no_second_job(
    walked: ServedNode,
    phantoms: Mapping[str, Path],
    require_peer: Callable[[str], Path],
    wait_until: Callable[..., None],
) -> None:
    files = sorted(map(str, phantoms[CT].glob("*.dcm")))
    command = [require_peer("/usr/bin/storescu"), "-aec", "CRLM-NODE", "127.0.0.1", str(walked.port), *files]
    decided = walked.log.read_text().count("study complete")
    subprocess.run(command, check=True, env={**os.environ, "TCP_NODELAY": "1"})
    wait_until(lambda: walked.log.read_text().count("identical=40") >= 1, "the repeat is counted")
    wait_until(lambda: not any((walked.config.spool_path / "dirty").iterdir()), "the markers are taken up")
    wait_until(lambda: not any((walked.config.spool_path / "claimed").iterdir()), "the study is decided again")
    assert walked.log.read_text().count("study complete") >= decided
    assert len(walked.jobs(_study(CT))) == 1


def test_our_own_results_coming_back_are_dropped_with_success(
    walked: ServedNode, require_peer: Callable[[str], Path]
) -> None:
    (job,) = walked.jobs(_study(CT))
    objects = [str(item.path) for item in walked.objects(job.job_id)]
    command = [require_peer("/usr/bin/storescu"), "-R", "-aec", "CRLM-NODE", "127.0.0.1", str(walked.port), *objects]
    subprocess.run(command, check=True, env={**os.environ, "TCP_NODELAY": "1"})
    kept = list((walked.config.spool_path / "series" / _study(CT)).glob("*/*.dcm"))
    assert len(kept) == 40


def _study(condition: str) -> str:
    return study_of(condition, SEEDS[condition]).study_instance_uid


def _ge_b(dataset: object) -> float | None:
    block = dataset.private_block(0x0043, "GEMS_PARM_01")  # type: ignore[attr-defined]  # a pydicom data set
    return float(block[0x39].value[0]) % 1e9 if 0x39 in block else None
