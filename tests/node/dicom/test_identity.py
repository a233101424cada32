"""Which instance an encoded data set is, found without reading more of it than its head."""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from node.dicom.identity import MAX_INFLATED_BYTES, Identity, read_identity
from node.errors import UnreadableInstance
from tests.receiving import ct_slice, encoded


def identity_of(dataset: Dataset) -> Identity:
    return Identity(
        *(str(dataset[key].value) for key in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"))
    )


def written(dataset: Dataset, *, implicit: bool = False, little: bool = True) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = implicit, little
    write_dataset(buffer, dataset)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("syntax", "implicit", "little"),
    [
        (ExplicitVRLittleEndian, False, True),
        (ImplicitVRLittleEndian, True, True),
        (ExplicitVRBigEndian, False, False),
        (RLELossless, False, True),
    ],
)
def test_each_encoding_tells_the_same(syntax: str, implicit: bool, little: bool) -> None:
    dataset = ct_slice()
    assert read_identity(written(dataset, implicit=implicit, little=little), syntax) == identity_of(dataset)


def test_a_deflated_data_set_is_inflated_for_it() -> None:
    dataset = ct_slice()
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    data = deflate.compress(encoded(dataset)) + deflate.flush()
    assert read_identity(data, DeflatedExplicitVRLittleEndian) == identity_of(dataset)


def test_a_small_bomb_is_not_inflated_whole() -> None:
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    head = encoded(ct_slice(PixelData=None))
    bomb = deflate.compress(head) + b"".join(deflate.compress(bytes(1 << 20)) for _ in range(64)) + deflate.flush()
    assert len(bomb) < MAX_INFLATED_BYTES / 100
    assert read_identity(bomb, DeflatedExplicitVRLittleEndian).study_uid


def test_pixel_data_are_not_looked_at() -> None:
    data = encoded(ct_slice(size=16))
    up_to_pixels = data[: data.index(b"\xe0\x7f\x10\x00")]
    assert read_identity(up_to_pixels, ExplicitVRLittleEndian) == read_identity(data, ExplicitVRLittleEndian)


def test_what_is_not_told_is_empty() -> None:
    dataset = ct_slice(SeriesInstanceUID="", StudyInstanceUID=None)
    found = read_identity(encoded(dataset), ExplicitVRLittleEndian)
    assert (found.study_uid, found.series_uid) == ("", "")


def test_padding_is_no_part_of_an_identifier() -> None:
    data = encoded(ct_slice(SeriesInstanceUID="1.2.3.45"))
    assert read_identity(data.replace(b"1.2.3.45", b"1.2.34 \0"), ExplicitVRLittleEndian).series_uid == "1.2.34"


def test_a_sequence_before_the_identifiers_does_not_hide_them() -> None:
    dataset = ct_slice()
    dataset.ReferencedStudySequence = [ct_slice(), ct_slice()]
    assert read_identity(encoded(dataset), ExplicitVRLittleEndian) == identity_of(dataset)


def test_half_an_identifier_is_none() -> None:
    data = encoded(ct_slice())
    end = data.index(b"\x20\x00\x0e\x00UI") + 20
    with pytest.raises(UnreadableInstance, match="cut off"):
        read_identity(data[:end], ExplicitVRLittleEndian)


def test_no_bytes_are_no_data_set() -> None:
    with pytest.raises(UnreadableInstance, match="empty"):
        read_identity(b"", ExplicitVRLittleEndian)


def test_bytes_that_do_not_inflate_are_told_without_quoting_them() -> None:
    with pytest.raises(UnreadableInstance, match=r"not readable as a data set \(error\)"):
        read_identity(b"Secret^Name", DeflatedExplicitVRLittleEndian)


def test_every_real_file_is_read_or_refused(shared_data: Path) -> None:
    for path in sorted((shared_data / "malformed").rglob("*")):
        if path.is_file():
            for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian):
                data = path.read_bytes()
                try:
                    read_identity(data[144:], syntax)
                except UnreadableInstance:
                    continue


def test_the_liver_series_without_identifiers_is_known_as_such(shared_data: Path) -> None:
    path = next((shared_data / "ct-liver" / "totalsegmentator-siemens-j2k").iterdir())
    data = path.read_bytes()
    body = data[144 + int.from_bytes(data[140:144], "little") :]
    assert read_identity(body, dcmread(path).file_meta.TransferSyntaxUID) == Identity("", "", "", "")
