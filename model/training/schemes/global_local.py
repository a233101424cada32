"""System (d): SegResNet with its autoencoder, and the share of tumour that a clinical table lets one expect.

Both stages (models.md §4) are trained so: the liver in the whole field, the tumour inside the liver. `published` is
what the text says: the autoencoder's loss with weight 0.1 and λ·(ρ − r̂)² on probabilities. `as-coded` is what the
code does: no autoencoder, ρ of raw logits, the next patient's r̂. `best` leaves out predictors of the future and asks
for no more than the table knows. The served network has no autoencoder.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from model.card import VolumeInput
from model.networks import build_network
from model.problems import TrainingProblem
from model.training.losses_volume import VAE_WEIGHTS, smoothed_target
from model.training.losses_weak import as_coded_weak_ratio_loss, weak_ratio_loss
from model.training.patches import VolumeBatch
from model.training.recipe import checked
from model.training.schemes.supervised import SupervisedScheme
from model.training.weak_supervision import GlobalLocalSettings

CLASSES = ("background", "liver", "lesion")


class GlobalLocalScheme(SupervisedScheme[VolumeBatch]):
    """The segmentation loss, the autoencoder's, and that of the share of tumour."""

    def check_settings(self) -> None:
        """Raises TrainingProblem for unknown settings, or a recipe that they do not fit."""
        recipe = self._recipe
        self._settings = checked(GlobalLocalSettings, recipe)
        if recipe.network.id != "segresnet" or not isinstance(recipe.inputs[0], VolumeInput):
            raise TrainingProblem(f"{recipe.name}: the scheme global-local trains segresnet on volume inputs")
        if self._settings.clinical_table is not None and recipe.output.classes != CLASSES:
            raise TrainingProblem(
                f"{recipe.name}: a clinical table tells of the share of tumour in the liver; the classes must be "
                f"{', '.join(CLASSES)}"
            )
        self._patch_DHW = recipe.inputs[0].patch_DHW
        self._vae_weight = VAE_WEIGHTS[recipe.profile]

    def fresh_network(self) -> nn.Module:
        """SegResNet with its autoencoder. Raises TrainingProblem for patches that do not fit."""
        from model.networks.segresnet import SegResNet, with_vae  # brings MONAI, which takes seconds to import

        serving = build_network(self._recipe.network.id, self._recipe.network.kwargs)
        assert isinstance(serving, SegResNet)  # as `check_settings` saw
        try:
            return with_vae(serving.config, self._patch_DHW)
        except ValueError as error:
            raise TrainingProblem(f"{self._recipe.name}: {error}") from error

    def terms(self, batch: VolumeBatch, share: float) -> dict[str, Tensor]:
        """`segmentation`, and where they apply `autoencoder` and `ratio`."""
        role, target = next(iter(batch.targets.items()))
        if self._settings.label_smoothing and self._recipe.output.classes == CLASSES:
            target = smoothed_target(target, batch.weak.expected_B, self._settings.label_smoothing)
        logits, autoencoder = self._outputs(batch.images[role])
        terms = {"segmentation": self.segmentation([logits], target)}
        if autoencoder is not None:
            terms["autoencoder"] = self._vae_weight * autoencoder.float()
        if self._settings.clinical_table is not None and self._settings.ratio_weight:
            terms["ratio"] = self._ratio(logits, batch)
        return terms

    def serving_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """All but the autoencoder's."""
        from model.networks.segresnet import serving_state_dict  # as above

        return serving_state_dict(state)

    def _outputs(self, images_B1DHW: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits, and the autoencoder's loss where it counts."""
        from model.networks.segresnet import SegResNetWithVae  # as above

        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._quick):
            if not self._vae_weight:
                return self.trained(images_B1DHW), None
            assert isinstance(self.trained, SegResNetWithVae)  # `fresh_network` made it
            outputs = self.trained.training_outputs(images_B1DHW)
        return outputs.logits, outputs.vae_loss

    def _ratio(self, logits_BKDHW: Tensor, batch: VolumeBatch) -> Tensor:
        weight = self._settings.ratio_weight
        if self._recipe.profile != "as-coded":
            return weak_ratio_loss(logits_BKDHW, batch.weak, batch.margin, weight)
        is_known_B = ~batch.following_B.isnan()
        if not bool(is_known_B.any()):
            return logits_BKDHW.sum() * 0.0
        return as_coded_weak_ratio_loss(logits_BKDHW[is_known_B], batch.following_B[is_known_B][None], 0, weight)
