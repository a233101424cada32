"""Augmentation: draw parameters first, apply them second.

Pictures are canonical (anterior up, the patient's right on the left), so nothing is mirrored: a mirrored abdomen does
not occur. Intensity changes are shared by all channels of an image, as the images are grey.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class AugmentRanges:
    """How far each parameter may go. Angles in degrees, shifts as shares of the side, factors as their logarithm."""

    rotation_deg: float = 15.0
    log_scale: float = 0.18
    log_aspect: float = 0.10
    shift: float = 0.08
    log_gamma: float = 0.25
    gain: float = 0.12
    offset: float = 0.06
    noise_sd: float = 0.03


@dataclass(frozen=True)
class AugmentParameters:
    """One batch's draw: `affine_B23` maps output to input coordinates, the rest is one value per image."""

    affine_B23: Tensor
    gamma_B: Tensor
    gain_B: Tensor
    offset_B: Tensor
    noise_sd_B: Tensor
    noise_seed: int


def draw(count: int, ranges: AugmentRanges, generator: torch.Generator) -> AugmentParameters:
    """Parameters for `count` images."""

    def uniform(limit: float) -> Tensor:
        return (2 * torch.rand(count, generator=generator) - 1) * limit

    angle = torch.deg2rad(uniform(ranges.rotation_deg))
    scale, aspect = uniform(ranges.log_scale).exp(), uniform(ranges.log_aspect).exp()
    cos, sin = angle.cos() * scale, angle.sin() * scale
    rows = torch.stack([cos * aspect, -sin, uniform(2 * ranges.shift), sin, cos / aspect, uniform(2 * ranges.shift)], 1)
    return AugmentParameters(
        affine_B23=rows.view(count, 2, 3),
        gamma_B=uniform(ranges.log_gamma).exp(),
        gain_B=1 + uniform(ranges.gain),
        offset_B=uniform(ranges.offset),
        noise_sd_B=torch.rand(count, generator=generator) * ranges.noise_sd,
        noise_seed=int(torch.randint(2**31, (1,), generator=generator)),
    )


def apply(images_BCHW: Tensor, targets_B1HW: Tensor, p: AugmentParameters) -> tuple[Tensor, Tensor]:
    """Images in [0, 1] and their soft targets, moved alike; intensities changed in the images only."""
    grid = functional.affine_grid(p.affine_B23, list(images_BCHW.shape), align_corners=False)
    images = functional.grid_sample(images_BCHW, grid, align_corners=False, padding_mode="zeros")
    targets = functional.grid_sample(targets_B1HW, grid, align_corners=False, padding_mode="zeros")
    noise = torch.randn(images[:, :1].shape, generator=torch.Generator().manual_seed(p.noise_seed))
    toned = images.clamp(0, 1) ** _each(p.gamma_B) * _each(p.gain_B) + _each(p.offset_B) + noise * _each(p.noise_sd_B)
    return toned.clamp(0, 1), targets


def _each(value_B: Tensor) -> Tensor:
    return value_B.view(-1, 1, 1, 1)
