"""A training's state on disk: one file, replaced as a whole, so that `kill -9` leaves the last one or the new."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from model.problems import TrainingProblem

CHECKPOINT_NAME = "state.pt"


@dataclass
class State:
    """Where a training stands after `step` optimiser steps."""

    step: int = 0
    scheme: dict[str, Any] = field(default_factory=dict)
    looks: list[float] = field(default_factory=list)
    """Validation Dice, look after look."""
    best: dict[str, Any] = field(default_factory=dict)
    """Weights of the best look."""
    hardness: torch.Tensor | None = None
    hard_since: int = -1
    """The step of the last search for hard slices."""


def save_state(folder: Path, state: State, identity: str) -> None:
    """Replace the state in `folder`; `identity` is the digest of recipe and split that it belongs to."""
    draft = folder / f"{CHECKPOINT_NAME}.part"
    with draft.open("wb") as file:
        torch.save({"identity": identity, **vars(state)}, file)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(folder / CHECKPOINT_NAME)


def read_state(folder: Path, identity: str) -> State | None:
    """The state in `folder`, None where there is none. Raises TrainingProblem for that of another training."""
    path = folder / CHECKPOINT_NAME
    if not path.exists():
        return None
    # tensors, numbers and containers only: nothing in the file is run
    stored = torch.load(path, map_location="cpu", weights_only=True)
    found = stored.pop("identity")
    if found != identity:
        raise TrainingProblem(
            f"{path}: the state of another recipe or other cases ({found[:12]}…, not {identity[:12]}…); "
            "name another --run folder, or remove this one to begin anew"
        )
    return State(**stored)
