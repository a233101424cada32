"""The training of planar networks, whatever the scheme: slices, steps, looks at the validation cases.

`Training.run` reads from top to bottom. Batch n is a function of the recipe and n, and the state on disk holds all
else, so a training that was killed and is begun again with the same command ends with the same weights.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.hardware import choose_device, has_bf16
from model.training.batches import plain_batch, planar_specs, training_batch
from model.training.checkpoint import State, read_state, save_state
from model.training.distributed import World
from model.training.journal import Journal
from model.training.recipe import Recipe
from model.training.sampling import Indices, Pools
from model.training.schemes import Scheme, build_scheme
from model.training.slices import PlanarSet, planar_set
from model.training.sources import CaseSource, Split, split_of

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
    training: PlanarSet
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
        self._training = self._drawn("training cases", self._split.training, cache, workers)
        self._validation = self._drawn("validation cases", self._split.validation, cache, workers)
        self._pools = Pools.of(self._training, recipe.sampling)
        self._scheme: Scheme = build_scheme(recipe, self._device, self._world, begun)
        self._total = recipe.steps(len(self._pools))
        self._identity = f"{recipe.sha256}-{self._split.sha256}"
        self._state = read_state(run, self._identity) or State()
        if self._state.scheme:
            self._scheme.load_state_dict(self._state.scheme)

    def run(self) -> Trained:
        """All steps that are left."""
        journal = Journal(self._folder, self._state.step) if self._world.is_first else None
        saved = time.monotonic()
        while self._state.step < self._total:
            self._search_hard_slices()
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

    def _drawn(self, phase: str, sources: tuple[CaseSource, ...], cache: Path, workers: int) -> PlanarSet:
        done = 0

        def one_more() -> None:
            nonlocal done
            done += 1
            self._heard(phase, done, len(sources), float("nan"))

        if not self._world.is_first:
            self._world.wait()  # the first process draws for all
        drawn = planar_set(sources, self._recipe.inputs, cache, workers=workers, done=one_more)
        if self._world.is_first:
            self._world.wait()
        return drawn

    def _step(self) -> dict[str, float]:
        recipe, first = self._recipe, self._state.step * self._recipe.accumulate
        part = self._world.part(recipe.batch)
        batches = [
            training_batch(recipe, self._training, self._pools, first + number, part)
            for number in range(recipe.accumulate)
        ]
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
        chosen = np.arange(len(self._validation))
        found = self._answers(self._validation, chosen)
        dice = dice_per_sample(found, self._validation)
        self._state.looks.append(dice)
        self._heard("validation", len(self._state.looks), round(1 / self._recipe.validation.every_share), dice)
        if self._recipe.validation.keep == "best" and dice >= max(self._state.looks):
            self._state.best = copy.deepcopy(self._scheme.network.state_dict())
        return dice

    def _search_hard_slices(self) -> None:
        """Now and then: on which slices without a lesion does the network find most?"""
        sampling, step = self._recipe.sampling, self._state.step
        every = max(1, round(sampling.hard_search_every * self._total))
        if sampling.hard_share and step and step % every == 0 and self._state.hard_since != step:
            found = self._answers(self._training, self._pools.without_lesion)
            pixels = found.sum(axis=(1, 2), dtype=np.float64) / 255
            # a little for those where it finds none
            self._state.hardness = torch.from_numpy(pixels + 0.02 * pixels.mean() + 1e-6)
            self._state.hard_since = step
        if self._state.hardness is not None:
            self._pools = replace(self._pools, hardness=self._state.hardness.numpy())

    @torch.no_grad()
    def _answers(self, slices: PlanarSet, chosen_N: Indices) -> NDArray[np.uint8]:
        """Lesion probabilities (N, S, S) of these slices' primary images, as bytes."""
        network, answers = self._scheme.network.eval(), []
        specs = planar_specs(self._recipe)
        for first in range(0, len(chosen_N), self._recipe.batch):
            batch = plain_batch(self._recipe, slices, chosen_N[first : first + self._recipe.batch]).to(self._device)
            with torch.autocast(self._device.type, torch.bfloat16, enabled=has_bf16(self._device)):
                logits = network(*(batch.images[role] for role in specs), *_label(batch.code_B, self._recipe))
            probability = lesion_probability(logits.float(), self._recipe)
            answers.append((probability * 255).round().to(torch.uint8).cpu().numpy())
        return np.concatenate(answers)

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
        seen = self._total * self._recipe.batch * self._recipe.accumulate
        return Trained(network.eval(), self._split, self._training, seen, tuple(self._state.looks))


def lesion_probability(logits_BKHW: Tensor, recipe: Recipe) -> Tensor:
    """(B, H, W): the channel of the lesion."""
    channel = recipe.output.classes.index(recipe.output.target)
    if recipe.output.activation == "sigmoid":
        return torch.sigmoid(logits_BKHW[:, channel])
    return torch.softmax(logits_BKHW, 1)[:, channel]


def dice_per_sample(found_NHW: NDArray[np.uint8], slices: PlanarSet) -> float:
    """Mean over samples (series) of the Dice at half, of all slices of a sample together; 1 where both are empty."""
    answered, true = found_NHW >= 128, slices.lesions[slices.primary] >= 128
    samples = int(slices.sample_N.max()) + 1

    def count(mask_NHW: NDArray[np.bool_]) -> NDArray[Any]:
        return np.bincount(slices.sample_N, weights=mask_NHW.sum(axis=(1, 2)), minlength=samples)

    total = count(answered) + count(true)
    dice = np.where(total > 0, 2 * count(answered & true) / np.maximum(total, 1), 1.0)
    return float(dice.mean())


def _label(code_B: Tensor, recipe: Recipe) -> list[Tensor]:
    """One-hot labels for a conditioned network; nothing for others."""
    codes = [spec.modality_code for spec in recipe.inputs if spec.modality_code is not None]
    return [nn.functional.one_hot(code_B, max(codes) + 1).float()] if codes else []
