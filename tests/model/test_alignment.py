"""An image of one grid is found at the same places of the patient on another."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from model.alignment import onto_grid, shared_extent
from model.volume import Volume


def ramp(affine: np.ndarray, shape: tuple[int, int, int]) -> Volume:
    """A volume whose value is x + 10·y + 100·z of each voxel's place in mm: interpolation must not change it."""
    indices = np.indices(shape).reshape(3, -1).T.astype(np.float64)
    places = indices @ affine[:3, :3].T + affine[:3, 3]
    return Volume((places @ [1.0, 10.0, 100.0]).reshape(shape).astype(np.float32), affine)


def oblique() -> np.ndarray:
    angle = np.deg2rad(12)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.array([[0.0, 0.0, 1.4], [0.0, 1.6, 0.0], [5.0, 0.0, 0.0]])
    affine[:3, 3] = (-50.0, -50.0, -60.0)
    return affine


def test_a_value_keeps_its_place_in_the_patient_whatever_the_grids() -> None:
    fixed_affine = np.array([[0, 0, 1.0, -30], [0, -1.0, 0, 20], [-4.0, 0, 0, 16], [0, 0, 0, 1]])
    moved = onto_grid(ramp(oblique(), (26, 70, 72)), ramp(fixed_affine, (8, 40, 60)))
    expected = ramp(fixed_affine, (8, 40, 60)).array_DHW
    inner = (slice(1, -1),) * 3
    assert np.abs(moved.array_DHW - expected)[inner].max() < 0.05


def test_the_same_grid_is_left_as_it_is(axial_volume: Callable[..., Volume]) -> None:
    volume = axial_volume()
    assert onto_grid(volume, axial_volume()) is volume


def test_outside_of_its_field_an_image_is_as_dark_as_it_gets(axial_volume: Callable[..., Volume]) -> None:
    moving, far = axial_volume(), axial_volume()
    far.affine_lps_mm[:3, 3] += 5000.0
    assert np.all(onto_grid(moving, far).array_DHW == moving.array_DHW.min())


@pytest.mark.parametrize(("shift_mm", "share"), [(0.0, 1.0), (18.0, 0.5), (500.0, 0.0)])
def test_it_is_told_how_many_slices_two_images_share(
    axial_volume: Callable[..., Volume], shift_mm: float, share: float
) -> None:
    fixed, moving = axial_volume((6, 40, 40)), axial_volume((6, 40, 40))
    moving.affine_lps_mm[2, 3] += shift_mm
    assert shared_extent(moving, fixed) == pytest.approx(share)
