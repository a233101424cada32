"""Where our definitions are MONAI's, the numbers are, too; where they differ, the difference is named here.

Same: voxel measures; ASSD, HD95 and NSD by surface voxels with spacing; panoptic quality from IoU 0.5; ECE and ACE.
Different: what an empty mask gets. MONAI returns NaN for Dice of an empty truth (we say 1 or 0 by the answer) and a
number that is not finite for distances (we say None, and 0 for NSD as MONAI does).
"""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from scipy import ndimage

from model.metrics import Overlap
from model.metrics_calibration import ProbabilityCounts, ace, ece
from model.metrics_lesions import match_lesions
from model.metrics_surface import surface_distances
from tests.model.hand_cases import affine

with warnings.catch_warnings():
    # MONAI's imports of optional libraries are its own to warn of
    warnings.simplefilter("ignore")
    from monai.metrics import (
        CalibrationErrorMetric,
        DiceMetric,
        HausdorffDistanceMetric,
        MeanIoU,
        SurfaceDiceMetric,
        SurfaceDistanceMetric,
    )
    from monai.metrics.panoptic_quality import compute_panoptic_quality

# MONAI 1.6.1 passes an argument to itself that it has deprecated
pytestmark = pytest.mark.filterwarnings("ignore:.*always_return_as_numpy.*:FutureWarning")

SPACINGS_MM = [(7.0, 1.5, 1.5), (1.0, 1.0, 1.0), (5.0, 0.7, 0.9)]


def blobs(seed: int, shape: tuple[int, int, int] = (8, 40, 44)) -> np.ndarray:
    """Smooth random shapes, some of which touch the edge of the volume."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), (1, 3, 3))
    return noise > 0.8 * noise.std()


def theirs(mask: np.ndarray) -> torch.Tensor:
    """(1, 1, D, H, W), as MONAI asks."""
    return torch.from_numpy(mask[None, None].astype(np.float32))


@pytest.mark.parametrize("spacing_mm", SPACINGS_MM)
@pytest.mark.parametrize("seed", [0, 1])
def test_surface_measures_agree(seed: int, spacing_mm: tuple[float, float, float]) -> None:
    answer, truth = blobs(seed), blobs(seed + 100) | blobs(seed)
    ours = surface_distances(answer, truth, affine(spacing_mm))
    pair = theirs(answer), theirs(truth)
    assd = SurfaceDistanceMetric(include_background=True, symmetric=True)(*pair, spacing=spacing_mm)
    hd95 = HausdorffDistanceMetric(include_background=True, percentile=95)(*pair, spacing=spacing_mm)
    assert ours.assd_mm == pytest.approx(float(assd), rel=1e-5)
    assert ours.hd95_mm == pytest.approx(float(hd95), rel=1e-5)
    for tolerance in (2.0, 3.0):
        nsd = SurfaceDiceMetric([tolerance], include_background=True)(*pair, spacing=spacing_mm)
        assert ours.nsd(tolerance) == pytest.approx(float(nsd), rel=1e-5)


def test_voxel_measures_agree() -> None:
    answer, truth = blobs(0), blobs(1)
    ours = Overlap.of(answer, truth)
    assert ours.dice == pytest.approx(float(DiceMetric()(theirs(answer), theirs(truth))), rel=1e-6)
    assert ours.iou == pytest.approx(float(MeanIoU()(theirs(answer), theirs(truth))), rel=1e-6)


def test_panoptic_quality_agrees_from_iou_one_half() -> None:
    truth = np.zeros((30, 30), np.uint16)
    answer = truth.copy()
    for number, place in enumerate(range(2, 26, 8), start=1):
        truth[place : place + 6, 3:20] = number
        answer[place : place + 6, 3 + 2 * number : 20 + number] = number
    answer[27:, 27:] = 4
    matches = match_lesions(answer[None], truth[None], 0.5)
    ours = sum(matches.ious) / ((matches.answered + matches.true) / 2)
    channels = [torch.from_numpy(np.stack([labels, labels > 0]).astype(np.int64)) for labels in (answer, truth)]
    quality = compute_panoptic_quality(channels[0][0], channels[1][0], match_iou_threshold=0.5)
    assert len(matches.pairs) >= 2
    assert ours == pytest.approx(float(quality), abs=1e-5)


@pytest.mark.parametrize(("reduction", "ours"), [("expected", ece), ("average", ace)])
def test_calibration_errors_agree(reduction: str, ours: object) -> None:
    rng = np.random.default_rng(3)
    probability = rng.beta(0.5, 0.5, (1, 1, 20, 20, 20)).astype(np.float16)
    truth = rng.random(probability.shape) < probability.astype(float) ** 2
    metric = CalibrationErrorMetric(num_bins=15, calibration_reduction=reduction)
    metric(torch.from_numpy(probability.astype(np.float32)), torch.from_numpy(truth.astype(np.float32)))
    row = ProbabilityCounts.of(probability, truth).reliability().row
    assert callable(ours)
    assert float(ours(row)) == pytest.approx(float(metric.aggregate()), rel=1e-4)


@pytest.mark.filterwarnings("ignore:the (prediction|ground truth) of class")
def test_empty_masks_are_where_we_differ() -> None:
    some, none = blobs(0), np.zeros((8, 40, 44), bool)
    ours = surface_distances(none, some, affine())
    hd95 = HausdorffDistanceMetric(include_background=True, percentile=95)(theirs(none), theirs(some))
    nsd = SurfaceDiceMetric([2.0], include_background=True)(theirs(none), theirs(some))
    assert (ours.hd95_mm, ours.nsd(2.0)) == (None, 0.0)
    assert not math.isfinite(float(hd95))
    assert float(nsd) == 0.0
    assert Overlap.of(none, none).dice == 1.0
    assert math.isnan(float(DiceMetric()(theirs(none), theirs(none))))
