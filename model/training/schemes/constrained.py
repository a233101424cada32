"""System (a): a generator learns from the truth, and from what a ResNet-50 sees in image ⊙ answer and image ⊙ truth.

`profile: as-coded` reproduces the published script, whose constraint has no gradient (models.md §0.1): it is there to
be measured. Without a file of ImageNet weights the judge is random: its batch norm is then calibrated on the first
batch and each stage's term is divided by its value there, and the row is never called CRLM-GAN.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from model.card import Sha256, Strict
from model.training.adversary import AdversaryConfig, Judge, adversary_optimiser, step_adversary
from model.training.batches import PlanarBatch
from model.training.distributed import World
from model.training.imagenet import feature_extractor
from model.training.losses_constraint import (
    AS_CODED,
    PUBLISHED,
    ConstraintConfig,
    feature_constraint,
    on_stages,
    terms_at_start,
)
from model.training.recipe import Recipe, checked
from model.training.schemes.supervised import SupervisedScheme


class ConstrainedSettings(Strict):
    """The judge: its weights, the stages that count, and whether it learns."""

    imagenet: Path | None = None
    """torchvision's resnet50 file; without it the features are random."""
    imagenet_sha256: Sha256 | None = None
    """Of a file that is not torchvision's own."""
    stages: Annotated[tuple[Annotated[int, Field(ge=1, le=4)], ...], Field(min_length=1)] = (1, 2, 3, 4)
    strength: Annotated[float, Field(gt=0)] = 1.0
    judge: Literal["frozen", "adversarial"] = "frozen"
    warm_up_share: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Of the training, before an adversarial judge begins to learn."""
    bound: Literal["gradient-penalty", "weight-clip"] = "gradient-penalty"


class ConstrainedScheme(SupervisedScheme[PlanarBatch]):
    """As supervised, with λ·L_D as a further term."""

    def __init__(
        self, recipe: Recipe, device: torch.device, world: World, begun: Mapping[str, Tensor] | None = None
    ) -> None:
        """Raises TrainingProblem for settings that it does not know, WeightsProblem for a file that is not right."""
        super().__init__(recipe, device, world, begun)
        torch.manual_seed(recipe.seed + 7)
        self._extractor = feature_extractor(self._settings.imagenet, self._settings.imagenet_sha256).to(device)
        self._constraint = _constraint(recipe, self._settings)
        self._scales: tuple[float, ...] | None = None
        self._steepest = 1.0
        self._is_ready = False
        self._adversary = AdversaryConfig(bound=self._settings.bound)
        self._judge_optimiser = adversary_optimiser(self._extractor, self._adversary)

    def check_settings(self) -> None:
        """Raises TrainingProblem for unknown settings."""
        self._settings = checked(ConstrainedSettings, self._recipe)

    def step(self, batches: Sequence[PlanarBatch], share: float) -> dict[str, float]:
        """One step of the judge where it learns, then one of the generator."""
        if not self._is_ready:
            self._prepare(batches[0].to(self._device))
        judged = self._step_judge(batches, share)
        return {**judged, **super().step(batches, share)}

    def terms(self, batch: PlanarBatch, share: float) -> dict[str, Tensor]:
        """The segmentation loss, and the constraint on the last head's answer."""
        heads = self.answers(batch)
        role = next(iter(batch.images))
        image, target = batch.images[role], batch.targets[role]
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._quick):
            constraint = feature_constraint(self._extractor, image, heads[0], target, self._constraint, self._scales)
        return {"segmentation": self.segmentation(heads, target), "constraint": constraint}

    def state_dict(self) -> dict[str, Any]:
        """The generator's, and the judge's: random features too must be the same when a training goes on."""
        return {
            **super().state_dict(),
            "extractor": self._extractor.state_dict(),
            "judge_optimiser": self._judge_optimiser.state_dict(),
            "scales": list(self._scales or ()),
            "steepest": self._steepest,
            "is_ready": self._is_ready,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse."""
        super().load_state_dict(state)
        self._extractor.load_state_dict(state["extractor"])
        self._judge_optimiser.load_state_dict(dict(state["judge_optimiser"]))
        self._scales = tuple(state["scales"]) or None
        self._steepest, self._is_ready = float(state["steepest"]), bool(state["is_ready"])

    def _prepare(self, batch: PlanarBatch) -> None:
        """Before the first step: what random features need to be comparable, and how steep the judge is."""
        role = next(iter(batch.images))
        image, target = batch.images[role], batch.targets[role]
        logits = self._looked_at(batch)
        if self._extractor.weights == "random":
            self._extractor.calibrate([image])
            self._scales = terms_at_start(self._extractor, image, logits, target, self._constraint)
        if self._settings.judge == "adversarial":
            steep_B = self._judge().steepness(image * torch.sigmoid(logits), image * target)
            self._steepest = float(steep_B.mean().detach())
        self._is_ready = True

    def _step_judge(self, batches: Sequence[PlanarBatch], share: float) -> dict[str, float]:
        if self._settings.judge == "frozen" or share < self._settings.warm_up_share:
            return {}
        batch = batches[0].to(self._device)
        role = next(iter(batch.images))
        logits = self._looked_at(batch)
        image, target = batch.images[role], batch.targets[role]
        ascended = step_adversary(self._judge(), self._judge_optimiser, image, logits, target, self._adversary)
        return {"judge": ascended}

    @torch.no_grad()
    def _looked_at(self, batch: PlanarBatch) -> Tensor:
        """The generator's logits as it is in training; its norms' statistics do not notice."""
        kept = {name: buffer.clone() for name, buffer in self.trained.named_buffers()}
        self.trained.train()
        logits = self.answers(batch)[0].float()
        for name, buffer in self.trained.named_buffers():
            buffer.copy_(kept[name])
        return logits

    def _judge(self) -> Judge:
        return Judge(self._extractor, self._constraint, self._scales, self._steepest)


def _constraint(recipe: Recipe, settings: ConstrainedSettings) -> ConstraintConfig:
    if recipe.profile == "as-coded":
        return AS_CODED
    chosen = PUBLISHED if settings.stages == (1, 2, 3, 4) else on_stages(*settings.stages)
    return ConstraintConfig(chosen.stage_weights, chosen.masked_by, chosen.is_detached, settings.strength)
