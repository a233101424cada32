"""Bent grids: a patient who has moved is seen by the same voxels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from model.phantom import Geometry
from model.phantom_shapes import Grid, WaveField, warped_coordinates
from model.volume import Float

GEOMETRY = Geometry(40, 50, 9, (3.0, 2.5), 6.0)


@dataclass(frozen=True)
class Wave:
    """A displacement along z that changes along x."""

    reach_mm: float = 6.0
    finest_mm: float = 90.0

    def on(self, grid: Grid) -> Float:
        x = np.broadcast_arrays(*grid.coordinates())[0]
        zero = np.zeros_like(x)
        return np.stack([zero, zero, (6 * np.cos(2 * np.pi * x / 90)).astype(np.float32)])


def grid_of(geometry: Geometry, bend: Wave | None = None) -> Grid:
    return Grid(geometry.affine_mm, geometry.shape, bend)


def points_of(grid: Grid) -> np.ndarray:
    return np.stack(np.broadcast_arrays(*grid.coordinates()), axis=-1).astype(float).reshape(-1, 3)


@pytest.mark.parametrize("tilt_deg", [(0.0, 0.0, 0.0), (14.0, -9.0, 6.0)])
def test_a_bent_grid_looks_where_its_bend_says(tilt_deg: tuple[float, float, float]) -> None:
    straight = grid_of(replace(GEOMETRY, tilt_deg=tilt_deg))
    bent = replace(straight, bend=Wave())
    moved = points_of(bent) - points_of(straight)
    np.testing.assert_allclose(moved[:, :2], 0, atol=1e-4)
    np.testing.assert_allclose(moved[:, 2], 6 * np.cos(2 * np.pi * points_of(straight)[:, 0] / 90), atol=0.08)


@pytest.mark.parametrize("wavelengths_mm", [(80.0, 200.0), (9.0, 20.0)])
def test_a_field_on_a_bent_grid_is_that_of_the_places_it_looks_at(wavelengths_mm: tuple[float, float]) -> None:
    field = WaveField.sample(np.random.default_rng(1), wavelengths_mm, rms=2.0)
    bent = grid_of(GEOMETRY, Wave())
    np.testing.assert_allclose(field.on(bent).ravel(), field.at(points_of(bent)), atol=0.12)


def test_a_part_of_a_bent_grid_looks_where_the_whole_does() -> None:
    bent = grid_of(GEOMETRY, Wave())
    box = (slice(2, 7), slice(10, 30), slice(5, 45))
    whole = np.stack(np.broadcast_arrays(*bent.coordinates()))[(slice(None), *box)]
    part = np.stack(np.broadcast_arrays(*bent.cut(box).coordinates()))
    np.testing.assert_allclose(part, whole, atol=0.15)


def test_a_box_around_a_ball_reaches_as_far_as_the_bend_moves_it() -> None:
    straight, bent = grid_of(GEOMETRY), grid_of(GEOMETRY, Wave())
    plain, wide = straight.box_around((0.0, 0.0, 0.0), 5.0), bent.box_around((0.0, 0.0, 0.0), 5.0)
    assert plain is not None
    assert wide is not None
    assert wide[0].stop - wide[0].start >= plain[0].stop - plain[0].start + 2


def test_a_cuboid_is_held_by_its_box_on_a_turned_grid() -> None:
    grid = grid_of(replace(GEOMETRY, tilt_deg=(20.0, 10.0, -15.0)))
    box = grid.box_of((-20.0, -10.0, -8.0), (15.0, 12.0, 10.0), 2.0)
    assert box is not None
    x, y, z = points_of(grid).T
    inside = (abs(x + 2.5) < 17.5) & (abs(y - 1) < 11) & (abs(z - 1) < 9)
    found = np.zeros(grid.shape, bool)
    found[box] = True
    assert found.ravel()[inside].all()
    assert grid.box_of((500.0, 0.0, 0.0), (510.0, 5.0, 5.0), 1.0) is None


def test_warped_coordinates_of_a_bent_grid_bend_first_and_warp_second() -> None:
    rng = np.random.default_rng(3)
    warp = tuple(WaveField.sample(rng, (90.0, 200.0), rms=3.0) for _ in range(3))
    bent = grid_of(GEOMETRY, Wave())
    found = np.stack([axis.ravel() for axis in warped_coordinates(bent, warp)], axis=1)
    at = points_of(bent)
    np.testing.assert_allclose(found, at + np.stack([wave.at(at) for wave in warp], axis=1), atol=0.15)
