"""UNet++ (NestedUNet), the generator of system (a), CRLM-GAN.

Written from the published description (Zhou et al., DLMIA 2018, and the shapes that CRLM-GAN states), not from
any repository. The dense skip pathways are covered by US patent 11,164,067; see NOTICE.

Node X(i, j), depth i = 0..4, column j = 0..4−i:

    X(i, 0) = Block(pool X(i−1, 0))
    X(i, j) = Block(concat[X(i, 0), …, X(i, j−1), Up X(i+1, j−1)])      j·f_i + f_(i+1) → f_i channels

Block is twice [3×3 convolution with bias, batch norm, ReLU]; pool is 2×2 max; Up is bilinear ×2 with aligned
corners and keeps the channels. Head: 1×1 convolution on X(0, 4); with deep supervision one more on each of
X(0, 1), X(0, 2) and X(0, 3). The losses of all heads are averaged in training, the last one alone is served.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.networks.unet import UNetConfig, block


@dataclass(frozen=True)
class UNetPlusPlusConfig(UNetConfig):
    """Shape of the network, as of the plain UNet; `deep_supervision` adds a head for each earlier column."""

    deep_supervision: bool = False


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
        # made last, so that a seed gives the other layers the same weights with and without them
        columns = range(len(f) - 2, 0, -1) if config.deep_supervision else ()
        self.side_heads = nn.ModuleDict({_name(0, j): nn.Conv2d(f[0], config.out_channels, 1) for j in columns})

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Logits of the last column's top node, which sees every depth at full resolution."""
        logits_BKHW: Tensor = self.head(self._top_row(images_BCHW)[-1])
        return logits_BKHW

    def heads(self, images_BCHW: Tensor) -> tuple[Tensor, ...]:
        """Logits (B, out_channels, H, W) of every head, the last column's first: four, or one without supervision."""
        top = self._top_row(images_BCHW)
        earlier = zip(self.side_heads.values(), reversed(top[1:-1]), strict=False)
        return self.head(top[-1]), *(head(features) for head, features in earlier)

    def _top_row(self, images_BCHW: Tensor) -> list[Tensor]:
        """X(0, 0) … X(0, 4), computed column by column."""
        depth = len(self.config.filters)
        rows: list[list[Tensor]] = []
        for i in range(depth):
            below = images_BCHW if i == 0 else self.pool(rows[i - 1][0])
            rows.append([self.nodes[_name(i, 0)](below)])
        for j in range(1, depth):
            for i in range(depth - j):
                joined = torch.cat([*rows[i], self.up(rows[i + 1][j - 1])], dim=1)
                rows[i].append(self.nodes[_name(i, j)](joined))
        return rows[0]


def _name(i: int, j: int) -> str:
    return f"x{i}{j}"
