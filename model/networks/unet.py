"""The plain UNet that CRLM-GAN compares itself with: the blocks and filters of its UNet++, without the nested paths.

Written from the description (Ronneberger et al., MICCAI 2015, with the block, the filters and the upsampling of
models.md §1.2): a contracting path of five blocks, and an expanding one that joins each depth's features with the
upsampled ones from below. `UNet++` takes its block from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

PUBLISHED_FILTERS = (32, 64, 128, 256, 512)


@dataclass(frozen=True)
class UNetConfig:
    """Shape of the network. `width` multiplies the published filters: 0.25 is the demo bundles' quarter width."""

    in_channels: int = 3
    out_channels: int = 1
    width: float = 1.0

    @property
    def filters(self) -> tuple[int, ...]:
        """Channels per depth, at least one."""
        return tuple(max(1, round(f * self.width)) for f in PUBLISHED_FILTERS)

    @property
    def stride(self) -> int:
        """Input height and width must be multiples of this."""
        return int(2 ** (len(PUBLISHED_FILTERS) - 1))


def block(channels_in: int, channels_out: int) -> nn.Sequential:
    """Twice [3×3 convolution, batch norm, ReLU]."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, padding=1),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels_out, channels_out, 3, padding=1),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
    )


class UNet(nn.Module):
    """Images (B, in_channels, H, W) → logits (B, out_channels, H, W); H and W multiples of `config.stride`."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        f = config.filters
        self.down = nn.ModuleList(block(above, here) for above, here in pairwise((config.in_channels, *f)))
        self.up = nn.ModuleList(block(here + below, here) for here, below in reversed(tuple(pairwise(f))))
        self.pool = nn.MaxPool2d(2)
        self.upsample = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        self.head = nn.Conv2d(f[0], config.out_channels, 1)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Down through all depths, then up, each depth's own features first in what is joined."""
        features, skips = self.down[0](images_BCHW), []
        for down in self.down[1:]:
            skips.append(features)
            features = down(self.pool(features))
        for up in self.up:
            features = up(torch.cat([skips.pop(), self.upsample(features)], dim=1))
        logits_BKHW: Tensor = self.head(features)
        return logits_BKHW
