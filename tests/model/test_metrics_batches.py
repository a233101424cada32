"""The published way of scoring, reproduced: pooled over 16 slices, its Dice one of probabilities."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.metrics import Overlap, SliceCounts
from model.metrics_batches import SMOOTH, batch_scores, batched, soft_dice, soft_dice_batch
from tests.model.hand_cases import ANSWER, NOTHING, TRUTH


def table(answer: np.ndarray, truth: np.ndarray, probability: np.ndarray) -> np.ndarray:
    return SliceCounts.of(answer > 0, truth > 0, probability.astype(np.float32)).table("whole_volume")


def test_soft_dice_of_a_batch_is_not_the_dice_of_its_mask() -> None:
    """A perfect mask at probability 0.75: Dice 1, but soft Dice 2·4.5 / (4.5 + 6)."""
    probability = np.where(TRUTH > 0, 0.75, 0.0)
    assert Overlap.of(probability >= 0.5, TRUTH > 0).dice == 1.0
    assert soft_dice_batch([table(TRUTH, TRUTH, probability)]) == pytest.approx(9 / 10.5, abs=1e-6)


def test_the_scores_of_one_batch_counted_by_hand() -> None:
    """TP 2, FP 2, FN 4 with probability 0.75 where answered and 0.25 elsewhere: ΣPY 2.5, ΣP 8.25."""
    one = table(ANSWER, TRUTH, np.where(ANSWER > 0, 0.75, 0.25))
    scores = batch_scores([one], np.ones((1, 1)))
    assert scores.soft_dice[0] == pytest.approx((2 * 2.5 + SMOOTH) / (8.25 + 6 + SMOOTH))
    shares = (scores.iou[0], scores.recall[0], scores.precision[0], scores.f1[0])
    assert shares == pytest.approx((2 / 8, 2 / 6, 2 / 4, 2 * (1 / 3) * (1 / 2) / (1 / 3 + 1 / 2)), abs=2e-5)


def test_nothing_true_and_nothing_thought_likely_is_right() -> None:
    zero = np.zeros(1)
    assert soft_dice(zero, zero, zero)[0] == 1.0
    assert soft_dice(zero, np.ones(1), zero)[0] < 2e-5
    assert soft_dice(zero, zero, np.ones(1))[0] < 2e-5


def test_seventeen_slices_are_two_batches_and_the_second_weighs_one_slice() -> None:
    """16 slices answered by half and a small one by half of its half: pooled over all it would be 33 of 66.5."""
    half, quarter = [2.0, 0, 2.0, 2.0, 2.0], [1.0, 0, 3.0, 1.0, 1.0]
    tables = [np.array([half] * 16), np.array([quarter])]
    assert batch_scores(tables, np.ones((1, 2))).recall[0] == pytest.approx((16 * 0.5 + 0.25) / 17, abs=1e-5)
    assert soft_dice_batch(tables) == pytest.approx((16 * 4 / 6 + 2 / 5) / 17, abs=1e-5)


def test_a_large_tumour_hides_the_miss_of_another_patient_in_its_batch() -> None:
    large, missed = np.array([[1000.0, 0, 0, 1000, 1000]]), np.array([[0, 0, 10.0, 0, 0]])
    pooled = batch_scores([large, missed], np.ones((1, 2))).recall[0]
    assert pooled == pytest.approx(1000 / 1010, abs=1e-6)
    assert np.mean([1.0, 0.0]) == 0.5  # what the mean over cases would say


def test_a_batch_without_any_answer_is_perfectly_precise_as_coded() -> None:
    scores = batch_scores([table(NOTHING, TRUTH, NOTHING * 1.0)], np.ones((1, 1)))
    assert (scores.recall[0], scores.precision[0], scores.f1[0]) == (0, 1, 0)
    assert scores.iou[0] < 1e-5


def test_without_a_slice_there_is_no_score() -> None:
    assert np.isnan(soft_dice_batch([]))
    assert np.isnan(soft_dice_batch([np.empty((0, 5))]))


def test_a_case_that_was_drawn_twice_does_not_fill_a_batch_of_its_own() -> None:
    """One slice each, batches of two: A, B, A and not A, A, B."""
    a, b = np.array([[4.0, 0, 0, 4, 4]]), np.array([[0, 0, 4.0, 0, 0]])
    scores = batch_scores([a, b], np.array([[2.0, 1.0]]), batch=2)
    assert scores.recall[0] == pytest.approx((2 * 4 / 8 + 4 / 4) / 3, abs=1e-5)


def slowly(tables: list[np.ndarray], weights: list[int], batch: int) -> float:
    """The same soft Dice, slice by slice."""
    order = [n for level in range(max(weights, default=0)) for n, weight in enumerate(weights) if weight > level]
    rows = [row for n in order for row in tables[n]]
    parts = [np.sum(rows[first : first + batch], axis=0) for first in range(0, len(rows), batch)]
    dices = [(2 * p[3] + SMOOTH) / (p[4] + p[0] + p[2] + SMOOTH) for p in parts]
    lengths = [len(rows[first : first + batch]) for first in range(0, len(rows), batch)]
    return float(np.average(dices, weights=lengths)) if dices else np.nan


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 4)), min_size=1, max_size=6), st.integers(1, 7))
def test_sums_that_are_looked_up_are_those_added_one_by_one(cases: list[tuple[int, int]], batch: int) -> None:
    rng = np.random.default_rng(len(cases) + batch)
    tables = [rng.integers(0, 50, (slices, 5)).astype(float) for slices, _ in cases]
    weights = [weight for _, weight in cases]
    # a second draw beside it, of other length
    weights_RN = np.array([weights, [1] * len(cases)], float)
    found = batch_scores(tables, weights_RN, batch).soft_dice
    expected = [slowly(tables, weights, batch), slowly(tables, [1] * len(cases), batch)]
    assert found == pytest.approx(expected, nan_ok=True)


def test_trainings_never_share_a_batch() -> None:
    a, b = np.array([[4.0, 0, 0, 4, 4]]), np.array([[0, 0, 4.0, 0, 0]])
    together = batched([a, b], [0, 0], "recall")
    apart = batched([a, b], [0, 1], "recall")
    assert (together.value, apart.value) == pytest.approx((4 / 8, (1 + 0) / 2), abs=1e-5)
    apart_twice = batched([np.tile(a, (3, 1)), b], [0, 1], "recall")
    assert apart_twice.value == pytest.approx(3 / 4, abs=1e-5)
