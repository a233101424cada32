"""The naive competitor: one intensity threshold for all cases of a condition.

It is chosen on the very cases it is judged by, bright or dark, so it is better than any threshold in use could be.
If it comes near the network, the phantoms are too easy and the network's score says little.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.body import body_of
from model.canonical import turn_to_axial
from model.card import InputSpec
from model.preprocess import scaling_range
from model.volume import Float64, Volume

LEVELS = 128


@dataclass(frozen=True)
class BestThreshold:
    """The best threshold in the network's own intensity scale [0, 1], and its mean Dice over all cases."""

    mean_dice: float
    level: float
    is_bright: bool
    """True: lesion is what is at or above `level`; False: what is below."""


class ThresholdSweep:
    """Collects one row per case: Dice of every threshold, bright and dark, inside a region."""

    def __init__(self) -> None:
        self._dice: list[Float64] = []

    def add(self, scaled: NDArray[np.floating], truth: NDArray[np.bool_]) -> None:
        """`scaled`: intensities in [0, 1] of the region's voxels; `truth`: which of all voxels are lesion.

        Both are flat; truth outside the region counts as missed and is given by `truth` being longer than `scaled`.
        """
        bins = np.minimum((scaled * LEVELS).astype(np.int64), LEVELS - 1)
        inside = truth[: len(scaled)]
        lesion = np.bincount(bins[inside], minlength=LEVELS)
        every = np.bincount(bins, minlength=LEVELS)
        true = int(np.count_nonzero(truth))
        bright = _dice(_from_above(lesion), _from_above(every), true)
        dark = _dice(_from_below(lesion), _from_below(every), true)
        self._dice.append(np.stack([bright, dark]))

    def best(self) -> BestThreshold:
        """The threshold with the highest mean Dice. Raises ValueError without a case."""
        if not self._dice:
            raise ValueError("no case was added")
        mean = np.mean(self._dice, axis=0)
        side, level = np.unravel_index(int(mean.argmax()), mean.shape)
        return BestThreshold(float(mean[side, level]), float(level / LEVELS), bool(side == 0))


def scaled_in_body(
    volume: Volume, truth_DHW: NDArray[np.bool_], spec: InputSpec
) -> tuple[NDArray[np.floating], NDArray[np.bool_]]:
    """Arguments for `ThresholdSweep.add`: the body's voxels scaled as the network sees them, and their truth."""
    turn = turn_to_axial(volume.affine_lps_mm)
    canonical_DHW = turn.apply(volume.array_DHW)
    low, high = scaling_range(canonical_DHW, spec)
    body = body_of(canonical_DHW, is_ct=spec.modality == "CT").on_grid(canonical_DHW.shape)
    scaled = np.clip((canonical_DHW[body] - low) / (high - low), 0, 1)
    truth = turn.apply(truth_DHW)
    return scaled, np.concatenate([truth[body], truth[~body & truth]])


def _from_above(histogram: NDArray[np.int64]) -> NDArray[np.int64]:
    return histogram[::-1].cumsum()[::-1]


def _from_below(histogram: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([[0], histogram.cumsum()[:-1]])


def _dice(hits: NDArray[np.int64], answered: NDArray[np.int64], true: int) -> Float64:
    total = answered + true
    return np.where(total > 0, 2 * hits / np.maximum(total, 1), 1.0)
