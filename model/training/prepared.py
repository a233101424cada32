"""Files that hold what a network is fed: made once from cases by all cores, and never taken up after the lines that
made them have changed."""

from __future__ import annotations

import hashlib
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import torch

import model
from model.card import AnyInput
from model.training.sources import CaseSource

_FEEDS = ("body.py", "canonical.py", "cases.py", "input_check.py", "liver_mask.py")
"""What any network is fed is made here, and by the phantoms."""

Draw = Callable[[CaseSource, tuple[AnyInput, ...], Path], None]
"""Keeps what one case gives in a folder, whole or not at all; may run in a process of its own."""


def make_files(
    draw: Draw,
    sources: Sequence[CaseSource],
    inputs: Sequence[AnyInput],
    folder: Path,
    file_of: Callable[[Path, CaseSource], Path],
    *,
    workers: int,
    done: Callable[[], None] = lambda: None,
) -> None:
    """Draw those sources that are not in `folder` yet; `done` is called after each."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [source for source in sources if not file_of(folder, source).exists()]
    if not missing:
        return
    if workers <= 1:
        for source in missing:
            draw(source, tuple(inputs), folder)
            done()
        return
    # spawn: a fork after torch has started its threads may hang
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawn, torch.set_num_threads, (1,)) as pool:
        for future in as_completed([pool.submit(draw, source, tuple(inputs), folder) for source in missing]):
            future.result()
            done()


def fingerprint(inputs: Sequence[AnyInput], lines: Sequence[str]) -> str:
    """Changes with what the network is fed and with the lines that make it, `lines` among them (paths in `model`)."""
    digest = hashlib.sha256("\n".join(spec.model_dump_json() for spec in inputs).encode())
    here = Path(model.__path__[0])
    for source in (*sorted(here.glob("phantom*.py")), *(here / name for name in (*_FEEDS, *lines))):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]
