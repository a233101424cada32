"""Slices of the training and validation cases of one recipe."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.hardware import has_bf16
from model.training.batches import PlanarBatch, plain_batch, planar_specs, training_batch
from model.training.recipe import Recipe
from model.training.sampling import Indices, Pools
from model.training.slices import PlanarSet, planar_set
from model.training.sources import Split

if TYPE_CHECKING:
    from model.training.material import Drawn


@dataclass
class PlanarMaterial:
    """A `Material`; `pools` change when hard slices are searched."""

    recipe: Recipe
    training: PlanarSet
    validation: PlanarSet
    pools: Pools

    @classmethod
    def of(cls, recipe: Recipe, split: Split, cache: Path, *, workers: int, drawn: Drawn) -> PlanarMaterial:
        """Raises TrainingProblem, CaseProblem."""
        training, validation = (
            planar_set(sources, recipe.inputs, cache, workers=workers, done=drawn(phase))
            for phase, sources in (("training cases", split.training), ("validation cases", split.validation))
        )
        return cls(recipe, training, validation, Pools.of(training, recipe.sampling))

    @property
    def epoch(self) -> int:
        """Slices that may come."""
        return len(self.pools)

    @property
    def identity(self) -> str:
        """Recipe and split decide all."""
        return ""

    def batch(self, number: int, part: slice) -> PlanarBatch:
        """Augmented slices."""
        return training_batch(self.recipe, self.training, self.pools, number, part)

    def look(self, network: nn.Module, device: torch.device) -> float:
        """Dice of each series, all of its slices together."""
        found = self._answers(network, device, self.validation, np.arange(len(self.validation)))
        return dice_per_sample(found, self.validation)

    def hardness(self, network: nn.Module, device: torch.device) -> Tensor:
        """Of each slice without a lesion: how many pixels the network takes for one."""
        found = self._answers(network, device, self.training, self.pools.without_lesion)
        pixels = found.sum(axis=(1, 2), dtype=np.float64) / 255
        # a little for those where it finds none
        return torch.from_numpy(pixels + 0.02 * pixels.mean() + 1e-6)

    def weigh(self, hardness: Tensor) -> None:
        """Hard slices come more often."""
        self.pools = replace(self.pools, hardness=hardness.numpy())

    @torch.no_grad()
    def _answers(
        self, network: nn.Module, device: torch.device, slices: PlanarSet, chosen_N: Indices
    ) -> NDArray[np.uint8]:
        """Lesion probabilities (N, S, S) of these slices' primary images, as bytes."""
        answers, specs, recipe = [], planar_specs(self.recipe), self.recipe
        network.eval()
        for first in range(0, len(chosen_N), recipe.batch):
            batch = plain_batch(recipe, slices, chosen_N[first : first + recipe.batch]).to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=has_bf16(device)):
                logits = network(*(batch.images[role] for role in specs), *label_of(batch.code_B, recipe))
            probability = target_probability(logits.float(), recipe)
            answers.append((probability * 255).round().to(torch.uint8).cpu().numpy())
        return np.concatenate(answers)


def target_probability(logits: Tensor, recipe: Recipe) -> Tensor:
    """(B, K, …) → (B, …): the channel of the class that is looked for."""
    channel = recipe.output.classes.index(recipe.output.target)
    if recipe.output.activation == "sigmoid":
        return torch.sigmoid(logits[:, channel])
    return torch.softmax(logits, 1)[:, channel]


def dice_per_sample(found_NHW: NDArray[np.uint8], slices: PlanarSet) -> float:
    """Mean over samples (series) of the Dice at half, of all slices of a sample together; 1 where both are empty."""
    answered, true = found_NHW >= 128, slices.lesions[slices.primary] >= 128
    samples = int(slices.sample_N.max()) + 1

    def count(mask_NHW: NDArray[np.bool_]) -> NDArray[Any]:
        return np.bincount(slices.sample_N, weights=mask_NHW.sum(axis=(1, 2)), minlength=samples)

    total = count(answered) + count(true)
    dice = np.where(total > 0, 2 * count(answered & true) / np.maximum(total, 1), 1.0)
    return float(dice.mean())


def label_of(code_B: Tensor, recipe: Recipe) -> list[Tensor]:
    """One-hot labels for a conditioned network; nothing for others."""
    codes = [spec.modality_code for spec in recipe.inputs if spec.modality_code is not None]
    return [nn.functional.one_hot(code_B, max(codes) + 1).float()] if codes else []
