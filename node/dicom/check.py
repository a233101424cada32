"""Read the written objects back and compare them with what they should say, before anything is sent.

It reads with pydicom alone, and by other ways than the objects were written: a slice is found by its position in
the patient, not by its place in the array, so a mirrored or shifted segmentation cannot pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage, SegmentationStorage

from model.findings import lesion_boxes
from model.volume import Float64, Mask
from node.dicom.context import Tracking
from node.dicom.header import PARSE_FAULTS
from node.dicom.volume import SourceVolume
from node.errors import ObjectError

POSITION_TOLERANCE_MM = 1e-3
"""Viewers match slices by position to this."""
_DIRECTION_TOLERANCE = 1e-5
_SPACING_TOLERANCE = 1e-6

_REFERENCED_SEGMENT, _TRACKING_UID, _MEASUREMENT_GROUP = "121191", "112040", "125007"


def check_objects(
    seg_path: Path | None,
    sr_path: Path | None,
    source: SourceVolume,
    mask: Mask,
    tracking: Sequence[Tracking],
) -> None:
    """Compare the files with source, mask and tracking identifiers; either file may be absent from a route's outputs.

    Raises ObjectError at the first difference.
    """
    try:
        seg = None if seg_path is None else dcmread(seg_path)
        sr = None if sr_path is None else dcmread(sr_path)
        if seg is not None:
            _check_segmentation(seg, source, mask, tracking)
        if sr is not None:
            _check_report(sr, seg, source, tracking)
    except PARSE_FAULTS as error:
        raise ObjectError(f"a written object cannot be read back ({type(error).__name__})") from error


def _require(is_right: object, what: str) -> None:
    if not is_right:
        raise ObjectError(f"a written object is not what it should be: {what}")


def _check_segmentation(seg: Dataset, source: SourceVolume, mask: Mask, tracking: Sequence[Tracking]) -> None:
    _require(seg.SOPClassUID == SegmentationStorage and seg.SegmentationType == "BINARY", "kind of segmentation")
    _require(seg.StudyInstanceUID == source.study_uid, "study of the segmentation")
    _require(seg.FrameOfReferenceUID == source.frame_of_reference_uid, "frame of reference")
    _check_segments(seg, tracking)
    _check_plane(seg, source)
    _check_references(seg, source)
    _check_voxels(seg, source, mask)


def _check_segments(seg: Dataset, tracking: Sequence[Tracking]) -> None:
    found = [(item.SegmentNumber, item.TrackingID, item.TrackingUID) for item in seg.SegmentSequence]
    expected = [(number, item.identifier, item.uid) for number, item in enumerate(tracking, start=1)]
    _require(found == expected, "numbers or tracking identifiers of segments")
    _require(all("RecommendedDisplayCIELabValue" in item for item in seg.SegmentSequence), "colour of a segment")


def _check_plane(seg: Dataset, source: SourceVolume) -> None:
    shared = seg.SharedFunctionalGroupsSequence[0]
    directions = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float).reshape(2, 3)
    row_spacing, column_spacing = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    affine = source.volume.affine_lps_mm
    _require((seg.Rows, seg.Columns) == source.volume.array_DHW.shape[1:], "size of frames")
    expected = np.stack([affine[:3, 2], affine[:3, 1]])
    written = directions * [[column_spacing], [row_spacing]]
    _require(np.allclose(written, expected, atol=_DIRECTION_TOLERANCE, rtol=_SPACING_TOLERANCE), "plane of frames")


def _check_references(seg: Dataset, source: SourceVolume) -> None:
    series = seg.ReferencedSeriesSequence
    _require(len(series) == 1 and series[0].SeriesInstanceUID == source.series_uid, "referenced series")
    named = {item.ReferencedSOPInstanceUID for item in series[0].ReferencedInstanceSequence}
    _require(named == {item.sop_instance_uid for item in source.slices}, "referenced instances")


def _check_voxels(seg: Dataset, source: SourceVolume, mask: Mask) -> None:
    """Every frame equals its segment in the slice at its position and refers to it; no lesion voxel is left out."""
    frames = _unpacked(seg)
    positions_N3 = np.array([item.position_lps_mm for item in source.slices])
    written: set[tuple[int, int]] = set()
    for frame_HW, groups in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
        number = _segment_number(seg, groups)
        index = _slice_at(positions_N3, np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float))
        _require(np.array_equal(frame_HW, mask.labels_DHW[index] == number), f"voxels of segment {number}")
        _check_frame_reference(groups, source, index)
        written.add((number, index))
    _require(len(written) == len(frames), "a frame stands twice")
    _require(written == set(_touched(mask)), "slices in which a lesion lies")


def _unpacked(seg: Dataset) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    count = int(seg.NumberOfFrames) * seg.Rows * seg.Columns
    bits = np.unpackbits(np.frombuffer(seg.PixelData, np.uint8), count=count, bitorder="little")
    return bits.reshape(int(seg.NumberOfFrames), seg.Rows, seg.Columns)


def _segment_number(seg: Dataset, groups: Dataset) -> int:
    holder = groups if "SegmentIdentificationSequence" in groups else seg.SharedFunctionalGroupsSequence[0]
    return int(holder.SegmentIdentificationSequence[0].ReferencedSegmentNumber)


def _slice_at(positions_N3: Float64, position_3: Float64) -> int:
    distances = np.linalg.norm(positions_N3 - position_3, axis=1)
    index = int(distances.argmin())
    _require(distances[index] <= POSITION_TOLERANCE_MM, "position of a frame")
    return index


def _check_frame_reference(groups: Dataset, source: SourceVolume, index: int) -> None:
    expected = source.slices[index]
    item = groups.DerivationImageSequence[0].SourceImageSequence
    _require(len(item) == 1, "a frame with several source images")
    told = (item[0].ReferencedSOPInstanceUID, item[0].get("ReferencedFrameNumber"))
    _require(told == (expected.sop_instance_uid, expected.frame), "source image of a frame")


def _touched(mask: Mask) -> Iterator[tuple[int, int]]:
    """Pairs of label and slice in which the label has voxels."""
    for number, box in enumerate(lesion_boxes(mask.labels_DHW), start=1):
        if box is not None:
            in_slice = (mask.labels_DHW[box] == number).any(axis=(1, 2))
            yield from ((number, int(index) + box[0].start) for index in np.flatnonzero(in_slice))


def _check_report(sr: Dataset, seg: Dataset | None, source: SourceVolume, tracking: Sequence[Tracking]) -> None:
    _require(sr.SOPClassUID == Comprehensive3DSRStorage, "kind of report")
    _require(sr.StudyInstanceUID == source.study_uid, "study of the report")
    _require((sr.CompletionFlag, sr.VerificationFlag) == ("COMPLETE", "UNVERIFIED"), "flags of the report")
    groups = [group for group in _items(sr) if _name(group) == _MEASUREMENT_GROUP]
    told = [(_uid(group), _segment_reference(group)) for group in groups]
    expected = [
        (item.uid, None if seg is None else (str(seg.SOPInstanceUID), number))
        for number, item in enumerate(tracking, start=1)
    ]
    _require(told[:-1] == expected, "lesions of the report, or the segments they point at")
    _require(told[-1][1] is None, "assessment of the study")
    _check_evidence(sr, seg, source)


def _check_evidence(sr: Dataset, seg: Dataset | None, source: SourceVolume) -> None:
    named = {
        instance.ReferencedSOPInstanceUID
        for study in sr.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    }
    expected = {item.sop_instance_uid for item in source.slices}
    _require(named == expected | ({seg.SOPInstanceUID} if seg is not None else set()), "evidence of the report")


def _items(item: Dataset) -> Iterator[Dataset]:
    for child in item.get("ContentSequence", ()):
        yield child
        yield from _items(child)


def _name(item: Dataset) -> str:
    names = item.get("ConceptNameCodeSequence")
    return str(names[0].CodeValue) if names else ""


def _uid(group: Dataset) -> str | None:
    return next((str(item.UID) for item in group.ContentSequence if _name(item) == _TRACKING_UID), None)


def _segment_reference(group: Dataset) -> tuple[str, int] | None:
    for item in group.ContentSequence:
        if _name(item) == _REFERENCED_SEGMENT:
            reference = item.ReferencedSOPSequence[0]
            return str(reference.ReferencedSOPInstanceUID), int(reference.ReferencedSegmentNumber)
    return None
