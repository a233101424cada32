"""The quick look reads what pydicom's reader reads, or leaves it to pydicom."""

from __future__ import annotations

import copy
import logging
import random
import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from node.dicom.elements import quick_header
from node.dicom.header import PARSE_FAULTS

PLAIN = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)


@pytest.mark.parametrize("syntax", PLAIN)
def test_a_plain_header_is_what_pydicom_reads(syntax: str) -> None:
    content = _written(_nested_dataset(), syntax)
    assert _told(quick_header(BytesIO(content))) == _read_by_pydicom(content)


@pytest.mark.parametrize("syntax", PLAIN)
def test_a_sequence_is_decoded_with_the_alphabet_of_its_data_set(syntax: str) -> None:
    found = quick_header(BytesIO(_written(_nested_dataset(), syntax)))
    assert found is not None
    assert found.RequestAttributesSequence[0].ScheduledProcedureStepDescription == "Leber Müller"
    assert found["RequestAttributesSequence"].is_undefined_length


def test_a_copied_header_is_a_header_of_its_own() -> None:
    found = quick_header(BytesIO(_written(_nested_dataset(), ExplicitVRLittleEndian)))
    assert found is not None
    copied = copy.deepcopy(found)
    copied.RequestAttributesSequence[0].ScheduledProcedureStepDescription = "changed"
    assert found.RequestAttributesSequence[0].ScheduledProcedureStepDescription == "Leber Müller"


@pytest.mark.parametrize("syntax", PLAIN)
def test_what_was_read_can_be_written_again(syntax: str) -> None:
    content = _written(_nested_dataset(), syntax)
    found = quick_header(BytesIO(content))
    assert found is not None
    again = BytesIO()
    found.save_as(again)
    assert again.getvalue() == _without_pixels(content)


def test_a_header_longer_than_the_first_read_is_read_to_its_end() -> None:
    dataset = _nested_dataset()
    dataset.add_new(0x00290010, "LO", "SOMEBODY")
    dataset.add_new(0x00291010, "OB", bytes(200_000))
    content = _written(dataset, ExplicitVRLittleEndian)
    assert _told(quick_header(BytesIO(content))) == _read_by_pydicom(content)


@pytest.mark.parametrize("syntax", [ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_another_encoding_is_left_to_pydicom(syntax: str) -> None:
    assert quick_header(BytesIO(_written(_nested_dataset(), syntax))) is None


@pytest.mark.parametrize("syntax", PLAIN)
def test_a_header_cut_anywhere_is_left_to_pydicom_or_read_alike(syntax: str) -> None:
    content = _without_pixels(_written(_nested_dataset(), syntax))
    for length in range(0, len(content), 3):
        _assert_alike(content[:length])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("syntax", PLAIN)
def test_a_damaged_header_is_left_to_pydicom_or_read_alike(syntax: str, seed: int) -> None:
    content = _without_pixels(_written(_nested_dataset(), syntax))
    generator = random.Random(seed)
    for _ in range(100):
        damaged = bytearray(content)
        for _ in range(generator.choice([1, 1, 2, 4])):
            damaged[generator.randrange(132, len(damaged))] = generator.choice([0, 255, generator.randrange(256)])
        _assert_alike(bytes(damaged))


def test_real_headers_of_every_source_are_left_to_pydicom_or_read_alike(shared_data: Path) -> None:
    folders = [folder for folder in sorted(shared_data.rglob("*")) if folder.is_dir()]
    chosen = [path for folder in folders for path in sorted(folder.iterdir())[:12:4] if path.is_file()]
    quick = sum(_assert_alike(path.read_bytes()) for path in chosen)
    assert quick > 50


def _assert_alike(content: bytes) -> bool:
    """Whether it was read; what is left to pydicom is none of ours."""
    found = quick_header(BytesIO(content))
    if found is not None:
        assert _told(found) == _read_by_pydicom(content)
    return found is not None


def _nested_dataset() -> Dataset:
    """Two levels of sequences, with and without delimiters, text in another alphabet, private and empty elements."""
    code = Dataset()
    code.CodeValue, code.CodeMeaning = "10200004", "Leber"
    inner = Dataset()
    inner.ScheduledProcedureStepDescription = "Leber Müller"
    inner.ScheduledProtocolCodeSequence = [code, Dataset()]
    inner["ScheduledProtocolCodeSequence"].is_undefined_length = True
    open_item = Dataset()
    open_item.is_undefined_length_sequence_item = True
    open_item.RequestedProcedureDescription = "MRT"
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, "1.2.3"
    dataset.PatientName, dataset.PatientID = "Müller^Jürgen", ""
    dataset.ImagePositionPatient = ["-1.5", "2", "3e1"]
    dataset.RequestAttributesSequence = [inner, open_item]
    dataset["RequestAttributesSequence"].is_undefined_length = True
    dataset.ProcedureCodeSequence = [code]
    dataset.add_new(0x20010010, "LO", "Philips Imaging DD 001")
    dataset.add_new(0x20011003, "FL", 800.0)
    dataset.Rows, dataset.Columns, dataset.BitsAllocated, dataset.PixelRepresentation = 2, 2, 8, 0
    dataset.PixelData = b"\1\2\3\4"
    return dataset


def _written(dataset: Dataset, syntax: str) -> bytes:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    file = BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def _without_pixels(content: bytes) -> bytes:
    return content[: content.rindex(b"\xe0\x7f\x10\x00")]


def _read_by_pydicom(content: bytes) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _told(dcmread(BytesIO(content), stop_before_pixels=True, force=True))


def _told(dataset: Dataset | None) -> Any:
    assert dataset is not None
    meta = getattr(dataset, "file_meta", Dataset())
    return _elements_of(meta), _elements_of(dataset), dataset.original_encoding


def _elements_of(dataset: Dataset) -> list[Any]:
    return [(tag, *_element_of(dataset, tag)) for tag in dataset.keys()]  # noqa: SIM118 - iterating decodes


def _element_of(dataset: Dataset, tag: int) -> tuple[Any, ...]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            element = dataset[tag]
        except PARSE_FAULTS as error:
            return (type(error).__name__,)
    if isinstance(element.value, Sequence):
        return element.VR, element.is_undefined_length, [_elements_of(item) for item in element.value]
    # NaN is not equal to itself, its text is
    return element.VR, element.is_undefined_length, type(element.value).__name__, repr(element.value)


@pytest.fixture(autouse=True)
def _quiet_pydicom() -> Any:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)
