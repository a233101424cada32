"""Measures against cases small enough to count by hand (models.md §11 test 11)."""

from __future__ import annotations

import numpy as np
import pytest

from model.metrics import (
    LesionMatches,
    Overlap,
    bootstrap_mean,
    bootstrap_ratio,
    iou_table,
    match_lesions,
)


def grid(*rows: str) -> np.ndarray:
    """One 5×5 slice, a digit a voxel."""
    return np.array([[[int(c) for c in row] for row in rows]], np.uint16)


TRUTH = grid("00000", "01100", "01100", "00000", "00022")
ANSWER = grid("00000", "00110", "00110", "00000", "00000")
NOTHING = grid(*["00000"] * 5)


def test_dice_and_iou_of_a_case_counted_by_hand() -> None:
    """Truth 6 voxels, answer 4, both 2: Dice 4/10, IoU 2/8."""
    overlap = Overlap.of(ANSWER > 0, TRUTH > 0)
    assert (overlap.true_positive, overlap.false_positive, overlap.false_negative) == (2, 2, 4)
    assert overlap.dice == pytest.approx(0.4)
    assert overlap.iou == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("answer", "truth", "dice"), [(NOTHING, NOTHING, 1.0), (ANSWER, NOTHING, 0.0), (NOTHING, TRUTH, 0.0)]
)
def test_empty_sets_are_right_only_when_both_are_empty(answer: np.ndarray, truth: np.ndarray, dice: float) -> None:
    assert Overlap.of(answer > 0, truth > 0).dice == dice


def test_masks_on_different_grids_are_refused() -> None:
    with pytest.raises(ValueError, match="grid"):
        Overlap.of(ANSWER > 0, TRUTH[:, :4] > 0)
    with pytest.raises(ValueError, match="grid"):
        match_lesions(ANSWER, TRUTH[:, :4])


def test_the_iou_table_counts_each_pair() -> None:
    assert iou_table(ANSWER, TRUTH).tolist() == [[pytest.approx(2 / 6), 0.0]]


def test_a_lesion_that_overlaps_enough_is_found_and_the_other_is_missed() -> None:
    matches = match_lesions(ANSWER, TRUTH)
    assert matches == LesionMatches(((1, 1),), 1, 2)
    assert (matches.missed, matches.false_positives) == (1, 0)


def test_an_overlap_below_the_limit_is_a_miss_and_a_false_positive() -> None:
    matches = match_lesions(ANSWER, TRUTH, minimum_iou=0.5)
    assert (matches.pairs, matches.missed, matches.false_positives) == ((), 2, 1)


def test_one_answer_over_two_lesions_finds_only_one_of_them() -> None:
    bridge = grid("00000", "00000", "11111", "00000", "00000")
    two = grid("00000", "00000", "11022", "00000", "00000")
    matches = match_lesions(bridge, two)
    assert (len(matches.pairs), matches.missed, matches.false_positives) == (1, 1, 0)


def test_two_matches_are_preferred_to_one_better_match() -> None:
    """Answer 1 fits truth 1 best (IoU 0.6), but answer 2 overlaps nothing else: two pairs beat one."""
    truth = grid("11112", "00000", "00000", "00000", "00000")
    answer = grid("21111", "00000", "00000", "00000", "00000")
    matches = match_lesions(answer, truth)
    assert sorted(matches.pairs) == [(1, 2), (2, 1)]


def test_no_lesion_anywhere_matches_nothing() -> None:
    assert match_lesions(NOTHING, NOTHING) == LesionMatches((), 0, 0)
    assert match_lesions(ANSWER, NOTHING).false_positives == 1


def test_the_interval_of_equal_cases_has_no_width() -> None:
    interval = bootstrap_mean([0.7] * 20)
    assert (interval.value, interval.low, interval.high) == pytest.approx((0.7, 0.7, 0.7))


def test_the_interval_of_a_mean_is_that_of_theory() -> None:
    """For many cases the bootstrap agrees with mean ± 1.96·sd/√n."""
    values = np.random.default_rng(1).normal(0.6, 0.2, 400)
    interval = bootstrap_mean(list(values))
    half = 1.96 * values.std() / 20
    assert interval.value == pytest.approx(values.mean())
    assert (interval.low, interval.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.002)


def test_a_ratio_is_resampled_by_case_and_not_by_lesion() -> None:
    """One case holds nine missed lesions: its coming and going must widen the interval far beyond ±√(pq/n)."""
    found, lesions = [1] * 10 + [0], [1] * 10 + [9]
    interval = bootstrap_ratio(found, lesions)
    assert interval.value == pytest.approx(10 / 19)
    assert interval.high == 1.0
    assert interval.low < 0.35


def test_the_same_cases_get_the_same_interval_again() -> None:
    values = [0.1, 0.5, 0.9, 0.3]
    assert bootstrap_mean(values) == bootstrap_mean(values)


def test_what_has_no_case_is_undefined_and_not_zero() -> None:
    assert not bootstrap_mean([]).is_defined
    assert not bootstrap_ratio([0, 0], [0, 0]).is_defined
    assert str(bootstrap_mean([])) == "–"
