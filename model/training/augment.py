"""Augmentation: draw parameters first, apply them second.

Pictures are canonical (anterior up, the patient's right on the left), so by default nothing is mirrored or turned by
right angles: such an abdomen does not occur. Recipes after the papers do both. Intensity changes are shared by all
channels of an image, as the images are grey; `channel_gain` is the grey image's share of what the papers do to colour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

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
    mirror_share: float = 0.0
    """Of the images, mirrored along rows, and as many along columns."""
    quarter_turns: bool = False
    channel_gain: float = 0.0


@dataclass(frozen=True)
class AugmentParameters:
    """One batch's draw: `affine_B23` maps output to input coordinates, the rest is one value per image."""

    affine_B23: Tensor
    gamma_B: Tensor
    gain_B: Tensor
    offset_B: Tensor
    noise_sd_B: Tensor
    noise_seed: int
    channel_gain_BC: Tensor | None = None
    first: int = 0
    """Where a part of a batch begins in it: noise is drawn for the whole."""
    count: int = 0

    def part(self, part: slice) -> AugmentParameters:
        """The draw for that part of the images."""
        values = {
            name: value[part]
            for name in ("affine_B23", "gamma_B", "gain_B", "offset_B", "noise_sd_B", "channel_gain_BC")
            if (value := getattr(self, name)) is not None
        }
        return replace(self, **values, first=part.start or 0)


def draw(count: int, ranges: AugmentRanges, generator: torch.Generator) -> AugmentParameters:
    """Parameters for `count` images."""

    def uniform(limit: float) -> Tensor:
        return (2 * torch.rand(count, generator=generator) - 1) * limit

    angle = torch.deg2rad(uniform(ranges.rotation_deg))
    scale, aspect = uniform(ranges.log_scale).exp(), uniform(ranges.log_aspect).exp()
    cos, sin = angle.cos() * scale, angle.sin() * scale
    rows = torch.stack([cos * aspect, -sin, uniform(2 * ranges.shift), sin, cos / aspect, uniform(2 * ranges.shift)], 1)
    parameters = AugmentParameters(
        affine_B23=rows.view(count, 2, 3),
        gamma_B=uniform(ranges.log_gamma).exp(),
        gain_B=1 + uniform(ranges.gain),
        offset_B=uniform(ranges.offset),
        noise_sd_B=torch.rand(count, generator=generator) * ranges.noise_sd,
        noise_seed=int(torch.randint(2**31, (1,), generator=generator)),
        count=count,
    )
    return _with_rarer_ones(parameters, ranges, generator)


def _with_rarer_ones(p: AugmentParameters, ranges: AugmentRanges, generator: torch.Generator) -> AugmentParameters:
    """Mirror images, right angles and colour are drawn last and only where asked for: other draws stay as they are."""
    count, affine_B23 = p.count, p.affine_B23
    if ranges.mirror_share:
        signs = 1 - 2 * (torch.rand(count, 2, generator=generator) < ranges.mirror_share).float()
        affine_B23 = affine_B23 * signs[:, :, None]
    if ranges.quarter_turns:
        turns = torch.randint(4, (count,), generator=generator)
        quarter = torch.tensor([[[1, 0], [0, 1]], [[0, -1], [1, 0]], [[-1, 0], [0, -1]], [[0, 1], [-1, 0]]]).float()
        affine_B23 = quarter[turns] @ affine_B23
    gain_BC = None
    if ranges.channel_gain:
        gain_BC = 1 + (2 * torch.rand(count, 3, generator=generator) - 1) * ranges.channel_gain
    return replace(p, affine_B23=affine_B23, channel_gain_BC=gain_BC)


def apply(images_BCHW: Tensor, targets_B1HW: Tensor, p: AugmentParameters) -> tuple[Tensor, Tensor]:
    """Images in [0, 1] and their soft targets, moved alike; intensities changed in the images only."""
    (changed,) = apply_all([(images_BCHW, targets_B1HW)], p)
    return changed


def apply_all(pairs: Sequence[tuple[Tensor, Tensor]], p: AugmentParameters) -> list[tuple[Tensor, Tensor]]:
    """Several images of one study with their targets: all are moved alike and toned alike, each has its own noise."""
    return [_apply_one(images, targets, p, p.noise_seed + number) for number, (images, targets) in enumerate(pairs)]


def _apply_one(
    images_BCHW: Tensor, targets_B1HW: Tensor, p: AugmentParameters, noise_seed: int
) -> tuple[Tensor, Tensor]:
    grid = functional.affine_grid(p.affine_B23, list(images_BCHW.shape), align_corners=False)
    images = functional.grid_sample(images_BCHW, grid, align_corners=False, padding_mode="zeros")
    targets = functional.grid_sample(targets_B1HW, grid, align_corners=False, padding_mode="zeros")
    whole = torch.randn((p.count, *images[0, :1].shape), generator=torch.Generator().manual_seed(noise_seed))
    noise = whole[p.first : p.first + len(images)]
    toned = images.clamp(0, 1) ** _each(p.gamma_B) * _each(p.gain_B) + _each(p.offset_B) + noise * _each(p.noise_sd_B)
    if p.channel_gain_BC is not None:
        toned = toned * p.channel_gain_BC[:, : toned.shape[1], None, None]
    return toned.clamp(0, 1), targets


def _each(value_B: Tensor) -> Tensor:
    return value_B.view(-1, 1, 1, 1)
