"""Voxel measures against cases small enough to count by hand (models.md §11 test 11)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.metrics import Overlap, SliceCounts
from tests.model.hand_cases import ANSWER, NOTHING, TRUTH

masks = st.lists(st.booleans(), min_size=27, max_size=27).map(lambda bits: np.array(bits).reshape(3, 3, 3))


def test_the_measures_of_a_case_counted_by_hand() -> None:
    """Truth 6 voxels, answer 4, both 2: Dice 4/10, IoU 2/8, recall 2/6, precision 2/4."""
    overlap = Overlap.of(ANSWER > 0, TRUTH > 0)
    assert (overlap.true_positive, overlap.false_positive, overlap.false_negative) == (2, 2, 4)
    assert (overlap.answered, overlap.true) == (4, 6)
    assert overlap.dice == pytest.approx(0.4)
    assert overlap.iou == pytest.approx(0.25)
    assert overlap.recall == pytest.approx(1 / 3)
    assert overlap.precision == pytest.approx(0.5)
    assert overlap.volumetric_overlap_error == pytest.approx(0.75)
    assert overlap.relative_volume_difference == pytest.approx(-1 / 3)
    assert overlap.volume_difference_ml(0.04) == pytest.approx(-0.08)


@pytest.mark.parametrize(
    ("answer", "truth", "share"), [(NOTHING, NOTHING, 1.0), (ANSWER, NOTHING, 0.0), (NOTHING, TRUTH, 0.0)]
)
def test_empty_sets_are_right_only_when_both_are_empty(answer: np.ndarray, truth: np.ndarray, share: float) -> None:
    overlap = Overlap.of(answer > 0, truth > 0)
    assert (overlap.dice, overlap.iou, overlap.recall, overlap.precision) == (share,) * 4
    assert overlap.volumetric_overlap_error == 1 - share


@pytest.mark.parametrize(
    ("answer", "truth", "rvd"), [(NOTHING, NOTHING, 0.0), (ANSWER, NOTHING, None), (NOTHING, TRUTH, -1.0)]
)
def test_a_relative_volume_needs_a_volume_to_relate_to(
    answer: np.ndarray, truth: np.ndarray, rvd: float | None
) -> None:
    assert Overlap.of(answer > 0, truth > 0).relative_volume_difference == rvd


def test_masks_on_different_grids_are_refused() -> None:
    with pytest.raises(ValueError, match="grid"):
        Overlap.of(ANSWER > 0, TRUTH[:, :4] > 0)


@given(masks, masks)
def test_dice_is_the_harmonic_mean_of_recall_and_precision(answer: np.ndarray, truth: np.ndarray) -> None:
    overlap = Overlap.of(answer, truth)
    if overlap.recall + overlap.precision:
        harmonic = 2 * overlap.recall * overlap.precision / (overlap.recall + overlap.precision)
        assert overlap.dice == pytest.approx(harmonic)
    assert overlap.dice == pytest.approx(2 * overlap.iou / (1 + overlap.iou))


@given(masks, masks)
def test_to_swap_answer_and_truth_swaps_recall_and_precision(answer: np.ndarray, truth: np.ndarray) -> None:
    one, other = Overlap.of(answer, truth), Overlap.of(truth, answer)
    assert (one.dice, one.iou, one.recall) == (other.dice, other.iou, other.precision)


@given(masks, masks)
def test_the_slices_of_a_case_sum_to_the_case(answer: np.ndarray, truth: np.ndarray) -> None:
    counts = SliceCounts.of(answer, truth, np.zeros(answer.shape, np.float16))
    assert counts.overlap() == Overlap.of(answer, truth)


def four_slices() -> SliceCounts:
    """Slice 0: liver, lesion half found. 1: liver, a false positive. 2: a false positive above the liver. 3: lesion
    at the rim, where the mask of the liver ends."""
    truth = np.concatenate([TRUTH, NOTHING, NOTHING, TRUTH]) > 0
    answer = np.concatenate([ANSWER, ANSWER, ANSWER, NOTHING]) > 0
    liver = np.zeros(truth.shape, bool)
    liver[:2] = True
    return SliceCounts.of(answer, truth, np.where(answer, 0.75, 0.25).astype(np.float16), liver)


def test_slices_with_tumour_forgive_what_was_invented_elsewhere() -> None:
    counts = four_slices()
    assert counts.overlap("tumour_slices") == Overlap(2, 2, 10)
    assert counts.overlap("all_liver_slices") == Overlap(2, 6, 10)
    assert counts.overlap("whole_volume") == Overlap(2, 10, 10)


def test_a_slice_with_lesion_is_one_with_liver_wherever_its_mask_ends() -> None:
    assert four_slices().chosen("all_liver_slices").tolist() == [True, True, False, True]


def test_without_a_mask_of_the_liver_every_slice_counts_as_one_with_liver() -> None:
    counts = SliceCounts.of(ANSWER > 0, NOTHING > 0, NOTHING.astype(np.float16))
    assert counts.chosen("all_liver_slices").all()


def test_a_slice_table_holds_counts_and_sums_of_probability() -> None:
    """Slice 0 by hand: 4 answered voxels of 0.75 and 21 of 0.25; of the 6 true ones 2 are answered."""
    row = four_slices().table("tumour_slices")[0]
    assert row.tolist() == [2, 2, 4, 2 * 0.75 + 4 * 0.25, 4 * 0.75 + 21 * 0.25]


def test_a_volume_without_lesions_has_no_slice_with_tumour() -> None:
    counts = SliceCounts.of(ANSWER > 0, NOTHING > 0, NOTHING.astype(np.float16))
    assert counts.table("tumour_slices").shape == (0, 5)
    assert counts.overlap("tumour_slices") == Overlap(0, 0, 0)
