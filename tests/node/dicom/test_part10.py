"""The file format around a data set that stays as it came."""

from __future__ import annotations

from io import BytesIO

import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian

from node.dicom.part10 import FileMeta, split
from tests.receiving import ct_slice, encoded

META = FileMeta("1.2.840.10008.5.1.4.1.1.2", "1.2.3", ExplicitVRLittleEndian, "PACS", "CRLM-PRE")


def test_pydicom_reads_what_is_written() -> None:
    dataset = ct_slice()
    read = dcmread(BytesIO(META.encode() + encoded(dataset)))
    assert read == dataset
    assert read.file_meta.MediaStorageSOPInstanceUID == "1.2.3"
    assert read.file_meta.SourceApplicationEntityTitle == "PACS"
    assert read.file_meta.ReceivingApplicationEntityTitle == "CRLM-PRE"


@pytest.mark.parametrize("called", ["", "A", "SIXTEEN-LETTERS!"])
def test_what_is_written_comes_apart_again(called: str) -> None:
    meta = FileMeta("1.2", "1.2.3.4", ExplicitVRLittleEndian, "ODD", called)
    told, dataset = split(meta.encode() + b"data set")
    assert told == meta
    assert bytes(dataset) == b"data set"


def test_an_identifier_that_is_none_is_still_readable() -> None:
    told, _ = split(FileMeta("1.2", "Ü/..\n" + "9" * 100, ExplicitVRLittleEndian).encode())
    assert told.sop_instance_uid.startswith("\\xdc/..")


@pytest.mark.parametrize("data", [b"", b"DICM", b"\0" * 128 + b"DICM" + b"\0" * 20])
def test_another_format_is_not_taken_apart(data: bytes) -> None:
    with pytest.raises(ValueError, match="no file meta"):
        split(data)
