"""Augmentation in 3-D: what to do is drawn first, and done while a patch is cut out, so that no border comes in.

A patch is looked up in its volume through one affine map, trilinearly in the image and at the nearest voxel in the
class map: classes between classes do not exist (system (d) interpolates its one-hot masks, models.md §4.3). Rotation
and scale are in mm, whatever the voxels; a recipe that mirrors does so along all three axes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from model.training.augment import AugmentRanges
from model.volume import Float64

Spacing = tuple[float, float, float]


@dataclass(frozen=True)
class VolumeChange:
    """One patch's draw: `affine_33` maps voxel steps of the patch to voxel steps of the volume."""

    affine_33: Float64
    gamma: float
    gain: float
    offset: float
    noise_sd: float
    noise_seed: int


def draw_change(ranges: AugmentRanges, spacing_mm: Spacing, rng: np.random.Generator) -> VolumeChange:
    """Parameters for one patch of a volume of that spacing."""

    def factor(limit: float) -> float:
        return float(np.exp(rng.uniform(-limit, limit)))

    rotation = _rotation(rng.uniform(-1, 1, 3) * np.deg2rad(ranges.rotation_deg))
    aspect = factor(ranges.log_aspect)
    stretch = np.diag([1.0, aspect, 1 / aspect]) * factor(ranges.log_scale)
    mirror = np.where(rng.random(3) < ranges.mirror_share, -1.0, 1.0)
    steps = np.array(spacing_mm)
    return VolumeChange(
        affine_33=np.diag(1 / steps) @ rotation @ stretch @ np.diag(steps * mirror),
        gamma=factor(ranges.log_gamma),
        gain=1 + float(rng.uniform(-1, 1)) * ranges.gain,
        offset=float(rng.uniform(-1, 1)) * ranges.offset,
        noise_sd=float(rng.random()) * ranges.noise_sd,
        noise_seed=int(rng.integers(2**31)),
    )


def unchanged() -> VolumeChange:
    """The patch as it lies in its volume."""
    return VolumeChange(np.eye(3), 1.0, 1.0, 0.0, 0.0, 0)


def cut_patch(
    image_DHW: NDArray[np.uint8],
    classes_DHW: NDArray[np.uint8],
    middle_3: Float64,
    patch_DHW: tuple[int, int, int],
    change: VolumeChange,
) -> tuple[Tensor, Tensor]:
    """Image in [0, 1] (D, H, W) and class map (D, H, W) around voxel position `middle_3`; outside all is 0.

    Only the part of the volume that the patch needs is read.
    """
    places_DHW3 = _places(middle_3, patch_DHW, change.affine_33)
    corners = places_DHW3[:: max(1, patch_DHW[0] - 1), :: max(1, patch_DHW[1] - 1), :: max(1, patch_DHW[2] - 1)]
    flat = corners.reshape(-1, 3)
    low = np.clip(np.floor(flat.amin(0).numpy()).astype(int) - 1, 0, np.array(image_DHW.shape) - 1)
    high = np.clip(np.ceil(flat.amax(0).numpy()).astype(int) + 2, low + 1, image_DHW.shape)
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    image = torch.from_numpy(image_DHW[box].astype(np.float32)) / 255
    classes = torch.from_numpy(classes_DHW[box].astype(np.float32))
    # grid_sample wants (w, h, d) in [-1, 1] from edge to edge
    grid = ((2 * (places_DHW3 - torch.from_numpy(low)) + 1) / torch.tensor(image.shape) - 1).flip(-1).float()[None]
    moved = functional.grid_sample(image[None, None], grid, mode="bilinear", align_corners=False)[0, 0]
    nearest = functional.grid_sample(classes[None, None], grid, mode="nearest", align_corners=False)[0, 0]
    return _toned(moved, change), nearest.long()


def _places(middle_3: Float64, patch_DHW: tuple[int, int, int], affine_33: Float64) -> Tensor:
    """Position in the volume (D, H, W, 3) of each voxel of the patch, whose middle lies at `middle_3`."""
    axes = [torch.arange(side, dtype=torch.float64) - (side - 1) / 2 for side in patch_DHW]
    steps = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    return steps @ torch.from_numpy(affine_33).T + torch.from_numpy(middle_3)


def _toned(image_DHW: Tensor, change: VolumeChange) -> Tensor:
    toned = image_DHW.clamp(0, 1) ** change.gamma * change.gain + change.offset
    if change.noise_sd:
        noise = torch.randn(image_DHW.shape, generator=torch.Generator().manual_seed(change.noise_seed))
        toned = toned + noise * change.noise_sd
    return toned.clamp(0, 1)


def _rotation(angles_3: Float64) -> Float64:
    """About the slice, row and column axes, one after the other."""
    rotation = np.eye(3)
    for axis, angle in enumerate(angles_3):
        first, second = (other for other in range(3) if other != axis)
        turn = np.eye(3)
        turn[first, first] = turn[second, second] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        rotation = rotation @ turn
    return rotation
