"""Distances in mm, by hand and by their properties (models.md §11 test 11)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.metrics_surface import SurfaceDistances, surface_distances, surface_points_mm
from tests.model.hand_cases import NOTHING, affine, grid

SQUARE = grid("00000", "01100", "01100", "00000", "00000") > 0
ASIDE = grid("00000", "00110", "00110", "00000", "00000") > 0
"""The same square, a column farther."""
EMPTY = NOTHING > 0

filled = st.lists(st.booleans(), min_size=36, max_size=36).map(lambda bits: np.array(bits).reshape(3, 4, 3))
not_empty = filled.filter(lambda mask: bool(mask.any()))


def test_distances_of_a_case_counted_by_hand() -> None:
    """Of four surface voxels each, two lie on the other mask and two a column of 2 mm beside it."""
    distances = surface_distances(ASIDE, SQUARE, affine())
    assert sorted(distances.answer_to_truth_mm) == [0, 0, 2, 2]
    assert sorted(distances.truth_to_answer_mm) == [0, 0, 2, 2]
    assert (distances.assd_mm, distances.hd95_mm) == (1.0, 2.0)
    assert [distances.nsd(tolerance) for tolerance in (1.9, 2.0, 3.0)] == [0.5, 1.0, 1.0]


def test_the_spacing_of_the_axis_along_which_masks_differ_decides() -> None:
    below = np.roll(SQUARE, 1, axis=1)
    assert surface_distances(below, SQUARE, affine()).assd_mm == 2.0  # rows are 4 mm apart


def test_the_larger_direction_is_the_hausdorff_distance() -> None:
    """Every voxel of the square is answered, and one more three rows away: only that direction is far."""
    stray = SQUARE | (grid(*["00000"] * 4, "01000") > 0)
    distances = surface_distances(stray, SQUARE, affine())
    assert distances.truth_to_answer_mm.max() == 0
    assert distances.hd95_mm == pytest.approx(np.percentile([0, 0, 0, 0, 8], 95))
    assert distances.assd_mm == pytest.approx(8 / 9)


def test_only_voxels_with_a_neighbour_outside_are_surface() -> None:
    cube = np.zeros((5, 5, 5), bool)
    cube[1:4, 1:4, 1:4] = True
    assert len(surface_points_mm(cube, affine())) == 27 - 1


def test_the_edge_of_the_volume_is_a_surface_too() -> None:
    assert len(surface_points_mm(np.ones((3, 3, 3), bool), affine())) == 27 - 1


def test_two_empty_masks_have_no_distance_at_all() -> None:
    distances = surface_distances(EMPTY, EMPTY, affine())
    assert (distances.assd_mm, distances.hd95_mm, distances.nsd(2.0)) == (None, None, None)


@pytest.mark.parametrize(("answer", "truth"), [(EMPTY, SQUARE), (SQUARE, EMPTY)])
def test_where_one_mask_is_empty_no_surface_agrees_and_no_distance_exists(
    answer: np.ndarray, truth: np.ndarray
) -> None:
    distances = surface_distances(answer, truth, affine())
    assert (distances.assd_mm, distances.hd95_mm, distances.nsd(3.0)) == (None, None, 0.0)


def test_a_sheared_grid_is_measured_where_its_voxels_lie() -> None:
    """A tilted gantry: each slice 4 mm up and 3 mm aside, so one slice on is 5 mm away."""
    tilted = np.diag([0.0, 0.0, 0.0, 1.0])
    tilted[:3, :3] = [[3, 0, 1], [0, 1, 0], [4, 0, 0]]
    one, next_slice = np.zeros((2, 3, 3), bool), np.zeros((2, 3, 3), bool)
    one[0, 1, 0] = next_slice[1, 1, 0] = True
    assert surface_distances(one, next_slice, tilted).assd_mm == pytest.approx(5.0)


def test_a_tolerance_is_not_missed_by_rounding() -> None:
    just_beyond = np.array([np.nextafter(2.0, 3.0)])
    assert SurfaceDistances(just_beyond, just_beyond).nsd(2.0) == 1.0
    assert SurfaceDistances(just_beyond + 0.01, just_beyond + 0.01).nsd(2.0) == 0.0


def test_masks_on_different_grids_are_refused() -> None:
    with pytest.raises(ValueError, match="grid"):
        surface_distances(SQUARE, SQUARE[:, :4], affine())


@given(not_empty, not_empty)
def test_distances_are_symmetric(answer: np.ndarray, truth: np.ndarray) -> None:
    one, other = surface_distances(answer, truth, affine()), surface_distances(truth, answer, affine())
    assert one.assd_mm == pytest.approx(other.assd_mm)
    assert (one.hd95_mm, one.nsd(4.0)) == (other.hd95_mm, other.nsd(4.0))


@given(not_empty, not_empty, st.floats(0.1, 20))
def test_distances_grow_with_the_spacing(answer: np.ndarray, truth: np.ndarray, times: float) -> None:
    one, scaled = (surface_distances(answer, truth, affine() * factor) for factor in (1.0, times))
    assert one.assd_mm is not None
    assert one.hd95_mm is not None
    assert scaled.assd_mm == pytest.approx(one.assd_mm * times)
    assert scaled.hd95_mm == pytest.approx(one.hd95_mm * times)
    assert scaled.nsd(3 * times) == one.nsd(3.0)


@given(not_empty)
def test_a_mask_agrees_with_itself(mask: np.ndarray) -> None:
    distances = surface_distances(mask, mask, affine())
    assert (distances.assd_mm, distances.hd95_mm, distances.nsd(0.0)) == (0, 0, 1)


@given(not_empty, not_empty)
def test_nothing_around_the_masks_changes_their_distance(answer: np.ndarray, truth: np.ndarray) -> None:
    wide = [np.pad(mask, ((2, 9), (4, 1), (0, 7))) for mask in (answer, truth)]
    one, other = surface_distances(answer, truth, affine()), surface_distances(*wide, affine())
    assert (one.assd_mm, one.hd95_mm) == pytest.approx((other.assd_mm, other.hd95_mm))
