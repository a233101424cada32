"""Files and folders in, decisions out: what is found, what is skipped, what cannot be read, and why."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from node.config import Config, load_config
from node.domain import TimePoint
from node.errors import UnreadableInstance
from node.survey import describe_instance, dicom_files, survey

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def config() -> Config:
    return load_config(ROOT / "dicom_config", environment={})


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """`write("folder/name", number, **tags)`: one axial T2 slice; None leaves an attribute out."""

    def make(name: str, number: int, **tags: object) -> Path:
        dataset = Dataset()
        dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.4", f"1.2.3.4.{number + 1}"
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3", "1.2.3.4"
        dataset.FrameOfReferenceUID, dataset.Modality = "1.2.3.9", "MR"
        dataset.ImageType, dataset.BodyPartExamined = ["ORIGINAL", "PRIMARY"], "LIVER"
        dataset.SeriesDescription, dataset.ScanningSequence = "t2 fs", "SE"
        dataset.ScanOptions, dataset.EchoTime, dataset.RepetitionTime = "FS", "84", "4000"
        dataset.ImageOrientationPatient, dataset.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 7 * number]
        dataset.PixelSpacing, dataset.Rows, dataset.Columns = [1.5, 1.5], 8, 8
        for keyword, told in tags.items():
            setattr(dataset, keyword, told)
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.file_meta = meta
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        dataset.save_as(path, enforce_file_format=True)
        return path

    return make


def series(write: Callable[..., Path], folder: str, count: int = 12, **tags: object) -> None:
    for number in range(count):
        write(f"{folder}/IM{number:04d}", number, **tags)


def test_a_folder_is_decided_series_by_series(write: Callable[..., Path], tmp_path: Path, config: Config) -> None:
    series(write, "a")
    result = survey([tmp_path], config, operator=TimePoint.POST)
    (told,) = result.as_json()
    assert (told["decision"], told["condition"]) == ("accept", "post-nact-t2wi")
    assert told["source"] == str(tmp_path / "a")


def test_studies_of_several_patients_beside_each_other_are_none_of_each_others_business(
    write: Callable[..., Path], tmp_path: Path, config: Config
) -> None:
    series(write, "a", PatientID="A")
    for number in range(12):
        uids = {"StudyInstanceUID": "1.2.5", "SeriesInstanceUID": "1.2.5.1", "SOPInstanceUID": f"1.2.5.1.{number + 1}"}
        write(f"b/IM{number:04d}", number, PatientID="B", **uids)
    told = survey([tmp_path], config, operator=TimePoint.POST).as_json()
    assert [item["decision"] for item in told] == ["accept", "accept"]


def test_one_series_in_several_folders_is_one_series(
    write: Callable[..., Path], tmp_path: Path, config: Config
) -> None:
    for number in range(12):
        write(f"disk/{number // 5}/IM{number}", number)
    (told,) = survey([tmp_path], config, operator=TimePoint.PRE).as_json()
    assert told["slices"] == 12


def test_a_copy_of_a_series_in_another_folder_is_judged_apart(
    write: Callable[..., Path], tmp_path: Path, config: Config
) -> None:
    series(write, "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "gap")
    (tmp_path / "gap" / "IM0005").unlink()
    told = {Path(item["source"]).name: item for item in survey([tmp_path], config).as_json()}
    assert told["whole"]["decision"] == "accept"
    assert any("gap of" in reason["what"] for reason in told["gap"]["reasons"])


def test_an_unknown_time_point_names_both_candidates(
    write: Callable[..., Path], tmp_path: Path, config: Config
) -> None:
    series(write, "a")
    (told,) = survey([tmp_path], config).as_json()
    assert told["condition"] is None
    assert told["candidates"] == ["pre-nact-t2wi", "post-nact-t2wi"]
    assert told["hold_reason"]


def test_a_series_without_identifiers_is_explained_and_refused(
    write: Callable[..., Path], tmp_path: Path, config: Config
) -> None:
    series(write, "a", StudyInstanceUID="", SeriesInstanceUID="")
    (told,) = survey([tmp_path], config).as_json()
    assert told["weighting"] == "t2"
    assert told["decision"] == "refuse"
    assert told["reasons"][0]["what"] == "Study Instance UID is empty"


def test_files_that_cannot_be_read_are_listed_with_the_reason(
    write: Callable[..., Path], tmp_path: Path, config: Config
) -> None:
    series(write, "a")
    (tmp_path / "a" / "noise").write_bytes(bytes(range(256)) * 8)
    (tmp_path / "a" / "empty").touch()
    result = survey([tmp_path], config, operator=TimePoint.PRE)
    assert {item.path.name for item in result.unreadable} == {"noise", "empty"}
    assert [item["decision"] for item in result.as_json() if not item.get("unreadable")] == ["accept"]
    assert all(item["reason"] for item in result.as_json() if item.get("unreadable"))


def test_a_file_that_is_not_there_is_listed_too(tmp_path: Path, config: Config) -> None:
    (item,) = survey([tmp_path / "nowhere.dcm"], config).unreadable
    assert "No such file" in item.reason


def test_a_folder_is_searched_for_what_may_be_dicom(write: Callable[..., Path], tmp_path: Path) -> None:
    wanted = write("a/IM0001", 0)
    for name in ("a/truth.json", "a/README.md", "a/.hidden", "DICOMDIR", ".git/object"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
    assert dicom_files([tmp_path]) == (wanted,)
    named = tmp_path / "a/truth.json"
    assert dicom_files([named, wanted, tmp_path]) == (named, wanted)


def test_an_instance_is_described_for_sending(write: Callable[..., Path], tmp_path: Path) -> None:
    path = write("a/IM0001", 0)
    described = describe_instance(path)
    assert (described.sop_instance_uid, described.path) == ("1.2.3.4.1", path)
    assert len(described.sha256) == 64
    (tmp_path / "noise").write_bytes(b"no DICOM")
    with pytest.raises(UnreadableInstance):
        describe_instance(tmp_path / "noise")
