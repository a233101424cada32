"""The feature constraint of system (a): a ResNet-50 has to find the predicted lesions like the true ones.

    L = L_G + λ·L_D        L_D = Σ_l w_l · mean|φ_l(X⊙P) − φ_l(X⊙Y)| / t_l        (models.md §1.4)

X is the normalised image, so what is masked away is the grey of its mean; P = sigmoid of the logits, Y the truth,
φ_l stage l of the extractor. t_l is 1 for ImageNet weights; for random ones it is the stage's own term at step 0,
because raw terms differ some 200-fold and one stage would be the whole constraint.

`PUBLISHED` is what the paper says: the gradient goes through P into the generator. `AS_CODED` is what its script
does: it masks with raw logits, weighs the stages as one mean over all features does, and copies the features before
it compares them, so that no gradient comes back at all. It is here to be measured, never a default.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from model.networks.resnet50_features import STAGES, ResNet50Features, Weights


@dataclass(frozen=True)
class ConstraintConfig:
    """How L_D is taken. A stage of weight 0 is left out. Raises ValueError for weights that are no weights."""

    stage_weights: tuple[float, ...] = (1 / STAGES,) * STAGES
    masked_by: Literal["probability", "logits"] = "probability"
    is_detached: bool = False
    strength: float = 1.0

    def __post_init__(self) -> None:
        if len(self.stage_weights) != STAGES or min(self.stage_weights) < 0 or max(self.stage_weights) == 0:
            raise ValueError(
                f"stage_weights are {self.stage_weights}; give {STAGES}, none negative and one at least positive"
            )

    @property
    def last_stage(self) -> int:
        """The deepest stage that counts; those behind it are not computed."""
        return max(number for number, weight in enumerate(self.stage_weights, start=1) if weight > 0)


PUBLISHED = ConstraintConfig()
# one mean over the four stages' values laid end to end: 802,816 : 401,408 : 200,704 : 100,352 at 224²
AS_CODED = ConstraintConfig((8 / 15, 4 / 15, 2 / 15, 1 / 15), masked_by="logits", is_detached=True)


def on_stages(*stages: int) -> ConstraintConfig:
    """The published constraint on these stages only, 1 to 4, evenly weighted: the ablation of the paper."""
    chosen = set(stages)
    if not chosen or not chosen <= set(range(1, STAGES + 1)):
        raise ValueError(f"stages {stages}: name at least one of 1 to {STAGES}")
    return ConstraintConfig(tuple(1 / len(chosen) if n in chosen else 0.0 for n in range(1, STAGES + 1)))


def row_name(weights: Weights) -> str:
    """What a result of the constraint may be called. Features without ImageNet weights are not the published ones."""
    return "CRLM-GAN" if weights == "imagenet" else "constraint (random features)"


def feature_constraint(
    extractor: ResNet50Features,
    images_B3HW: Tensor,
    logits_B1HW: Tensor,
    target_B1HW: Tensor,
    config: ConstraintConfig = PUBLISHED,
    scales: Sequence[float] | None = None,
) -> Tensor:
    """λ·L_D, a float32 scalar; without any gradient where `config.is_detached`.

    `scales` are t_l (`terms_at_start`). Raises ValueError for logits of more than one channel.
    """
    with torch.set_grad_enabled(torch.is_grad_enabled() and not config.is_detached):
        terms_S = stage_terms(extractor, images_B3HW, mask_of(logits_B1HW, config), target_B1HW, config.last_stage)
        return config.strength * weighted_sum(terms_S, config, scales)


def mask_of(logits_B1HW: Tensor, config: ConstraintConfig) -> Tensor:
    """What the image is multiplied with, in float32. Raises ValueError for more than one channel."""
    if logits_B1HW.shape[1] != 1:
        raise ValueError(f"logits have {logits_B1HW.shape[1]} channels; the constraint is defined for one lesion class")
    logits = logits_B1HW.float()
    return logits if config.masked_by == "logits" else torch.sigmoid(logits)


def stage_terms(
    extractor: ResNet50Features, images_B3HW: Tensor, mask_B1HW: Tensor, target_B1HW: Tensor, last: int = STAGES
) -> Tensor:
    """mean|φ_l(X⊙mask) − φ_l(X⊙Y)| of stages 1 to `last`, float32 of shape (last,). The branch of Y has no gradient."""
    seen = extractor.stages(images_B3HW * mask_B1HW, last)
    with torch.no_grad():
        expected = extractor.stages(images_B3HW * target_B1HW, last)
    return distances(seen, expected)


def distances(seen: Sequence[Tensor], expected: Sequence[Tensor]) -> Tensor:
    """Mean absolute difference of each stage, in float32."""
    return torch.stack([(a.float() - b.float()).abs().mean() for a, b in zip(seen, expected, strict=True)])


def weighted_sum(terms_S: Tensor, config: ConstraintConfig, scales: Sequence[float] | None = None) -> Tensor:
    """Σ w_l · term_l / t_l over the stages that were computed."""
    weights_S = terms_S.new_tensor(config.stage_weights[: len(terms_S)])
    if scales is not None:
        weights_S = weights_S / weights_S.new_tensor(tuple(scales)[: len(terms_S)])
    return (weights_S * terms_S).sum()


@torch.no_grad()
def terms_at_start(
    extractor: ResNet50Features,
    images_B3HW: Tensor,
    logits_B1HW: Tensor,
    target_B1HW: Tensor,
    config: ConstraintConfig = PUBLISHED,
) -> tuple[float, ...]:
    """t_l: each stage's term on a batch of step 0, so that all start at 1. A resumed run must be given the same ones.

    Raises ValueError where a term is not positive and finite: the batch then shows no disagreement to measure.
    """
    terms = stage_terms(extractor, images_B3HW, mask_of(logits_B1HW, config), target_B1HW, config.last_stage).tolist()
    for stage, term in enumerate(terms, start=1):
        if not 0 < term < float("inf"):
            raise ValueError(f"the term of stage {stage} is {term} at step 0; take a batch that shows lesions")
    return tuple(terms)
