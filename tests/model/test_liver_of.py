"""The liver is one organ without holes, widened in millimetres, or the volume is refused."""

from __future__ import annotations

import numpy as np
import pytest

from model.canonical import VolumeProblem
from model.liver_mask import dilated, liver_of
from model.volume import Volume

SPACING_MM = (5.0, 2.0, 2.0)


def volume(shape: tuple[int, int, int]) -> Volume:
    affine = np.zeros((4, 4))
    affine[[2, 1, 0], [0, 1, 2]] = SPACING_MM
    affine[3, 3] = 1.0
    return Volume(np.zeros(shape, np.float32), affine)


def ball(shape: tuple[int, int, int], middle: tuple[float, float, float], radius_mm: float) -> np.ndarray:
    grid = np.indices(shape).astype(float)
    away = [(axis - at) * step for axis, at, step in zip(grid, middle, SPACING_MM, strict=True)]
    return np.sqrt(sum(a**2 for a in away)) <= radius_mm


def test_a_small_piece_elsewhere_is_no_liver_and_a_hole_is_liver() -> None:
    shape = (20, 60, 60)
    liver, piece, hole = ball(shape, (10, 30, 25), 40), ball(shape, (10, 5, 55), 6), ball(shape, (10, 30, 25), 6)
    probability = ((liver | piece) & ~hole).astype(np.float16)
    found = liver_of(probability, volume(shape), 0.5, 0.0)
    assert np.array_equal(found, liver)


def test_a_volume_without_a_liver_is_refused_with_what_was_found() -> None:
    shape = (20, 60, 60)
    with pytest.raises(VolumeProblem, match=r"no liver was found \(4 ml"):
        liver_of(ball(shape, (10, 30, 25), 10).astype(np.float16), volume(shape), 0.5, 5.0)


def test_widening_is_by_millimetres_on_every_axis() -> None:
    mask = np.zeros((11, 31, 31), bool)
    mask[5, 15, 15] = True
    wide = dilated(mask, 5.0, SPACING_MM)
    assert [int(np.ptp(axis)) for axis in np.nonzero(wide)] == [2, 4, 4]
    assert np.array_equal(dilated(mask, 0.0, SPACING_MM), mask)
    assert not dilated(np.zeros_like(mask), 5.0, SPACING_MM).any()
