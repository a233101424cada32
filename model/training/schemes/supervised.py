"""One network that learns from the truth alone: baselines, `best`, and CRLM-GAN without its constraint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from model.card import Strict
from model.hardware import has_bf16, placed
from model.networks import build_network
from model.training.distributed import World
from model.training.losses import LOSSES, with_deep_supervision
from model.training.optimise import Average, he_normal, make_optimiser, rate_factor
from model.training.recipe import Recipe, checked


class Batch(Protocol):
    """Images with their truth, planar or volumetric."""

    @property
    def images(self) -> Mapping[str, Tensor]:
        """Role → normalised images (B, C, …)."""

    @property
    def targets(self) -> Mapping[str, Tensor]:
        """Role → (B, K, …), one channel a class."""

    def to(self: BatchT, device: torch.device) -> BatchT:
        """On that device."""


BatchT = TypeVar("BatchT", bound=Batch)


class NoSettings(Strict):
    """The scheme supervised has none."""


@runtime_checkable
class HasHeads(Protocol):
    """A network with further heads that only training asks for."""

    def heads(self, *images: Tensor) -> Sequence[Tensor]:
        """Logits, finest first."""


class SupervisedScheme(Generic[BatchT]):
    """A network, its optimiser, and the moving average of its weights."""

    def __init__(
        self, recipe: Recipe, device: torch.device, world: World, begun: Mapping[str, Tensor] | None = None
    ) -> None:
        """`begun`: weights to begin with, in place of random ones. Raises TrainingProblem for unknown settings."""
        self._recipe, self._device, self._world = recipe, device, world
        self.check_settings()
        torch.manual_seed(recipe.seed)
        network = self.fresh_network()
        network = he_normal(network) if recipe.initial == "he" else network
        if begun is not None:
            # what training alone needs is not in a bundle
            network.load_state_dict({**network.state_dict(), **begun})
        self.trained: nn.Module = placed(network, device)
        self._optimiser = make_optimiser(self.trained.parameters(), recipe.optimiser)
        self._average = Average(self.trained, recipe.average_decay) if recipe.average_decay else None
        self._quick = recipe.precision == "auto" and has_bf16(device)
        self._steps = 0

    def check_settings(self) -> None:
        """Raises TrainingProblem for settings that the scheme has not."""
        checked(NoSettings, self._recipe)

    def fresh_network(self) -> nn.Module:
        """What is trained, with random weights."""
        return build_network(self._recipe.network.id, self._recipe.network.kwargs)

    @property
    def network(self) -> nn.Module:
        """The one that is served."""
        return self._average.network if self._average else self.trained

    def step(self, batches: Sequence[BatchT], share: float) -> dict[str, float]:
        """One optimiser step over batches that count as one; `share` of the training is done. The loss terms."""
        torch.manual_seed((self._recipe.seed + 1) * 1_000_003 + self._steps)  # dropout
        self.trained.train()
        self._optimiser.zero_grad(set_to_none=True)
        sums: dict[str, Tensor] = {}
        for batch in batches:
            terms = self.terms(batch.to(self._device), share)
            # torch's stub of backward is untyped
            (sum(terms.values(), start=torch.zeros((), device=self._device)) / len(batches)).backward()  # type: ignore[no-untyped-call]
            for name, term in terms.items():
                sums[name] = sums.get(name, 0.0) + term.detach() / len(batches)
        self._world.average_gradients(self.trained.parameters())
        for group in self._optimiser.param_groups:
            group["lr"] = self._recipe.optimiser.learning_rate * rate_factor(self._recipe.schedule, share)
        self._optimiser.step()
        if self._average:
            self._average.follow(self.trained, self._steps)
        self._steps += 1
        return {name: float(self._world.average(value)) for name, value in sums.items()}

    def terms(self, batch: BatchT, share: float) -> dict[str, Tensor]:
        """The terms of the loss, whose sum is minimised."""
        return {"segmentation": self.segmentation(self.answers(batch), batch.targets[next(iter(batch.images))])}

    def segmentation(self, heads: Sequence[Tensor], target: Tensor) -> Tensor:
        """The recipe's loss of the network's answers."""
        return with_deep_supervision(LOSSES[self._recipe.loss], heads, target)

    def answers(self, batch: BatchT) -> Sequence[Tensor]:
        """Logits, finest first; several where the network has further heads for training."""
        images = list(batch.images.values())
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._quick):
            if isinstance(self.trained, HasHeads) and has_deep_heads(self.trained):
                return list(self.trained.heads(*images))
            return [self.trained(*images)]

    def serving_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Of a state of `network`, the weights that the bundle's network has: all."""
        return dict(state)

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on."""
        return {
            "steps": self._steps,
            "network": self.trained.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "average": self._average.network.state_dict() if self._average else {},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse."""
        self._steps = int(state["steps"])
        self.trained.load_state_dict(state["network"])
        self._optimiser.load_state_dict(dict(state["optimiser"]))
        if self._average:
            self._average.network.load_state_dict(state["average"])


def has_deep_heads(network: object) -> bool:
    """Its config does not switch them off."""
    return bool(getattr(getattr(network, "config", None), "deep_supervision", True))
