"""Every recipe that ships can be read, says what a card may say, and builds its network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from model.networks import build_network
from model.problems import RecipeProblem
from model.training.recipe import RECIPES_FOLDER, Recipe, find_recipe, read_recipe
from model.training.schemes import SCHEMES

SHIPPED = sorted(RECIPES_FOLDER.glob("*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_recipe_that_ships_is_whole(path: Path) -> None:
    recipe = read_recipe(path)
    assert recipe.name == path.stem
    assert recipe.scheme in SCHEMES
    with torch.device("meta"):
        network = build_network(recipe.network.id, recipe.network.kwargs)
    assert sum(p.numel() for p in network.parameters()) > 0


def test_a_recipe_is_found_by_its_name_and_by_its_path(tmp_path: Path) -> None:
    assert find_recipe("trial") == RECIPES_FOLDER / "trial.yaml"
    own = tmp_path / "own.yaml"
    own.write_text("name: own")
    assert find_recipe(str(own)) == own
    with pytest.raises(RecipeProblem, match=r"no recipe of that name ships; these do: .*trial"):
        find_recipe("trail")


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("batch: 12", "batch: Input should be greater than or equal to 1"),
        ("images: 2400", "say how long: images or epochs"),
        ("loss: pooled", "loss: Input should be 'published'"),
        ("scheme: supervised", "scheme: Input should be"),
    ],
)
def test_what_is_wrong_with_a_recipe_is_said_with_file_and_key(tmp_path: Path, line: str, complaint: str) -> None:
    key = line.partition(":")[0]
    bad = {"batch": "batch: 0", "images": "", "loss": "loss: best", "scheme": "scheme: mine"}[key]
    text = (RECIPES_FOLDER / "trial.yaml").read_text()
    path = tmp_path / "wrong.yaml"
    path.write_text(text.replace(line, bad) if line in text else f"{text}{bad}\n")
    with pytest.raises(RecipeProblem, match=complaint) as caught:
        read_recipe(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_no_yaml_is_said_to_be_none(tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text("a: [1, 2")
    with pytest.raises(RecipeProblem, match="not readable as YAML"):
        read_recipe(path)


def test_steps_follow_from_images_or_from_epochs() -> None:
    trial = read_recipe(RECIPES_FOLDER / "trial.yaml")
    assert trial.steps(1000) == 200
    epochs = Recipe.model_validate(trial.model_dump() | {"images": None, "epochs": 3, "accumulate": 2})
    assert epochs.steps(800) == 100
