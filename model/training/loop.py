"""The training of any network by any scheme: steps, looks at the validation cases, and a state that survives.

`Training.run` reads from top to bottom. Batch n is a function of the recipe and n, and the state on disk holds all
else, so a training that was killed and is begun again with the same command ends with the same weights. Whether it is
slices or volumes that a batch is made of is the affair of `model.training.material`.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from model.hardware import choose_device
from model.training.checkpoint import State, read_state, save_state
from model.training.distributed import World
from model.training.journal import Journal
from model.training.material import Material, Prepared, material_of
from model.training.recipe import Recipe
from model.training.schemes import Scheme, build_scheme
from model.training.sources import Split, split_of

Heard = Callable[[str, int, int, float], None]
"""Called with (phase, done, of, latest value): what a progress bar needs."""

SAVE_EVERY_S = 120.0
_JOURNAL_LINES = 200
_SETTLED_GAIN = 0.005
"""Dice that the last third of the looks may gain over the third before, in a training that is called converged."""


@dataclass(frozen=True)
class Trained:
    """What a training gave: the network to serve, and what is to be told of it."""

    network: nn.Module
    split: Split
    weights: Mapping[str, Tensor]
    """What serving needs of the network's weights."""
    training: Prepared
    images_seen: int
    looks: tuple[float, ...]
    """Mean Dice of the validation samples at the network's resolution, look after look."""

    @property
    def slope(self) -> float:
        """Dice gained by the mean of the last third of looks over the third before; NaN for fewer than six looks."""
        third = len(self.looks) // 3
        return float(np.mean(self.looks[-third:]) - np.mean(self.looks[-2 * third : -third])) if third > 1 else np.nan

    @property
    def is_converged(self) -> bool:
        """It did not become better any more; never said of a training with too few looks to tell."""
        return self.slope <= _SETTLED_GAIN


class Training:
    """One recipe in one folder. Raises TrainingProblem, CaseProblem, RecipeProblem where it cannot be begun."""

    def __init__(
        self,
        recipe: Recipe,
        run: Path,
        *,
        cache: Path,
        workers: int,
        device: str = "auto",
        world: World | None = None,
        begun: Mapping[str, Tensor] | None = None,
        heard: Heard = lambda *_: None,
        save_every_s: float = SAVE_EVERY_S,
    ) -> None:
        run.mkdir(parents=True, exist_ok=True)
        self._recipe, self._folder, self._heard, self._save_every_s = recipe, run, heard, save_every_s
        self._world, self._device = world or World(), choose_device(device)
        self._split = split_of(recipe.source)
        self._material = self._prepared(cache, workers)
        self._scheme: Scheme[Any] = build_scheme(recipe, self._device, self._world, begun)
        self._total = recipe.steps(self._material.epoch)
        self._identity = f"{recipe.sha256}-{self._split.sha256}{self._material.identity}"
        self._state = read_state(run, self._identity) or State()
        if self._state.scheme:
            self._scheme.load_state_dict(self._state.scheme)

    def run(self) -> Trained:
        """All steps that are left."""
        journal = Journal(self._folder, self._state.step) if self._world.is_first else None
        saved = time.monotonic()
        while self._state.step < self._total:
            self._search_hard_ones()
            losses = self._step()
            values = {f"loss_{name}": value for name, value in losses.items()} if self._is_due(_JOURNAL_LINES) else {}
            if self._is_due(round(1 / self._recipe.validation.every_share)):
                values["validation_dice"] = self._look()
            if values and journal:
                journal.add(self._state.step, values)
            if time.monotonic() - saved >= self._save_every_s or self._state.step == self._total:
                self._save()
                saved = time.monotonic()
        if journal:
            journal.close()
        return self._trained()

    def _prepared(self, cache: Path, workers: int) -> Material[Any]:
        if not self._world.is_first:
            self._world.wait()  # the first process draws for all
        material = material_of(self._recipe, self._split, cache, workers=workers, drawn=self._drawn)
        if self._world.is_first:
            self._world.wait()
        return material

    def _drawn(self, phase: str) -> Callable[[], None]:
        done, of = 0, len(self._split.training if phase.startswith("training") else self._split.validation)

        def one_more() -> None:
            nonlocal done
            done += 1
            self._heard(phase, done, of, float("nan"))

        return one_more

    def _step(self) -> dict[str, float]:
        recipe, first = self._recipe, self._state.step * self._recipe.accumulate
        part = self._world.part(recipe.batch)
        batches = [self._material.batch(first + number, part) for number in range(recipe.accumulate)]
        losses = self._scheme.step(batches, self._state.step / self._total)
        self._state.step += 1
        self._heard("training", self._state.step, self._total, sum(losses.values()))
        return losses

    def _is_due(self, times: int) -> bool:
        """At so many evenly spread steps, the last one among them."""
        step = self._state.step
        return step * times // self._total > (step - 1) * times // self._total

    def _look(self) -> float:
        """Mean Dice of the validation samples; the best weights so far are kept where the recipe asks for it."""
        dice = self._material.look(self._scheme.network, self._device)
        self._state.looks.append(dice)
        self._heard("validation", len(self._state.looks), round(1 / self._recipe.validation.every_share), dice)
        if self._recipe.validation.keep == "best" and dice >= max(self._state.looks):
            self._state.best = copy.deepcopy(self._scheme.network.state_dict())
        return dice

    def _search_hard_ones(self) -> None:
        """Now and then: where there is nothing, where does the network find most?"""
        sampling, step = self._recipe.sampling, self._state.step
        every = max(1, round(sampling.hard_search_every * self._total))
        if sampling.hard_share and step and step % every == 0 and self._state.hard_since != step:
            self._state.hardness = self._material.hardness(self._scheme.network, self._device)
            self._state.hard_since = step
        if self._state.hardness is not None:
            self._material.weigh(self._state.hardness)

    def _save(self) -> None:
        self._state.scheme = self._scheme.state_dict()
        if self._world.is_first:
            save_state(self._folder, self._state, self._identity)
        self._world.wait()

    def _trained(self) -> Trained:
        network = self._scheme.network
        if self._recipe.validation.keep == "best" and self._state.best:
            network = copy.deepcopy(network)
            network.load_state_dict(self._state.best)
        weights = self._scheme.serving_weights(network.state_dict())
        seen, looks = self._total * self._recipe.batch * self._recipe.accumulate, tuple(self._state.looks)
        return Trained(network.eval(), self._split, weights, self._material.training, seen, looks)
