"""Findings → measurement groups: what is said of one lesion (TID 1411), of the study, or of a series not analysed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import highdicom.sr as hd
from pydicom.sr.codedict import codes
from pydicom.uid import SegmentationStorage

from model.findings import Finding
from node.dicom.context import EncodeContext, Tracking
from node.dicom.terms import coded
from node.domain import TimePoint

Group = hd.VolumetricROIMeasurementsAndQualitativeEvaluations | hd.MeasurementsAndQualitativeEvaluations

NOTHING_FOUND = "No lesion was segmented. This does not exclude disease."
_TIME_POINTS = {
    TimePoint.PRE: ("before chemotherapy", "time_point_pre"),
    TimePoint.POST: ("after chemotherapy", "time_point_post"),
    TimePoint.UNKNOWN: ("treatment status unknown", None),
}
# what a reader of a report needs; a network on 1 mm voxels does not measure to the micrometre
_MM_DIGITS, _ML_DIGITS, _INTENSITY_DIGITS = 1, 3, 1


def lesion_group(
    context: EncodeContext,
    finding: Finding,
    tracking: Tracking,
    sources: Sequence[hd.SourceImageForSegmentation],
    *,
    b_value_s_mm2: float | None,
    derivation: str,
    points_at_segment: bool,
) -> Group:
    """One lesion: TID 1411 with its segment; TID 1501 with its images where no segmentation is made."""
    shared: dict[str, Any] = {
        "tracking_identifier": hd.TrackingIdentifier(uid=tracking.uid, identifier=tracking.identifier),
        "finding_category": coded(context.terms, "abnormal_structure"),
        "finding_type": coded(context.terms, context.finding),
        "algorithm_id": _algorithm(context, derivation),
        "time_point_context": _time_point(context),
        "measurements": _measurements(context, finding, b_value_s_mm2),
    }
    if not points_at_segment:
        images = [
            hd.SourceImageForMeasurementGroup(
                item.referenced_sop_class_uid, item.referenced_sop_instance_uid, item.referenced_frame_numbers
            )
            for item in sources
        ]
        return hd.MeasurementsAndQualitativeEvaluations(source_images=images, **shared)
    segment = hd.ReferencedSegment(
        sop_class_uid=SegmentationStorage,
        sop_instance_uid=context.instance_uid("seg"),
        segment_number=finding.number,
        source_images=sources,
    )
    return hd.VolumetricROIMeasurementsAndQualitativeEvaluations(referenced_segment=segment, **shared)


def assessment_group(context: EncodeContext, findings: Sequence[Finding], derivation: str) -> Group:
    """The study: how many lesions, their volume together, the longest axis among them, the warning, and how the image
    was derived that no archive holds."""
    measurements = [_measurement(context, "quantity", len(findings), "no_units")]
    if findings:
        total_ml = round(sum(finding.volume_ml for finding in findings), _ML_DIGITS)
        longest_mm = round(max(finding.long_axis_mm for finding in findings), _MM_DIGITS)
        measurements += [
            _measurement(context, "volume", total_ml, "milliliter", derivation="total", method="volume_method"),
            _measurement(context, "long_axis", longest_mm, "millimeter", derivation="maximum", method="axis_method"),
        ]
    group = hd.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_assessment_tracking(context),
        finding_type=coded(context.terms, context.finding),
        algorithm_id=_algorithm(context, derivation),
        time_point_context=_time_point(context),
        measurements=measurements,
    )
    told = (
        "" if findings else NOTHING_FOUND,
        f"Analysed: the {derivation}." if derivation else "",
        *(f"{remark[:1].upper()}{remark[1:]}." for remark in context.remarks),
    )
    return _commented(group, context, " ".join(part for part in told if part))


def refusal_group(context: EncodeContext, reason: str) -> Group:
    """A series that was meant for analysis and could not be analysed: said as code and in words, without a number."""
    group = hd.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_assessment_tracking(context),
        algorithm_id=_algorithm(context),
        time_point_context=_time_point(context),
        qualitative_evaluations=[
            hd.QualitativeEvaluation(coded(context.terms, "analysis_summary"), coded(context.terms, "not_attempted"))
        ],
    )
    return _commented(group, context, f"Not analysed: {reason}.")


def _assessment_tracking(context: EncodeContext) -> hd.TrackingIdentifier:
    return hd.TrackingIdentifier(uid=context.uid("sr", "assessment"), identifier="Assessment of the study")


def _commented(group: Group, context: EncodeContext, told: str) -> Group:
    words = " ".join(part for part in (told, f"{context.warning}." if context.warning else "") if part)
    if words:
        group[0].ContentSequence.append(hd.TextContentItem(codes.DCM.Comment, words, relationship_type="CONTAINS"))
    return group


def _algorithm(context: EncodeContext, derivation: str = "") -> hd.AlgorithmIdentification:
    return hd.AlgorithmIdentification(
        name=context.bundle.name,
        version=context.bundle.version,
        parameters=[f"weights sha256 {context.bundle.sha256}", *([f"input {derivation}"] if derivation else [])],
        family=coded(context.terms, "algorithm_family"),
    )


def _time_point(context: EncodeContext) -> hd.TimePointContext | None:
    if context.time_point not in _TIME_POINTS:
        return None
    words, key = _TIME_POINTS[context.time_point]
    return hd.TimePointContext(words, time_point_type=coded(context.terms, key) if key else None)


def _measurements(context: EncodeContext, finding: Finding, b_value_s_mm2: float | None) -> list[hd.Measurement]:
    found = [
        _length(context, "long_axis", finding.long_axis_mm),
        _length(context, "short_axis", finding.short_axis_mm),
        _measurement(context, "volume", round(finding.volume_ml, _ML_DIGITS), "milliliter", method="volume_method"),
    ]
    intensity = f"intensity_{context.weighting}"
    unit = "hounsfield" if context.weighting == "ct" else "no_units"
    for derivation, number in (
        ("mean", finding.mean),
        ("standard_deviation", finding.sd),
        ("minimum", finding.minimum),
        ("maximum", finding.maximum),
        ("median", finding.median),
    ):
        rounded = round(number, _INTENSITY_DIGITS)
        found.append(_measurement(context, intensity, rounded, unit, derivation=derivation))
    if b_value_s_mm2 is not None:
        found.append(_measurement(context, "b_value", round(b_value_s_mm2, 1), "s_per_mm2"))
    return found


def _length(context: EncodeContext, key: str, length_mm: float) -> hd.Measurement:
    return _measurement(context, key, round(length_mm, _MM_DIGITS), "millimeter", method="axis_method")


def _measurement(
    context: EncodeContext,
    key: str,
    number: float,
    unit: str,
    *,
    derivation: str | None = None,
    method: str | None = None,
) -> hd.Measurement:
    terms = context.terms
    measurement = hd.Measurement(
        name=coded(terms, key),
        value=number,
        unit=coded(terms, unit),
        derivation=coded(terms, derivation) if derivation else None,
        method=coded(terms, method) if method else None,
    )
    if isinstance(number, int):  # the library writes a count as "3.0"
        measurement[0].MeasuredValueSequence[0].NumericValue = str(number)
    return measurement
