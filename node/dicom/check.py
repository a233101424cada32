"""Read the written objects back and compare them with what they should say, before anything is sent.

It reads with pydicom alone, and by other ways than the objects were written: a slice is found by its position in
the patient, not by its place in the array, so a mirrored or shifted segmentation cannot pass; a patient is compared
as decoded text, whatever character set it is written in; a number must lie within half a step of the finding's own.
What is refused is named by attribute and lesion, never by its value, which may be a patient's name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import Comprehensive3DSRStorage, SegmentationStorage

from model.findings import Finding, lesion_boxes
from model.volume import Float64, Mask
from node.dicom.context import DEMO_WORDS, EncodeContext, Kind, Tracking
from node.dicom.header import PARSE_FAULTS, read_header, text, value
from node.dicom.volume import SourceVolume
from node.domain import InstanceRef
from node.errors import ObjectError

POSITION_TOLERANCE_MM = 1e-3
"""Viewers match slices by position to this."""
_DIRECTION_TOLERANCE = 1e-5
_SPACING_TOLERANCE = 1e-6

_REFERENCED_SEGMENT, _TRACKING_UID, _MEASUREMENT_GROUP, _DERIVATION = "121191", "112040", "125007", "121401"
_PARAMETERS = "111002"

_SUBJECT = ("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "AccessionNumber")
"""By which an archive files an object under a patient and an order."""
_ASCII_ONLY = ("PatientBirthDate", "PatientSex")
_OBJECT_NAMES: dict[Kind, str] = {"seg": "segmentation", "sr": "report"}

_MM_STEP, _ML_STEP, _INTENSITY_STEP, _B_VALUE_STEP_S_MM2 = 0.1, 0.001, 0.1, 0.1
"""What a report's numbers are rounded to."""
_DECIMAL_STRING_TOLERANCE = 1e-8
"""Of a number's size: a decimal string has 16 characters, sign, point and exponent among them (PS3.5 section 6.2)."""

_Code = tuple[str, str, str]
"""Value, coding scheme designator, meaning (PS3.3 section 8)."""


class _Number(NamedTuple):
    """One measurement; `derivation` is empty where the number is told without one (PS3.16 TID 1419)."""

    name: _Code
    derivation: tuple[_Code, ...]
    unit: tuple[_Code, ...]
    value: float


def check_objects(
    seg_path: Path | None,
    sr_path: Path | None,
    context: EncodeContext,
    source: SourceVolume,
    mask: Mask,
    findings: Sequence[Finding],
    tracking: Sequence[Tracking],
    others: Sequence[SourceVolume] = (),
) -> None:
    """Compare the files with what they were encoded from; either file may be absent from a route's outputs.

    Patient and order are those of `source`, segments and their places those of `mask`, the reported numbers those of
    `findings`, in the units of `context.terms`; names are those of `tracking`, and the wording is the context's. What
    was read is `source` and `others`.
    Raises ObjectError at the first difference.
    """
    try:
        seg = None if seg_path is None else dcmread(seg_path)
        sr = None if sr_path is None else dcmread(sr_path)
        if seg is not None:
            _check_segmentation(seg, context, source, mask, tracking)
        if sr is not None:
            _check_report(sr, seg, context, source, others, findings, tracking)
    except PARSE_FAULTS as error:
        raise ObjectError(f"a written object cannot be read back ({type(error).__name__})") from error


def check_refusal(path: Path, context: EncodeContext, instances: Sequence[InstanceRef], reason: str) -> None:
    """Compare a report of refusal with what it is about, and why. Raises ObjectError at the first difference."""
    try:
        sr, source = dcmread(path), read_header(instances[0].path)
        _require(sr.SOPClassUID == Comprehensive3DSRStorage, "kind of report")
        _require(sr.StudyInstanceUID == source.StudyInstanceUID, "study of the report")
        _require((sr.CompletionFlag, sr.VerificationFlag) == ("COMPLETE", "UNVERIFIED"), "flags of the report")
        _check_subject(sr, "sr", source)
        _check_wording(sr, "sr", context)
        _check_requests(sr, source)
        _require(not [item for item in _items(sr) if item.ValueType == "NUM"], "numbers of what was not analysed")
        comments = [text(item, "TextValue") for item in _items(sr) if item.ValueType == "TEXT"]
        _require(any(reason in comment for comment in comments), "reason why nothing was analysed")
        _require(_evidence(sr) == {item.sop_instance_uid for item in instances}, "evidence of the report")
    except PARSE_FAULTS as error:
        raise ObjectError(f"a written object cannot be read back ({type(error).__name__})") from error


def _require(is_right: object, what: str) -> None:
    if not is_right:
        raise ObjectError(f"a written object is not what it should be: {what}")


def _check_subject(written: Dataset, kind: Kind, source: Dataset) -> None:
    for keyword in _SUBJECT:
        same = _words(written, keyword) == _words(source, keyword)
        _require(same, f"{keyword} of the {_OBJECT_NAMES[kind]}")


def _words(dataset: Dataset, keyword: str) -> str:
    """Decoded text of an attribute without what does not count: padding, and the empty ends of a person's name
    (PS3.5 section 6.2); empty where there is a sequence in its place, which is no text to file by.
    """
    if isinstance(value(dataset, keyword), Items):
        return ""
    if keyword in _ASCII_ONLY and not text(dataset, keyword).isascii():
        return ""  # no such date or code can be written, so none is told
    parts = [part.strip("\0 ") for part in text(dataset, keyword).split("\\")]
    if keyword == "PatientName":
        parts = ["=".join(group.rstrip("^ ") for group in part.split("=")).rstrip("=") for part in parts]
    return "\\".join(parts)


def _check_wording(written: Dataset, kind: Kind, context: EncodeContext) -> None:
    """The warning is looked for by itself, too: a list of series shows nothing else of it."""
    name, description = _OBJECT_NAMES[kind], text(written, "SeriesDescription")
    is_warned = (not context.is_research or "RESEARCH" in description) and (
        not context.bundle.is_demo or DEMO_WORDS in description
    )
    _require(is_warned, f"warning in the series description of the {name}")
    _require(description == context.series_description(kind).strip(), f"series description of the {name}")
    qualification = text(written, "ContentQualification")
    _require(qualification == context.content_qualification, f"content qualification of the {name}")


def _check_segmentation(
    seg: Dataset, context: EncodeContext, source: SourceVolume, mask: Mask, tracking: Sequence[Tracking]
) -> None:
    _require(seg.SOPClassUID == SegmentationStorage and seg.SegmentationType == "BINARY", "kind of segmentation")
    _require(seg.StudyInstanceUID == source.study_uid, "study of the segmentation")
    _require(seg.FrameOfReferenceUID == source.frame_of_reference_uid, "frame of reference")
    _check_subject(seg, "seg", source.header.root)
    _check_wording(seg, "seg", context)
    _check_segments(seg, context, tracking)
    _check_plane(seg, source)
    _check_references(seg, source)
    _check_voxels(seg, source, mask)


def _check_segments(seg: Dataset, context: EncodeContext, tracking: Sequence[Tracking]) -> None:
    found = [(item.SegmentNumber, item.TrackingID, item.TrackingUID) for item in seg.SegmentSequence]
    expected = [(number, item.identifier, item.uid) for number, item in enumerate(tracking, start=1)]
    _require(found == expected, "numbers or tracking identifiers of segments")
    labels = [item.SegmentLabel for item in seg.SegmentSequence]
    _require(labels == [item.identifier for item in tracking], "label of a segment")
    category, kind = (_term(context, "abnormal_structure"),), (_term(context, context.finding),)
    for item in seg.SegmentSequence:
        _require(_codes(item, "SegmentedPropertyCategoryCodeSequence") == category, "category of a segment")
        _require(_codes(item, "SegmentedPropertyTypeCodeSequence") == kind, "type of a segment")
    _require(all("RecommendedDisplayCIELabValue" in item for item in seg.SegmentSequence), "colour of a segment")


def _term(context: EncodeContext, key: str) -> _Code:
    term = context.terms[key]
    return term.value.strip(), term.scheme.strip(), term.meaning.strip()


def _codes(item: Dataset, keyword: str) -> tuple[_Code, ...]:
    """The coded concepts of a sequence; one of more than 16 characters stands in an attribute of its own."""
    return tuple(
        (
            text(code, "CodeValue") or text(code, "LongCodeValue") or text(code, "URNCodeValue"),
            text(code, "CodingSchemeDesignator"),
            text(code, "CodeMeaning"),
        )
        for code in item.get(keyword, ())
    )


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
    _require(named == {item.sop_instance_uid for item in source.every_slice}, "referenced instances")


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
    """Every direction of a mean, the first of them first: viewers take the first item for the frame's place."""
    derivation = groups.DerivationImageSequence[0]
    told = [
        (item.ReferencedSOPInstanceUID, item.get("ReferencedFrameNumber")) for item in derivation.SourceImageSequence
    ]
    expected = [(item.sop_instance_uid, item.frame) for item in source.slices_at(index)]
    _require(told == expected, "source images of a frame")
    _require(source.derivation in text(derivation, "DerivationDescription"), "derivation of a frame")


def _touched(mask: Mask) -> Iterator[tuple[int, int]]:
    """Pairs of label and slice in which the label has voxels."""
    for number, box in enumerate(lesion_boxes(mask.labels_DHW), start=1):
        if box is not None:
            in_slice = (mask.labels_DHW[box] == number).any(axis=(1, 2))
            yield from ((number, int(index) + box[0].start) for index in np.flatnonzero(in_slice))


def _check_report(
    sr: Dataset,
    seg: Dataset | None,
    context: EncodeContext,
    source: SourceVolume,
    others: Sequence[SourceVolume],
    findings: Sequence[Finding],
    tracking: Sequence[Tracking],
) -> None:
    _require(sr.SOPClassUID == Comprehensive3DSRStorage, "kind of report")
    _require(sr.StudyInstanceUID == source.study_uid, "study of the report")
    _require((sr.CompletionFlag, sr.VerificationFlag) == ("COMPLETE", "UNVERIFIED"), "flags of the report")
    _check_subject(sr, "sr", source.header.root)
    _check_wording(sr, "sr", context)
    _check_requests(sr, source.header.root)
    groups = [group for group in _items(sr) if _name(group) == _MEASUREMENT_GROUP]
    told = [(_uid(group), _segment_reference(group)) for group in groups]
    expected = [
        (item.uid, None if seg is None else (str(seg.SOPInstanceUID), number))
        for number, item in enumerate(tracking, start=1)
    ]
    _require(told[:-1] == expected, "lesions of the report, or the segments they point at")
    _require(told[-1][1] is None, "assessment of the study")
    _require(len(findings) == len(tracking), "number of lesions")
    for finding, group in zip(findings, groups[:-1], strict=True):
        _check_numbers(group, _lesion_numbers(context, finding, source.b_value_s_mm2), f"lesion {finding.number}")
    _check_numbers(groups[-1], _study_numbers(context, findings), "the study")
    _require(all(_tells_derivation(group, source) for group in groups), "how the analysed image was derived")
    _check_evidence(sr, seg, source, others)


def _tells_derivation(group: Dataset, source: SourceVolume) -> bool:
    """Among the algorithm's parameters; nothing need be told of an image as acquired."""
    parameters = (text(item, "TextValue") for item in group.ContentSequence if _name(item) == _PARAMETERS)
    return not source.derivation or any(source.derivation in told for told in parameters)


def _check_requests(sr: Dataset, source: Dataset) -> None:
    """A RIS matches a report to its order by these: the source itself must name each accession number there."""
    ours = {_words(item, "AccessionNumber") for item in (source, *value(source, "RequestAttributesSequence", ()))}
    for request in sr.get("ReferencedRequestSequence", ()):
        _require(request.StudyInstanceUID == source.StudyInstanceUID, "study of the request that the report answers")
        _require(_words(request, "AccessionNumber") in ours, "AccessionNumber of the request that the report answers")


def _lesion_numbers(
    context: EncodeContext, finding: Finding, b_value_s_mm2: float | None
) -> list[tuple[_Number, float]]:
    """What the report must tell of a lesion, each with the step that it is rounded to."""
    intensity = f"intensity_{context.weighting}"
    unit = "hounsfield" if context.weighting == "ct" else "no_units"
    numbers = [
        (_number(context, "long_axis", finding.long_axis_mm, "millimeter"), _MM_STEP),
        (_number(context, "short_axis", finding.short_axis_mm, "millimeter"), _MM_STEP),
        (_number(context, "volume", finding.volume_ml, "milliliter"), _ML_STEP),
        (_number(context, intensity, finding.mean, unit, "mean"), _INTENSITY_STEP),
        (_number(context, intensity, finding.sd, unit, "standard_deviation"), _INTENSITY_STEP),
        (_number(context, intensity, finding.minimum, unit, "minimum"), _INTENSITY_STEP),
        (_number(context, intensity, finding.maximum, unit, "maximum"), _INTENSITY_STEP),
        (_number(context, intensity, finding.median, unit, "median"), _INTENSITY_STEP),
    ]
    if b_value_s_mm2 is not None:
        numbers.append((_number(context, "b_value", b_value_s_mm2, "s_per_mm2"), _B_VALUE_STEP_S_MM2))
    return numbers


def _study_numbers(context: EncodeContext, findings: Sequence[Finding]) -> list[tuple[_Number, float]]:
    """What the report must tell of all lesions together, each with the step that it is rounded to; a count is exact."""
    numbers = [(_number(context, "quantity", len(findings), "no_units"), 0.0)]
    if findings:
        total_ml = sum(finding.volume_ml for finding in findings)
        longest_mm = max(finding.long_axis_mm for finding in findings)
        numbers += [
            (_number(context, "volume", total_ml, "milliliter", "total"), _ML_STEP),
            (_number(context, "long_axis", longest_mm, "millimeter", "maximum"), _MM_STEP),
        ]
    return numbers


def _number(context: EncodeContext, key: str, number: float, unit: str, derivation: str | None = None) -> _Number:
    derived = (_term(context, derivation),) if derivation else ()
    return _Number(_term(context, key), derived, (_term(context, unit),), number)


def _check_numbers(group: Dataset, expected: Sequence[tuple[_Number, float]], whose: str) -> None:
    """The group's measurements are the expected ones, in whatever order, and no others."""
    found = sorted(_numbers(group))
    due = sorted(expected)
    names = [(item.name, item.derivation) for item in found]
    _require(names == [(item.name, item.derivation) for item, _ in due], f"measurements of {whose}")
    for told, (true, step) in zip(found, due, strict=True):
        what = f"{true.name[2]} of {whose}"
        _require(told.unit == true.unit, f"unit of {what}")
        tolerance = 0.5 * step + _DECIMAL_STRING_TOLERANCE * abs(true.value)
        _require(abs(told.value - true.value) <= tolerance, what)


def _numbers(group: Dataset) -> Iterator[_Number]:
    """The measurements of a group. Raises ObjectError where a number's text and its floating point value differ, for
    a reader may take either (PS3.3 C.18.1).
    """
    for item in group.ContentSequence:
        if item.ValueType == "NUM":
            (name,), (measured,) = _codes(item, "ConceptNameCodeSequence"), item.MeasuredValueSequence
            number = float(measured.NumericValue)
            exact = float(measured.get("FloatingPointValue", number))
            _require(abs(exact - number) <= _DECIMAL_STRING_TOLERANCE * abs(exact), f"{name[2]}, told in two ways")
            yield _Number(name, _derivation(item), _codes(measured, "MeasurementUnitsCodeSequence"), number)


def _derivation(item: Dataset) -> tuple[_Code, ...]:
    return tuple(
        code
        for child in item.get("ContentSequence", ())
        if _name(child) == _DERIVATION
        for code in _codes(child, "ConceptCodeSequence")
    )


def _check_evidence(sr: Dataset, seg: Dataset | None, source: SourceVolume, others: Sequence[SourceVolume]) -> None:
    expected = {item.sop_instance_uid for read in (source, *others) for item in read.every_slice}
    _require(_evidence(sr) == expected | ({seg.SOPInstanceUID} if seg is not None else set()), "evidence of the report")


def _evidence(sr: Dataset) -> set[str]:
    return {
        str(instance.ReferencedSOPInstanceUID)
        for study in sr.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    }


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
