"""Lesions are matched one to one, and counted as the report counts them (models.md §11 test 11)."""

from __future__ import annotations

import numpy as np
import pytest

from model.metrics_lesions import (
    LesionMatches,
    LesionSize,
    iou_of,
    iou_table,
    lesion_sizes,
    match,
    match_lesions,
    shared_voxels,
)
from tests.model.hand_cases import ANSWER, NOTHING, TRUTH, affine, answered, grid


def test_the_iou_table_counts_each_pair() -> None:
    assert iou_table(ANSWER, TRUTH).tolist() == [[pytest.approx(2 / 6), 0.0]]


def test_a_lesion_that_overlaps_enough_is_found_and_the_other_is_missed() -> None:
    matches = match_lesions(ANSWER, TRUTH)
    assert matches == LesionMatches(((1, 1),), 1, 2, (pytest.approx(1 / 3),))
    assert (matches.missed, matches.false_positives) == (1, 0)
    assert matches.dices == (pytest.approx(2 * 2 / 8),)


def test_an_overlap_below_the_limit_is_a_miss_and_a_false_positive() -> None:
    matches = match_lesions(ANSWER, TRUTH, minimum_iou=0.5)
    assert (matches.pairs, matches.missed, matches.false_positives) == ((), 2, 1)


def test_an_overlap_of_exactly_the_limit_is_enough() -> None:
    assert match(np.array([[0.1]])).pairs == ((1, 1),)
    assert match(np.array([[0.5]]), 0.5).pairs == ((1, 1),)
    assert match(np.array([[np.nextafter(0.1, 0)]])).pairs == ()


def test_one_answer_over_two_lesions_finds_only_one_of_them() -> None:
    bridge = grid("00000", "00000", "11111", "00000", "00000")
    two = grid("00000", "00000", "11022", "00000", "00000")
    matches = match_lesions(bridge, two)
    assert (len(matches.pairs), matches.missed, matches.false_positives) == (1, 1, 0)


def test_two_answers_in_one_lesion_are_one_hit_and_one_false_positive() -> None:
    one = grid("00000", "00000", "11111", "00000", "00000")
    pieces = grid("00000", "00000", "11022", "00000", "00000")
    matches = match_lesions(pieces, one)
    assert (len(matches.pairs), matches.missed, matches.false_positives) == (1, 0, 1)


def test_two_matches_are_preferred_to_one_better_match() -> None:
    """Answer 1 fits truth 1 best (IoU 0.6), but answer 2 overlaps nothing else: two pairs beat one."""
    truth = grid("11112", "00000", "00000", "00000", "00000")
    answer = grid("21111", "00000", "00000", "00000", "00000")
    matches = match_lesions(answer, truth)
    assert sorted(matches.pairs) == [(1, 2), (2, 1)]


def test_no_lesion_anywhere_matches_nothing() -> None:
    assert match_lesions(NOTHING, NOTHING) == LesionMatches((), 0, 0)
    assert match_lesions(ANSWER, NOTHING).false_positives == 1


def test_masks_on_different_grids_are_refused() -> None:
    with pytest.raises(ValueError, match="grid"):
        match_lesions(ANSWER, TRUTH[:, :4])


def test_what_a_score_keeps_gives_the_same_table() -> None:
    rng = np.random.default_rng(4)
    answer, truth = (rng.integers(0, 4, (3, 6, 6)).astype(np.uint16) for _ in range(2))
    kept = shared_voxels(answer, truth), lesion_sizes(answer, affine()), lesion_sizes(truth, affine())
    assert np.array_equal(iou_of(*kept), iou_table(answer, truth))


def test_a_true_lesion_is_measured_with_the_ruler_of_the_report() -> None:
    report = answered((TRUTH > 0).astype(np.float32))
    sizes = lesion_sizes(report.mask.labels_DHW, affine())
    assert sizes == tuple(
        LesionSize(f.voxel_count, f.volume_ml, f.long_axis_mm, f.short_axis_mm) for f in report.findings
    )
    assert [size.volume_ml for size in sizes] == pytest.approx([4 * 0.04, 2 * 0.04])


def test_labels_with_a_gap_are_refused_in_words() -> None:
    with pytest.raises(ValueError, match=r"without a gap.*\[1, 3\]"):
        lesion_sizes(grid("10000", "00000", "00300", "00000", "00000"), affine())
