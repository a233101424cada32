"""A phase that breathing moved is brought back, and one that lies right stays where it is."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from model.alignment import overlap
from model.registration import register
from model.volume import Volume

SHAPE, STEP_MM = (20, 48, 48), 6.0


def phase(shift_mm: tuple[float, float, float], *, is_arterial: bool) -> tuple[Volume, Volume]:
    """Liver, spleen and spine in one phase's brightness, moved in the body by `shift_mm`; and the liver's mask."""
    steps = [(np.arange(side) - (side - 1) / 2) * STEP_MM for side in SHAPE]
    z, y, x = (a - s for a, s in zip(np.meshgrid(*steps, indexing="ij"), shift_mm, strict=True))
    liver = (z / 42) ** 2 + ((y + 10) / 55) ** 2 + ((x + 45) / 60) ** 2 < 1
    array = np.where((y / 105) ** 2 + (x / 130) ** 2 < 1, 30.0, -200.0)
    array[liver] = 70.0 if is_arterial else 110.0
    array[(z / 30) ** 2 + (y / 25) ** 2 + ((x - 80) / 25) ** 2 < 1] = 180.0 if is_arterial else 120.0
    array[((y - 70) / 20) ** 2 + (x / 20) ** 2 < 1] = 250.0
    noise = np.random.default_rng(is_arterial).normal(0, 4, SHAPE)
    affine = np.diag([STEP_MM, STEP_MM, STEP_MM, 1.0])[[2, 1, 0, 3]]
    values = (ndimage.gaussian_filter(array, 0.6) + noise).astype(np.float32)
    return Volume(values, affine), Volume(liver.astype(np.float32), affine)


FIXED, FIXED_LIVER = phase((0.0, 0.0, 0.0), is_arterial=False)


def test_a_shifted_phase_comes_back_within_a_voxel() -> None:
    shift_mm = (9.0, 6.0, -4.0)
    moving, liver = phase(shift_mm, is_arterial=True)
    found = register(moving, FIXED)
    middle_xyz = [(side - 1) / 2 * STEP_MM for side in SHAPE[::-1]]
    led_to = np.subtract(found.to_moving.TransformPoint(middle_xyz), middle_xyz)[::-1]
    assert np.abs(led_to - shift_mm).max() < STEP_MM / 2
    before = overlap(FIXED_LIVER.array_DHW > 0, liver.array_DHW > 0)
    after = overlap(FIXED_LIVER.array_DHW > 0, found.moved(liver, is_mask=True).array_DHW > 0)
    assert after > max(0.93, before + 0.04)


def test_an_image_that_lies_right_stays_where_it_is() -> None:
    found = register(FIXED, FIXED)
    assert found.gain == 0.0
    assert np.array_equal(found.moved(FIXED).array_DHW, FIXED.array_DHW)


def test_the_same_images_give_the_same_transform_bit_for_bit() -> None:
    moving, _ = phase((6.0, 0.0, 3.0), is_arterial=True)
    first, second = (register(moving, FIXED).moved(moving).array_DHW for _ in range(2))
    assert np.array_equal(first, second)


def test_images_on_two_grids_are_refused() -> None:
    other = Volume(FIXED.array_DHW[1:], FIXED.affine_lps_mm)
    with pytest.raises(ValueError, match="one grid"):
        register(other, FIXED)
