"""The Orthanc of compose.yaml, run by its own files: it sends image series to the node, and no results."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import httpx
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    UID,
    ComprehensiveSRStorage,
    CTImageStorage,
    ExplicitVRLittleEndian,
    SegmentationStorage,
    generate_uid,
)
from pyorthanc import Orthanc

from tests.real_peers import StoreScp, free_port, running

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = ROOT / "deploy" / "compose"
pytestmark = pytest.mark.peers


def test_an_image_series_is_forwarded_to_the_node_and_a_result_is_not(
    archive: Orthanc, node: StoreScp, wait_until: Callable[..., None]
) -> None:
    study = generate_uid()
    results = {SegmentationStorage: "SEG", ComprehensiveSRStorage: "SR"}
    for sop_class, modality in results.items():
        archive.post_instances(_instance(study, sop_class, modality))
    _wait_for_stable(archive, series=2, wait_until=wait_until)
    archive.post_instances(_instance(study, CTImageStorage, "CT"))

    wait_until(lambda: node.files, "the CT series at the node", deadline_s=30)
    # stable long before the CT, so they would have come first
    assert [dcmread(path).Modality for path in node.files] == ["CT"]


@pytest.fixture
def node(storescp_dcmtk: Callable[..., StoreScp]) -> StoreScp:
    """dcmtk in the node's place: what arrives here would arrive there."""
    return storescp_dcmtk()


@pytest.fixture
def archive(require_peer: Callable[[str], Path], node: StoreScp, tmp_path: Path) -> Iterator[Orthanc]:
    """Orthanc by the shipped configuration; only places and ports are those of this test."""
    settings = json.loads((SHIPPED / "orthanc.json").read_text(encoding="utf-8"))
    settings["DicomModalities"]["crlm-node"].update(Host="127.0.0.1", Port=node.port)
    settings |= {
        "StorageDirectory": str(tmp_path / "storage"),
        "IndexDirectory": str(tmp_path / "storage"),
        "Plugins": [],
        "DicomPort": free_port(),
        "HttpPort": free_port(),
        "RegisteredUsers": {"admin": "secret"},
        "StableAge": 1,
        "LuaScripts": [str(SHIPPED / "autoroute.lua")],
    }
    path = tmp_path / "orthanc.json"
    path.write_text(json.dumps(settings), encoding="utf-8")
    command = [str(require_peer("/usr/sbin/Orthanc")), str(path)]
    client = Orthanc(f"http://127.0.0.1:{settings['HttpPort']}", username="admin", password="secret", trust_env=False)
    with client, running(command, tmp_path / "orthanc.log") as process:
        end = time.monotonic() + 30
        while not _answers(client):
            if process.poll() is not None or time.monotonic() > end:
                pytest.fail(f"Orthanc did not start:\n{(tmp_path / 'orthanc.log').read_text()[-2000:]}")
            time.sleep(0.02)
        yield client


def _answers(client: Orthanc) -> bool:
    try:
        return bool(client.get_system())
    except httpx.HTTPError:
        return False


def _wait_for_stable(archive: Orthanc, series: int, wait_until: Callable[..., None]) -> None:
    def are_stable() -> bool:
        found = archive.post_tools_find({"Level": "Series", "Query": {}, "Expand": True})
        assert isinstance(found, list)
        return len(found) == series and all(item["IsStable"] for item in found)

    wait_until(are_stable, f"{series} stable series in Orthanc", deadline_s=30)


def _instance(study_uid: str, sop_class_uid: UID, modality: str) -> bytes:
    dataset = Dataset()
    dataset.PatientID = "COMPOSE-1"
    dataset.StudyInstanceUID = study_uid
    dataset.SeriesInstanceUID = generate_uid()
    dataset.SOPInstanceUID = generate_uid()
    dataset.SOPClassUID = sop_class_uid
    dataset.Modality = modality
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class_uid
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = BytesIO()
    file = FileDataset(buffer, dataset, file_meta=meta, preamble=b"\0" * 128)
    file.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
