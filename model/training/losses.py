"""Losses: the published generator loss, and the one that the demo bundles are trained with.

L_G = 0.5·BCE + Dice per image (models.md §1.4, after CRLM-GAN) knows tumour slices only: on a slice without any
lesion its Dice term is flat, so false positives are hardly unlearnt. With 40 % of such slices in each batch the Dice
of the whole batch, as nnU-Net takes it in 2-D, did better on phantoms (docs/LOG.md).
The feature constraint L_D joins L_G as a further term of its own; nothing here depends on it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from model.training.losses_volume import Loss, deep_supervision_loss, dice_ce_loss, dice_focal_loss

BCE_WEIGHT = 0.5
SMOOTH = 1e-5
POOLED_BCE_WEIGHT = 2.0


def dice_loss(probability_BKHW: Tensor, target_BKHW: Tensor, smooth: float = SMOOTH) -> Tensor:
    """1 − mean over images of (2ΣPY + ε)/(ΣP + ΣY + ε). The target may be soft, in [0, 1]."""
    shared = (probability_BKHW * target_BKHW).flatten(1).sum(1)
    total = probability_BKHW.flatten(1).sum(1) + target_BKHW.flatten(1).sum(1)
    return 1 - ((2 * shared + smooth) / (total + smooth)).mean()


def generator_loss(logits_BKHW: Tensor, target_BKHW: Tensor, smooth: float = SMOOTH) -> Tensor:
    """0.5·BCE with logits (mean over all pixels) + per-image Dice. Computed in float32 whatever the logits are."""
    logits = logits_BKHW.float()
    bce = functional.binary_cross_entropy_with_logits(logits, target_BKHW)
    return BCE_WEIGHT * bce + dice_loss(torch.sigmoid(logits), target_BKHW, smooth)


def pooled_loss(logits_BKHW: Tensor, target_BKHW: Tensor) -> Tensor:
    """2·BCE + 1 − Dice of the batch as one image, in float32: a false positive costs the same on every slice."""
    logits = logits_BKHW.float()
    bce = functional.binary_cross_entropy_with_logits(logits, target_BKHW)
    probability = torch.sigmoid(logits)
    total = probability.sum() + target_BKHW.sum()
    return POOLED_BCE_WEIGHT * bce + 1 - (2 * (probability * target_BKHW).sum() + 1) / (total + 1)


def dice_ce(logits: Tensor, target: Tensor) -> Tensor:
    """nnU-Net's loss: cross-entropy, and Dice of the whole batch for slices (B, K, H, W), of each image for volumes."""
    return dice_ce_loss(logits, target, batch_dice=logits.ndim == 4)


LOSSES: dict[str, Loss] = {
    "published": generator_loss,
    "pooled": pooled_loss,
    "dice-ce": dice_ce,
    "dice-focal": dice_focal_loss,
}
"""A recipe's `loss` is a key of it."""


def with_deep_supervision(loss: Loss, heads: Sequence[Tensor], target_BKHW: Tensor) -> Tensor:
    """Heads at the target's size count alike (UNet++), heads at several sizes as nnU-Net weighs them."""
    if all(head.shape[2:] == target_BKHW.shape[2:] for head in heads):
        return torch.stack([loss(head, target_BKHW) for head in heads]).mean()
    return deep_supervision_loss(heads, target_BKHW, loss)
