"""The score of one case: everything that any table, test or plot needs, and none of its voxels.

A score is made once, from an answer and its truth on the native grid, and kept as JSON. Every measure of
`model.measures` is computed from scores, so a measure can be added or a threshold of matching changed years later,
and two bundles compared, without any mask or image.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from model.findings import Finding
from model.metrics import Overlap, SliceCounts, SliceSet
from model.metrics_calibration import ProbabilityCounts, Reliability, calibration_band, soft_dice_confidence
from model.metrics_lesions import (
    FOUND_IOU,
    LesionMatches,
    LesionSize,
    SharedVoxels,
    iou_of,
    lesion_sizes,
    match,
    shared_voxels,
)
from model.metrics_surface import NSD_TOLERANCES_MM, SurfaceDistances, surface_distances
from model.volume import Float, Float64, Half, Labels, Mask, Volume

FORMAT: Literal[1] = 1


@dataclass(frozen=True)
class Exam:
    """One unseen series and its truth, all on one grid: labels 1..N are the lesions, `liver_DHW` may be unknown."""

    case: str
    patient: str
    image: Volume
    labels_DHW: Labels
    liver_DHW: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Answer:
    """What a bundle made of a series, as the report has it; `training` numbers the weights that gave it."""

    probability_DHW: Float | Half
    mask: Mask
    findings: tuple[Finding, ...]
    seconds: float
    training: int = 0
    remarks: tuple[str, ...] = ()
    """What the engine told a reader of the result."""


@dataclass(frozen=True)
class SurfaceScore:
    """Distances of a case in mm, and the shares of both surfaces within 2 and 3 mm; None where there is none."""

    assd_mm: float | None
    hd95_mm: float | None
    nsd_2mm: float | None
    nsd_3mm: float | None

    @classmethod
    def of(cls, distances: SurfaceDistances) -> SurfaceScore:
        """The score of a case's distances."""
        return cls(distances.assd_mm, distances.hd95_mm, *(distances.nsd(limit) for limit in NSD_TOLERANCES_MM))


@dataclass(frozen=True)
class CaseScore:
    """One answer against its truth. Lesions are numbered as their labels are: `true[0]` is label 1."""

    case: str
    patient: str
    training: int
    voxel_ml: float
    has_liver: bool
    """The case has a mask of the liver; without one every slice counts as one with liver."""
    slices: SliceCounts
    surface: SurfaceScore
    true: tuple[LesionSize, ...]
    answered: tuple[LesionSize, ...]
    shared: tuple[SharedVoxels, ...]
    band: Reliability | None
    """Probabilities within 10 mm of the true lesions; None where there are none."""
    confidence: float
    """`soft_dice_confidence` of the answer, in [0, 1]."""
    seconds: float
    remarks: tuple[str, ...] = ()
    """What the engine told a reader of the result."""
    format: Literal[1] = FORMAT

    def overlap(self, slices: SliceSet = "whole_volume") -> Overlap:
        """Voxel counts on a set of slices."""
        return self.slices.overlap(slices)

    @property
    def dice(self) -> float:
        """Dice over the whole volume."""
        return self.overlap().dice

    def matches(self, minimum_iou: float = FOUND_IOU) -> LesionMatches:
        """Which answered lesion is which true one."""
        return match(self._ious, minimum_iou)

    def pairs(self, minimum_iou: float = FOUND_IOU) -> tuple[tuple[LesionSize, LesionSize], ...]:
        """The lesions that were found: as answered, and as they are."""
        return tuple((self.answered[a - 1], self.true[t - 1]) for a, t in self.matches(minimum_iou).pairs)

    @cached_property
    def _ious(self) -> Float64:
        return iou_of(self.shared, self.answered, self.true)


def score(exam: Exam, answer: Answer) -> CaseScore:
    """Measure an answer. Raises ValueError where it is not on the exam's grid, or true labels are not 1..N."""
    truth_DHW, answer_DHW = exam.labels_DHW > 0, answer.mask.labels_DHW > 0
    slices = SliceCounts.of(answer_DHW, truth_DHW, answer.probability_DHW, exam.liver_DHW)
    return CaseScore(
        case=exam.case,
        patient=exam.patient,
        training=answer.training,
        voxel_ml=exam.image.voxel_ml,
        has_liver=exam.liver_DHW is not None,
        slices=slices,
        surface=SurfaceScore.of(surface_distances(answer_DHW, truth_DHW, exam.image.affine_lps_mm)),
        true=lesion_sizes(exam.labels_DHW, exam.image.affine_lps_mm),
        answered=tuple(_size(finding) for finding in answer.findings),
        shared=shared_voxels(answer.mask.labels_DHW, exam.labels_DHW),
        band=_band(exam, answer.probability_DHW),
        confidence=_confidence(answer.probability_DHW, answer_DHW, sum(slices.probability)),
        seconds=answer.seconds,
        remarks=answer.remarks,
    )


def to_json(case: CaseScore) -> str:
    """A score in one line of JSON."""
    return json.dumps(asdict(case), separators=(",", ":"), allow_nan=False)


def from_json(text: str | bytes) -> CaseScore:
    """Raises ValueError for another format, or what is no score."""
    return from_fields(json.loads(text))


def from_fields(fields: dict[str, Any]) -> CaseScore:
    """The score of parsed JSON. Raises ValueError for another format, or what is no score."""
    if fields.get("format") != FORMAT:
        raise ValueError(
            f"a score of format {fields.get('format')!r}, and this version reads {FORMAT}: measure the bundle again, "
            "or read it with the version that wrote it"
        )
    try:
        return _SCORES.validate_python(fields)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:3])
        raise ValueError(f"not a score: {wrong}") from error


_SCORES = TypeAdapter(CaseScore)


def _size(finding: Finding) -> LesionSize:
    return LesionSize(
        finding.voxel_count,
        finding.volume_ml,
        finding.long_axis_mm,
        finding.short_axis_mm,
        finding.mean_probability,
    )


def _band(exam: Exam, probability_DHW: Float | Half) -> Reliability | None:
    band_DHW = calibration_band(exam.labels_DHW, exam.image.spacing_mm)
    if not band_DHW.any():
        return None
    return ProbabilityCounts.of(probability_DHW[band_DHW], exam.labels_DHW[band_DHW] > 0).reliability()


def _confidence(probability_DHW: Float | Half, answer_DHW: NDArray[np.bool_], total: float) -> float:
    answered = probability_DHW[answer_DHW]
    peak = 0.0 if len(answered) else float(probability_DHW.max(initial=0))
    return soft_dice_confidence(float(answered.sum(dtype=np.float64)), total, len(answered), peak)
