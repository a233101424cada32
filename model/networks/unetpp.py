"""UNet++ (NestedUNet), the generator of system (a), CRLM-GAN.

Written from the published description (Zhou et al., DLMIA 2018, and the shapes that CRLM-GAN states), not from
any repository. The dense skip pathways are covered by US patent 11,164,067; see NOTICE.

Node X(i, j), depth i = 0..4, column j = 0..4−i:

    X(i, 0) = Block(pool X(i−1, 0))
    X(i, j) = Block(concat[X(i, 0), …, X(i, j−1), Up X(i+1, j−1)])      j·f_i + f_(i+1) → f_i channels

Block is twice [3×3 convolution with bias, batch norm, ReLU]; pool is 2×2 max; Up is bilinear ×2 with aligned
corners and keeps the channels. Head: 1×1 convolution on X(0, 4).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

PUBLISHED_FILTERS = (32, 64, 128, 256, 512)


@dataclass(frozen=True)
class UNetPlusPlusConfig:
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


class UNetPlusPlus(nn.Module):
    """Images (B, in_channels, H, W) → logits (B, out_channels, H, W); H and W multiples of `config.stride`."""

    def __init__(self, config: UNetPlusPlusConfig) -> None:
        super().__init__()
        self.config = config
        f = config.filters
        self.nodes = nn.ModuleDict()
        for i in range(len(f)):
            self.nodes[_name(i, 0)] = block(f[i - 1] if i else config.in_channels, f[i])
            for j in range(1, len(f) - i):
                self.nodes[_name(i, j)] = block(j * f[i] + f[i + 1], f[i])
        self.pool = nn.MaxPool2d(2)
        self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        self.head = nn.Conv2d(f[0], config.out_channels, 1)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Columns from left to right: the last column's top node sees every depth at full resolution."""
        depth = len(self.config.filters)
        rows: list[list[Tensor]] = []
        for i in range(depth):
            below = images_BCHW if i == 0 else self.pool(rows[i - 1][0])
            rows.append([self.nodes[_name(i, 0)](below)])
        for j in range(1, depth):
            for i in range(depth - j):
                joined = torch.cat([*rows[i], self.up(rows[i + 1][j - 1])], dim=1)
                rows[i].append(self.nodes[_name(i, j)](joined))
        logits_BKHW: Tensor = self.head(rows[0][-1])
        return logits_BKHW


def _name(i: int, j: int) -> str:
    return f"x{i}{j}"
