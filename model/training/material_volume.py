"""Volumes of the training and validation cases of one recipe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from model.hardware import has_bf16
from model.metrics import Overlap
from model.training.material_planar import label_of, target_probability
from model.training.patches import Laying, VolumeBatch, normalised, patch_batch, targets_of
from model.training.recipe import Recipe
from model.training.sources import Split
from model.training.volumes import SeenVolume, VolumeSet, volume_set
from model.training.weak_supervision import digest_of, expectations_of
from model.volumetric import in_windows

if TYPE_CHECKING:
    from model.training.material import Drawn


@dataclass(frozen=True)
class VolumeMaterial:
    """A `Material`: patches of the training volumes, windows over the validation volumes."""

    recipe: Recipe
    training: VolumeSet
    validation: VolumeSet
    laying: Laying

    @classmethod
    def of(cls, recipe: Recipe, split: Split, cache: Path, *, workers: int, drawn: Drawn) -> VolumeMaterial:
        """Raises TrainingProblem, CaseProblem."""
        training, validation = (
            volume_set(sources, recipe.inputs, cache, workers=workers, done=drawn(phase))
            for phase, sources in (("training cases", split.training), ("validation cases", split.validation))
        )
        return cls(recipe, training, validation, Laying.of(recipe, training, expectations_of(recipe, training)))

    @property
    def epoch(self) -> int:
        """A patch of each volume."""
        return len(self.laying)

    @property
    def identity(self) -> str:
        """The clinical table decides too."""
        return digest_of(self.recipe)

    def batch(self, number: int, part: slice) -> VolumeBatch:
        """Augmented patches."""
        return patch_batch(self.recipe, self.laying, number, part)

    def look(self, network: nn.Module, device: torch.device) -> float:
        """Mean Dice at half of the validation volumes, seen in the windows of serving."""
        network.eval()
        return float(np.mean([self._dice(network, device, volume) for volume in self.validation.volumes]))

    def hardness(self, network: nn.Module, device: torch.device) -> Tensor:
        """Never asked: `Laying.of` refuses recipes that search for what is hard."""
        raise NotImplementedError("volumes are not weighed by hardness")

    def weigh(self, hardness: Tensor) -> None:
        """As `hardness`."""
        raise NotImplementedError("volumes are not weighed by hardness")

    @torch.no_grad()
    def _dice(self, network: nn.Module, device: torch.device, volume: SeenVolume) -> float:
        picture = torch.from_numpy(volume.image_DHW.astype(np.float32)) / 255
        image = normalised(picture, volume.spec)[None, None].to(device)
        label = label_of(torch.tensor([volume.code], device=device), self.recipe)
        is_quick = self.recipe.precision == "auto" and has_bf16(device)

        def of_window(window: Tensor) -> Tensor:
            with torch.autocast(device.type, torch.bfloat16, enabled=is_quick):
                logits: Tensor = network(window, *label)
            return target_probability(logits.float(), self.recipe)[:, None]

        found_DHW = in_windows(image, of_window, volume.spec)[0, 0].cpu().numpy() >= 0.5
        channels = targets_of(torch.from_numpy(volume.classes_DHW.astype(np.int64))[None], self.recipe.output)
        true_DHW = channels[0, self.recipe.output.classes.index(self.recipe.output.target)].numpy() > 0
        both = int(np.count_nonzero(found_DHW & true_DHW))
        return Overlap(both, int(found_DHW.sum()) - both, int(true_DHW.sum()) - both).dice
