"""UAGAN, the generator of system (c): one network for every modality, from patients imaged with one each.

After Yuan, Wei, Wang et al., "Unified attentional generative adversarial network for brain tumor segmentation from
multimodal unpaired images", MICCAI 2019, and for the discriminator Choi et al., "StarGAN", CVPR 2018. Written from
the layer tables alone; no repository's code is used.

Two U-shaped streams run side by side. The segmentation stream sees the image; the translation stream sees the image
and the one-hot label of a modality, copied to every pixel, and redraws the image in that modality. Both go through
one bottleneck, the same object. At every level each decoder takes its own skip and what attention lets through of the
other stream's:

    fused = own + W(other) ⊙ σ(A(other))        W: [3×3, instance norm, LeakyReLU], A: 3×3

So the answer of the segmentation depends on the modality label too, through the skips of the translation encoder,
which is why the label must be known, or averaged over, at serving. Translated images are for training only.

Without `translation` the network is one stream that reads image and label: the ablation called `unified`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

PUBLISHED_FILTERS = (64, 128, 256, 512)
DISCRIMINATOR_FILTERS = (64, 128, 256, 512, 1024, 2048)
SLOPE = 0.01
SKIP_DROPOUT = 0.5


@dataclass(frozen=True)
class UAGANConfig:
    """Shape of the generator for `modalities` kinds of image. `width` multiplies the filters.

    `tanh` bounds the translated image to [−1, 1], as the images are; the reference leaves it unbounded.
    `lesion_prior` is the probability that the untrained segmentation answers everywhere, by the bias of its head (Lin
    et al., "Focal loss", ICCV 2017); 0.5 is the reference. Lesions are rare, so after an instance norm without weights
    the background is near zero in every channel, and that bias alone sets its probability: from 0.5 it takes long.
    Raises ValueError where it is not between 0 and 1.
    """

    modalities: int = 5
    width: float = 1.0
    translation: bool = True
    tanh: bool = True
    lesion_prior: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.lesion_prior < 1:
            raise ValueError(f"lesion_prior is {self.lesion_prior}; a probability between 0 and 1 is needed")

    @property
    def filters(self) -> tuple[int, ...]:
        """Channels per level; the bottleneck has twice the last."""
        return tuple(max(1, round(f * self.width)) for f in PUBLISHED_FILTERS)

    @property
    def stride(self) -> int:
        """Input height and width must be multiples of this, and at least 32: a norm needs more than one pixel."""
        return int(2 ** len(PUBLISHED_FILTERS))


@dataclass(frozen=True)
class DiscriminatorConfig:
    """Shape of the discriminator for square images of `side` pixels; `side` is a multiple of 64.

    Raises ValueError for any other side: the class head covers the whole of the last feature map.
    """

    modalities: int = 5
    side: int = 256
    in_channels: int = 1
    width: float = 1.0

    def __post_init__(self) -> None:
        if self.side <= 0 or self.side % self.stride:
            raise ValueError(f"the discriminator's side is {self.side}; choose a multiple of {self.stride}")

    @property
    def filters(self) -> tuple[int, ...]:
        return tuple(max(1, round(f * self.width)) for f in DISCRIMINATOR_FILTERS)

    @property
    def stride(self) -> int:
        return int(2 ** len(DISCRIMINATOR_FILTERS))


class Encoded(NamedTuple):
    """What an encoder makes of an image: the input of the bottleneck, and its skips, finest first."""

    deepest_BCHW: Tensor
    skips: tuple[Tensor, ...]


@dataclass(frozen=True)
class UAGANOutputs:
    """What training needs of one pass: logits (B, 2, H, W) and the image in the other modality (B, 1, H, W)."""

    logits_B2HW: Tensor
    translated_B1HW: Tensor


def modality_code(index: int, modalities: int) -> Tensor:
    """The one-hot label (1, K) of modality `index`; a network takes it for a batch of any size.

    Raises ValueError where there is no such modality.
    """
    if not 0 <= index < modalities:
        raise ValueError(f"there is no modality {index} of {modalities}; the index goes from 0 to {modalities - 1}")
    return torch.eye(modalities)[index : index + 1]


def block(channels_in: int, channels_out: int) -> nn.Sequential:
    """Twice [3×3 convolution, instance norm without weights, LeakyReLU]."""
    return nn.Sequential(*_convolved(channels_in, channels_out), *_convolved(channels_out, channels_out))


class AttentionFusion(nn.Module):
    """own + W(other) ⊙ σ(A(other)), all (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.message = nn.Sequential(*_convolved(channels, channels))
        self.gate = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, own_BCHW: Tensor, other_BCHW: Tensor) -> Tensor:
        fused_BCHW: Tensor = own_BCHW + self.message(other_BCHW) * torch.sigmoid(self.gate(other_BCHW))
        return fused_BCHW


class Encoder(nn.Module):
    """Four levels, each followed by 2×2 max pooling; dropout on the last level's skip, in training."""

    def __init__(self, channels_in: int, filters: tuple[int, ...]) -> None:
        super().__init__()
        self.levels = nn.ModuleList(block(i, o) for i, o in pairwise((channels_in, *filters)))
        self.pool = nn.MaxPool2d(2)
        self.dropout = nn.Dropout(SKIP_DROPOUT)

    def forward(self, images_BCHW: Tensor) -> Encoded:
        x, skips = images_BCHW, []
        for level in self.levels:
            skips.append(level(x))
            x = self.pool(skips[-1])
        return Encoded(x, (*skips[:-1], self.dropout(skips[-1])))


class Decoder(nn.Module):
    """From the bottleneck up: [2×2 transposed convolution, concat with the skip, block] per level, then a 1×1 head."""

    def __init__(self, filters: tuple[int, ...], channels_out: int, fused: bool) -> None:
        super().__init__()
        upwards = filters[::-1]
        self.ups = nn.ModuleList(
            nn.ConvTranspose2d(i, o, 2, stride=2) for i, o in pairwise((2 * filters[-1], *upwards))
        )
        self.blocks = nn.ModuleList(block(2 * f, f) for f in upwards)
        self.fusions = nn.ModuleList(AttentionFusion(f) for f in upwards if fused)
        self.head = nn.Conv2d(filters[0], channels_out, 1)

    def forward(self, deepest_BCHW: Tensor, own: tuple[Tensor, ...], other: tuple[Tensor, ...] = ()) -> Tensor:
        """`own` skips, and those of the `other` stream where there is one; finest first."""
        skips = list(own[::-1])
        if self.fusions:
            skips = [fuse(o, a) for fuse, o, a in zip(self.fusions, own[::-1], other[::-1], strict=True)]
        x = deepest_BCHW
        for up, skip, level in zip(self.ups, skips, self.blocks, strict=True):
            x = level(torch.cat([skip, up(x)], dim=1))
        answer_BKHW: Tensor = self.head(x)
        return answer_BKHW


class UAGAN(nn.Module):
    """Images (B, 1, H, W) and modality labels (B, K) or (1, K) → logits (B, 2, H, W): background and lesion."""

    def __init__(self, config: UAGANConfig) -> None:
        super().__init__()
        self.config = config
        f, labelled = config.filters, 1 + config.modalities
        self.encoder = Encoder(1 if config.translation else labelled, f)
        self.bottleneck = block(f[-1], 2 * f[-1])
        self.decoder = Decoder(f, 2, fused=config.translation)
        _expect(self.decoder.head, config.lesion_prior)
        self.translation_encoder = Encoder(labelled, f) if config.translation else None
        self.translation_decoder = Decoder(f, 1, fused=True) if config.translation else None

    def forward(self, images_B1HW: Tensor, modality_BK: Tensor) -> Tensor:
        """The segmentation alone: of the translation stream only its encoder runs."""
        labelled = _labelled(images_B1HW, modality_BK)
        if self.translation_encoder is None:
            one: Encoded = self.encoder(labelled)
            return self._segmentation(one, ())
        return self._segmentation(self.encoder(images_B1HW), self.translation_encoder(labelled).skips)

    def training_outputs(self, images_B1HW: Tensor, target_BK: Tensor) -> UAGANOutputs:
        """Segmentation, and the images redrawn in the modalities `target_BK`. The logits are those of `forward` with
        the same label. Raises ValueError for a network without a translation stream."""
        if self.translation_encoder is None or self.translation_decoder is None:
            raise ValueError("this UAGAN has no translation stream; build it with translation=True, or call forward")
        own: Encoded = self.encoder(images_B1HW)
        other: Encoded = self.translation_encoder(_labelled(images_B1HW, target_BK))
        drawn = self.translation_decoder(self.bottleneck(other.deepest_BCHW), other.skips, own.skips)
        return UAGANOutputs(self._segmentation(own, other.skips), torch.tanh(drawn) if self.config.tanh else drawn)

    def _segmentation(self, own: Encoded, other: tuple[Tensor, ...]) -> Tensor:
        logits_B2HW: Tensor = self.decoder(self.bottleneck(own.deepest_BCHW), own.skips, other)
        return logits_B2HW


class Discriminator(nn.Module):
    """Images (B, in_channels, side, side) → realness (B, 1, side/64, side/64), and modality logits (B, K)."""

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        trunk: list[nn.Module] = []
        for i, o in pairwise((config.in_channels, *config.filters)):
            trunk += [nn.Conv2d(i, o, 4, stride=2, padding=1), nn.LeakyReLU(SLOPE)]
        self.trunk = nn.Sequential(*trunk)
        last = config.filters[-1]
        self.realness = nn.Conv2d(last, 1, 3, padding=1, bias=False)
        self.modality = nn.Conv2d(last, config.modalities, config.side // config.stride, bias=False)

    def forward(self, images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        features = self.trunk(images_BCHW)
        return self.realness(features), self.modality(features).flatten(1)


def _convolved(channels_in: int, channels_out: int) -> tuple[nn.Module, ...]:
    # the reference's bias stands before a norm that takes the mean away; it is kept for the published count
    convolution = nn.Conv2d(channels_in, channels_out, 3, padding=1)
    return convolution, nn.InstanceNorm2d(channels_out), nn.LeakyReLU(SLOPE)


@torch.no_grad()
def _expect(head: nn.Conv2d, lesion_prior: float) -> None:
    """Sets the bias of a two-class head to the log-odds of the prior."""
    if head.bias is not None:
        half = math.log(lesion_prior / (1 - lesion_prior)) / 2
        head.bias.copy_(torch.tensor([-half, half]))


def _labelled(images_B1HW: Tensor, modality_BK: Tensor) -> Tensor:
    """The image and one constant plane per modality: (B, 1 + K, H, W)."""
    batch, _, height, width = images_B1HW.shape
    planes = modality_BK.to(images_B1HW.dtype)[:, :, None, None].expand(batch, -1, height, width)
    return torch.cat([images_B1HW, planes], dim=1)
