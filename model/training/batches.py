"""Batch number n of a recipe: chosen, augmented and normalised as a pure function of (recipe, slices, n)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.card import PlanarInput
from model.planar import normalise
from model.training.augment import apply_all, draw
from model.training.recipe import Recipe
from model.training.sampling import Indices, Pools, batch_indices
from model.training.slices import PlanarSet

Pairs = Sequence[tuple[Tensor, Tensor]]

_MANY = 1_000_003
"""Apart from the seeds that choose slices."""


@dataclass(frozen=True)
class PlanarBatch:
    """Role → normalised images (B, C, S, S) and soft targets (B, 1, S, S), and the modality of each (B,), -1 untold."""

    images: Mapping[str, Tensor]
    targets: Mapping[str, Tensor]
    code_B: Tensor

    def to(self, device: torch.device) -> PlanarBatch:
        """On that device."""
        return PlanarBatch(
            {role: image.to(device, non_blocking=True) for role, image in self.images.items()},
            {role: target.to(device, non_blocking=True) for role, target in self.targets.items()},
            self.code_B.to(device, non_blocking=True),
        )


def planar_specs(recipe: Recipe) -> dict[str, PlanarInput]:
    """Role → a spec of it; alternatives of one role differ in scaling only. Raises TypeError for volume inputs."""
    specs: dict[str, PlanarInput] = {}
    for spec in recipe.inputs:
        if not isinstance(spec, PlanarInput):
            raise TypeError(f"{recipe.name} reads volumes; this is the training of planar networks")
        specs.setdefault(spec.role, spec)
    return specs


def training_batch(recipe: Recipe, slices: PlanarSet, pools: Pools, number: int, part: slice) -> PlanarBatch:
    """Batch `number`, augmented; `part` of it is this process's. All of it is drawn, so that processes agree."""
    chosen_B = batch_indices(pools, recipe.sampling, recipe.batch, recipe.seed, number)
    generator = torch.Generator().manual_seed(recipe.seed * _MANY + number)
    parameters = draw(recipe.batch, recipe.augment, generator).part(part)
    size = next(iter(planar_specs(recipe).values())).size
    rows = min(recipe.rows or size, size)
    top = int(torch.randint(size - rows + 1, (1,), generator=generator))

    def change(pairs: Pairs) -> Pairs:
        return [
            (image[:, :, top : top + rows], target[:, :, top : top + rows])
            for image, target in apply_all(pairs, parameters)
        ]

    return _batch(recipe, slices, chosen_B[part], change)


def plain_batch(recipe: Recipe, slices: PlanarSet, chosen_B: Indices) -> PlanarBatch:
    """These slices as they are."""
    return _batch(recipe, slices, chosen_B, lambda pairs: pairs)


def _batch(recipe: Recipe, slices: PlanarSet, chosen_B: Indices, change: Callable[[Pairs], Pairs]) -> PlanarBatch:
    specs = planar_specs(recipe)
    pairs = [(slices.channels(role, chosen_B, spec), slices.targets(role, chosen_B)) for role, spec in specs.items()]
    changed = change(pairs)
    return PlanarBatch(
        {role: normalise(image, spec) for (role, spec), (image, _) in zip(specs.items(), changed, strict=True)},
        {role: target for role, (_, target) in zip(specs, changed, strict=True)},
        torch.from_numpy(slices.code_N[chosen_B]),
    )
