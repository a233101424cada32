"""The table of measures: each with how scores become its estimate, its definition, its unit and what is better.

Reports, cards, comparisons and plots take their measures from here and nowhere else. A measure is a mean over cases
(each case weighs the same) or pooled (each lesion, slice or voxel weighs the same); both are resampled by patient.
Cases in which a measure does not exist are left out of it, and `Interval.cases` says how many remain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias

import numpy as np

from model.metrics import SLICE_SETS, Overlap, SliceSet
from model.metrics_batches import batched
from model.metrics_calibration import BINS, ace, aurc_of, brier, ece, excess_aurc_of
from model.metrics_lesions import FOUND_IOU, OUTLINED_IOU, LesionMatches, LesionSize
from model.scores import CaseScore, SurfaceScore
from model.statistics import Statistic, Weighted, mean_of, of_sums, ratio_of
from model.volume import Float64

SIZE_CLASSES_MM = MappingProxyType(
    {"under 10 mm": (0.0, 10.0), "10 to 20 mm": (10.0, 20.0), "over 20 mm": (20.0, float("inf"))}
)
"""Long axis of the true lesion, lower limit included; below 10 mm RECIST 1.1 calls a lesion not measurable."""

Better = Literal["higher", "lower", "near 0"]
Estimate: TypeAlias = Callable[[Sequence[CaseScore]], Statistic]


@dataclass(frozen=True)
class Measure:
    """One line of the table. `says` defines it in words that a report may print."""

    name: str
    estimate: Estimate
    says: str
    unit: str = ""
    better: Better = "higher"
    in_card: bool = False


def size_measure(size: str) -> str:
    """What the recall of a size class is called: `lesion_recall_under_10_mm`."""
    return f"lesion_recall_{size.replace(' ', '_')}"


def per_case(value: Callable[[CaseScore], float | None]) -> Estimate:
    """Mean over cases of a value; None leaves a case out."""
    return lambda cases: mean_of([value(case) for case in cases])


def pooled(part_and_whole: Callable[[CaseScore], tuple[float, float]]) -> Estimate:
    """Sum of parts over sum of wholes."""

    def estimate(cases: Sequence[CaseScore]) -> Statistic:
        pairs = [part_and_whole(case) for case in cases]
        return ratio_of([part for part, _ in pairs], [whole for _, whole in pairs])

    return estimate


def _voxels(slices: SliceSet, of: Callable[[Overlap], float]) -> Estimate:
    return per_case(lambda case: of(case.overlap(slices)) if case.slices.chosen(slices).any() else None)


def _dice_of_voxels(slices: SliceSet) -> Estimate:
    def parts(case: CaseScore) -> tuple[float, float]:
        overlap = case.overlap(slices)
        return 2 * overlap.true_positive, overlap.answered + overlap.true

    return pooled(parts)


def _dice_of_slices(slices: SliceSet) -> Estimate:
    def parts(case: CaseScore) -> tuple[float, float]:
        tp, fp, fn = case.slices.table(slices)[:, :3].T
        dices = [Overlap(*(int(count) for count in counts)).dice for counts in zip(tp, fp, fn, strict=True)]
        return sum(dices), len(dices)

    return pooled(parts)


def _as_coded(field: str, slices: SliceSet) -> Estimate:
    return lambda cases: batched([c.slices.table(slices) for c in cases], [c.training for c in cases], field)


def _surface(of: Callable[[SurfaceScore], float | None]) -> Estimate:
    return per_case(lambda case: of(case.surface))


def _lesions(iou: float, of: Callable[[LesionMatches], tuple[float, float]]) -> Estimate:
    return pooled(lambda case: of(case.matches(iou)))


def _recall_of(low_mm: float, high_mm: float) -> Estimate:
    """Recall of the lesions whose true long axis lies between the limits."""

    def count(lesions: Sequence[LesionSize]) -> int:
        return sum(low_mm <= lesion.long_axis_mm < high_mm for lesion in lesions)

    return pooled(lambda case: (count([true for _, true in case.pairs()]), count(case.true)))


def _errors(size_of: Callable[[LesionSize], float], of: Callable[[float], float]) -> Estimate:
    """Mean over the lesions found of a function of answered minus true."""

    def parts(case: CaseScore) -> tuple[float, float]:
        errors = [of(size_of(answered) - size_of(true)) for answered, true in case.pairs()]
        return sum(errors), len(errors)

    return pooled(parts)


def _binned(of: Callable[[Float64], Float64]) -> Estimate:
    def estimate(cases: Sequence[CaseScore]) -> Statistic:
        rows = [np.zeros(3 * BINS + 1) if case.band is None else case.band.row for case in cases]
        return of_sums(np.array(rows), of, np.array([case.band is not None for case in cases], bool))

    return estimate


def _selective(curve: Callable[[Float64, Float64], Weighted]) -> Estimate:
    def estimate(cases: Sequence[CaseScore]) -> Statistic:
        confidence, risk = (np.array(of) for of in ([c.confidence for c in cases], [1 - c.dice for c in cases]))
        return Statistic(curve(confidence, risk), np.ones(len(cases), bool))

    return estimate


_SUFFIX: dict[SliceSet, str] = {
    "whole_volume": "",
    "all_liver_slices": "_all_liver_slices",
    "tumour_slices": "_tumour_slices",
}
_WHERE: dict[SliceSet, str] = {
    "whole_volume": "the whole volume",
    "all_liver_slices": "slices with liver",
    "tumour_slices": "slices with tumour",
}


def _voxel_measures(on: SliceSet) -> tuple[Measure, ...]:
    end, where, in_card = _SUFFIX[on], _WHERE[on], on == "whole_volume"
    return (
        Measure(f"dice{end}", _voxels(on, lambda o: o.dice), f"Dice of a case (DPC); {where}", in_card=True),
        Measure(f"dice_global{end}", _dice_of_voxels(on), f"Dice of all cases' voxels together (DG); {where}"),
        Measure(f"dice_per_slice{end}", _dice_of_slices(on), f"Dice of a slice, 1 where both are empty; {where}"),
        Measure(f"iou{end}", _voxels(on, lambda o: o.iou), f"intersection over union; {where}", in_card=in_card),
        Measure(f"recall{end}", _voxels(on, lambda o: o.recall), f"lesion voxels answered; {where}", in_card=in_card),
        Measure(
            f"precision{end}", _voxels(on, lambda o: o.precision), f"answered voxels right; {where}", in_card=in_card
        ),
    )


_CASE_MEASURES = (
    Measure(
        "dice_of_cases_with_lesions",
        per_case(lambda c: c.dice if c.true else None),
        "Dice of a case that has a lesion; the whole volume",
        in_card=True,
    ),
    Measure(
        "empty_cases_right",
        per_case(lambda c: None if c.true else float(not c.answered)),
        "share of the cases without a lesion in which none was answered",
    ),
    Measure("voe", per_case(lambda c: c.overlap().volumetric_overlap_error), "1 − IoU of a case", better="lower"),
    Measure(
        "rvd",
        per_case(lambda c: c.overlap().relative_volume_difference),
        "(answered − true volume) / true volume of a case; not of a case without lesions that has an answer",
        better="near 0",
    ),
    Measure(
        "absolute_volume_difference_ml",
        per_case(lambda c: abs(c.overlap().volume_difference_ml(c.voxel_ml))),
        "difference of a case's total lesion volume, without its sign",
        "ml",
        "lower",
    ),
)

_AS_CODED_SAYS = {
    "soft_dice": "DSC as CRLM-GAN computed it: Dice of probabilities, pooled over 16 slices of any patients",
    "iou": "their IoU: of the mask, pooled over the same 16 slices",
    "recall": "their recall, pooled likewise",
    "precision": "their precision, pooled likewise",
    "f1": "their F1: of the recall and the precision of 16 slices",
}
_AS_CODED_MEASURES = (
    *(
        Measure(
            f"{field}_batch",
            _as_coded(field, "tumour_slices"),
            f"{says}; slices with tumour",
            in_card=field == "soft_dice",
        )
        for field, says in _AS_CODED_SAYS.items()
    ),
    Measure(
        "soft_dice_batch_all_liver_slices",
        _as_coded("soft_dice", "all_liver_slices"),
        f"{_AS_CODED_SAYS['soft_dice']}; slices with liver",
    ),
)

_BOTH = "of cases in which neither answer nor truth is empty"
_SURFACE_MEASURES = (
    Measure("assd_mm", _surface(lambda s: s.assd_mm), f"average symmetric surface distance {_BOTH}", "mm", "lower"),
    Measure("hd95_mm", _surface(lambda s: s.hd95_mm), f"95 % Hausdorff distance {_BOTH}", "mm", "lower", True),
    Measure(
        "nsd_2mm",
        _surface(lambda s: s.nsd_2mm),
        "share of both surfaces within 2 mm of the other, 0 where one is empty",
        in_card=True,
    ),
    Measure("nsd_3mm", _surface(lambda s: s.nsd_3mm), "the same within 3 mm"),
)


def _lesion_measures(iou: float, end: str) -> tuple[Measure, ...]:
    """PQ is the sum of IoU over TP + ½FP + ½FN (Kirillov et al., CVPR 2019)."""
    matched, in_card = f"matched from IoU {iou}", iou == FOUND_IOU
    recall = _lesions(iou, lambda m: (len(m.pairs), m.true))
    precision = _lesions(iou, lambda m: (len(m.pairs), m.answered))
    f1 = _lesions(iou, lambda m: (2 * len(m.pairs), m.answered + m.true))
    false_positives = per_case(lambda c: c.matches(iou).false_positives)
    dice = _lesions(iou, lambda m: (sum(m.dices), len(m.pairs)))
    quality = _lesions(iou, lambda m: (sum(m.ious), (m.answered + m.true) / 2))
    return (
        Measure(f"lesion_recall{end}", recall, f"share of the lesions found; {matched}", in_card=in_card),
        Measure(
            f"lesion_precision{end}", precision, f"share of the answers that are lesions; {matched}", in_card=in_card
        ),
        Measure(f"lesion_f1{end}", f1, f"2TP / (2TP + FP + FN) of lesions; {matched}", in_card=in_card),
        Measure(
            f"false_positives_per_case{end}",
            false_positives,
            f"answers of a case that are no lesion; {matched}",
            better="lower",
            in_card=in_card,
        ),
        Measure(f"lesion_dice{end}", dice, f"Dice of a lesion found; {matched}"),
        Measure(f"panoptic_quality{end}", quality, f"ΣIoU / (TP + ½FP + ½FN) of lesions; {matched}"),
    )


_SIZE_MEASURES = (
    *(
        Measure(
            size_measure(size), _recall_of(*limits), f"share of the lesions {size} found; matched from IoU {FOUND_IOU}"
        )
        for size, limits in SIZE_CLASSES_MM.items()
    ),
    Measure(
        "long_axis_error_mm",
        _errors(lambda x: x.long_axis_mm, abs),
        "error of the longest axial diameter of a lesion found",
        "mm",
        "lower",
        True,
    ),
    Measure("long_axis_bias_mm", _errors(lambda x: x.long_axis_mm, float), "the same with its sign", "mm", "near 0"),
    Measure(
        "volume_error_ml",
        _errors(lambda x: x.volume_ml, abs),
        "error of the volume of a lesion found",
        "ml",
        "lower",
        True,
    ),
    Measure("volume_bias_ml", _errors(lambda x: x.volume_ml, float), "the same with its sign", "ml", "near 0"),
)

_BAND = "voxels within 10 mm of a true lesion"
_PROBABILITY_MEASURES = (
    Measure("ece", _binned(ece), f"expected calibration error, 15 bins; {_BAND}", better="lower", in_card=True),
    Measure("ace", _binned(ace), f"average calibration error, each bin weighing the same; {_BAND}", better="lower"),
    Measure("brier", _binned(brier), f"squared difference of probability and truth; {_BAND}", better="lower"),
    Measure(
        "aurc",
        _selective(aurc_of),
        "area under the risk–coverage curve of cases: risk 1 − Dice, confidence the Dice that the answer expects",
        better="lower",
    ),
    Measure(
        "excess_aurc",
        _selective(excess_aurc_of),
        "AURC beyond that of a confidence that knows the risk",
        better="lower",
    ),
)

MEASURES: tuple[Measure, ...] = (
    *(measure for slices in SLICE_SETS for measure in _voxel_measures(slices)),
    *_CASE_MEASURES,
    *_AS_CODED_MEASURES,
    *_SURFACE_MEASURES,
    *_lesion_measures(FOUND_IOU, ""),
    *_lesion_measures(OUTLINED_IOU, "_iou50"),
    *_SIZE_MEASURES,
    *_PROBABILITY_MEASURES,
)
"""All measures, in the order of a report."""

MEASURE = MappingProxyType({measure.name: measure for measure in MEASURES})
