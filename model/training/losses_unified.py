"""Losses of system (c), unified unpaired segmentation: SegAN's multi-scale L1 and UAGAN's objective, and their sum.

Per step three parties learn (models.md §3.5, after Xue et al. 2018 and Yuan et al. 2019). x is an image of modality c,
y its truth, c' another modality, G(x, c') = (ŷ, x') the logits and the redrawn image, P the lesion probability:

    D minimises  E[D(x')] − E[D(x)] + 10·GP + CE(cls(x), c)
    C maximises  L_ms(P)
    G minimises  −E[D(x')] + CE(cls(x'), c') + 10·|x − G(x', c)|₁ + λ_s(t)·CE_w(ŷ(x'), y)
                 + 100·CE_w(ŷ, y) + 10·L_ms(P) + Dice²(P, y)

Every function is pure and counts in float32. The `…_terms` return the weighted terms by name: their sum is the loss,
and each is worth a curve of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

SMOOTH = 1e-5

Terms = dict[str, Tensor]


@dataclass(frozen=True)
class UnifiedWeights:
    """Weights of the objective; the defaults are those of models.md §3.5.

    `background` and `lesion` are the class weights of CE_w. The published pair counts a missed lesion pixel 49 times a
    false one, so the best threshold lies well above 0.5: choose it on validation. λ_s grows linearly from 0 to
    `translated_segmentation` over the first `ramp_share` of the epochs.
    """

    adversarial: float = 1.0
    gradient_penalty: float = 10.0
    classification: float = 1.0
    cycle: float = 10.0
    segmentation: float = 100.0
    translated_segmentation: float = 100.0
    ramp_share: float = 0.6
    multiscale: float = 10.0
    dice: float = 1.0
    background: float = 0.02
    lesion: float = 0.98


# SegAN on its own: the segmentor learns from the critic and Dice, from no pixel's cross-entropy
SEGAN_WEIGHTS = UnifiedWeights(segmentation=0.0, multiscale=1.0, dice=1.0)


def lesion_probability(logits_BKHW: Tensor) -> Tensor:
    """(B, 1, H, W): the sigmoid of one channel, or of two the softmax of the second (background, lesion)."""
    logits = logits_BKHW.float()
    if logits.shape[1] == 1:
        return torch.sigmoid(logits)
    return torch.softmax(logits, dim=1)[:, 1:2]


def multiscale_l1(answered: Sequence[Tensor], true: Sequence[Tensor]) -> Tensor:
    """L_ms = (1/L) Σ_i mean|f^i(x⊙P) − f^i(x⊙Y)| over the critic's L levels: each level counts the same."""
    levels = [functional.l1_loss(a.float(), t.float()) for a, t in zip(answered, true, strict=True)]
    return torch.stack(levels).mean()


def vector_l1(answered_BN: Tensor, true_BN: Tensor) -> Tensor:
    """The reference's form of L_ms: mean|Δ| over one vector of all levels, so that large levels count more."""
    return functional.l1_loss(answered_BN.float(), true_BN.float())


def squared_dice_loss(probability_B1HW: Tensor, target_B1HW: Tensor, smooth: float = SMOOTH) -> Tensor:
    """1 − mean over images of (2ΣPY + ε)/(ΣP² + ΣY² + ε), SegAN's; by ε an empty answer to an empty image is right."""
    p, y = probability_B1HW.float().flatten(1), target_B1HW.float().flatten(1)
    return 1 - ((2 * (p * y).sum(1) + smooth) / ((p * p).sum(1) + (y * y).sum(1) + smooth)).mean()


def weighted_cross_entropy(logits_BKHW: Tensor, target_B1HW: Tensor, weights: UnifiedWeights) -> Tensor:
    """CE_w, the mean over pixels weighted by their class. One channel is read as (0, z), which is the same softmax."""
    logits = logits_BKHW.float()
    if logits.shape[1] == 1:
        logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
    classes = torch.tensor([weights.background, weights.lesion], device=logits.device)
    return functional.cross_entropy(logits, target_B1HW[:, 0].long(), weight=classes)


def gradient_penalty(
    realness: Callable[[Tensor], Tensor], real_BCHW: Tensor, drawn_BCHW: Tensor, share_B111: Tensor
) -> Tensor:
    """GP = E[(‖∇D(x̂)‖₂ − 1)²] at x̂ = share·real + (1 − share)·drawn (Gulrajani et al., NeurIPS 2017).

    `realness` maps images to scores of any shape, summed per image. The gradient of the result reaches D's weights.
    """
    mixed = (share_B111 * real_BCHW.detach() + (1 - share_B111) * drawn_BCHW.detach()).float().requires_grad_()
    (gradient,) = torch.autograd.grad(realness(mixed).float().sum(), mixed, create_graph=True)
    length_B: Tensor = torch.linalg.vector_norm(gradient.flatten(1), dim=1)
    return ((length_B - 1) ** 2).mean()


def ramp(epoch_share: float, full_at: float, top: float) -> float:
    """From 0 linearly to `top` at the share `full_at` of the epochs, then flat. At once at `top` where full_at is 0."""
    return top * min(1.0, epoch_share / full_at) if full_at > 0 else top


def discriminator_terms(
    real: tuple[Tensor, Tensor], drawn_realness: Tensor, modality_B: Tensor, penalty: Tensor, weights: UnifiedWeights
) -> Terms:
    """What D minimises; `real` is its answer (realness, modality logits) to images of the modalities `modality_B`."""
    realness, modality_logits_BK = real
    return {
        "realness": weights.adversarial * (drawn_realness.float().mean() - realness.float().mean()),
        "gradient_penalty": weights.gradient_penalty * penalty,
        "modality": weights.classification * functional.cross_entropy(modality_logits_BK.float(), modality_B),
    }


def translation_terms(drawn: tuple[Tensor, Tensor], target_modality_B: Tensor, weights: UnifiedWeights) -> Terms:
    """What G minimises to deceive D; `drawn` is D's answer to the images redrawn in `target_modality_B`."""
    realness, modality_logits_BK = drawn
    return {
        "realness": -weights.adversarial * realness.float().mean(),
        "modality": weights.classification * functional.cross_entropy(modality_logits_BK.float(), target_modality_B),
    }


def cycle_terms(
    images_B1HW: Tensor,
    returned_B1HW: Tensor,
    drawn_logits_B2HW: Tensor,
    target_B1HW: Tensor,
    epoch_share: float,
    weights: UnifiedWeights,
) -> Terms:
    """What G minimises on its way back: the image returns, and the redrawn image has the lesions of the original."""
    strength = ramp(epoch_share, weights.ramp_share, weights.translated_segmentation)
    return {
        "cycle": weights.cycle * functional.l1_loss(returned_B1HW.float(), images_B1HW.float()),
        "translated_segmentation": strength * weighted_cross_entropy(drawn_logits_B2HW, target_B1HW, weights),
    }


def segmentation_terms(logits_BKHW: Tensor, target_B1HW: Tensor, distance: Tensor, weights: UnifiedWeights) -> Terms:
    """What G minimises to segment; `distance` is L_ms of the critic."""
    return {
        "segmentation": weights.segmentation * weighted_cross_entropy(logits_BKHW, target_B1HW, weights),
        "multiscale": weights.multiscale * distance,
        "dice": weights.dice * squared_dice_loss(lesion_probability(logits_BKHW), target_B1HW),
    }


def total(terms: Terms) -> Tensor:
    """The loss that the terms make up."""
    return torch.stack(list(terms.values())).sum()
