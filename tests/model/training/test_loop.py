"""A training is a function of its recipe and its cases, whatever happens to the process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from model.bundle import load_bundle
from model.engine import Engine
from model.problems import TrainingProblem
from model.training.distributed import World
from model.training.journal import read_journal
from model.training.loop import Trained, Training
from model.training.publish import publish, write_run_card
from model.training.recipe import Recipe
from model.training.sources import split_of

KILLED_AT = 7

KILL = """
import os, signal, sys
from pathlib import Path
import torch
from model.training.loop import Training
from model.training.recipe import Recipe

def heard(phase, done, of, value):
    if phase == "training" and done == {step}:
        os.kill(os.getpid(), signal.SIGKILL)

torch.set_num_threads(1)
if __name__ == "__main__":
    recipe = Recipe.model_validate_json(Path(sys.argv[1]).read_text())
    Training(recipe, Path(sys.argv[2]), cache=Path(sys.argv[3]), workers=1, heard=heard, save_every_s=0).run()
"""


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def trained(recipe: Recipe, folder: Path, **more: object) -> Trained:
    return Training(recipe, folder / "run", cache=folder.parent / "cache", workers=1, **more).run()  # type: ignore[arg-type]  # as given


def weights(found: Trained) -> list[torch.Tensor]:
    return list(found.network.state_dict().values())


def test_the_same_recipe_gives_the_same_weights(recipe_of: Callable[..., Recipe], tmp_path: Path) -> None:
    first, second = (trained(recipe_of(), tmp_path / name) for name in "ab")
    assert all(torch.equal(a, b) for a, b in zip(weights(first), weights(second), strict=True))


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("recipe_of", {}),
        ("recipe_of", {"average_decay": 0.9, "sampling": {"lesion_share": 0.5, "hard_share": 0.5}}),
        ("volume_recipe", {"average_decay": 0.9, "validation": {"every_share": 0.25, "keep": "best"}}),
    ],
)
def test_a_training_that_is_killed_and_begun_again_ends_as_one_that_was_not(
    kind: str, changes: dict[str, object], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    recipe = request.getfixturevalue(kind)(**changes)
    script, told = tmp_path / "kill.py", tmp_path / "recipe.json"
    script.write_text(KILL.format(step=KILLED_AT))
    told.write_text(recipe.model_dump_json())
    run = tmp_path / "killed" / "run"
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    ended = subprocess.run([sys.executable, script, told, run, tmp_path / "cache"], env=environment, check=False)
    assert ended.returncode == -signal.SIGKILL
    resumed = trained(recipe, tmp_path / "killed")
    whole = trained(recipe, tmp_path / "whole")
    assert all(torch.equal(a, b) for a, b in zip(weights(resumed), weights(whole), strict=True))
    assert resumed.looks == whole.looks
    assert read_journal(run) == read_journal(tmp_path / "whole" / "run")


def test_the_state_of_another_recipe_is_refused(recipe_of: Callable[..., Recipe], tmp_path: Path) -> None:
    trained(recipe_of(), tmp_path)
    with pytest.raises(TrainingProblem, match="another recipe or other cases"):
        Training(recipe_of(seed=1), tmp_path / "run", cache=tmp_path.parent / "cache", workers=1)


def test_two_batches_that_count_as_one_step_half_as_often(recipe_of: Callable[..., Recipe], tmp_path: Path) -> None:
    trained(recipe_of(accumulate=2), tmp_path)
    assert max(line["step"] for line in read_journal(tmp_path / "run")) == 6


def test_a_batch_is_dealt_out_evenly_or_not_at_all() -> None:
    assert World(2, 1).part(4) == slice(2, 4)
    with pytest.raises(ValueError, match="dealt out"):
        World(3, 0).part(4)


def test_patients_are_split_and_not_cases(recipe_of: Callable[..., Recipe]) -> None:
    split = split_of(recipe_of().source)
    assert {c.patient for c in split.training}.isdisjoint(c.patient for c in split.validation)
    assert (len(split.training), len(split.validation)) == (4, 2)


def test_what_was_trained_becomes_a_bundle_that_the_engine_serves(
    recipe_of: Callable[..., Recipe], tmp_path: Path
) -> None:
    recipe = recipe_of(images=480)
    found = trained(recipe, tmp_path)
    bundle = publish(recipe, found, tmp_path / "out", workers=1)
    card = load_bundle(bundle.path).card
    assert (card.training.trained_on, card.intended_use, card.metrics) == ("patients", "research", {})
    assert card.training.inputs_seen["image"].slice_spacing_mm is not None
    assert card.probe_sha256 is not None
    image = split_of(recipe.source).validation[0].read().images["t2"]
    answer = Engine(bundle, "cpu").segment(image.volume)
    assert answer.remarks == ()
    assert answer.probability_DHW[image.labels["lesion"] > 0].mean() > answer.probability_DHW.mean() + 0.2
    words = write_run_card(tmp_path / "run", recipe, found, bundle).read_text()
    assert "4 cases" in words
    assert json.loads((tmp_path / "run" / "run.json").read_text())["images_seen"] == 480
