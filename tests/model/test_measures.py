"""The table of measures, on cases counted by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from model.measures import MEASURE, MEASURES, size_measure
from model.scores import CaseScore
from tests.model.hand_cases import ANSWER, NOTHING, TRUTH, grid, scored


def value(name: str, *cases: CaseScore) -> float:
    return MEASURE[name].estimate(cases).value


HALF = scored(TRUTH, ANSWER, "half")
"""Dice 0.4; of two lesions, one found at IoU 1/3."""
INVENTED = scored(NOTHING, ANSWER, "invented")
RIGHT = scored(NOTHING, NOTHING, "right")
PERFECT = scored(TRUTH, TRUTH, "perfect")


def test_each_measure_stands_once_and_explains_itself() -> None:
    assert len(MEASURE) == len(MEASURES)
    assert all(measure.says and measure.name.isidentifier() for measure in MEASURES)
    assert {measure.unit for measure in MEASURES} == {"", "mm", "ml"}


def test_the_document_has_the_same_table() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    rows = "".join(f"| `{m.name}` | {m.says} | {m.unit} | {m.better} |\n" for m in MEASURES)
    assert f"|---|---|---|---|\n{rows}\n" in text


def test_cards_keep_the_names_that_they_have_always_had() -> None:
    kept = {measure.name for measure in MEASURES if measure.in_card}
    assert {
        "dice",
        "dice_of_cases_with_lesions",
        "lesion_recall",
        "false_positives_per_case",
        "long_axis_error_mm",
        "volume_error_ml",
    } <= kept


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("dice", (0.4 + 0 + 1 + 1) / 4),
        ("dice_of_cases_with_lesions", (0.4 + 1) / 2),
        ("dice_global", 2 * (2 + 6) / (4 + 4 + 6 + 6 + 6)),
        ("dice_per_slice", (0.4 + 0 + 1 + 1) / 4),
        ("dice_tumour_slices", (0.4 + 1) / 2),
        ("dice_global_tumour_slices", 2 * (2 + 6) / (4 + 6 + 6 + 6)),
        ("iou", (0.25 + 0 + 1 + 1) / 4),
        ("recall", (1 / 3 + 0 + 1 + 1) / 4),
        ("precision", (0.5 + 0 + 1 + 1) / 4),
        ("empty_cases_right", 0.5),
        ("voe", (0.75 + 1 + 0 + 0) / 4),
        ("rvd", (-1 / 3 + 0 + 0) / 3),
        ("absolute_volume_difference_ml", (0.08 + 0.16 + 0 + 0) / 4),
        ("nsd_3mm", (HALF.surface.nsd_3mm or 0) / 3 + 1 / 3),
        ("lesion_recall", 3 / 4),
        ("lesion_precision", 3 / 4),
        ("lesion_f1", 6 / 8),
        ("false_positives_per_case", 1 / 4),
        ("lesion_dice", (0.5 + 1 + 1) / 3),
        ("panoptic_quality", (1 / 3 + 1 + 1) / (3 + 1 / 2 + 1 / 2)),
        ("lesion_recall_iou50", 2 / 4),
        ("false_positives_per_case_iou50", 2 / 4),
        ("volume_error_ml", 0.0),
        ("volume_bias_ml", 0.0),
        ("brier", (2 + 4) / (25 + 25)),
    ],
)
def test_each_measure_of_four_cases_by_hand(name: str, expected: float) -> None:
    assert value(name, HALF, INVENTED, RIGHT, PERFECT) == pytest.approx(expected)


def test_recall_is_told_by_the_size_of_the_true_lesion() -> None:
    """A column of five pixels of 4 mm is 20 mm long, and answered; one pixel is 4 mm, and missed."""
    truth = grid("10002", "10000", "10000", "10000", "10000")
    answer = grid("10000", "10000", "10000", "10000", "10000")
    case = scored(truth, answer)
    assert [lesion.long_axis_mm for lesion in case.true] == pytest.approx([20.0, 4.0])
    assert value(size_measure("under 10 mm"), case) == 0.0
    assert value(size_measure("over 20 mm"), case) == 1.0
    assert math.isnan(value(size_measure("10 to 20 mm"), case))


def test_an_error_of_size_has_a_sign_only_as_bias() -> None:
    """A column of three pixels of 4 mm, answered with five and with two."""
    truth = grid("00000", "00100", "00100", "00100", "00000")
    longer = scored(truth, grid(*["00100"] * 5))
    shorter = scored(truth, grid("00000", "00100", "00100", "00000", "00000"))
    assert value("volume_error_ml", longer, shorter) == pytest.approx((0.08 + 0.04) / 2)
    assert value("volume_bias_ml", longer, shorter) == pytest.approx((0.08 - 0.04) / 2)
    assert value("long_axis_error_mm", longer, shorter) == pytest.approx((8 + 4) / 2)
    assert value("long_axis_bias_mm", longer, shorter) == pytest.approx((8 - 4) / 2)


def test_soft_dice_of_batches_differs_from_dice() -> None:
    """The mask is perfect, its probability 0.75: pooled over both cases 2·9 / (9 + 12)."""
    cases = [scored(TRUTH, np.where(TRUTH > 0, 0.75, 0.0), name) for name in "ab"]
    assert value("dice", *cases) == 1.0
    assert value("soft_dice_batch", *cases) == pytest.approx(18 / 21, abs=1e-6)


def test_slices_without_liver_count_on_the_whole_volume_alone() -> None:
    truth, answer = np.concatenate([TRUTH, NOTHING]), np.concatenate([TRUTH, ANSWER])
    case = scored(truth, answer, liver=truth > 0)
    assert value("dice_all_liver_slices", case) == value("dice_tumour_slices", case) == 1.0
    assert value("dice", case) == pytest.approx(12 / (12 + 4))
    assert value("dice_per_slice", case) == 0.5


def test_what_no_case_has_is_no_number() -> None:
    for name in ("lesion_recall", "hd95_mm", "ece", "dice_tumour_slices", "long_axis_error_mm", "soft_dice_batch"):
        assert math.isnan(value(name, RIGHT)), name


def test_calibration_is_of_voxels_near_lesions_only() -> None:
    """In a case without lesions an invented one is no voxel of any band."""
    assert value("ece", HALF) == value("ece", HALF, INVENTED)


def test_confidence_that_ranks_the_cases_has_no_excess_area() -> None:
    """Certain of the good answer, less so of the bad one."""
    bad = scored(TRUTH, np.where(ANSWER > 0, 0.75, 0.25), "bad")
    assert PERFECT.confidence > bad.confidence
    assert value("aurc", PERFECT, bad) == pytest.approx((0 + 0.6 / 2) / 2)
    assert value("excess_aurc", PERFECT, bad) == pytest.approx(0)
