"""The training path: what it may draw, that its pictures are the serving ones, and that it learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

from model.bundle import load_bundle
from model.card import OutputSpec
from model.case_sets import FIRST_EVALUATION_SEED
from model.evaluate import draw_exam
from model.findings import find_lesions
from model.metrics import Overlap
from model.networks import build_network
from model.phantom import GEOMETRIES, make_phantom
from model.planar import with_context
from model.preprocess import intake
from model.probe import PROBE_NAME
from model.training import demo
from model.training.augment import AugmentRanges
from model.training.cases import (
    FIRST_VALIDATION_SEED,
    LAST_TRAINING_SEED,
    Slices,
    training_geometry,
    training_slices,
)
from model.training.demo import batches, fit, he_normal, learning_rate
from model.training.demo_card import DEMO_CONDITIONS, input_spec
from model.training.demo_recipes import RECIPES, DemoRecipe, Stage

STILL = AugmentRanges(*[0.0] * 8)


def discs(size: int = 64, count: int = 8) -> Slices:
    """Bright discs on a noisy ground beside dimmer ones that are no lesions, and as many slices without."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:size, :size]
    pictures, shares = [], []
    for index in range(2 * count):
        at = rng.integers(14, size - 14, (2, 2))
        disc, decoy = (((rows - r) ** 2 + (columns - c) ** 2 < 36).astype(float) for r, c in at)
        lesion = disc if index < count else 0 * disc
        pictures.append(np.clip(0.3 + 0.4 * lesion + 0.2 * decoy * (1 - disc) + rng.normal(0, 0.04, disc.shape), 0, 1))
        shares.append(lesion)
    as_bytes = [np.round(255 * np.array(a)).astype(np.uint8) for a in (pictures, shares)]
    return Slices(as_bytes[0], as_bytes[1], np.repeat(np.arange(4), count // 2))


def test_eight_slices_are_learnt_by_heart() -> None:
    """models.md §11 test 10: Dice over 0.95 at an eighth of the width and 64×64."""
    slices, spec = discs(), input_spec("pre-nact-dwi", 64)
    recipe = DemoRecipe(
        steps=80,
        hard_steps=(),
        batch=8,
        lesion_share=0.6,
        learning_rate=1e-2,
        average_decay=0.9,
        rows=64,
        augment=STILL,
    )
    network = he_normal(build_network("unetpp", {"width": 0.125}), seed=0)
    network = fit(network, slices, spec, recipe, lambda *_: None)
    lesions = slices.with_lesion()
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (spec.mean, spec.std))
    with torch.inference_mode():
        answer = torch.sigmoid(network((slices.channels(lesions, spec) - mean) / std)) > 0.5
    truth = slices.targets(lesions) > 0.5
    dice = 2 * (answer & truth).sum((1, 2, 3)) / (answer.sum((1, 2, 3)) + truth.sum((1, 2, 3)))
    assert float(dice.mean()) > 0.95


def test_training_and_evaluation_never_share_a_seed() -> None:
    assert LAST_TRAINING_SEED < FIRST_EVALUATION_SEED
    assert DemoRecipe().cases <= FIRST_VALIDATION_SEED
    assert RECIPES.keys() == set(DEMO_CONDITIONS)
    for recipe in RECIPES.values():
        assert recipe.cases <= FIRST_VALIDATION_SEED
        assert FIRST_VALIDATION_SEED + recipe.validation_cases <= LAST_TRAINING_SEED + 1


def test_all_conditions_in_order_find_the_bundle_that_they_start_from() -> None:
    for position, condition in enumerate(DEMO_CONDITIONS):
        assert RECIPES[condition].start in (None, *DEMO_CONDITIONS[:position])


def test_the_operating_point_counts_as_serving_does() -> None:
    exam = draw_exam("pre-nact-dwi", FIRST_VALIDATION_SEED)
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=exam.labels_DHW.shape), (1, 4, 4))
    seen = ndimage.gaussian_filter(np.where(exam.labels_DHW > 0, 1.0, 0.0), (0, 1, 1))
    probability_DHW = (0.15 * noise / noise.std() + 0.8 * seen).clip(0, 1).astype(np.float32)
    table = demo.dice_table(probability_DHW, exam)
    assert len(np.unique(table)) > 20
    for t, p, m in ((0, 0, 0), (1, 1, 2), (2, 3, 4)):
        output = OutputSpec(
            threshold=demo.THRESHOLDS[t],
            minimum_peak_probability=demo.PEAKS[p],
            minimum_lesion_ml=demo.MINIMUMS_ML[m],
            minimum_lesion_voxels=demo.FEWEST_VOXELS,
        )
        mask, _ = find_lesions(probability_DHW, exam.image, output)
        assert table[t, p, m] == Overlap.of(mask.labels_DHW > 0, exam.labels_DHW > 0).dice


def test_an_evaluation_seed_is_refused_for_training(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="evaluation's"):
        training_slices("pre-nact-dwi", input_spec("pre-nact-dwi"), [FIRST_EVALUATION_SEED], tmp_path, workers=1)


def test_training_sees_what_serving_sees_and_draws_it_once(tmp_path: Path) -> None:
    spec = input_spec("pre-nact-dwi")
    slices = training_slices("pre-nact-dwi", spec, [0], tmp_path, workers=1)
    phantom = make_phantom("pre-nact-dwi", 0, b_values=(1000.0,))
    taken = intake(phantom.image, spec)
    served = taken.slices(0, len(taken.canonical_DHW), spec.size, torch.device("cpu"))[:, 0].numpy()
    assert np.abs(slices.pictures_NHW / 255 - served).max() < 0.003
    pixel_ml = phantom.image.voxel_ml * (phantom.image.array_DHW[0].size / spec.size**2)
    true_ml = (phantom.labels_DHW > 0).sum() * phantom.image.voxel_ml
    assert slices.shares_NHW.sum() / 255 * pixel_ml == pytest.approx(true_ml, rel=0.02)
    (drawn,) = tmp_path.glob("*/0.npz")
    before = drawn.stat().st_mtime_ns
    training_slices("pre-nact-dwi", spec, [0], tmp_path, workers=1)
    assert drawn.stat().st_mtime_ns == before


def test_half_of_the_training_cases_lie_otherwise_than_usual() -> None:
    usual = GEOMETRIES["post-nact-t2wi"]
    assert training_geometry("post-nact-t2wi", 4) == usual
    odd = training_geometry("post-nact-t2wi", 5)
    assert odd != usual
    assert odd.shape == usual.shape


def test_neighbours_never_come_from_another_case() -> None:
    slices = discs()
    spec = input_spec("pre-nact-dwi", 64).model_copy(update={"context": 1})
    per_case = [torch.from_numpy(slices.pictures_NHW[slices.case_N == c]).float()[:, None] / 255 for c in range(4)]
    served = torch.cat([with_context(case, spec) for case in per_case])
    assert torch.equal(slices.channels(np.arange(16), spec), served)


def test_hard_slices_take_half_of_the_places_of_those_without_a_lesion() -> None:
    slices = discs()
    hardness = np.zeros(len(slices.without_lesion()))
    hardness[3] = 1.0
    # the hard slice is known by its mean, which no other has
    slices.pictures_NHW[slices.without_lesion()[3]] = 255
    spec = input_spec("pre-nact-dwi", 64)
    recipe = DemoRecipe(batch=12, lesion_share=0.5, rows=64, augment=STILL)
    white = (1 - torch.tensor(spec.mean)) / torch.tensor(spec.std)
    shown = []
    for images, _ in batches(slices, spec, recipe, Stage("hard", 20, 0.0, seed=1), hardness):
        shown.append(int((images.mean((2, 3)) > 0.95 * white).all(1).sum()))
    assert min(shown) >= 3
    assert np.mean(shown) == pytest.approx(3 + 3 / 8, abs=0.6)


def test_what_the_network_takes_for_lesion_makes_a_slice_hard() -> None:
    slices = discs()
    bright = slices.without_lesion()[[2, 5]]
    slices.pictures_NHW[bright] = 255
    network = nn.Conv2d(3, 1, 1)
    nn.init.constant_(network.weight, 2.0)
    nn.init.constant_(network.bias, -8.0)
    spec = input_spec("pre-nact-dwi", 64)
    hardness = demo.lesion_found(network, slices, slices.without_lesion(), spec, 4, lambda *_: None)
    assert set(np.argsort(hardness)[-2:]) == {2, 5}
    assert hardness.min() > 0


def test_the_learning_rate_warms_up_and_falls_to_nothing() -> None:
    stage = Stage("training", steps=100, learning_rate=1.0, seed=0, warmup_share=0.1)
    rates = [learning_rate(step, stage) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 0.001


def test_a_bundle_comes_out_of_the_whole_path(tmp_path: Path) -> None:
    """Two phantoms, two steps: everything runs, and the card says what happened and claims no measure."""
    heard: set[str] = set()
    recipe = replace(DemoRecipe(), cases=2, validation_cases=1, steps=1, hard_steps=(1,), batch=4)
    bundle = demo.train_demo(
        "pre-nact-dwi", tmp_path / "out", recipe, cache=tmp_path, workers=1, heard=lambda phase, *_: heard.add(phase)
    )
    card = load_bundle(bundle.path).card
    assert card.is_demo
    assert (card.training.cases, card.training.seeds, card.training.images_seen) == (2, (0, 1), 8)
    assert card.output.threshold in demo.THRESHOLDS
    assert card.metrics == {}
    assert heard == {"phantoms", "training", "search of hard slices", "hard slices", "operating point"}
    assert bundle.weights_path.stat().st_size < 1.25e6
    assert (bundle.path / PROBE_NAME).stat().st_size < 150_000
