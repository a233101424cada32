"""Losses of system (b), taken over its six logits: two phases at 1/16, 1/8 and full size (models.md §2.6, §2.7).

A smaller target is the maximum over what it covers, so that no small lesion vanishes. Every loss is the mean of six
terms in float32; targets are class labels (B, 1, H, W), 0 and 1 where there is one class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional

from model.networks.cmg import CMGOutputs, Phases

LARGEST_PREDICTED_SHARE = 0.5
SMOOTH = 1.0
Term = Callable[[Tensor, Tensor], Tensor]


def guided_loss(outputs: CMGOutputs, targets: Phases) -> Tensor:
    """Mean of six binary cross-entropies: the published loss for one lesion class."""
    return _mean_of_six(functional.binary_cross_entropy_with_logits, outputs, targets)


def guided_dice_loss(outputs: CMGOutputs, targets: Phases) -> Tensor:
    """Mean of six BCE + soft Dice of the whole batch: `best`, which slices without a lesion may be part of."""
    return _mean_of_six(_bce_and_dice, outputs, targets)


def guided_class_loss(outputs: CMGOutputs, targets: Phases, dice_factor: float = 2.0) -> Tensor:
    """Mean of six 0.5·CE + 0.5·Dice over K softmax classes, background among them: the published loss for CHAOS.

    Dice = 1 − mean over images and classes of (f·ΣPY + 1)/(ΣP + ΣY + 1). `dice_factor` f is 2; the published code
    has 1 there (profile `as-coded`), so that its Dice term ends at 0.5 for a perfect answer.
    """

    def term(logits_BKHW: Tensor, labels_B1HW: Tensor) -> Tensor:
        entropy = functional.cross_entropy(logits_BKHW, labels_B1HW[:, 0].long())
        return 0.5 * entropy + 0.5 * _class_dice(logits_BKHW, labels_B1HW, dice_factor)

    return _mean_of_six(term, outputs, targets)


def predicted_share(progress: float) -> float:
    """Share of images that are guided by the network's own masks, at `progress` 0 to 1 of training: 0 to a half.

    With the truth's masks alone (the published training) serving meets what training never saw.
    """
    return LARGEST_PREDICTED_SHARE * min(max(progress, 0.0), 1.0)


def _mean_of_six(term: Term, outputs: CMGOutputs, targets: Phases) -> Tensor:
    return torch.stack([term(logits, target) for logits, target in _supervised(outputs, targets)]).mean()


def _supervised(outputs: CMGOutputs, targets: Phases) -> Iterator[tuple[Tensor, Tensor]]:
    """Each logits in float32 with its target at the same size."""
    for phases in (outputs.coarse, outputs.fine, outputs.final):
        for logits_BKHW, target_B1HW in zip(phases, targets, strict=True):
            yield logits_BKHW.float(), functional.adaptive_max_pool2d(target_B1HW.float(), logits_BKHW.shape[-2:])


def _bce_and_dice(logits_B1HW: Tensor, target_B1HW: Tensor) -> Tensor:
    probability = torch.sigmoid(logits_B1HW)
    shared, total = (probability * target_B1HW).sum(), probability.sum() + target_B1HW.sum()
    bce = functional.binary_cross_entropy_with_logits(logits_B1HW, target_B1HW)
    return bce + 1 - (2 * shared + SMOOTH) / (total + SMOOTH)


def _class_dice(logits_BKHW: Tensor, labels_B1HW: Tensor, factor: float) -> Tensor:
    probability_BKN = logits_BKHW.softmax(1).flatten(2)
    classes = torch.arange(logits_BKHW.shape[1], device=labels_B1HW.device)
    target_BKN = (labels_B1HW == classes[:, None, None]).float().flatten(2)
    shared_BK = (probability_BKN * target_BKN).sum(-1)
    total_BK = probability_BKN.sum(-1) + target_BKN.sum(-1)
    return 1 - ((factor * shared_BK + SMOOTH) / (total_BK + SMOOTH)).mean()
