"""TransUNet R50-ViT-B/16, a baseline of system (a): a ResNet, a vision transformer on its features, a U-Net decoder.

After J. Chen et al., "TransUNet" (arXiv 2102.04306), K. He et al., "Identity Mappings" (ECCV 2016), A. Kolesnikov et
al., "Big Transfer" (ECCV 2020: GroupNorm and standardised kernels) and A. Dosovitskiy et al., "An Image is Worth 16×16
Words" (ICLR 2021); shapes and order of operations as models.md §1.11 states them. Written anew; tensors have the
official checkpoint's shapes, so that its weights can be loaded (`transunet_weights`).

    stem     7×7/2 standardised convolution to 64, GroupNorm, ReLU             → skip 64 at 1/2
             3×3/2 max-pool without padding
    stages   3, 4, 9 bottlenecks: 256 at 1/4, 512 at 1/8 (both skips), 1024 at 1/16
    tokens   1×1 convolution to 768, + learned positions, 12 × [attention of 12 heads, MLP of 3072], LayerNorm
    decoder  3×3 convolution to 512; four times bilinear ×2 (aligned corners), skip concatenated, twice
             [3×3 convolution, BatchNorm, ReLU]: 256 (+512), 128 (+256), 64 (+64), 16; 3×3 head

The pooling without padding makes stage 1 one row and column short; its skip is padded with zeros below and to the
right, as the official network does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

GROUPS = 32
GROUP_EPSILON = 1e-6
LAYER_EPSILON = 1e-6
STANDARD_EPSILON = 1e-5
STEM_CHANNELS = 64
HIDDEN = 768
DECODER_CHANNELS = (512, 256, 128, 64, 16)


@dataclass(frozen=True)
class TransUNetConfig:
    """Shape of the network. `width` multiplies all channels: 64 in the stem, 768 in the tokens, 512 … 16 after them.

    `image_size` (H, W) is that of training: positions are learned for it, and interpolated for an image of another.
    """

    in_channels: int = 3
    out_channels: int = 1
    image_size: tuple[int, int] = (224, 224)
    width: float = 1.0
    units: tuple[int, ...] = (3, 4, 9)
    layers: int = 12
    attention_heads: int = 12
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.hidden % self.attention_heads:
            raise ValueError(f"{self.hidden} channels cannot be shared by {self.attention_heads} attention heads")
        if any(side % self.stride for side in self.image_size):
            raise ValueError(f"image_size {self.image_size}: sides must be multiples of {self.stride}")
        if len(self.units) != 3:
            raise ValueError(f"units {self.units}: the ResNet has three stages")

    @property
    def stem(self) -> int:
        """Channels of the stem; stage i has 4·2^i times as many."""
        return self.scaled(STEM_CHANNELS)

    @property
    def hidden(self) -> int:
        """Channels of a token."""
        return self.scaled(HIDDEN)

    @property
    def decoder(self) -> tuple[int, ...]:
        """Channels of the decoder, coarsest first."""
        return tuple(self.scaled(channels) for channels in DECODER_CHANNELS)

    @property
    def stride(self) -> int:
        """Input height and width must be multiples of this: the side of a token's patch."""
        return 16

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tokens at `image_size`."""
        return self.image_size[0] // self.stride, self.image_size[1] // self.stride

    def scaled(self, channels: int) -> int:
        """As many channels at this width, at least one."""
        return max(1, round(channels * self.width))


class StandardisedConv2d(nn.Conv2d):
    """A convolution whose kernel is shifted and scaled to mean 0 and variance 1 per output channel."""

    def forward(self, features: Tensor) -> Tensor:
        variance, mean = torch.var_mean(self.weight, dim=(1, 2, 3), keepdim=True, correction=0)
        kernel = (self.weight - mean) * torch.rsqrt(variance + STANDARD_EPSILON)
        return functional.conv2d(features, kernel, self.bias, self.stride, self.padding)


class Bottleneck(nn.Module):
    """1×1, 3×3 (with the stride) and 1×1 standardised convolution, each with GroupNorm, and the skip."""

    def __init__(self, channels_in: int, channels_mid: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = StandardisedConv2d(channels_in, channels_mid, 1, bias=False)
        self.gn1 = group_norm(channels_mid)
        self.conv2 = StandardisedConv2d(channels_mid, channels_mid, 3, stride, padding=1, bias=False)
        self.gn2 = group_norm(channels_mid)
        self.conv3 = StandardisedConv2d(channels_mid, channels_out, 1, bias=False)
        self.gn3 = group_norm(channels_out)
        self.skip = nn.Sequential()
        if stride != 1 or channels_in != channels_out:
            self.skip.append(StandardisedConv2d(channels_in, channels_out, 1, stride, bias=False))
            self.skip.append(nn.GroupNorm(channels_out, channels_out))

    def forward(self, features: Tensor) -> Tensor:
        inner = functional.relu(self.gn1(self.conv1(features)))
        inner = functional.relu(self.gn2(self.conv2(inner)))
        return functional.relu(self.gn3(self.conv3(inner)) + self.skip(features))


class Layer(nn.Module):
    """One layer of the transformer, norms first: tokens (B, N, C) → (B, N, C)."""

    def __init__(self, config: TransUNetConfig) -> None:
        super().__init__()
        width = config.hidden
        self.attention_heads = config.attention_heads
        self.attention_norm = nn.LayerNorm(width, LAYER_EPSILON)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.mlp_norm = nn.LayerNorm(width, LAYER_EPSILON)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(config.dropout)
        for linear in (self.fc1, self.fc2):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.normal_(linear.bias, std=1e-6)

    def forward(self, tokens_BNC: Tensor) -> Tensor:
        tokens = tokens_BNC + self._attended(self.attention_norm(tokens_BNC))
        inner = self.dropout(functional.gelu(self.fc1(self.mlp_norm(tokens))))
        result: Tensor = tokens + self.dropout(self.fc2(inner))
        return result

    def _attended(self, tokens_BNC: Tensor) -> Tensor:
        per_head = (self.attention_heads, tokens_BNC.shape[-1] // self.attention_heads)
        query, key, value = (
            linear(tokens_BNC).unflatten(-1, per_head).transpose(1, 2) for linear in (self.query, self.key, self.value)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value)
        result: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return result


class TransUNet(nn.Module):
    """Images (B, in_channels, H, W) → logits (B, out_channels, H, W); H and W multiples of `config.stride`."""

    def __init__(self, config: TransUNetConfig) -> None:
        super().__init__()
        self.config = config
        stem = config.stem
        self.root = nn.Sequential(
            StandardisedConv2d(config.in_channels, stem, 7, 2, padding=3, bias=False), group_norm(stem), nn.ReLU()
        )
        self.stages = nn.ModuleList(
            _stage(stem if i == 0 else stem * 2 ** (i + 1), stem * 2**i, count, stride=1 if i == 0 else 2)
            for i, count in enumerate(config.units)
        )
        self.embed = nn.Conv2d(stem * 16, config.hidden, 1)
        self.positions = nn.Parameter(torch.zeros(1, math.prod(config.grid), config.hidden))
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.hidden, LAYER_EPSILON)
        channels, skips = config.decoder, (stem * 8, stem * 4, stem, 0)
        self.reduce = nn.Sequential(*_merge(config.hidden, channels[0]))
        self.decoder = nn.ModuleList(
            nn.Sequential(*_merge(before + skip, after), *_merge(after, after))
            for before, after, skip in zip(channels[:-1], channels[1:], skips, strict=True)
        )
        self.head = nn.Conv2d(channels[-1], config.out_channels, 3, padding=1)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """ResNet, transformer, decoder."""
        deepest, skips = self._encoded(images_BCHW)
        features = self.reduce(self._transformed(deepest))
        for merge, skip in zip(self.decoder, (*skips, None), strict=True):
            features = functional.interpolate(features, scale_factor=2, mode="bilinear", align_corners=True)
            features = merge(features if skip is None else torch.cat([features, skip], dim=1))
        logits_BKHW: Tensor = self.head(features)
        return logits_BKHW

    def _encoded(self, images_BCHW: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        """Features at 1/16, and the skips at 1/8, 1/4 and 1/2."""
        height, width = images_BCHW.shape[-2:]
        half = self.root(images_BCHW)
        quarter = self.stages[0](functional.max_pool2d(half, 3, 2))
        eighth = self.stages[1](quarter)
        missing = (0, width // 4 - quarter.shape[-1], 0, height // 4 - quarter.shape[-2])
        return self.stages[2](eighth), (eighth, functional.pad(quarter, missing), half)

    def _transformed(self, features_BCHW: Tensor) -> Tensor:
        embedded = self.embed(features_BCHW)
        grid = (embedded.shape[-2], embedded.shape[-1])
        tokens_BNC = self.dropout(embedded.flatten(2).mT + resized(self.positions, self.config.grid, grid))
        for layer in self.layers:
            tokens_BNC = layer(tokens_BNC)
        transformed: Tensor = self.norm(tokens_BNC).mT.unflatten(2, grid)
        return transformed


def group_norm(channels: int) -> nn.GroupNorm:
    """32 groups; at a reduced width as many of them as the channels can be shared by."""
    return nn.GroupNorm(math.gcd(GROUPS, channels), channels, eps=GROUP_EPSILON)


def resized(positions_1NC: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Learned positions of a grid of `old` (rows, columns) tokens for one of `new`: bilinear, corners on corners."""
    if old == new:
        return positions_1NC
    grid_1CHW = positions_1NC.mT.reshape(1, -1, *old)
    return functional.interpolate(grid_1CHW, new, mode="bilinear", align_corners=True).flatten(2).mT


def _stage(channels_in: int, channels_mid: int, count: int, stride: int) -> nn.Sequential:
    channels_out = 4 * channels_mid
    first = Bottleneck(channels_in, channels_mid, channels_out, stride)
    return nn.Sequential(first, *(Bottleneck(channels_out, channels_mid, channels_out, 1) for _ in range(count - 1)))


def _merge(channels_in: int, channels_out: int) -> list[nn.Module]:
    convolution = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(channels_out), nn.ReLU(inplace=True)]
