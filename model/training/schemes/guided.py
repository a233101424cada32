"""System (b): two phases at once, each guided by the lesions of the other (models.md §2).

The masks that guide are the truth's at first and more and more the network's own, so that serving meets what training
knew. Now and then the arterial phase is replaced by the portal-venous one: a study without it must not be lost.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from model.card import Sha256, Strict
from model.networks.cmg import CMG, Phases
from model.problems import TrainingProblem
from model.training.batches import PlanarBatch
from model.training.imagenet import start_encoders
from model.training.losses_guided import guided_dice_loss, guided_loss, predicted_share
from model.training.recipe import checked
from model.training.schemes.supervised import SupervisedScheme

ROLES = ("portal-venous", "arterial")


class GuidedSettings(Strict):
    """Where it departs from the published training, and what its encoders begin with."""

    imagenet: Path | None = None
    """torchvision's resnet34 file for both encoders, which then have full width; without it they begin at random."""
    imagenet_sha256: Sha256 | None = None
    """Of a file that is not torchvision's own."""
    own_masks: bool = True
    """Guide by the network's own masks for a growing share of the images; false is the published training."""
    phase_dropout: Annotated[float, Field(ge=0, le=1)] = 0.15
    guidance: bool = True
    """False leaves the guiding masks empty, which makes the modules pass on what they get: the ablation."""


class GuidedScheme(SupervisedScheme[PlanarBatch]):
    """Six logits a step: two phases at three sizes."""

    def check_settings(self) -> None:
        """Raises TrainingProblem for unknown settings, and for other roles than two phases."""
        recipe = self._recipe
        self._settings = checked(GuidedSettings, recipe)
        if recipe.network.id != "cmg":
            raise TrainingProblem(f"{recipe.name}: the scheme guided trains the network cmg, not {recipe.network.id}")
        if tuple(dict.fromkeys(spec.role for spec in recipe.inputs)) != ROLES:
            raise TrainingProblem(
                f"{recipe.name}: the scheme guided needs the roles {' and '.join(ROLES)}, in this order"
            )

        if self._settings.imagenet is not None and recipe.initial == "he":
            raise TrainingProblem(f"{recipe.name}: encoders from a file are not drawn anew; write `initial: torch`")

    def fresh_network(self) -> nn.Module:
        """With both encoders from the file, where one is named. Raises WeightsProblem for one that is not right."""
        network = super().fresh_network()
        assert isinstance(network, CMG)  # as `check_settings` saw
        start_encoders(network, self._settings.imagenet, self._settings.imagenet_sha256)
        return network

    def terms(self, batch: PlanarBatch, share: float) -> dict[str, Tensor]:
        """The mean loss of all six logits."""
        images, targets = self._phases(batch)
        count = len(images.portal_venous)
        by_own_B = torch.rand(count) < (predicted_share(share) if self._settings.own_masks else 0.0)
        masks = Phases(*(((target >= 0.5) & self._settings.guidance).float() for target in targets))
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._quick):
            assert isinstance(self.trained, CMG)  # as `check_settings` saw
            outputs = self.trained.training_outputs(
                *images, masks=masks, predicted_B=(by_own_B & self._settings.guidance).to(self._device)
            )
        loss = guided_loss if self._recipe.profile == "published" else guided_dice_loss
        return {"segmentation": loss(outputs, targets)}

    def _phases(self, batch: PlanarBatch) -> tuple[Phases, Phases]:
        """Images and targets; of some images the arterial phase is the portal-venous one."""
        images, targets = (Phases(*(of[role] for role in ROLES)) for of in (batch.images, batch.targets))
        is_lost_B111 = (torch.rand(len(batch.code_B)) < self._settings.phase_dropout).to(self._device)[
            :, None, None, None
        ]
        return (
            Phases(images.portal_venous, torch.where(is_lost_B111, images.portal_venous, images.arterial)),
            Phases(targets.portal_venous, torch.where(is_lost_B111, targets.portal_venous, targets.arterial)),
        )
