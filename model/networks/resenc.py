"""Residual-encoder U-Net with deep supervision, in 2-D (or 2.5-D: neighbours as channels) and 3-D: our `best`.

The design is that of nnU-Net's ResEnc presets (F. Isensee et al., "nnU-Net Revisited", MICCAI 2024, arXiv 2404.09556;
blocks after He et al., "Bag of Tricks for Image Classification", CVPR 2019); the code is our own.

    stem     3-convolution, norm, LeakyReLU, at full resolution
    encoder  stage s: blocks[s] residual blocks, the first with strides[s]; a block is
             convolution, norm, LeakyReLU, convolution, norm, + skip, LeakyReLU, where the skip is a mean over the
             stride's cells and, if channels change, a 1-convolution and norm
    decoder  transposed convolution with kernel = stride, concatenation with the encoder's stage, one
             [convolution, norm, LeakyReLU], and a 1-convolution as head at every stage

Norm is InstanceNorm with weights, LeakyReLU's slope 0.01. Convolutions before a norm carry no bias, for the norm
subtracts it; that is the one difference from nnU-Net's layers, and changes no answer. Kernels start He-normal, the
last norm of each block at zero, so that a block begins as its skip.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor, nn

from model.networks.nnunet_plan import Plan, Sides, plan, total_stride

SLOPE = 0.01
_CONVOLUTION: Mapping[int, Callable[..., nn.Module]] = {2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED: Mapping[int, Callable[..., nn.Module]] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_NORM: Mapping[int, Callable[..., nn.Module]] = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
_MEAN: Mapping[int, Callable[..., nn.Module]] = {2: nn.AvgPool2d, 3: nn.AvgPool3d}
_KERNELS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True)
class ResEncConfig:
    """Shape of the network; `features`, `blocks`, `strides` and `kernels` have one entry per stage, finest first.

    Without `strides` each stage but the first halves every axis; without `kernels` they are 3. The first stride must
    be 1. `width` multiplies the features.
    """

    in_channels: int = 3
    out_channels: int = 1
    dimensions: int = 2
    features: tuple[int, ...] = (32, 64, 128, 256, 512, 512)
    blocks: tuple[int, ...] = (1, 3, 4, 6, 6, 6)
    strides: tuple[Sides, ...] | None = None
    kernels: tuple[Sides, ...] | None = None
    width: float = 1.0

    def __post_init__(self) -> None:
        if self.dimensions not in _CONVOLUTION:
            raise ValueError(f"dimensions is {self.dimensions}; there are 2 and 3")
        per_stage = {
            "features": self.features,
            "blocks": self.blocks,
            "strides": self.stage_strides,
            "kernels": self.stage_kernels,
        }
        lengths = {name: len(value) for name, value in per_stage.items()}
        if len(set(lengths.values())) > 1 or len(self.features) < 2:
            raise ValueError(f"each needs one entry per stage, and two stages at least: {lengths}")
        if set(self.stage_strides[0]) != {1}:
            raise ValueError(f"the first stage works at full resolution: its stride is 1, not {self.stage_strides[0]}")

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels per stage, at least one."""
        return tuple(max(1, round(f * self.width)) for f in self.features)

    @property
    def stage_strides(self) -> tuple[Sides, ...]:
        """Strides per stage and axis."""
        halves = ((1,) * self.dimensions, *((2,) * self.dimensions for _ in self.features[1:]))
        return halves if self.strides is None else self.strides

    @property
    def stage_kernels(self) -> tuple[Sides, ...]:
        """Kernels per stage and axis."""
        return ((3,) * self.dimensions,) * len(self.features) if self.kernels is None else self.kernels

    @property
    def stride(self) -> int:
        """Multiples of this do for every axis of the input; `axis_strides` says what each axis needs at least."""
        return max(self.axis_strides)

    @property
    def axis_strides(self) -> Sides:
        """Input sides must be multiples of these: (D, H, W), or (H, W) in 2-D."""
        return total_stride(self.stage_strides)


@dataclass(frozen=True)
class Preset:
    """A network planned for patches of one size and spacing."""

    patch: Sides
    """(D, H, W) in voxels, or (H, W)."""
    spacing_mm: tuple[float, ...] | None
    """Of the resampled images the network is meant for; None: any, with pixels as long as wide."""
    first: int
    most: int
    blocks: tuple[int, ...]
    """Per stage; deeper stages than listed have as many as the last."""

    @property
    def plan(self) -> Plan:
        """Strides and kernels by nnU-Net's rule."""
        return plan(self.patch, self.spacing_mm)

    def config(self, in_channels: int, out_channels: int) -> ResEncConfig:
        """The network for as many channels and classes."""
        planned = self.plan
        return ResEncConfig(
            in_channels=in_channels,
            out_channels=out_channels,
            dimensions=len(self.patch),
            features=planned.features(self.first, self.most),
            blocks=(*self.blocks, *(self.blocks[-1:] * planned.stages))[: planned.stages],
            strides=planned.strides,
            kernels=planned.kernels,
        )


_RESENC_BLOCKS = (1, 3, 4, 6)
# `m` and `l` are nnU-Net's: the same widths and blocks, and a patch as large as 10 GB and 24 GB of graphics memory
# allow; `l` is one stage deeper for it. The spacing is models.md's for lesions (§7, 15). `2d` is nnU-Net's for slices.
# The two for a CPU are ours: half the width, 128 channels at most, fewer blocks. On one core `2d-cpu` trains as many
# slices of 128² in bf16 as UNet++ at quarter width (27 and 26 a second), and at width 0.5 more than twice as many (62).
PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "2d": Preset((224, 224), None, 32, 512, _RESENC_BLOCKS),
        "2d-cpu": Preset((128, 128), None, 16, 128, (1, 1, 2)),
        "cpu": Preset((24, 96, 96), (3.0, 1.5, 1.5), 16, 128, (1, 2)),
        "m": Preset((48, 192, 192), (2.5, 0.8, 0.8), 32, 320, _RESENC_BLOCKS),
        "l": Preset((64, 256, 256), (2.5, 0.8, 0.8), 32, 320, _RESENC_BLOCKS),
    }
)


class Residual(nn.Module):
    """The residual block of the encoder: (B, channels_in, …) → (B, channels_out, … / stride)."""

    def __init__(self, channels_in: int, channels_out: int, kernel: Sides, stride: Sides) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_convolution_and_norm(channels_in, channels_out, kernel, stride),
            nn.LeakyReLU(SLOPE, inplace=True),
            *_convolution_and_norm(channels_out, channels_out, kernel, (1,) * len(kernel)),
        )
        self.skip = nn.Sequential()
        if max(stride) > 1:
            self.skip.append(_MEAN[len(stride)](stride, stride))
        if channels_in != channels_out:
            ones = (1,) * len(kernel)
            self.skip.extend(_convolution_and_norm(channels_in, channels_out, ones, ones))
        self.activation = nn.LeakyReLU(SLOPE, inplace=True)

    def forward(self, features: Tensor) -> Tensor:
        result: Tensor = self.activation(self.body(features) + self.skip(features))
        return result


class ResEncUNet(nn.Module):
    """Images (B, in_channels, H, W) or (B, in_channels, D, H, W) → logits (B, out_channels, …) at their size."""

    def __init__(self, config: ResEncConfig) -> None:
        super().__init__()
        self.config = config
        channels, strides, kernels = config.channels, config.stage_strides, config.stage_kernels
        self.stem = _merge(config.in_channels, channels[0], kernels[0])
        self.encoder = nn.ModuleList()
        for stage, count in enumerate(config.blocks):
            first = Residual(channels[max(stage - 1, 0)], channels[stage], kernels[stage], strides[stage])
            rest = (Residual(channels[stage], channels[stage], kernels[stage], strides[0]) for _ in range(count - 1))
            self.encoder.append(nn.Sequential(first, *rest))
        # the decoder's lists run from the finest stage down, as the encoder's do
        self.up, self.merge, self.head = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for stage in range(len(channels) - 1):
            step = strides[stage + 1]
            self.up.append(_TRANSPOSED[config.dimensions](channels[stage + 1], channels[stage], step, step))
            self.merge.append(_merge(2 * channels[stage], channels[stage], kernels[stage]))
            self.head.append(_CONVOLUTION[config.dimensions](channels[stage], config.out_channels, 1))
        self.apply(_start)

    def forward(self, images: Tensor) -> Tensor:
        """The finest head's logits; the other heads are not computed."""
        logits: Tensor = self.head[0](self._decoded(images)[0])
        return logits

    def heads(self, images: Tensor) -> list[Tensor]:
        """Logits of every stage of the decoder, finest first, each at its own resolution; the first is `forward`."""
        return [head(features) for head, features in zip(self.head, self._decoded(images), strict=True)]

    def _decoded(self, images: Tensor) -> list[Tensor]:
        features = self.stem(images)
        skips: list[Tensor] = []
        for stage in self.encoder:
            features = stage(features)
            skips.append(features)
        decoded: list[Tensor] = []
        for up, merge, skip in zip(self.up[::-1], self.merge[::-1], skips[-2::-1], strict=True):
            features = merge(torch.cat([up(features), skip], dim=1))
            decoded.append(features)
        return decoded[::-1]


def _convolution_and_norm(channels_in: int, channels_out: int, kernel: Sides, stride: Sides) -> list[nn.Module]:
    padding = tuple(side // 2 for side in kernel)
    convolution = _CONVOLUTION[len(kernel)](channels_in, channels_out, kernel, stride, padding, bias=False)
    return [convolution, _NORM[len(kernel)](channels_out, affine=True)]


def _merge(channels_in: int, channels_out: int, kernel: Sides) -> nn.Sequential:
    """Convolution, norm, LeakyReLU at one resolution."""
    ones = (1,) * len(kernel)
    return nn.Sequential(
        *_convolution_and_norm(channels_in, channels_out, kernel, ones), nn.LeakyReLU(SLOPE, inplace=True)
    )


def _start(module: nn.Module) -> None:
    """First weights. Norms start at one by themselves, so only the last one of a block is touched."""
    if isinstance(module, _KERNELS):
        nn.init.kaiming_normal_(module.weight, a=SLOPE)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, Residual):
        nn.init.zeros_(module.body[-1].get_parameter("weight"))
