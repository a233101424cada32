"""The patient is found in air that is black, and in air whose noise is as bright as muscle."""

from __future__ import annotations

import numpy as np
import pytest

from model.body import body_of
from model.phantom import make_phantom
from model.volume import Float


def disc_in_air(signal: float, noise: float, shape: tuple[int, int, int] = (6, 200, 230)) -> tuple[Float, Float]:
    """The magnitude image (Rician noise) of a disc with a tenfold bright middle and a dark hole; the disc itself."""
    rng = np.random.default_rng(5)
    _, h, w = np.indices(shape)
    disc = (np.hypot(h - 90, w - 120) < 75).astype(np.float32)
    truth = signal * disc
    truth[np.hypot(h - 90, w - 120) < 20] = 10 * signal
    truth[np.hypot(h - 60, w - 90) < 8] = 0
    real, imaginary = rng.normal(0, noise, (2, *shape))
    return np.hypot(truth + real, imaginary).astype(np.float32), disc


@pytest.mark.parametrize("noise", [0.0, 1.0, 20.0, 40.0])
def test_the_patient_is_found_whatever_the_noise_of_the_air(noise: float) -> None:
    image, disc = disc_in_air(100.0, noise)
    inside = body_of(image, is_ct=False).on_grid(image.shape)
    both = np.count_nonzero(inside & (disc > 0))
    assert both / np.count_nonzero(disc) > 0.95
    assert both / np.count_nonzero(inside) > 0.95


@pytest.mark.parametrize("seed", [90_001, 90_003])
def test_air_at_b_1000_is_no_patient(seed: int) -> None:
    image = make_phantom("pre-nact-dwi", seed, b_values=(1000,)).image.array_DHW
    inside = body_of(image, is_ct=False).inside_DHW
    assert not inside[:, :5, :5].any()
    assert not inside[:, :5, -5:].any()
    assert 0.3 < inside.mean() < 0.6


def test_dark_parts_within_belong_to_the_patient() -> None:
    image, _ = disc_in_air(100.0, 1.0)
    assert body_of(image, is_ct=False).on_grid(image.shape)[:, 60, 90].all()


def test_rows_and_columns_left_over_are_as_those_beside_them() -> None:
    image = np.full((2, 100, 197), 40.0, np.float32)
    image[:, :30] = -1000.0
    fine = body_of(image, is_ct=True).on_grid(image.shape)
    assert fine[:, 30:].all()
    assert not fine[:, :30].any()


def test_where_nobody_stands_out_all_is_patient() -> None:
    assert body_of(np.full((2, 32, 32), -1000.0, np.float32), is_ct=True).inside_DHW.all()
