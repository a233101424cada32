"""Train one demo bundle on phantoms, on a CPU, in minutes.

The loop reads top to bottom: draw cases, take steps, average the weights, choose the operating point on validation
phantoms through the serving engine, write the bundle. Its seeds make it reproducible on one machine and torch build.
"""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.bundle import Bundle, add_probe, load_bundle, save_bundle
from model.card import Card, OutputSpec, PlanarInput, TrainingStatement
from model.engine import Engine
from model.evaluate import exams
from model.findings import label_lesions, reaches
from model.hardware import has_bf16
from model.metrics import Overlap
from model.networks import build_network
from model.pipeline import Placed
from model.runner import Runner
from model.scores import Exam
from model.training.augment import apply, draw
from model.training.cases import FIRST_VALIDATION_SEED, Slices, training_slices
from model.training.demo_card import draft_card, input_spec
from model.training.demo_recipes import DemoRecipe, Stage
from model.training.losses import pooled_loss
from model.training.probes import planar_probe
from model.volume import Float, Half


@dataclass(frozen=True)
class OperatingPoint:
    """Where probabilities become lesions, and the mean Dice that chose it."""

    threshold: float
    peak: float
    minimum_ml: float
    mean_dice: float


THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7)
PEAKS = (0.0, 0.8, 0.9, 0.95)
MINIMUMS_ML = (0.0, 0.1, 0.2, 0.4, 0.52)
"""0.52 ml is a sphere of 10 mm, the smallest lesion that RECIST 1.1 calls measurable."""
FEWEST_VOXELS = 3
PROBE_CASES = 12

Heard = Callable[[str, int, int, float], None]
"""Called with (phase, done, of, latest value): what a progress bar needs."""


def train_demo(
    condition: str,
    out: Path,
    recipe: DemoRecipe,
    *,
    cache: Path,
    workers: int,
    start: Bundle | None = None,
    heard: Heard = lambda *_: None,
) -> Bundle:
    """Train and write `<out>/<card name>`; the metrics are left empty for `evaluate` to fill on unseen seeds.

    `start`: a bundle of the same network whose weights to begin with, such as that of a similar condition.
    """
    spec = input_spec(condition)
    slices = draw_training_slices(condition, spec, recipe, cache=cache, workers=workers, heard=heard)
    network = fit(build(condition, recipe, start), slices, spec, recipe, heard)
    draft = draft_of(condition, recipe, start)
    point = choose_operating_point(draft, network, condition, recipe, workers, heard)
    output = OutputSpec(
        threshold=point.threshold,
        minimum_peak_probability=point.peak,
        minimum_lesion_ml=point.minimum_ml,
        minimum_lesion_voxels=FEWEST_VOXELS,
    )
    card = draft.model_copy(update={"output": output})
    return with_probe(save_bundle(out / card.name, card, network.state_dict()), condition, workers)


def with_probe(bundle: Bundle, condition: str, workers: int) -> Bundle:
    """The bundle with a probe from the first validation phantoms."""
    seeds = range(FIRST_VALIDATION_SEED, FIRST_VALIDATION_SEED + PROBE_CASES)
    studies = ([Placed(bundle.card.input, exam.image)] for exam in exams(condition, seeds, workers))
    return add_probe(bundle, planar_probe(Runner(bundle, torch.device("cpu")), studies))


def draw_training_slices(
    condition: str, spec: PlanarInput, recipe: DemoRecipe, *, cache: Path, workers: int, heard: Heard
) -> Slices:
    """Slices of the recipe's training cases, seeds 0, 1, …"""
    drawn = 0

    def one_more() -> None:
        nonlocal drawn
        drawn += 1
        heard("phantoms", drawn, recipe.cases, float("nan"))

    return training_slices(condition, spec, range(recipe.cases), cache, workers=workers, done=one_more)


def build(condition: str, recipe: DemoRecipe, start: Bundle | None = None) -> nn.Module:
    """The card's network with the weights of `start`, or else the recipe's random ones."""
    if start is not None:
        return start.network()
    spec = draft_of(condition, recipe).network
    return he_normal(build_network(spec.id, spec.kwargs), recipe.seed)


def he_normal(network: nn.Module, seed: int) -> nn.Module:
    """The network with He-normal convolutions, as ReLU networks want them; torch's default learns far more slowly."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
    return network


def fit(network: nn.Module, slices: Slices, spec: PlanarInput, recipe: DemoRecipe, heard: Heard) -> nn.Module:
    """The trained network in evaluation mode: a stage on all slices, then those on hard ones."""
    network = take_steps(network, slices, spec, recipe, recipe.first, heard)
    for stage in recipe.hard:
        # as a bundle keeps them, so that it makes no difference whether one was written in between
        network = network.half().float()
        hardness = lesion_found(network, slices, slices.without_lesion(), spec, recipe.batch, heard)
        network = take_steps(network, slices, spec, recipe, stage, heard, hardness)
    return network


def take_steps(
    network: nn.Module,
    slices: Slices,
    spec: PlanarInput,
    recipe: DemoRecipe,
    stage: Stage,
    heard: Heard,
    hardness: NDArray[np.float64] | None = None,
) -> nn.Module:
    """The moving average of the weights over a stage, in evaluation mode."""
    # torch's stub of Module.to lacks memory_format
    network = network.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    average = copy.deepcopy(network).eval()
    optimiser = torch.optim.AdamW(network.parameters(), lr=stage.learning_rate, weight_decay=recipe.weight_decay)
    quick = has_bf16(torch.device("cpu"))
    for step, (images, targets) in enumerate(batches(slices, spec, recipe, stage, hardness)):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, stage)
        with torch.autocast("cpu", torch.bfloat16, enabled=quick):
            logits = network(images)
        loss = pooled_loss(logits, targets)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's stub
        optimiser.step()
        _move_towards(average, network, min(recipe.average_decay, (1 + step) / (10 + step)))
        heard(stage.name, step + 1, stage.steps, float(loss.detach()))
    return average


def learning_rate(step: int, stage: Stage) -> float:
    """Linear warm-up, then a half cosine to zero."""
    warmup = max(1, round(stage.warmup_share * stage.steps))
    if step < warmup:
        return stage.learning_rate * (step + 1) / warmup
    share = (step - warmup) / max(1, stage.steps - warmup)
    return stage.learning_rate * 0.5 * (1 + math.cos(math.pi * share))


def batches(
    slices: Slices, spec: PlanarInput, recipe: DemoRecipe, stage: Stage, hardness: NDArray[np.float64] | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """A stage's augmented batches: normalised images (B, channels, S, S) and soft targets (B, 1, S, S).

    `hardness`: how often each lesion-free slice comes for half of their places; the other half comes evenly.
    """
    rng = np.random.default_rng(stage.seed)
    generator = torch.Generator().manual_seed(stage.seed)
    with_lesion, without = slices.with_lesion(), slices.without_lesion()
    lesions = round(recipe.batch * recipe.lesion_share)
    hard = 0 if hardness is None else (recipe.batch - lesions) // 2
    share = None if hardness is None else hardness / hardness.sum()
    mean, std = _normalisation(spec)
    for _ in range(stage.steps):
        chosen = np.concatenate([rng.choice(with_lesion, lesions), rng.choice(without, recipe.batch - lesions - hard)])
        if hard:
            chosen = np.concatenate([chosen, rng.choice(without, hard, p=share)])
        parameters = draw(recipe.batch, recipe.augment, generator)
        pictures, targets = apply(slices.channels(chosen, spec), slices.targets(chosen), parameters)
        rows = slice(top := int(rng.integers(0, spec.size - recipe.rows + 1)), top + recipe.rows)
        images = (pictures[:, :, rows] - mean) / std
        yield images.contiguous(memory_format=torch.channels_last), targets[:, :, rows]


@torch.no_grad()
def lesion_found(
    network: nn.Module, slices: Slices, chosen_N: NDArray[np.int64], spec: PlanarInput, batch: int, heard: Heard
) -> NDArray[np.float64]:
    """How many pixels of each chosen slice the network takes for lesion, and a little for those where it finds none."""
    mean, std = _normalisation(spec)
    quick = has_bf16(torch.device("cpu"))
    found: list[float] = []
    for first in range(0, len(chosen_N), batch):
        images = (slices.channels(chosen_N[first : first + batch], spec) - mean) / std
        with torch.autocast("cpu", torch.bfloat16, enabled=quick):
            logits = network(images.contiguous(memory_format=torch.channels_last))
        found += torch.sigmoid(logits.float()).flatten(1).sum(1).tolist()
        heard("search of hard slices", len(found), len(chosen_N), float(np.mean(found)))
    pixels: NDArray[np.float64] = np.array(found)
    pixels += 0.02 * pixels.mean() + 1e-6
    return pixels


def _normalisation(spec: PlanarInput) -> tuple[Tensor, Tensor]:
    return torch.tensor(spec.mean).view(1, -1, 1, 1), torch.tensor(spec.std).view(1, -1, 1, 1)


def choose_operating_point(
    draft: Card, network: nn.Module, condition: str, recipe: DemoRecipe, workers: int, heard: Heard
) -> OperatingPoint:
    """The threshold, least peak and least volume with the best mean Dice on validation phantoms, as served."""
    seeds = range(FIRST_VALIDATION_SEED, FIRST_VALIDATION_SEED + recipe.validation_cases)
    scores = []
    with tempfile.TemporaryDirectory() as folder:
        save_bundle(Path(folder), draft, network.state_dict())
        engine = Engine(load_bundle(Path(folder)), "cpu")
        for number, exam in enumerate(exams(condition, seeds, workers), start=1):
            scores.append(dice_table(engine.segment(exam.image).probability_DHW, exam))
            heard("operating point", number, recipe.validation_cases, float(np.max(np.mean(scores, axis=0))))
    mean = np.mean(scores, axis=0)
    t, p, m = np.unravel_index(int(mean.argmax()), mean.shape)
    return OperatingPoint(THRESHOLDS[t], PEAKS[p], MINIMUMS_ML[m], float(mean[t, p, m]))


def draft_of(condition: str, recipe: DemoRecipe, start: Bundle | None = None) -> Card:
    """The card before the operating point and the metrics are known."""
    begun = f"; begun with the weights of {start.card.name}" if start else ""
    statement = TrainingStatement(
        trained_on="phantom",
        description=f"computed phantoms of {condition}, drawn by model.phantom; no patient's image{begun}",
        cases=recipe.cases,
        seeds=(0, recipe.cases - 1),
        images_seen=recipe.images_seen,
        licence="Apache-2.0",
    )
    return draft_card(condition, training=statement, trained=True)


def dice_table(probability_DHW: Float | Half, exam: Exam) -> NDArray[np.float64]:
    """Dice of one case for each threshold (axis 0), least peak (axis 1) and least volume (axis 2)."""
    truth_DHW = exam.labels_DHW > 0
    true = int(np.count_nonzero(truth_DHW))
    table = np.empty((len(THRESHOLDS), len(PEAKS), len(MINIMUMS_ML)))
    for t, threshold in enumerate(THRESHOLDS):
        labels_DHW = label_lesions(reaches(probability_DHW, threshold), FEWEST_VOXELS)
        found = labels_DHW > 0
        label_N, count = labels_DHW[found], int(labels_DHW.max(initial=0))
        sizes = np.bincount(label_N, minlength=count + 1)[1:]
        hits = np.bincount(label_N, weights=truth_DHW[found], minlength=count + 1)[1:]
        peaks = np.zeros(count + 1)
        np.maximum.at(peaks, label_N, probability_DHW[found])
        for p, m in np.ndindex(len(PEAKS), len(MINIMUMS_ML)):
            kept = (peaks[1:] >= PEAKS[p]) & (sizes * exam.image.voxel_ml >= MINIMUMS_ML[m] - 1e-9)
            both, answered = int(hits[kept].sum()), int(sizes[kept].sum())
            table[t, p, m] = Overlap(both, answered - both, true - both).dice
    return table


@torch.no_grad()
def _move_towards(average: nn.Module, network: nn.Module, keep: float) -> None:
    """average ← keep · average + (1 − keep) · network, statistics of the norms included."""
    for mine, new in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if mine.is_floating_point():
            mine.lerp_(new, 1 - keep)
        else:
            mine.copy_(new)
