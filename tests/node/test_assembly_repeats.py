"""One SOP Instance UID, two contents: which counts, and when a person must say."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless

from node.assembly_repeats import judge_repeats, reason_to_hold
from node.dicom.part10 import FileMeta
from node.domain import SeriesKey
from node.spool import Arrival, Spool
from tests.receiving import ct_slice, keep, save

SR = "1.2.840.10008.5.1.4.1.1.88.22"


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool.open(tmp_path / "spool")


def key_of(dataset: Dataset) -> SeriesKey:
    return SeriesKey(str(dataset.StudyInstanceUID), str(dataset.SeriesInstanceUID))


def current(spool: Spool, dataset: Dataset) -> Dataset:
    return dcmread(spool.instances(key_of(dataset))[0])


def test_the_last_of_several_corrected_headers_counts(spool: Spool) -> None:
    dataset = ct_slice()
    for name in ("First", "Second", "Third"):
        dataset.PatientName = name
        keep(spool, dataset)
    judge_repeats(spool, key_of(dataset))
    assert str(current(spool, dataset).PatientName) == "Third"
    assert len(list((spool.path / "versions" / key_of(dataset).marker).iterdir())) == 2
    assert reason_to_hold(spool, key_of(dataset)) is None


def test_the_same_pixels_in_another_transfer_syntax_are_the_same(spool: Spool, tmp_path: Path) -> None:
    dataset = ct_slice()
    keep(spool, dataset)
    path = save(dataset, tmp_path / "plain.dcm")
    compressed = dcmread(path)
    compressed.compress(RLELossless)
    compressed.save_as(tmp_path / "rle.dcm")
    data = (tmp_path / "rle.dcm").read_bytes()
    body = data[144 + int.from_bytes(data[140:144], "little") :]
    meta = FileMeta(dataset.SOPClassUID, dataset.SOPInstanceUID, RLELossless, "PACS", "CRLM-NODE")
    spool.keep_instance(Arrival(dataset.StudyInstanceUID, dataset.SeriesInstanceUID, meta), body)
    judge_repeats(spool, key_of(dataset))
    assert current(spool, dataset).file_meta.TransferSyntaxUID == RLELossless
    assert reason_to_hold(spool, key_of(dataset)) is None


def test_other_pixels_leave_the_first_image_where_it_is(spool: Spool) -> None:
    dataset = ct_slice()
    keep(spool, dataset)
    first = bytes(dataset.PixelData)
    dataset.PixelData = b"\1\2" * (len(first) // 2)
    keep(spool, dataset)
    judge_repeats(spool, key_of(dataset))
    assert current(spool, dataset).PixelData == first
    assert (
        reason_to_hold(spool, key_of(dataset)) == "two images under one SOP Instance UID (1 of the series' instances)"
    )


def test_pixels_that_cannot_be_decoded_are_not_called_the_same(spool: Spool) -> None:
    dataset = ct_slice()
    keep(spool, dataset)
    dataset.PixelData = dataset.PixelData[:100]
    keep(spool, dataset)
    judge_repeats(spool, key_of(dataset))
    assert reason_to_hold(spool, key_of(dataset)) is not None


def test_of_two_reports_without_pixels_the_newer_counts(spool: Spool) -> None:
    dataset = ct_slice(SOPClassUID=SR, PixelData=None)
    keep(spool, dataset)
    dataset.ContentDate = "20260102"
    keep(spool, dataset)
    judge_repeats(spool, key_of(dataset))
    assert current(spool, dataset).ContentDate == "20260102"


def test_a_repeat_of_an_instance_that_is_gone_takes_its_place(spool: Spool) -> None:
    dataset = ct_slice()
    path = keep(spool, dataset).path
    dataset.PatientName = "Second"
    keep(spool, dataset)
    path.unlink()
    judge_repeats(spool, key_of(dataset))
    assert str(current(spool, dataset).PatientName) == "Second"


def test_judging_twice_is_judging_once(spool: Spool) -> None:
    dataset = ct_slice()
    keep(spool, dataset)
    dataset.PatientName = "Second"
    keep(spool, dataset)
    for _ in range(2):
        judge_repeats(spool, key_of(dataset))
    assert spool.repeats(key_of(dataset)) == ()
    assert str(current(spool, dataset).PatientName) == "Second"
