"""Losses of system (d), of the nnU-Net recipe and of `best`: classes by softmax, in 2-D or 3-D, in float32 throughout.

Targets are one-hot (B, K, …) and may be soft; class 0 is the background. One channel is a lesion's logit (sigmoid).
Where D, H, W stand in a name, slices may be missing: the functions take (B, K, H, W) as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional

SMOOTH = 1e-5
VAE_WEIGHTS: Mapping[str, float] = MappingProxyType({"published": 0.1, "best": 0.1, "as-coded": 0.0})
LABEL_SMOOTHING = 0.1

Loss = Callable[[Tensor, Tensor], Tensor]


def dice_focal_loss(logits_BKDHW: Tensor, target_BKDHW: Tensor) -> Tensor:
    """Dice of the softmax per image and class + focal loss (γ = 2), both without background (models.md §4.3).

    The focal term takes each class's own sigmoid whatever the softmax says; so do MONAI and system (d).
    """
    loss: Tensor = _dice_focal()(logits_BKDHW.float(), target_BKDHW.float())
    return loss


@cache
def _dice_focal() -> Loss:
    from monai.losses.dice import DiceFocalLoss  # takes seconds to import, and few recipes ask for it

    return DiceFocalLoss(include_background=False, softmax=True, gamma=2.0, smooth_nr=SMOOTH, smooth_dr=SMOOTH)


def with_vae_loss(segmentation: Tensor, vae: Tensor, profile: str) -> Tensor:
    """The loss of a step of SegResNet: segmentation + w·[mean(μ²) + MSE], w = 0.1 (Myronenko 2018, eq. 1).

    `as-coded` has w = 0: system (d) computes the autoencoder's loss and drops it, so that its branch never learns.
    """
    weight = VAE_WEIGHTS[profile]
    return segmentation + weight * vae.float() if weight else segmentation


def dice_ce_loss(logits_BKDHW: Tensor, target_BKDHW: Tensor, *, batch_dice: bool) -> Tensor:
    """1 − Dice + cross-entropy, as nnU-Net takes them: Dice without background, ε = 1e-5, mean over classes.

    Dice of one class is (2ΣPY + ε) / (ΣP + ΣY + ε). With `batch_dice` the sums run over the whole batch, as nnU-Net
    does in 2-D; without, over each image. One channel: sigmoid and binary cross-entropy.
    """
    logits, target = logits_BKDHW.float(), target_BKDHW.float()
    if logits.shape[1] == 1:
        probability, entropy = logits.sigmoid(), functional.binary_cross_entropy_with_logits(logits, target)
    else:
        probability, entropy = logits.softmax(1)[:, 1:], functional.cross_entropy(logits, target)
        target = target[:, 1:]
    over = ((0,) if batch_dice else ()) + tuple(range(2, logits.ndim))
    shared = (probability * target).sum(over)
    total = probability.sum(over) + target.sum(over)
    return 1 - ((2 * shared + SMOOTH) / (total + SMOOTH)).mean() + entropy


def supervision_weights(heads: int) -> tuple[float, ...]:
    """Weights of deep supervision, finest head first: 1/2^i, the lowest 0, their sum 1 (nnU-Net). One head: 1."""
    raw = [2.0**-i for i in range(max(heads - 1, 1))] + [0.0] * (heads > 1)
    return tuple(weight / sum(raw) for weight in raw)


def deep_supervision_loss(heads: Sequence[Tensor], target_BKDHW: Tensor, loss: Loss) -> Tensor:
    """Σ w_i·loss(head i, target at its resolution), finest head first; heads of weight 0 are not computed.

    The target is taken at the voxel nearest to each coarse voxel's centre, so that it stays one-hot.
    """
    terms = [
        weight * loss(logits, _at_resolution(target_BKDHW, logits))
        for weight, logits in zip(supervision_weights(len(heads)), heads, strict=True)
        if weight
    ]
    return torch.stack(terms).sum()


def _at_resolution(target_BKDHW: Tensor, logits: Tensor) -> Tensor:
    if target_BKDHW.shape[2:] == logits.shape[2:]:
        return target_BKDHW
    return functional.interpolate(target_BKDHW.float(), logits.shape[2:], mode="nearest-exact")


def smoothed_target(target_B3DHW: Tensor, expected_B: Tensor, epsilon: float = LABEL_SMOOTHING) -> Tensor:
    """Knowledge-informed label smoothing, our reading of the second version of system (d), whose formula is not known.

    Inside liver ∪ tumour y' = (1 − ε)·y + ε·(0, 1 − r̂, r̂); the background stays as it is (models.md §4.3). Channels:
    background, liver, tumour; r̂ is the share of tumour that the clinical table lets one expect. Images whose r̂ is NaN
    are not smoothed.
    """
    expected = expected_B.float().view(-1, *(1,) * (target_B3DHW.ndim - 2))
    prior = torch.stack([torch.zeros_like(expected), 1 - expected, expected], dim=1)
    target = target_B3DHW.float()
    smoothed = target + epsilon * (1 - target[:, :1]) * (prior - target)
    return torch.where(expected.isnan().unsqueeze(1), target, smoothed)
