"""Two processes under torchrun train what one process trains."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from model.training.loop import Training
from model.training.recipe import Recipe

SCRIPT = """
import sys
from pathlib import Path
import torch
from model.training.distributed import join_world, leave_world
from model.training.loop import Training
from model.training.recipe import Recipe

torch.set_num_threads(1)
if __name__ == "__main__":
    recipe = Recipe.model_validate_json(Path(sys.argv[1]).read_text())
    world = join_world(torch.device("cpu"))
    trained = Training(recipe, Path(sys.argv[2]), cache=Path(sys.argv[3]), workers=1, world=world).run()
    torch.save(trained.network.state_dict(), Path(sys.argv[2]) / f"weights-{world.rank}.pt")
    leave_world(world)
"""


@pytest.fixture
def recipe(recipe_of: Callable[..., Recipe]) -> Recipe:
    """Norms and losses by image: with those of a batch, half a batch would be another thing than a part of one."""
    network = {"id": "resenc", "kwargs": {"features": [8, 16], "blocks": [1, 1]}}
    return recipe_of(network=network, initial="torch", loss="published", precision="fp32", images=24)


def test_the_weights_of_two_processes_are_those_of_one(recipe: Recipe, tmp_path: Path) -> None:
    script, told, run = tmp_path / "train.py", tmp_path / "recipe.json", tmp_path / "two"
    script.write_text(SCRIPT)
    told.write_text(recipe.model_dump_json())
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", script]
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd()), "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, told, run, tmp_path / "cache"], env=environment, check=True, timeout=240)
    first, second = (torch.load(run / f"weights-{rank}.pt", weights_only=True) for rank in (0, 1))
    alone = Training(recipe, tmp_path / "one", cache=tmp_path / "cache", workers=1).run().network.state_dict()
    for name, value in alone.items():
        assert torch.equal(first[name], second[name])
        assert torch.allclose(first[name], value, atol=2e-4), name
