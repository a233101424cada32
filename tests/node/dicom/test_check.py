"""What was written wrong is found before it is sent."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from node.dicom.check import check_objects
from node.dicom.context import BundleFacts
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
) -> tuple[Any, ...]:
    """Folder of segmentation and report, and what they are checked against."""
    folder, stack = tmp_path_factory.mktemp("originals"), write_stack()
    lesions, source, context = lesions_on(stack), read_volume(stack.role_input), make_context()
    truth = (context, source, lesions.mask, lesions.findings, lesions.tracking)
    seg = encode_seg(*truth, folder / "seg.dcm")
    encode_sr(*truth, folder / "sr.dcm", seg=seg)
    return folder, *truth


@pytest.fixture
def written(originals: tuple[Any, ...], tmp_path: Path) -> tuple[Any, ...]:
    """Copies of segmentation and report that a test may spoil, and what they are checked against."""
    folder, *truth = originals
    copies = [Path(shutil.copy(folder / name, tmp_path / name)) for name in ("seg.dcm", "sr.dcm")]
    return copies[0], copies[1], *truth


def _say(keyword: str, told: str, dataset: Dataset) -> None:
    setattr(dataset, keyword, told)


ANOTHER_SUBJECT = {
    "PatientName": "Phantom^Another",
    "PatientID": "P-2",
    "IssuerOfPatientID": "Elsewhere",
    "PatientBirthDate": "19500102",
    "PatientSex": "F",
    "AccessionNumber": "A-2",
}


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


def _category(seg: Dataset) -> Dataset:
    return seg.SegmentSequence[1].SegmentedPropertyCategoryCodeSequence[0]


def _type(seg: Dataset) -> Dataset:
    return seg.SegmentSequence[1].SegmentedPropertyTypeCodeSequence[0]


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
    "label": (lambda seg: setattr(seg.SegmentSequence[1], "SegmentLabel", "Lesion 3"), "label of a segment"),
    "category": (lambda seg: setattr(_category(seg), "CodeValue", "85756007"), "category of a segment"),
    "type": (lambda seg: setattr(_type(seg), "CodeValue", "14799000"), "type of a segment"),
    "coding scheme of a type": (lambda seg: setattr(_type(seg), "CodingSchemeDesignator", "99X"), "type of a segment"),
    "meaning of a type": (lambda seg: setattr(_type(seg), "CodeMeaning", "Metastasis"), "type of a segment"),
    "no type": (lambda seg: delattr(seg.SegmentSequence[1], "SegmentedPropertyTypeCodeSequence"), "type of a segment"),
    "qualification": (partial(_say, "ContentQualification", "PRODUCT"), "content qualification of the segmentation"),
    "no warning": (
        partial(_say, "SeriesDescription", "AI SEG ct-portal-venous"),
        "warning in the series description of the segmentation",
    ),
    "warning without the weights": (
        partial(_say, "SeriesDescription", "AI SEG ct-portal-venous (RESEARCH)"),
        "warning in the series description of the segmentation",
    ),
    "another condition": (
        partial(_say, "SeriesDescription", "AI SEG ct-arterial (RESEARCH, DEMO WEIGHTS)"),
        "not what it should be: series description of the segmentation",
    ),
    **{
        keyword: (partial(_say, keyword, told), f"{keyword} of the segmentation")
        for keyword, told in ANOTHER_SUBJECT.items()
    },
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


def _number(sr: Dataset, index: int, code: str, derivation: str = "") -> Dataset:
    """The measurement `code` of a group, which is told with that derivation or with none."""
    (found,) = (
        item
        for item in _group(sr, index).ContentSequence
        if item.ValueType == "NUM"
        and item.ConceptNameCodeSequence[0].CodeValue == code
        and derivation in ([c.ConceptCodeSequence[0].CodeValue for c in _modifiers(item)] or [""])
    )
    return found


def _modifiers(number: Dataset) -> list[Dataset]:
    return [
        child for child in number.get("ContentSequence", ()) if child.ConceptNameCodeSequence[0].CodeValue == "121401"
    ]


def _add(index: int, code: str, derivation: str, more: float, sr: Dataset) -> None:
    measured = _number(sr, index, code, derivation).MeasuredValueSequence[0]
    told = round(float(measured.NumericValue) + more, 3)
    measured.NumericValue = told
    if "FloatingPointValue" in measured:
        measured.FloatingPointValue = told


def _say_exactly(sr: Dataset) -> None:
    """A floating point value that differs from the text beside it."""
    _number(sr, 0, "103339001").MeasuredValueSequence[0].FloatingPointValue += 0.2


def _in_centimetres(sr: Dataset) -> None:
    (unit,) = _number(sr, 0, "103339001").MeasuredValueSequence[0].MeasurementUnitsCodeSequence
    unit.CodeValue, unit.CodeMeaning = "cm", "centimeter"


def _forget(sr: Dataset) -> None:
    _group(sr, 0).ContentSequence.remove(_number(sr, 0, "118565006"))


def _tell_twice(sr: Dataset) -> None:
    _group(sr, 0).ContentSequence.append(_number(sr, 0, "118565006"))


def _call_the_mean_a_median(sr: Dataset) -> None:
    (modifier,) = _modifiers(_number(sr, 0, "112031", "373098007"))
    modifier.ConceptCodeSequence[0].CodeValue = "373099004"


def _request(sr: Dataset) -> Dataset:
    return sr.ReferencedRequestSequence[0]


# (group, measurement, derivation, a difference that rounding cannot make) and what the refusal names
WRONG_NUMBERS: dict[str, tuple[tuple[int, str, str, float], str]] = {
    "long axis": ((0, "103339001", "", 0.2), "Long axis of lesion 1"),
    "short axis": ((1, "103340004", "", -0.2), "Short axis of lesion 2"),
    "volume": ((0, "118565006", "", 0.002), "Volume of lesion 1"),
    "mean": ((0, "112031", "373098007", 0.2), "Attenuation Coefficient of lesion 1"),
    "standard deviation": ((1, "112031", "386136009", 0.2), "Attenuation Coefficient of lesion 2"),
    "minimum": ((0, "112031", "255605001", -1), "Attenuation Coefficient of lesion 1"),
    "maximum": ((0, "112031", "56851009", 1), "Attenuation Coefficient of lesion 1"),
    "median": ((0, "112031", "373099004", 0.2), "Attenuation Coefficient of lesion 1"),
    "count": ((-1, "246205007", "", 1), "Quantity of the study"),
    "total volume": ((-1, "118565006", "255619001", 0.002), "Volume of the study"),
    "longest axis": ((-1, "103339001", "56851009", 0.2), "Long axis of the study"),
}

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
    "number told in two ways": (_say_exactly, "Long axis, told in two ways"),
    "unit": (_in_centimetres, "unit of Long axis of lesion 1"),
    "measurement missing": (_forget, "measurements of lesion 1"),
    "measurement twice": (_tell_twice, "measurements of lesion 1"),
    "derivation": (_call_the_mean_a_median, "measurements of lesion 1"),
    "request": (lambda sr: setattr(_request(sr), "AccessionNumber", "A-2"), "AccessionNumber of the request"),
    "study of the request": (lambda sr: setattr(_request(sr), "StudyInstanceUID", "1.2.3"), "study of the request"),
    "qualification": (partial(_say, "ContentQualification", "PRODUCT"), "content qualification of the report"),
    "no warning": (
        partial(_say, "SeriesDescription", "AI SR ct-portal-venous"),
        "warning in the series description of the report",
    ),
    "another run": (
        partial(_say, "SeriesDescription", "AI SR ct-portal-venous (RESEARCH, DEMO WEIGHTS) v2 replaces v1"),
        "not what it should be: series description of the report",
    ),
    **{case: (partial(_add, *place), reason) for case, (place, reason) in WRONG_NUMBERS.items()},
    **{
        keyword: (partial(_say, keyword, told), f"{keyword} of the report") for keyword, told in ANOTHER_SUBJECT.items()
    },
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


def test_a_refusal_names_no_patient(written: tuple[Any, ...]) -> None:
    seg_path, *rest = written
    seg = dcmread(seg_path)
    seg.PatientName = "Phantom^Another"
    seg.save_as(seg_path)
    with pytest.raises(ObjectError) as refusal:
        check_objects(seg_path, *rest)
    assert "Phantom" not in str(refusal.value)


def test_a_name_is_the_same_with_and_without_its_empty_ends(written: tuple[Any, ...]) -> None:
    for path in written[:2]:
        result = dcmread(path)
        result.PatientName = "Phantom^Asymmetric^^^="
        result.save_as(path)
    check_objects(*written)


def test_findings_that_changed_since_are_found(written: tuple[Any, ...]) -> None:
    *given, findings, tracking = written
    larger = (findings[0], replace(findings[1], volume_ml=findings[1].volume_ml * 1.1))
    with pytest.raises(ObjectError, match="Volume of lesion 2"):
        check_objects(*given, larger, tracking)


def test_objects_without_the_research_wording_pass_for_clinical_weights_alone(
    write_stack: Callable[..., Any], make_context: Callable[..., Any], lesions_on: Callable[..., Any], tmp_path: Path
) -> None:
    stack = write_stack()
    lesions, source = lesions_on(stack), read_volume(stack.role_input)
    truth = (source, lesions.mask, lesions.findings, lesions.tracking)
    clinical = make_context(bundle=BundleFacts("liver", "2.0.0", "cd" * 32, is_demo=False, is_for_clinical_use=True))
    encode_seg(clinical, *truth, tmp_path / "seg.dcm")
    check_objects(tmp_path / "seg.dcm", None, clinical, *truth)
    with pytest.raises(ObjectError, match="warning in the series description"):
        check_objects(tmp_path / "seg.dcm", None, make_context(), *truth)


def test_a_mask_that_changed_since_is_found(written: tuple[Any, ...]) -> None:
    seg_path, sr_path, context, source, mask, *lesions = written
    labels = np.array(mask.labels_DHW)
    labels[5, 5, 5] = 1
    with pytest.raises(ObjectError, match="slices in which a lesion lies"):
        check_objects(seg_path, sr_path, context, source, replace(mask, labels_DHW=labels), *lesions)


def test_a_file_that_is_no_object_is_found(written: tuple[Any, ...], tmp_path: Path) -> None:
    _, sr_path, *truth = written
    broken = tmp_path / "broken.dcm"
    broken.write_bytes(b"\0" * 1000)
    with pytest.raises(ObjectError, match="cannot be read back"):
        check_objects(broken, sr_path, *truth)
