"""System (b): two phases of CT segmented together, each guided by what the other phase's lesions look like.

Written from the layers, shapes and numbers of models.md §2 (Cross-Modal Guidance with Multi-Scale Fusion); its
repository carries no licence, and none of its code is used here. One ResNet-34 encoder a phase; after each of its last
three stages a fusion block rewrites the features of both phases; one decoder a phase; at 1/16 and 1/8 size a guidance
module. For phase p, whose other phase is q, at one level:

    A_p = 1×1(m_p)   G_p = Double(A_p)   y_p = 1×1(G_p)   Q_p = 1×1(skip_p)
    v_q = Σ_x Q_q(x) M_q(x) / (1e-4 + Σ_x M_q(x))        prototype of q's lesions, M_q their mask
    s_p(x) = cos(Q_p(x), v_q)                             how alike p looks here
    output G_p · (1 + s_p)                                an empty mask gives s = 0 and changes nothing

An average over the mask has no memory of where in the mask a feature stood: that is what the network tolerates of
misregistration. Masks are those of the truth while training (teacher forcing), or the network's own y > 0.

With K > 1 classes (the published variant for CHAOS) there is a prototype per class other than background; their
outputs are concatenated and reduced by a 1×1 convolution, and the 1×1 convolutions of A and Q get batch norm and ReLU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.networks.resnet import LEVELS, PUBLISHED_CHANNELS, level, resnet

FIRST_FUSED_LEVEL = 2
FUSION_KERNELS = (3, 5, 7)
PROTOTYPE_EPSILON = 1e-4
COSINE_EPSILON = 1e-8


class Phases(NamedTuple):
    """The same thing of both phases."""

    portal_venous: Tensor
    arterial: Tensor


@dataclass(frozen=True)
class CMGConfig:
    """Shape of the network. `classes` 1: sigmoid, lesion only; K > 1: softmax, class 0 is background.

    `width` multiplies the published 64 channels of the stem, and all others with it: 0.125 is the demo bundle's.
    """

    in_channels: int = 3
    classes: int = 1
    width: float = 1.0

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of the four stages, doubling from a stem of at least two: fusion wants quarters of the second."""
        stem = max(2, round(PUBLISHED_CHANNELS[0] * self.width))
        return tuple(stem * 2**stage for stage in range(len(PUBLISHED_CHANNELS)))

    @property
    def foreground(self) -> int:
        """Classes that have a prototype."""
        return max(1, self.classes - 1)

    @property
    def stride(self) -> int:
        """Input height and width must be multiples of this."""
        return int(2 ** len(LEVELS))


@dataclass(frozen=True)
class CMGOutputs:
    """The six logits that are supervised, at 1/16, 1/8 and full size."""

    coarse: Phases
    fine: Phases
    final: Phases


@dataclass(frozen=True)
class _Guided:
    """What the decoders have after both guidance modules: features at 1/8, both skips above, auxiliary logits."""

    merged: Phases
    guided: Phases
    skips: tuple[Phases, Phases]
    coarse: Phases
    fine: Phases


class CMG(nn.Module):
    """Slices of two phases (B, in_channels, H, W) → portal-venous logits (B, classes, H, W).

    Both phases lie on one grid, are multiplied by their own liver mask, and have sides that are multiples of
    `config.stride`.
    """

    def __init__(self, config: CMGConfig) -> None:
        super().__init__()
        self.config = config
        _, c2, c3, c4 = config.channels
        self.portal_venous = PhasePath(config)
        self.arterial = PhasePath(config)
        self.fusion = nn.ModuleList([FusionBlock(c2), FusionBlock(c3, c2), FusionBlock(c4, c3)])
        self.guidance = nn.ModuleList([Guidance(c4 + c3, c3, config), Guidance(2 * c3 + c2, c2, config)])

    def forward(self, portal_venous_BCHW: Tensor, arterial_BCHW: Tensor) -> Tensor:
        """Logits of the portal-venous phase, guided by the network's own masks. Half the arterial decoder rests."""
        state = self._guide(Phases(portal_venous_BCHW, arterial_BCHW), None, None)
        skips = [skip.portal_venous for skip in state.skips]
        return self.portal_venous.finish(state.merged.portal_venous, state.guided.portal_venous, *skips)

    def training_outputs(
        self,
        portal_venous_BCHW: Tensor,
        arterial_BCHW: Tensor,
        masks: Phases | None = None,
        predicted_B: Tensor | None = None,
    ) -> CMGOutputs:
        """All six logits.

        `masks`: class labels (B, 1, H, W) of each phase (0 and 1 for one class) that guide instead of the network's
        own; `predicted_B`: true for the images of the batch that are guided by the network's own all the same, so
        that training gets to know what serving meets.
        """
        state = self._guide(Phases(portal_venous_BCHW, arterial_BCHW), masks, predicted_B)
        paths = (self.portal_venous, self.arterial)
        of_phase = zip(paths, state.merged, state.guided, *state.skips, strict=True)
        final = (path.finish(*features) for path, *features in of_phase)
        return CMGOutputs(state.coarse, state.fine, Phases(*final))

    def _guide(self, images: Phases, masks: Phases | None, predicted_B: Tensor | None) -> _Guided:
        c1, c2, c3, c4, c5 = self._encode(images)
        merged = _merge(c5, c4)
        guided, coarse = self.guidance[0](merged, c4, masks, predicted_B)
        pv, art = self.portal_venous, self.arterial
        decoded = Phases(
            torch.cat([pv.decode_16(merged.portal_venous), guided.portal_venous], dim=1),
            torch.cat([art.decode_16(merged.arterial), guided.arterial], dim=1),
        )
        merged = _merge(decoded, c3)
        guided, fine = self.guidance[1](merged, c3, masks, predicted_B)
        return _Guided(merged, guided, (c2, c1), coarse, fine)

    def _encode(self, features: Phases) -> list[Phases]:
        """Five levels, 1/2 to 1/32 size; the last three as fusion rewrote them, which the next level starts from."""
        levels: list[Phases] = []
        fused: Tensor | None = None
        for number in range(len(LEVELS)):
            features = Phases(
                level(self.portal_venous.encoder, number, features.portal_venous),
                level(self.arterial.encoder, number, features.arterial),
            )
            if number >= FIRST_FUSED_LEVEL:
                features, fused = self.fusion[number - FIRST_FUSED_LEVEL](features, fused)
            levels.append(features)
        return levels


class PhasePath(nn.Module):
    """Encoder and decoder of one phase, but for what both phases share."""

    def __init__(self, config: CMGConfig) -> None:
        super().__init__()
        c1, c2, c3, c4 = config.channels
        self.encoder = resnet(34, config.in_channels, config.channels)
        self.decode_16 = double(c4 + c3, c3)
        self.decode_8 = double(2 * c3 + c2, c2)
        self.decode_4 = double(2 * c2 + c1, c1)
        self.decode_2 = double(2 * c1, c1)
        self.head = nn.Conv2d(c1, config.classes, 1, bias=False)

    def finish(self, merged_BCHW: Tensor, guided_BCHW: Tensor, skip_4: Tensor, skip_2: Tensor) -> Tensor:
        """Logits at full size from what is merged and guided at 1/8, and the skips at 1/4 and 1/2."""
        features = torch.cat([self.decode_8(merged_BCHW), guided_BCHW], dim=1)
        features = self.decode_4(torch.cat([up(features), skip_4], dim=1))
        features = self.decode_2(torch.cat([up(features), skip_2], dim=1))
        return up(self.head(features))


class FusionBlock(nn.Module):
    """Multi-scale fusion: both phases, and the fused map of the level above, seen through 3×3, 5×5 and 7×7 windows."""

    def __init__(self, channels: int, channels_above: int | None = None) -> None:
        super().__init__()
        self.shrink = None if channels_above is None else convolution(channels_above, channels, 3, stride=2)
        joined = channels * (2 if channels_above is None else 3)
        half = channels // 2
        windows = [nn.Sequential(convolution(joined, half, 1), convolution(half, half, k)) for k in FUSION_KERNELS]
        pooled = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), convolution(joined, half, 1))
        self.branches = nn.ModuleList([*windows, pooled])
        self.fuse = convolution(4 * half, channels, 1)
        self.to_portal_venous = _residual(channels)
        self.to_arterial = _residual(channels)

    def forward(self, features: Phases, above_BCHW: Tensor | None) -> tuple[Phases, Tensor]:
        """The rewritten features of both phases, and the fused map for the next level."""
        joined = [*features] if self.shrink is None else [*features, self.shrink(above_BCHW)]
        seen = torch.cat(joined, dim=1)
        fused: Tensor = self.fuse(torch.cat([branch(seen) for branch in self.branches], dim=1))
        rewritten = Phases(
            functional.relu(self.to_portal_venous(fused) + features.portal_venous),
            functional.relu(self.to_arterial(fused) + features.arterial),
        )
        return rewritten, fused


class Guidance(nn.Module):
    """The module of one level: each phase's features weighted by their likeness to the other phase's lesions."""

    def __init__(self, merged_channels: int, channels: int, config: CMGConfig) -> None:
        super().__init__()
        self.classes = config.classes
        self.portal_venous = GuidedPhase(merged_channels, channels, config)
        self.arterial = GuidedPhase(merged_channels, channels, config)

    def forward(
        self, merged: Phases, skips: Phases, masks: Phases | None, predicted_B: Tensor | None
    ) -> tuple[Phases, Phases]:
        """The guided features and the auxiliary logits of both phases."""
        pv, art = self.portal_venous, self.arterial
        features = Phases(pv.features(merged.portal_venous), art.features(merged.arterial))
        logits = Phases(pv.classifier(features.portal_venous), art.classifier(features.arterial))
        queries = Phases(pv.query(skips.portal_venous), art.query(skips.arterial))
        labels = (None, None) if masks is None else masks
        planes = Phases(*(self._masks(y, given, predicted_B) for y, given in zip(logits, labels, strict=True)))
        looks = Phases(*(prototypes(q, m) for q, m in zip(queries, planes, strict=True)))
        guided = Phases(
            pv.guide(features.portal_venous, similarity(queries.portal_venous, looks.arterial)),
            art.guide(features.arterial, similarity(queries.arterial, looks.portal_venous)),
        )
        return guided, logits

    def _masks(self, logits_BKHW: Tensor, labels_B1HW: Tensor | None, predicted_B: Tensor | None) -> Tensor:
        """A mask per foreground class (B, F, h, w) at the logits' size: the truth's, or the logits' own decision."""
        own_BFHW = self._planes(logits_BKHW > 0 if self.classes == 1 else logits_BKHW.argmax(1, keepdim=True))
        if labels_B1HW is None:
            return own_BFHW
        given_BFHW = functional.adaptive_max_pool2d(self._planes(labels_B1HW), logits_BKHW.shape[-2:])
        if predicted_B is None:
            return given_BFHW
        return torch.where(predicted_B[:, None, None, None], own_BFHW, given_BFHW)

    def _planes(self, labels_B1HW: Tensor) -> Tensor:
        foreground = torch.arange(1, max(2, self.classes), device=labels_B1HW.device)
        return (labels_B1HW == foreground[:, None, None]).float()


class GuidedPhase(nn.Module):
    """The layers of one phase in a guidance module: A and G (`features`), y (`classifier`), Q (`query`)."""

    def __init__(self, merged_channels: int, channels: int, config: CMGConfig) -> None:
        super().__init__()
        is_binary = config.classes == 1
        project = _bare if is_binary else convolution
        self.features = nn.Sequential(project(merged_channels, channels, 1), double(channels, channels))
        self.classifier = nn.Conv2d(channels, config.classes, 1, bias=not is_binary)
        self.query = project(channels, channels // 2, 1)
        self.reduce = nn.Identity() if is_binary else convolution(config.foreground * channels, channels, 1)

    def guide(self, features_BCHW: Tensor, similarity_BFHW: Tensor) -> Tensor:
        """G·(1 + s), for several classes each in its turn and then reduced to the channels of one."""
        weight_BFHW = (1 + similarity_BFHW).to(features_BCHW.dtype)
        guided_BCHW: Tensor = self.reduce((features_BCHW[:, None] * weight_BFHW[:, :, None]).flatten(1, 2))
        return guided_BCHW


def prototypes(features_BCHW: Tensor, masks_BFHW: Tensor) -> Tensor:
    """Mean feature under each mask, (B, F, C), in float32; zero where a mask is empty."""
    masked = features_BCHW.float()[:, None] * masks_BFHW[:, :, None]
    area_BF = masks_BFHW.sum((-2, -1))
    return masked.sum((-2, -1)) / (PROTOTYPE_EPSILON + area_BF)[..., None]


def similarity(features_BCHW: Tensor, prototypes_BFC: Tensor) -> Tensor:
    """Cosine between every feature and each prototype, (B, F, H, W), in float32; zero for a prototype of zero."""
    # in steps that every back end knows, and without a matrix product that autocast would halve
    directions_BCHW = functional.normalize(features_BCHW.float(), dim=1, eps=COSINE_EPSILON)
    towards_BFC = functional.normalize(prototypes_BFC, dim=2, eps=COSINE_EPSILON)
    return (directions_BCHW[:, None] * towards_BFC[..., None, None]).sum(2)


def _merge(below: Phases, skips: Phases) -> Phases:
    """Each phase's features from below at twice the size, then its skip."""
    return Phases(*(torch.cat([up(deep), skip], dim=1) for deep, skip in zip(below, skips, strict=True)))


def up(features_BCHW: Tensor) -> Tensor:
    """Twice the size, bilinear with aligned corners."""
    return functional.interpolate(features_BCHW, scale_factor=2, mode="bilinear", align_corners=True)


def convolution(channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Convolution without bias, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel, stride=stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
    )


def double(channels_in: int, channels_out: int) -> nn.Sequential:
    """Twice [3×3 convolution without bias, batch norm, ReLU]."""
    return nn.Sequential(*convolution(channels_in, channels_out, 3), *convolution(channels_out, channels_out, 3))


def _bare(channels_in: int, channels_out: int, kernel: int) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, kernel, bias=False)


def _residual(channels: int) -> nn.Sequential:
    """1×1 to a quarter, depth-wise 3×3, 1×1 back; batch norm after each, no ReLU after the last."""
    quarter = channels // 4
    return nn.Sequential(
        *convolution(channels, quarter, 1),
        nn.Conv2d(quarter, quarter, 3, padding=1, groups=quarter, bias=False),
        nn.BatchNorm2d(quarter),
        nn.ReLU(inplace=True),
        _bare(quarter, channels, 1),
        nn.BatchNorm2d(channels),
    )
