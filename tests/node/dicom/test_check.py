"""What was written wrong is found before it is sent."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from node.dicom.check import check_objects
from node.dicom.seg import encode_seg
from node.dicom.sr import encode_sr
from node.dicom.volume import read_volume
from node.errors import ObjectError

Tamper = Callable[[Dataset], None]


@pytest.fixture(scope="module")
def originals(
    write_stack: Callable[..., Any],
    make_context: Callable[..., Any],
    lesions_on: Callable[..., Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Any, Any, Any]:
    """Folder of segmentation and report, and what they are checked against."""
    folder, stack = tmp_path_factory.mktemp("originals"), write_stack()
    lesions, source, context = lesions_on(stack), read_volume(stack.role_input), make_context()
    given = (lesions.mask, lesions.findings, lesions.tracking)
    seg = encode_seg(context, source, *given, folder / "seg.dcm")
    encode_sr(context, source, *given, folder / "sr.dcm", seg=seg)
    return folder, source, lesions.mask, lesions.tracking


@pytest.fixture
def written(originals: tuple[Path, Any, Any, Any], tmp_path: Path) -> tuple[Path, Path, Any, Any, Any]:
    """Copies of segmentation and report that a test may spoil, and what they are checked against."""
    folder, *truth = originals
    copies = [Path(shutil.copy(folder / name, tmp_path / name)) for name in ("seg.dcm", "sr.dcm")]
    return copies[0], copies[1], *truth


def _mirror(seg: Dataset) -> None:
    groups = seg.PerFrameFunctionalGroupsSequence
    positions = [list(item.PlanePositionSequence[0].ImagePositionPatient) for item in groups]
    for item, position in zip(groups, reversed(positions), strict=True):
        item.PlanePositionSequence[0].ImagePositionPatient = position


def _shift(seg: Dataset) -> None:
    for item in seg.PerFrameFunctionalGroupsSequence:
        position = item.PlanePositionSequence[0]
        x, y, z = position.ImagePositionPatient
        position.ImagePositionPatient = [x, y, float(z) + 0.01]


def _flip_a_bit(seg: Dataset) -> None:
    seg.PixelData = bytes([seg.PixelData[0] ^ 1]) + seg.PixelData[1:]


def _drop_a_frame(seg: Dataset) -> None:
    seg.PerFrameFunctionalGroupsSequence = seg.PerFrameFunctionalGroupsSequence[:-1]
    seg.NumberOfFrames -= 1


def _shared(seg: Dataset) -> Dataset:
    return seg.SharedFunctionalGroupsSequence[0]


WRONG_SEGMENTATIONS: dict[str, tuple[Tamper, str]] = {
    "mirrored": (_mirror, "voxels of segment|source image of a frame"),
    "shifted": (_shift, "position of a frame"),
    "one voxel": (_flip_a_bit, "voxels of segment"),
    "frame missing": (_drop_a_frame, "slices in which a lesion lies"),
    "tracking": (lambda seg: setattr(seg.SegmentSequence[0], "TrackingUID", "1.2.3"), "tracking identifiers"),
    "colour": (lambda seg: delattr(seg.SegmentSequence[0], "RecommendedDisplayCIELabValue"), "colour of a segment"),
    "orientation": (
        lambda seg: setattr(_shared(seg).PlaneOrientationSequence[0], "ImageOrientationPatient", [-1, 0, 0, 0, 1, 0]),
        "plane of frames",
    ),
    "spacing": (
        lambda seg: setattr(_shared(seg).PixelMeasuresSequence[0], "PixelSpacing", [1.25, 1.5]),
        "plane of frames",
    ),
    "frame of reference": (lambda seg: setattr(seg, "FrameOfReferenceUID", "1.2.3"), "frame of reference"),
    "study": (lambda seg: setattr(seg, "StudyInstanceUID", "1.2.3"), "study of the segmentation"),
    "referenced series": (
        lambda seg: setattr(seg.ReferencedSeriesSequence[0], "SeriesInstanceUID", "1.2.3"),
        "referenced series",
    ),
    "referenced instance": (
        lambda seg: seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence.pop(),
        "referenced instances",
    ),
    "unreadable": (lambda seg: delattr(seg, "SegmentSequence"), "cannot be read back"),
}


def _group(sr: Dataset, index: int) -> Dataset:
    return sr.ContentSequence[-1].ContentSequence[index]


def _swap_lesions(sr: Dataset) -> None:
    groups = sr.ContentSequence[-1].ContentSequence
    groups[0], groups[1] = groups[1], groups[0]


def _point_at_the_other_segment(sr: Dataset) -> None:
    for item in _group(sr, 0).ContentSequence:
        if item.ConceptNameCodeSequence[0].CodeValue == "121191":
            item.ReferencedSOPSequence[0].ReferencedSegmentNumber = 2


WRONG_REPORTS: dict[str, tuple[Tamper, str]] = {
    "swapped": (_swap_lesions, "lesions of the report"),
    "wrong segment": (_point_at_the_other_segment, "segments they point at"),
    "lesion missing": (lambda sr: sr.ContentSequence[-1].ContentSequence.pop(0), "lesions of the report"),
    "verified": (lambda sr: setattr(sr, "VerificationFlag", "VERIFIED"), "flags of the report"),
    "study": (lambda sr: setattr(sr, "StudyInstanceUID", "1.2.3"), "study of the report"),
    "evidence": (
        lambda sr: sr.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence.pop(),
        "evidence of the report",
    ),
}


def test_what_was_written_right_passes(written: tuple[Any, ...]) -> None:
    check_objects(*written)


@pytest.mark.parametrize("case", WRONG_SEGMENTATIONS)
def test_a_wrong_segmentation_is_found(written: tuple[Any, ...], case: str) -> None:
    seg_path, sr_path, *truth = written
    tamper, reason = WRONG_SEGMENTATIONS[case]
    seg = dcmread(seg_path)
    tamper(seg)
    seg.save_as(seg_path)
    with pytest.raises(ObjectError, match=reason):
        check_objects(seg_path, sr_path, *truth)


@pytest.mark.parametrize("case", WRONG_REPORTS)
def test_a_wrong_report_is_found(written: tuple[Any, ...], case: str) -> None:
    seg_path, sr_path, *truth = written
    tamper, reason = WRONG_REPORTS[case]
    sr = dcmread(sr_path)
    tamper(sr)
    sr.save_as(sr_path)
    with pytest.raises(ObjectError, match=reason):
        check_objects(seg_path, sr_path, *truth)


def test_a_mask_that_changed_since_is_found(written: tuple[Any, ...]) -> None:
    seg_path, sr_path, source, mask, tracking = written
    labels = np.array(mask.labels_DHW)
    labels[5, 5, 5] = 1
    with pytest.raises(ObjectError, match="slices in which a lesion lies"):
        check_objects(seg_path, sr_path, source, replace(mask, labels_DHW=labels), tracking)


def test_a_file_that_is_no_object_is_found(written: tuple[Any, ...], tmp_path: Path) -> None:
    _, sr_path, *truth = written
    broken = tmp_path / "broken.dcm"
    broken.write_bytes(b"\0" * 1000)
    with pytest.raises(ObjectError, match="cannot be read back"):
        check_objects(broken, sr_path, *truth)
