"""The naive competitor is given its best chance."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from model.threshold_baseline import ThresholdSweep, scaled_in_body
from model.training.demo_card import input_spec
from model.volume import Volume


def test_a_clean_bright_lesion_is_found_by_its_threshold() -> None:
    sweep = ThresholdSweep()
    sweep.add(np.array([0.2, 0.3, 0.8, 0.9]), np.array([False, False, True, True]))
    best = sweep.best()
    assert (best.mean_dice, best.is_bright) == (1.0, True)
    assert 0.3 < best.level <= 0.8


def test_a_clean_dark_lesion_is_found_too() -> None:
    sweep = ThresholdSweep()
    sweep.add(np.array([0.2, 0.3, 0.8, 0.9]), np.array([True, True, False, False]))
    best = sweep.best()
    assert (best.mean_dice, best.is_bright) == (1.0, False)


def test_one_threshold_must_serve_all_cases() -> None:
    """Bright in one case, dark in the other: at best one of them is answered fully."""
    sweep = ThresholdSweep()
    sweep.add(np.array([0.1, 0.9]), np.array([False, True]))
    sweep.add(np.array([0.1, 0.9]), np.array([True, False]))
    assert sweep.best().mean_dice < 0.7


def test_lesion_outside_the_region_counts_as_missed() -> None:
    sweep = ThresholdSweep()
    sweep.add(np.array([0.2, 0.9]), np.array([False, True, True]))
    assert sweep.best().mean_dice == pytest.approx(2 / 3)


def test_no_lesion_is_answered_by_a_threshold_that_finds_nothing() -> None:
    sweep = ThresholdSweep()
    sweep.add(np.array([0.2, 0.5]), np.array([False, False]))
    assert sweep.best().mean_dice == 1.0


def test_without_a_case_there_is_no_threshold() -> None:
    with pytest.raises(ValueError, match="no case"):
        ThresholdSweep().best()


def test_the_air_is_left_out_and_no_lesion_voxel_is_lost(axial_volume: Callable[..., Volume]) -> None:
    volume = axial_volume((8, 130, 150))
    truth = volume.array_DHW > 160
    scaled, flat_truth = scaled_in_body(volume, truth, input_spec("pre-nact-t2wi"))
    assert 0.3 * volume.array_DHW.size < len(scaled) < 0.75 * volume.array_DHW.size
    assert np.count_nonzero(flat_truth) == np.count_nonzero(truth)
    assert scaled[flat_truth[: len(scaled)]].min() > scaled[~flat_truth[: len(scaled)]].mean()
