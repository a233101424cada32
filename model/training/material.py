"""What the loop needs of cases, be they slices or volumes: batches by number, and looks at the validation cases."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from model.card import VolumeInput
from model.training.recipe import Recipe
from model.training.sources import Split

BatchT_co = TypeVar("BatchT_co", covariant=True)


class Prepared(Protocol):
    """Training images as the network sees them."""

    def __len__(self) -> int:
        """How many images there are: slices or volumes."""

    @property
    def measured(self) -> Mapping[str, Sequence[Mapping[str, float]]]:
        """Role → `model.input_check.measure` of each sample."""


class Material(Protocol[BatchT_co]):
    """The training and validation cases of one recipe."""

    @property
    def training(self) -> Prepared:
        """What the network learns from."""

    @property
    def epoch(self) -> int:
        """Images that are seen in an epoch."""

    @property
    def identity(self) -> str:
        """Digest of what decides the weights besides recipe and split."""

    def batch(self, number: int, part: slice) -> BatchT_co:
        """This process's part of batch `number`, augmented."""

    def look(self, network: nn.Module, device: torch.device) -> float:
        """Mean Dice of the validation samples at the network's resolution."""

    def hardness(self, network: nn.Module, device: torch.device) -> Tensor:
        """How much the network finds where there is nothing, for `weigh`; asked only where the recipe wants it."""

    def weigh(self, hardness: Tensor) -> None:
        """From now on what is hard is drawn more often."""


Drawn = Callable[[str], Callable[[], None]]
"""Called with a phase (`training cases`), gives what is called after each case of it."""


def material_of(recipe: Recipe, split: Split, cache: Path, *, workers: int, drawn: Drawn) -> Material[Any]:
    """Slices or volumes, as the recipe's inputs ask for. Raises TrainingProblem, CaseProblem."""
    if isinstance(recipe.inputs[0], VolumeInput):
        # brings in MONAI, which takes seconds: only a recipe for volumes pays for it
        from model.training.material_volume import VolumeMaterial

        return VolumeMaterial.of(recipe, split, cache, workers=workers, drawn=drawn)
    from model.training.material_planar import PlanarMaterial

    return PlanarMaterial.of(recipe, split, cache, workers=workers, drawn=drawn)
