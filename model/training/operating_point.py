"""Where probabilities become lesions: threshold, least peak and least volume with the best mean Dice on validation
cases, as the serving engine answers them on the native grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.cases import CaseImage
from model.engine import Engine
from model.findings import label_lesions, reaches
from model.liver_mask import whole_liver
from model.metrics import Overlap
from model.samples import Sample
from model.volume import Half, Labels

THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7)
PEAKS = (0.0, 0.8, 0.9, 0.95)
MINIMUMS_ML = (0.0, 0.1, 0.2, 0.4, 0.52)
"""0.52 ml is a sphere of 10 mm, the smallest lesion that RECIST 1.1 calls measurable."""
FEWEST_VOXELS = 3
REFUSED = np.zeros((len(THRESHOLDS), len(PEAKS), len(MINIMUMS_ML)))
"""The table of a sample that the engine refuses: nothing is found, whatever the limits."""


@dataclass(frozen=True)
class OperatingPoint:
    """The limits, and the mean Dice that chose them."""

    threshold: float
    peak: float
    minimum_ml: float
    mean_dice: float


def choose(table_CTPM: Sequence[NDArray[np.float64]]) -> OperatingPoint:
    """From one `dice_table` a case."""
    mean = np.mean(table_CTPM, axis=0)
    t, p, m = np.unravel_index(int(mean.argmax()), mean.shape)
    return OperatingPoint(THRESHOLDS[t], PEAKS[p], MINIMUMS_ML[m], float(mean[t, p, m]))


def dice_of_sample(engine: Engine, sample: Sample) -> NDArray[np.float64]:
    """The table of one sample through the engine. Raises VolumeProblem for a sample that it refuses."""
    _, image = sample.primary
    probability_DHW = engine.segment(sample.fed).probability_DHW
    if engine.card.output.target == "liver":
        return liver_table(probability_DHW, image)
    return dice_table(probability_DHW, image.labels["lesion"], image.volume.voxel_ml)


def liver_table(probability_DHW: Half, image: CaseImage) -> NDArray[np.float64]:
    """As `dice_table`, of the liver with its lesions, made whole as for a network that looks inside it.

    Peak and volume tell lesions apart; of an organ they decide nothing.
    """
    true_DHW = image.labels["liver"] > 0
    true_DHW = true_DHW | (image.labels["lesion"] > 0) if "lesion" in image.labels else true_DHW
    table = np.empty_like(REFUSED)
    for t, threshold in enumerate(THRESHOLDS):
        found_DHW = whole_liver(probability_DHW >= np.float16(threshold))
        both = int(np.count_nonzero(found_DHW & true_DHW))
        table[t] = Overlap(both, int(found_DHW.sum()) - both, int(true_DHW.sum()) - both).dice
    return table


def dice_table(probability_DHW: Half, labels_DHW: Labels, voxel_ml: float) -> NDArray[np.float64]:
    """Dice of one case for each threshold (axis 0), least peak (axis 1) and least volume (axis 2)."""
    truth_DHW = labels_DHW > 0
    true = int(np.count_nonzero(truth_DHW))
    table = np.empty((len(THRESHOLDS), len(PEAKS), len(MINIMUMS_ML)))
    for t, threshold in enumerate(THRESHOLDS):
        found_DHW = label_lesions(reaches(probability_DHW, threshold), FEWEST_VOXELS)
        found = found_DHW > 0
        label_N, count = found_DHW[found], int(found_DHW.max(initial=0))
        sizes = np.bincount(label_N, minlength=count + 1)[1:]
        hits = np.bincount(label_N, weights=truth_DHW[found], minlength=count + 1)[1:]
        peaks = np.zeros(count + 1)
        np.maximum.at(peaks, label_N, probability_DHW[found])
        for p, m in np.ndindex(len(PEAKS), len(MINIMUMS_ML)):
            kept = (peaks[1:] >= PEAKS[p]) & (sizes * voxel_ml >= MINIMUMS_ML[m] - 1e-9)
            both, answered = int(hits[kept].sum()), int(sizes[kept].sum())
            table[t, p, m] = Overlap(both, answered - both, true - both).dice
    return table
