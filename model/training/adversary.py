"""The adversarial option of system (a): the ResNet-50 learns to tell prediction and truth apart, one step per step.

The paper quotes a GAN's objective, its code keeps the judge frozen; frozen is the default, this the alternative
(models.md §1.5). The judge ascends L_D with the convolutions of its stages 1 to 4, after some epochs in which only
the generator learns. L_D grows with the size of the weights alone, so something has to bound it:

- `gradient-penalty`: between the two masked images L_D may not get steeper than it was at step 0 (on interpolates, as
  in Gulrajani et al., NIPS 2017; one-sided, as in Petzka et al., ICLR 2018). A bound of 1, usual for a critic that
  starts from nothing, would fight the features themselves: calibrated random stages start at 8, 25, 270 and 620;
- `weight-clip`: each weight within ±0.05, as SegAN does it. For ImageNet weights the first clip is a cut.

Batch norm is frozen in either case, statistics and weights. Outside of `step_adversary` no parameter of the
extractor takes a gradient, so that the generator's step needs to know nothing of all this.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from model.networks.resnet50_features import ResNet50Features
from model.training.losses_constraint import PUBLISHED, ConstraintConfig, distances, mask_of, weighted_sum


@dataclass(frozen=True)
class AdversaryConfig:
    """How the judge learns."""

    learning_rate: float = 1e-5
    beta1: float = 0.5
    warm_up_epochs: int = 10
    bound: Literal["gradient-penalty", "weight-clip"] = "gradient-penalty"
    penalty_weight: float = 10.0
    clip: float = 0.05

    def learns(self, epoch: int) -> bool:
        """Whether the judge takes steps in this epoch, counted from 0."""
        return epoch >= self.warm_up_epochs


def adversary_optimiser(extractor: ResNet50Features, config: AdversaryConfig) -> torch.optim.Adam:
    """Adam over the convolutions of stages 1 to 4."""
    return torch.optim.Adam(
        extractor.adversarial_parameters(), lr=config.learning_rate, betas=(config.beta1, 0.999), foreach=False
    )


@dataclass(frozen=True)
class Judge:
    """L_D with gradients into the extractor, from the branch of the truth too.

    `scales` as of `feature_constraint`; `steepest` is `steepness(…).mean()` at step 0. A resumed run must be given the
    same ones.
    """

    extractor: ResNet50Features
    constraint: ConstraintConfig = PUBLISHED
    scales: Sequence[float] | None = None
    steepest: float = 1.0

    def distance(self, seen_B3HW: Tensor, expected_B3HW: Tensor) -> Tensor:
        """L_D between two masked images, a float32 scalar."""
        last = self.constraint.last_stage
        terms_S = distances(self.extractor.stages(seen_B3HW, last), self.extractor.stages(expected_B3HW, last))
        return weighted_sum(terms_S, self.constraint, self.scales)

    def steepness(self, seen_B3HW: Tensor, expected_B3HW: Tensor) -> Tensor:
        """‖∂L_D/∂x‖·√M of each image (B,), at a random x on the way from what is expected to what is seen.

        M values make an image: so much does L_D change for a change of x of 1 root mean square.
        """
        batch = len(seen_B3HW)
        share_B111 = torch.rand(batch, 1, 1, 1, device=seen_B3HW.device)
        between = torch.lerp(expected_B3HW, seen_B3HW, share_B111).detach().requires_grad_()
        # L_D is a mean over the batch, and no image meets another in it
        distance = batch * self.distance(between, expected_B3HW)
        (slope_BCHW,) = torch.autograd.grad(distance, between, create_graph=True)
        steepness_B: Tensor = slope_BCHW.flatten(1).norm(dim=1) * between[0].numel() ** 0.5
        return steepness_B

    def penalty(self, seen_B3HW: Tensor, expected_B3HW: Tensor) -> Tensor:
        """Mean over images of max(0, steepness / steepest − 1)²."""
        return torch.relu(self.steepness(seen_B3HW, expected_B3HW) / self.steepest - 1).square().mean()


def step_adversary(
    judge: Judge,
    optimiser: torch.optim.Optimizer,
    images_B3HW: Tensor,
    logits_B1HW: Tensor,
    target_B1HW: Tensor,
    config: AdversaryConfig,
) -> float:
    """One step that raises L_D; the generator's logits are taken as they are. Returns L_D before the step."""
    seen = images_B3HW * mask_of(logits_B1HW, judge.constraint).detach()
    expected = images_B3HW * target_B1HW
    with _learning(judge.extractor):
        ascended = judge.distance(seen, expected)
        loss = -ascended
        if config.bound == "gradient-penalty":
            loss = loss + config.penalty_weight * judge.penalty(seen, expected)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's stub leaves backward untyped
        optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    if config.bound == "weight-clip":
        _clip(judge.extractor, config.clip)
    return ascended.item()


@contextmanager
def _learning(extractor: ResNet50Features) -> Iterator[None]:
    parameters = extractor.adversarial_parameters()
    for parameter in parameters:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(False)


@torch.no_grad()
def _clip(extractor: ResNet50Features, bound: float) -> None:
    for parameter in extractor.adversarial_parameters():
        parameter.clamp_(-bound, bound)
