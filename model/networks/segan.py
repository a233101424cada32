"""SegAN, the segmentation half of system (c): a segmentor, and a critic that compares features at several scales.

After Xue et al., "SegAN: Adversarial network with multi-scale L1 loss", Neuroinformatics 2018, with the layer table
that its MIT-licensed reference fixes; written anew. c = 64·width channels.

Segmentor: seven levels, each of half the size of the one before, of c, 2c, 4c, 8c, 8c, 16c, 32c channels (kernels
7, 5, 5, 5, 5, 4, 3, stride 2), squeezed to 8c and back; then seven times [concat with the encoder's level, bilinear
resize to the next finer level, convolution]. The five finest convolutions are *global*: the sum of k×1→1×k and
1×k→k×1, with k = 7, 7, 9, 9, 11. Every level but the deepest has a residual branch.

Critic: six strided convolutions and no head. Its answer is the features themselves, the masked input being level 0.
It must be bounded, or its maximum is infinite: by clipping its weights (`clip`, the reference) or by spectral norms
(`spectral`, Miyato et al., ICLR 2018). A batch norm would undo a spectral norm by its scale, so with spectral norms
there is none, and the convolutions have a bias in its place.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

PUBLISHED_CHANNELS = 64
ENCODER = ((7, 1), (5, 2), (5, 4), (5, 8), (5, 8), (4, 16), (3, 32))  # kernel, multiple of c
SQUEEZED = 8
DECODER = ((3, 16), (3, 8), (7, 8), (7, 4), (9, 2), (9, 1), (11, 1))
GLOBAL_FROM = 7  # decoder kernels of this size and above are global
ENCODER_SLOPE = 0.2

CRITIC = ((7, 1), (5, 2), (4, 4), (4, 8), (4, 8), (3, 8))
# of the input and the six layers, in the concatenated vector
LEVEL_WEIGHTS = (1.0, 1.0, 2.0, 2.0, 2.0, 2.0, 4.0)
CLIP = 0.05


@dataclass(frozen=True)
class SegANConfig:
    """Shape of the segmentor; `width` multiplies all channels.

    `residual_norm`: the reference declares batch norms within the bottleneck residuals and never applies them. True
    applies them; False leaves them out, which computes what the reference computes, with 30,080 parameters fewer.
    `head_bias`: the reference's head has none, and its features are never negative. A narrow network can then settle
    where the features are silent on lesions: logit 0, probability one half, and no way up.
    """

    in_channels: int = 3
    out_channels: int = 1
    width: float = 1.0
    residual_norm: bool = True
    head_bias: bool = False

    @property
    def channels(self) -> int:
        """c, the channels of the finest level."""
        return max(1, round(PUBLISHED_CHANNELS * self.width))

    @property
    def stride(self) -> int:
        """Input height and width must be multiples of this. Up to 128 training needs two images in a batch: the
        deepest batch norm then sees one pixel of each."""
        return 64


@dataclass(frozen=True)
class CriticConfig:
    """Shape of the critic, and what bounds it: `clip` (reference, with batch norm) or `spectral`."""

    in_channels: int = 3
    width: float = 1.0
    bound: Literal["clip", "spectral"] = "clip"

    @property
    def channels(self) -> int:
        return max(1, round(PUBLISHED_CHANNELS * self.width))


class Residual(nn.Module):
    """x + branch(x)."""

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, features_BCHW: Tensor) -> Tensor:
        added_BCHW: Tensor = features_BCHW + self.branch(features_BCHW)
        return added_BCHW


class GlobalConvolution(nn.Module):
    """A k×k field for the price of 2k: k×1 then 1×k, plus 1×k then k×1 (Peng et al., CVPR 2017)."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int) -> None:
        super().__init__()
        tall, wide = (kernel, 1), (1, kernel)
        self.tall_first = _pair(channels_in, channels_out, tall, wide)
        self.wide_first = _pair(channels_in, channels_out, wide, tall)

    def forward(self, features_BCHW: Tensor) -> Tensor:
        summed_BCHW: Tensor = self.tall_first(features_BCHW) + self.wide_first(features_BCHW)
        return summed_BCHW


class SegANSegmentor(nn.Module):
    """Images (B, in_channels, H, W) → logits (B, out_channels, H, W); H and W multiples of `config.stride`."""

    def __init__(self, config: SegANConfig) -> None:
        super().__init__()
        self.config = config
        c, normed = config.channels, config.residual_norm
        widths = [config.in_channels, *(c * multiple for _, multiple in ENCODER)]
        self.encoder = nn.ModuleList(
            _down(level, i, o, kernel, normed)
            for level, ((i, o), (kernel, _)) in enumerate(zip(pairwise(widths), ENCODER, strict=True))
        )
        deepest, squeezed = widths[-1], SQUEEZED * c
        self.squeeze = _conv(deepest, squeezed, 1, nn.LeakyReLU(ENCODER_SLOPE))
        self.expand = _conv(squeezed, deepest, 1, nn.ReLU())
        outs = [deepest, *(c * multiple for _, multiple in DECODER)]
        joined = [skip + i for skip, i in zip(widths[:0:-1], outs[:-1], strict=True)]
        self.decoder = nn.ModuleList(
            _up(level, i, o, kernel, normed)
            for level, (i, o, (kernel, _)) in enumerate(zip(joined, outs[1:], DECODER, strict=True))
        )
        self.head = nn.Conv2d(outs[-1], config.out_channels, 5, padding=2, bias=config.head_bias)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Down to one 128th, and up again to the size of each level in turn."""
        levels = [images_BCHW]
        for down in self.encoder:
            levels.append(down(levels[-1]))
        x = self.expand(self.squeeze(levels[-1]))
        for up, skip, finer in zip(self.decoder, levels[:0:-1], levels[-2::-1], strict=True):
            joined = torch.cat([skip, x], dim=1)
            x = up(functional.interpolate(joined, size=finer.shape[2:], mode="bilinear", align_corners=True))
        logits_BKHW: Tensor = self.head(x)
        return logits_BKHW


class SegANCritic(nn.Module):
    """Masked images (B, in_channels, H, W) → their features; H and W at least 64."""

    def __init__(self, config: CriticConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.in_channels, *(config.channels * multiple for _, multiple in CRITIC)]
        self.layers = nn.ModuleList(
            _critic_layer(level, i, o, kernel, config.bound)
            for level, ((i, o), (kernel, _)) in enumerate(zip(pairwise(widths), CRITIC, strict=True))
        )

    def features(self, masked_BCHW: Tensor) -> list[Tensor]:
        """Level 0, the masked image itself, and the six layers' features, each of half the size."""
        levels = [masked_BCHW]
        for layer in self.layers:
            levels.append(layer(levels[-1]))
        return levels

    def compare(
        self, images_BCHW: Tensor, probability_B1HW: Tensor, target_B1HW: Tensor
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Features of x⊙P and of x⊙Y. Both see the same weights: a spectral norm is estimated once for the two, so
        that P = Y gives exactly equal features."""
        with parametrize.cached():
            return self.features(images_BCHW * probability_B1HW), self.features(images_BCHW * target_B1HW)

    def forward(self, masked_BCHW: Tensor) -> Tensor:
        """The reference's vector (B, N): all levels, weighted by LEVEL_WEIGHTS, end to end."""
        return weighted_vector(self.features(masked_BCHW))

    @torch.no_grad()
    def clip(self, limit: float = CLIP) -> None:
        """Every weight, those of the norms too, to ±limit. Nothing where spectral norms bound the critic."""
        if self.config.bound == "clip":
            for weight in self.parameters():
                weight.clamp_(-limit, limit)


def weighted_vector(levels: list[Tensor]) -> Tensor:
    """Levels (B, C, H, W) → (B, N), each multiplied by its entry of LEVEL_WEIGHTS."""
    weighted = [weight * level.flatten(1) for weight, level in zip(LEVEL_WEIGHTS, levels, strict=True)]
    return torch.cat(weighted, dim=1)


def _pair(channels_in: int, channels_out: int, first: tuple[int, int], second: tuple[int, int]) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, first, padding="same"),
        nn.Conv2d(channels_out, channels_out, second, padding="same"),
    )


def _conv(channels_in: int, channels_out: int, kernel: int, activation: nn.Module) -> nn.Sequential:
    """[Convolution that keeps the size, batch norm, activation]."""
    convolution = nn.Conv2d(channels_in, channels_out, kernel, padding="same", bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels_out), activation)


def _bottleneck(channels: int, normed: bool, activation: nn.Module) -> Residual:
    """x + [1×1 to twice the channels, 3×3, 1×1 back], an activation after each."""
    layers: list[nn.Module] = []
    for i, o, kernel in ((channels, 2 * channels, 1), (2 * channels, 2 * channels, 3), (2 * channels, channels, 1)):
        layers.append(nn.Conv2d(i, o, kernel, padding="same", bias=False))
        layers += [nn.BatchNorm2d(o)] if normed else []
        layers.append(activation)
    return Residual(nn.Sequential(*layers))


def _halving(channels_in: int, channels_out: int, kernel: int, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, kernel, stride=2, padding=(kernel - 1) // 2, bias=bias)


def _down(level: int, channels_in: int, channels_out: int, kernel: int, normed: bool) -> nn.Sequential:
    """Half the size. The first level has no norm, the sixth a 1×1 residual, the seventh none."""
    activation = nn.LeakyReLU(ENCODER_SLOPE)
    norm = [nn.BatchNorm2d(channels_out)] if level else []
    down = nn.Sequential(_halving(channels_in, channels_out, kernel), *norm, activation)
    if level < 5:
        down.append(_bottleneck(channels_out, normed, activation))
    elif level == 5:
        down.append(Residual(_conv(channels_out, channels_out, 1, activation)))
    return down


def _up(level: int, channels_in: int, channels_out: int, kernel: int, normed: bool) -> nn.Sequential:
    """One level of the decoder, after its concatenation and resize. The first has a 1×1 residual."""
    activation = nn.ReLU()
    if kernel >= GLOBAL_FROM:
        convolution: nn.Module = GlobalConvolution(channels_in, channels_out, kernel)
    else:
        convolution = nn.Conv2d(channels_in, channels_out, kernel, padding="same", bias=False)
    residual = _bottleneck(channels_out, normed, activation)
    if level == 0:
        residual = Residual(_conv(channels_out, channels_out, 1, activation))
    return nn.Sequential(convolution, nn.BatchNorm2d(channels_out), activation, residual)


def _critic_layer(level: int, channels_in: int, channels_out: int, kernel: int, bound: str) -> nn.Sequential:
    activation = nn.LeakyReLU(ENCODER_SLOPE)
    if bound == "spectral":
        return nn.Sequential(spectral_norm(_halving(channels_in, channels_out, kernel, bias=True)), activation)
    norm = [nn.BatchNorm2d(channels_out)] if level else []
    return nn.Sequential(_halving(channels_in, channels_out, kernel), *norm, activation)
