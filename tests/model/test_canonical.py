"""Whichever way a series is stored, the network sees the same picture (models.md §1.8)."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from model.canonical import VolumeProblem, turn_to_axial
from model.volume import Volume

WAYS = list(itertools.product([False, True], [(), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]))


def stored_otherwise(volume: Volume, swap: bool, flips: tuple[int, ...]) -> Volume:
    """The same patient, its axes swapped and flipped, the affine telling so."""
    array, affine = volume.array_DHW, volume.affine_lps_mm.copy()
    if swap:
        array, affine = array.transpose(0, 2, 1), affine[:, [0, 2, 1, 3]]
    for axis in flips:
        affine[:3, 3] += affine[:3, axis] * (array.shape[axis] - 1)
        affine[:3, axis] *= -1
    return Volume(np.flip(array, flips), affine)


def rotated(volume: Volume, degrees: float, axis: int) -> Volume:
    turn = np.eye(4)
    a, b = [i for i in range(3) if i != axis]
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn[[a, a, b, b], [a, b, a, b]] = (c, -s, s, c)
    return Volume(volume.array_DHW, turn @ volume.affine_lps_mm)


@pytest.mark.parametrize(("swap", "flips"), WAYS)
def test_every_storage_order_is_turned_to_the_same_picture(
    axial_volume: Callable[..., Volume], swap: bool, flips: tuple[int, ...]
) -> None:
    volume = axial_volume()
    other = stored_otherwise(volume, swap, flips)
    turn = turn_to_axial(other.affine_lps_mm)
    assert np.array_equal(turn.apply(other.array_DHW), volume.array_DHW)
    assert turn.spacing_mm(other.affine_lps_mm) == pytest.approx(volume.spacing_mm)


@pytest.mark.parametrize(("swap", "flips"), WAYS)
def test_turning_back_restores_the_stored_order(
    axial_volume: Callable[..., Volume], swap: bool, flips: tuple[int, ...]
) -> None:
    other = stored_otherwise(axial_volume(), swap, flips)
    turn = turn_to_axial(other.affine_lps_mm)
    assert np.array_equal(turn.undo(turn.apply(other.array_DHW)), other.array_DHW)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("degrees", [-30, 25, 40])
def test_an_oblique_but_mostly_axial_plane_keeps_its_order(
    axial_volume: Callable[..., Volume], axis: int, degrees: float
) -> None:
    turn = turn_to_axial(rotated(axial_volume(), degrees, axis).affine_lps_mm)
    assert (turn.order, turn.flips) == ((0, 1, 2), ())


def test_the_first_row_is_anterior_and_the_first_column_is_the_patients_right() -> None:
    affine = np.diag([-1.0, -1.0, -1.0, 1.0])[[2, 1, 0, 3]]
    assert turn_to_axial(affine).flips == (0, 1, 2)


@pytest.mark.parametrize(("rows_along", "plane"), [([1, 2, 0], "coronal"), ([0, 2, 1], "sagittal")])
def test_other_planes_are_refused_by_name(rows_along: list[int], plane: str) -> None:
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[:, rows_along]
    with pytest.raises(VolumeProblem, match=plane):
        turn_to_axial(affine)
