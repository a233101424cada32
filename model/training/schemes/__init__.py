"""One way to train per file; `SCHEMES` names them. A recipe's `scheme` is a key of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from model.training.distributed import World
from model.training.recipe import Recipe
from model.training.schemes.constrained import ConstrainedScheme
from model.training.schemes.global_local import GlobalLocalScheme
from model.training.schemes.guided import GuidedScheme
from model.training.schemes.supervised import SupervisedScheme
from model.training.schemes.unified_recipe import UnifiedRecipeScheme

BatchT_contra = TypeVar("BatchT_contra", contravariant=True)


class Scheme(Protocol[BatchT_contra]):
    """Networks and optimisers that take a step at a time, and can be put away and taken up again between steps."""

    @property
    def network(self) -> nn.Module:
        """The one that is served."""

    def step(self, batches: Sequence[BatchT_contra], share: float) -> dict[str, float]:
        """One optimiser step over batches that count as one; `share` (0 to 1) of the training is done."""

    def serving_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Of a state of `network`, the weights that the bundle's network has."""

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on, as tensors and numbers."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse."""


Begun = Mapping[str, Tensor] | None

SCHEMES: dict[str, Callable[[Recipe, torch.device, World, Begun], Scheme[Any]]] = {
    "supervised": SupervisedScheme,
    "constrained": ConstrainedScheme,
    "guided": GuidedScheme,
    "unified": UnifiedRecipeScheme,
    "global-local": GlobalLocalScheme,
}


def build_scheme(recipe: Recipe, device: torch.device, world: World, begun: Begun = None) -> Scheme[Any]:
    """The recipe's scheme before its first step. Raises TrainingProblem for settings that it does not know."""
    return SCHEMES[recipe.scheme](recipe, device, world, begun)
