"""Headers are read within bounds, whatever the file looks like, and a slice answers alike in both worlds."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian

from node.dicom import header
from node.dicom.header import (
    FrameHeader,
    as_numbers,
    frames,
    is_enhanced,
    position_along_normal,
    read_header,
    slice_normal,
    text,
    value,
)
from node.errors import UnreadableInstance


def minimal(**values: Any) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, "1.2.3"
    dataset.PatientName = "Secret^Name"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2", "1.2.1"
    for keyword, found in values.items():
        setattr(dataset, keyword, found)
    return dataset


def test_pixel_data_are_not_read(write_stack: Callable[..., Any]) -> None:
    found = read_header(write_stack().paths[0])
    assert found.Rows == 20
    assert "PixelData" not in found


@pytest.mark.parametrize("is_implicit", [True, False])
def test_a_file_without_preamble_and_meta_is_read(tmp_path: Path, is_implicit: bool) -> None:
    path = tmp_path / "bare"
    minimal().save_as(path, implicit_vr=is_implicit, little_endian=True)
    found = read_header(path)
    assert (found.SOPInstanceUID, found.SeriesInstanceUID) == ("1.2.3", "1.2.1")
    assert found.file_meta.TransferSyntaxUID.is_implicit_VR is is_implicit


def test_class_and_instance_named_only_in_the_meta_are_taken_from_there(tmp_path: Path) -> None:
    dataset = minimal(SOPClassUID="", SOPInstanceUID="")
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID, dataset.file_meta.MediaStorageSOPInstanceUID = CTImageStorage, "1.9"
    path = tmp_path / "empty-uids"
    dcmwrite(path, dataset, enforce_file_format=True)
    assert (read_header(path).SOPClassUID, read_header(path).SOPInstanceUID) == (CTImageStorage, "1.9")


def test_an_empty_file_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "slice.dcm").touch()
    with pytest.raises(UnreadableInstance, match=r"slice\.dcm: the file is empty"):
        read_header(tmp_path / "slice.dcm")


@pytest.mark.parametrize("keyword", ["SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"])
def test_what_lacks_its_identity_is_refused_by_file_name_and_reason(tmp_path: Path, keyword: str) -> None:
    dataset = minimal()
    del dataset[keyword]
    path = tmp_path / "slice.dcm"
    dataset.save_as(path, implicit_vr=True, little_endian=True)
    with pytest.raises(UnreadableInstance, match=f"slice.dcm: no DICOM instance, it lacks {keyword}"):
        read_header(path)


@pytest.mark.parametrize("content", [b"", b"\0", b"GIF89a" * 50, b"\xff" * 4000, bytes(range(256)) * 40])
def test_bytes_that_are_no_dicom_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(UnreadableInstance, match="other: "):
        read_header(path)


def test_an_instance_cut_at_any_byte_is_read_or_refused(write_stack: Callable[..., Any], tmp_path: Path) -> None:
    whole = write_stack().paths[0].read_bytes()
    path = tmp_path / "cut"
    for length in range(0, len(whole) - 960, 7):
        path.write_bytes(whole[:length])
        try:
            read_header(path)
        except UnreadableInstance as error:
            refusal = str(error)
            assert "Phantom" not in refusal


def test_a_refusal_does_not_quote_the_patient(tmp_path: Path) -> None:
    buffer = BytesIO()
    minimal().save_as(buffer, implicit_vr=True, little_endian=True)
    path = tmp_path / "damaged"
    # a length that runs beyond the end, inside the name
    path.write_bytes(buffer.getvalue().replace(b"Secret^Name ", b"Secret^Name")[:-30] + b"\xff" * 40)
    with pytest.raises(UnreadableInstance) as caught:
        read_header(path)
    assert "Secret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_missing_file_is_an_operating_system_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_header(tmp_path / "absent")


def test_a_small_file_that_inflates_beyond_the_limit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meta, body = FileMetaDataset(), BytesIO()
    meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, "1.2.3"
    dataset = minimal(ImageComments=" " * 3_000_000)
    dataset.file_meta = meta
    dcmwrite(body, dataset, enforce_file_format=True)
    path = tmp_path / "bomb"
    path.write_bytes(body.getvalue())
    assert len(body.getvalue()) < 10_000
    assert read_header(path).SOPInstanceUID == "1.2.3"
    monkeypatch.setattr(header, "MAX_INFLATED_BYTES", 1_000_000)
    with pytest.raises(UnreadableInstance, match="bomb"):
        read_header(path)


def test_a_malformed_value_counts_as_absent() -> None:
    dataset = Dataset()
    dataset.add_new("RepetitionTime", "DS", "")
    assert value(dataset, "RepetitionTime") is None
    assert value(dataset, "EchoTime", 5) == 5
    assert text(dataset, "EchoTime") == ""


def test_an_unknown_keyword_is_a_slip_of_ours() -> None:
    with pytest.raises(KeyError, match="EkoTime"):
        value(Dataset(), "EkoTime")


@pytest.mark.parametrize(
    ("found", "numbers"),
    [
        (1000, (1000.0,)),
        ([1, 2], (1.0, 2.0)),
        ("1000\\8\\0", (1000.0, 8.0, 0.0)),
        (b"1000\\8\\0\\0 ", (1000.0, 8.0, 0.0, 0.0)),
        (b"400 \0", (400.0,)),
        ("b1000", ()),
        (None, ()),
        ("nan", ()),
        ([], ()),
    ],
)
def test_numbers_are_understood_in_every_dress(found: Any, numbers: tuple[float, ...]) -> None:
    assert as_numbers(found) == numbers


def test_a_classic_instance_is_one_slice(write_stack: Callable[..., Any]) -> None:
    dataset = read_header(write_stack().paths[2])
    (only,) = frames(dataset)
    assert not is_enhanced(dataset)
    assert only.number is None
    assert only.position_lps_mm == pytest.approx((-50.5, -61.25, 110.0))
    assert only.pixel_spacing_mm == (1.5, 1.25)


def test_a_frame_is_described_by_its_own_groups_before_the_shared_ones_before_the_root(
    write_enhanced: Callable[..., Any],
) -> None:
    dataset = read_header(write_enhanced().paths[0])
    dataset.EchoTime = 99
    assert is_enhanced(dataset)
    found = frames(dataset)
    assert [frame.number for frame in found] == list(range(1, 19))
    assert [frame.get("DiffusionBValue") for frame in found[:4]] == [50, 400, 1000, 50]
    assert found[5].position_lps_mm == pytest.approx((-20, -30, 47))
    assert found[5].orientation == (1, 0, 0, 0, 1, 0)
    assert found[5].numbers("RescaleSlope") == (2.0,)
    assert found[5].get("EchoTime") == 99
    assert found[5].get("FlipAngle", "none") == "none"
    own = Dataset()
    own.RescaleSlope = 7
    dataset.PerFrameFunctionalGroupsSequence[5].PixelValueTransformationSequence = [own]
    found = frames(dataset)  # one that has been asked knows its places and does not look again
    assert found[5].numbers("RescaleSlope") == (7.0,)
    assert found[4].numbers("RescaleSlope") == (2.0,)


def test_private_elements_are_found_by_their_creator_in_any_block(write_enhanced: Callable[..., Any]) -> None:
    dataset = read_header(write_enhanced().paths[0])
    other = dataset.PerFrameFunctionalGroupsSequence[3]
    other.private_block(0x0019, "ANOTHER", create=True).add_new(0x0C, "IS", 1)
    other.private_block(0x0019, "SIEMENS MR HEADER", create=True).add_new(0x0C, "IS", 1000)
    first, fourth = frames(dataset)[0], frames(dataset)[3]
    assert fourth.private("SIEMENS MR HEADER", 0x0019, 0x0C) == 1000
    assert first.private("SIEMENS MR HEADER", 0x0019, 0x0C) is None
    assert fourth.private("GEMS_PARM_01", 0x0043, 0x39, "absent") == "absent"


def test_a_private_element_without_its_creator_is_not_believed(shared_data: Path) -> None:
    path = next((shared_data / "mr-body/philips-intera-upper-abdomen-single").iterdir())
    dataset = read_header(path)
    assert (0x2001, 0x1003) in dataset
    assert FrameHeader(dataset).private("Philips Imaging DD 001", 0x2001, 0x03) is None


def test_the_normal_is_row_cross_column() -> None:
    normal = slice_normal((0.0, 1.0, 0.0, 0.0, 0.0, -1.0))
    np.testing.assert_array_equal(normal, [-1, 0, 0])
    assert position_along_normal((3.0, 4.0, 5.0), normal) == -3.0


def test_every_real_file_is_read_or_refused(shared_data: Path) -> None:
    read, refused = 0, []
    for path in sorted(shared_data.rglob("*")):
        if not path.is_file():
            continue
        try:
            for frame in frames(read_header(path))[:2]:
                frame.get("DiffusionBValue")
                frame.private("SIEMENS MR HEADER", 0x0019, 0x0C)
            read += 1
        except UnreadableInstance as error:
            refused.append(str(error))
    assert read > 650
    assert all(": " in reason for reason in refused)
