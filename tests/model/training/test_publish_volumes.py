"""From a volumetric training to bundles: the liver first, then what looks inside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from model.bundle import Bundle, save_bundle
from model.canonical import VolumeProblem
from model.card import BundleProblem
from model.cases import CaseImage
from model.engine import Engine
from model.problems import TrainingProblem
from model.training.loop import Training
from model.training.operating_point import THRESHOLDS, choose, liver_table
from model.training.probes_volume import fullest_window
from model.training.publish import companions_of, publish, write_run_card
from model.training.recipe import Recipe
from model.training.sources import split_of
from model.volume import Volume

Make = Callable[..., Recipe]
LIVER = {"classes": ["background", "liver"], "activation": "softmax"}
LIVER_NETWORK = {
    "id": "segresnet",
    "kwargs": {"init_filters": 8, "blocks_down": [1, 1], "blocks_up": [1], "dropout": 0.0},
}
LESION_NETWORK = {
    "id": "resenc",
    "kwargs": {"in_channels": 1, "out_channels": 2, "dimensions": 3, "features": [8, 16], "blocks": [1, 1]},
}


def made(recipe: Recipe, folder: Path, out: Path) -> Bundle:
    trained = Training(recipe, folder / recipe.name, cache=folder / "cache", workers=1).run()
    bundle = publish(recipe, trained, out, workers=1)
    write_run_card(folder / recipe.name, recipe, trained, bundle)
    return bundle


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("two-stages")


@pytest.fixture(scope="module")
def bundles(folder: Path, volume_recipe: Make) -> Sequence[Bundle]:
    """Liver and lesions, each trained for some seconds."""
    torch.set_num_threads(1)
    liver = volume_recipe(name="liver", output=LIVER, network=LIVER_NETWORK, images=160, batch=4)
    first = made(liver, folder, folder / "out")
    lesions = volume_recipe(
        name="lesions",
        scheme="supervised",
        loss="dice-ce",
        network=LESION_NETWORK,
        inputs=[{**liver.inputs[0].model_dump(), "within": "liver", "margin_mm": 10.0, "spacing_mm": (6.0, 6.0, 6.0)}],
        output={"classes": ["background", "lesion"], "activation": "softmax"},
        companions={"liver": "liver"},
        images=160,
        batch=4,
    )
    return first, made(lesions, folder, folder / "out")


def unseen(volume_recipe: Make) -> CaseImage:
    return split_of(volume_recipe().source).validation[0].read().images["pv"]


def test_the_liver_is_served_without_its_autoencoder(bundles: Sequence[Bundle], volume_recipe: Make) -> None:
    liver, _ = bundles
    assert not any(name.startswith("vae_") for name in liver.state_dict())
    image = unseen(volume_recipe)
    found = Engine(liver, "cpu").segment(image.volume).probability_DHW >= liver.card.output.threshold
    true = (image.labels["liver"] > 0) | (image.labels["lesion"] > 0)
    assert 2 * (found & true).sum() / (found.sum() + true.sum()) > 0.7


def test_both_stages_serve_as_one_and_answer_nothing_outside_the_liver(
    bundles: Sequence[Bundle], volume_recipe: Make
) -> None:
    _, lesions = bundles
    image = unseen(volume_recipe)
    engine = Engine(lesions, "cpu")
    answer = engine.segment(image.volume)
    lesion, liver = image.labels["lesion"] > 0, image.labels["liver"] > 0
    assert answer.probability_DHW[lesion].mean() > answer.probability_DHW[liver & ~lesion].mean() + 0.2
    assert answer.probability_DHW[0, 0, 0] == 0
    with pytest.raises(VolumeProblem, match="no liver was found"):
        engine.segment(_without_a_liver(image.volume))


def _without_a_liver(volume: Volume) -> Volume:
    """Air, and some noise."""
    noise = np.random.default_rng(0).normal(-900, 5, volume.array_DHW.shape)
    return volume.with_array(noise.astype(np.float32))


def test_a_card_tells_its_companion_and_a_probe_is_one_window(bundles: Sequence[Bundle]) -> None:
    liver, lesions = bundles
    assert lesions.card.companions["liver"].sha256 == liver.sha256
    assert liver.card.training.inputs_seen["image"].slice_spacing_mm is not None
    with np.load(lesions.path / "probe.npz") as probe:
        assert probe["image"].shape == (8, 24, 24)
        assert probe["image"].max() > 0
    assert Engine(lesions, "cpu").dry_run() > 0


def test_the_run_card_counts_volumes(bundles: Sequence[Bundle], folder: Path) -> None:
    assert "4 cases (4 volumes)" in (folder / "liver" / "run.md").read_text()


def test_a_companion_that_is_absent_is_told_before_the_training(volume_recipe: Make, tmp_path: Path) -> None:
    recipe = volume_recipe(companions={"liver": "not-there"})
    with pytest.raises(BundleProblem, match="not-there"):
        companions_of(recipe, tmp_path)


def test_the_threshold_of_a_liver_is_that_of_its_best_dice(volume_recipe: Make) -> None:
    image = unseen(volume_recipe)
    true = (image.labels["liver"] > 0) | (image.labels["lesion"] > 0)
    around = np.roll(true, 3, axis=2) & ~true
    probability = np.where(true, 0.65, np.where(around, 0.55, 0.0)).astype(np.float16)
    point = choose([liver_table(probability, image)])
    assert (point.threshold, point.peak, point.minimum_ml) == (0.6, 0.0, 0.0)
    assert point.mean_dice == 1
    assert point.threshold in THRESHOLDS


def test_the_fullest_window_is_found_where_the_voxels_are() -> None:
    found = torch.zeros((10, 40, 50), dtype=torch.bool)
    found[4:9, 30:38, 40:48] = True
    window, count = fullest_window(found, (8, 16, 16))
    assert count == int(found.sum()) == int(found[window].sum())
    whole, count = fullest_window(found, (16, 16, 64))
    assert (whole[0], whole[2]) == (slice(0, 10), slice(0, 50))
    assert count == int(found.sum())


def test_a_network_that_finds_no_liver_anywhere_is_not_published(
    bundles: Sequence[Bundle], volume_recipe: Make, folder: Path, tmp_path: Path
) -> None:
    liver, _ = bundles
    silent = liver.state_dict()
    silent["conv_final.2.conv.bias"] = torch.tensor([50.0, -50.0])
    save_bundle(tmp_path / "liver", liver.card.model_copy(update={"probe_sha256": None}), silent)
    recipe = volume_recipe(
        name="blind",
        inputs=[{**volume_recipe().inputs[0].model_dump(), "within": "liver"}],
        companions={"liver": "liver"},
        images=2,
    )
    with pytest.raises(TrainingProblem, match="its companion finds none"):
        made(recipe, folder, tmp_path)
