"""A served node asks an archive for earlier studies: away, it is waited for; there, it decides. All on loopback."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.uid import generate_uid

from model.phantom import GEOMETRIES, make_phantom
from node.domain import JobState
from simulator.archive import Archive
from simulator.modality import write_series
from tests.real_peers import DICOMWEB_PLUGIN, OrthancServer, free_port
from tests.serving import DEMO_BUNDLES, serving, write_config

RULE = {"keyword": "StudyDescription", "pattern": "staging", "days_before": [60, 366], "time_point": "post"}


@pytest.fixture
def dwi(tmp_path: Path) -> list[Path]:
    """A small DWI study."""
    small = GEOMETRIES["pre-nact-dwi"].resampled(32, 32)
    phantom = make_phantom("pre-nact-dwi", 910077, geometry=small, b_values=(0.0, 50.0, 1000.0))
    return write_series(phantom, tmp_path / "dwi")


def test_a_study_waits_for_an_archive_that_is_away_and_is_decided_by_it(
    dwi: list[Path], tmp_path: Path, require_peer: Callable[[str], Path]
) -> None:
    storescu = require_peer("/usr/bin/storescu")
    with Archive(tmp_path / "archive") as archive:
        archive.shelf.keep(_year_before(dwi[0], tmp_path / "earlier.dcm"))
        archive.offline = True
        peers: dict[str, dict[str, Any]] = {
            "results": {"protocol": "folder", "path": str(tmp_path / "results"), "may_receive": True},
            "pacs": {"ae_title": "ARCHIVE", "host": "127.0.0.1", "port": archive.port, "retry": {"first_s": 0.5}},
        }
        peers["pacs"]["look_up_earlier_studies"] = True
        config = write_config(
            tmp_path,
            peers=peers,
            bundles=DEMO_BUNDLES,
            deliver_to=["results"],
            node={"dicom": {"port": free_port()}, "time_point": {"earlier_studies": [RULE]}},
        )
        study_uid = str(dcmread(dwi[0]).StudyInstanceUID)
        with serving(config) as node:
            command = [str(storescu), "-aec", "CRLM-NODE", "127.0.0.1", str(node.port), *map(str, dwi)]
            subprocess.run(command, check=True, env={**os.environ, "TCP_NODELAY": "1"})
            (held,) = node.wait_for_job(study_uid, {JobState.HELD})
            assert "earlier studies could not be looked up: pacs: ARCHIVE@127.0.0.1" in held.reason
            archive.offline = False
            node.wait_for_job(study_uid, {JobState.SUPERSEDED})
            conditions = {job.condition for job in node.jobs(study_uid) if job.job_id != held.job_id}
        assert conditions == {"post-nact-dwi"}


def test_an_archive_that_speaks_dicomweb_tells_of_the_earlier_study_and_keeps_the_results(
    dwi: list[Path], tmp_path: Path, orthanc: OrthancServer, require_peer: Callable[[str], Path]
) -> None:
    storescu = require_peer("/usr/bin/storescu")
    require_peer(str(DICOMWEB_PLUGIN))
    orthanc.client.post_instances(_year_before(dwi[0], tmp_path / "earlier.dcm"))
    secret = tmp_path / "password"
    secret.write_text(orthanc.password, encoding="utf-8")
    archive: dict[str, Any] = {"protocol": "dicomweb", "url": orthanc.dicomweb_url, "username": orthanc.username}
    archive |= {"password_file": str(secret), "look_up_earlier_studies": True}
    config = write_config(
        tmp_path,
        peers={"web": {**archive, "may_receive": True, "accepts_demo_results": True}},
        bundles=DEMO_BUNDLES,
        deliver_to=["web"],
        node={"dicom": {"port": free_port()}, "time_point": {"earlier_studies": [RULE]}},
    )
    study_uid = str(dcmread(dwi[0]).StudyInstanceUID)
    with serving(config) as node:
        command = [str(storescu), "-aec", "CRLM-NODE", "127.0.0.1", str(node.port), *map(str, dwi)]
        subprocess.run(command, check=True, env={**os.environ, "TCP_NODELAY": "1"})
        (job,) = node.wait_for_job(study_uid, {JobState.COMMITTED})
        objects = node.objects(job.job_id)
    assert job.condition == "post-nact-dwi"
    assert "sr" in {item.kind for item in objects}
    for item in objects:
        assert orthanc.file_of(item.sop_instance_uid) == item.path.read_bytes()


def _year_before(path: Path, copy: Path) -> bytes:
    """A study of the same patient from a year before, as the archive keeps it."""
    dataset = dcmread(path)
    dataset.StudyDate = f"{int(dataset.StudyDate[:4]) - 1}{dataset.StudyDate[4:]}"
    dataset.StudyDescription = "MR liver staging"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.save_as(copy)
    return copy.read_bytes()
