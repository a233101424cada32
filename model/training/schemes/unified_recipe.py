"""System (c) by a recipe: its three-part step on the batches that every scheme is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from model.card import PlanarInput, Strict
from model.networks import build_network
from model.problems import TrainingProblem
from model.training.batches import PlanarBatch
from model.training.distributed import World
from model.training.losses_unified import SEGAN_WEIGHTS, UnifiedWeights
from model.training.recipe import Recipe, checked
from model.training.schemes.unified import UnifiedBatch, UnifiedScheme, UnifiedSettings

_DRAWN = 0.5
"""A pixel is lesion where half of it is: the discriminating networks know no shares."""


class UnifiedRecipeSettings(Strict):
    """What a recipe says beside network and data. Rates are the reference's where none is given."""

    mode: Literal["full", "unified", "segan"] = "full"
    bound: Literal["clip", "spectral"] = "spectral"
    critic_width: Annotated[float, Field(gt=0, le=1)] = 1.0
    generator_rate: Annotated[float, Field(gt=0)] = 1e-4
    critic_rate: Annotated[float, Field(gt=0)] = 2e-4
    flat_share: Annotated[float, Field(ge=0, le=1)] = 0.5


class UnifiedRecipeScheme:
    """The generator of the recipe's network with its critic and discriminator."""

    def __init__(
        self, recipe: Recipe, device: torch.device, world: World, begun: Mapping[str, Tensor] | None = None
    ) -> None:
        """Raises TrainingProblem for inputs or a network that system (c) cannot have."""
        settings = checked(UnifiedRecipeSettings, recipe)
        if recipe.accumulate > 1:
            raise TrainingProblem(f"{recipe.name}: networks that learn from each other take no accumulated batches")
        self._role, side = _input_of(recipe)
        modalities = 1 + max((spec.modality_code or 0 for spec in recipe.inputs), default=0)
        kwargs = recipe.network.kwargs
        self._scheme = UnifiedScheme(
            UnifiedSettings(
                mode=settings.mode,
                modalities=int(kwargs.get("modalities", modalities)),
                side=side,
                width=float(kwargs.get("width", 1.0)),
                critic_width=settings.critic_width,
                seed=recipe.seed,
                tanh=bool(kwargs.get("tanh", True)),
                bound=settings.bound,
                generator_rate=settings.generator_rate,
                discriminator_rate=settings.generator_rate,
                critic_rate=settings.critic_rate,
                flat_share=settings.flat_share,
                weights=SEGAN_WEIGHTS if settings.mode == "segan" else UnifiedWeights(),
            ),
            str(device),
            world,
        )
        _require_served(recipe, self._scheme.generator)
        if begun is not None:
            self._scheme.generator.load_state_dict(begun)

    @property
    def network(self) -> nn.Module:
        """The generator: the one that is served."""
        return self._scheme.generator

    def step(self, batches: Sequence[PlanarBatch], share: float) -> dict[str, float]:
        """One step of all three parts; the weighted terms as `who/what`."""
        (batch,) = batches
        drawn = (batch.targets[self._role] >= _DRAWN).float()
        code_B = batch.code_B.clamp(min=0)
        return self._scheme.step(UnifiedBatch(batch.images[self._role], drawn, code_B), share)

    def serving_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Of a state of `network`, the weights that the bundle's network has: all."""
        return dict(state)

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on."""
        return self._scheme.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse."""
        self._scheme.load_state_dict(state)


def _input_of(recipe: Recipe) -> tuple[str, int]:
    """The one role and the side of its pictures, one channel in [−1, 1]."""
    roles, side = {spec.role for spec in recipe.inputs}, 0
    for spec in recipe.inputs:
        if not isinstance(spec, PlanarInput) or (spec.channels, spec.mean, spec.std) != (1, (0.5,), (0.5,)):
            raise TrainingProblem(
                f"{recipe.name}: the scheme unified reads pictures of one channel in [-1, 1]: channels 1, mean [0.5], "
                "std [0.5]"
            )
        side = spec.size
    if len(roles) > 1:
        raise TrainingProblem(f"{recipe.name}: the scheme unified reads one image at a time, not {', '.join(roles)}")
    return roles.pop(), side


def _require_served(recipe: Recipe, generator: nn.Module) -> None:
    """The card's network must be the one that is trained."""
    served = build_network(recipe.network.id, recipe.network.kwargs).state_dict()
    trained = generator.state_dict()
    if {k: v.shape for k, v in served.items()} != {k: v.shape for k, v in trained.items()}:
        raise TrainingProblem(
            f"{recipe.name}: network {recipe.network.id} {recipe.network.kwargs} is not what this mode of the scheme "
            "trains: full and unified train uagan, with and without translation, segan trains segan with in_channels 1"
        )
