"""What a training tells while it runs: lines of JSON, TensorBoard where it is installed, and a curve at the end.

Lines written after the last saved state are dropped when a training is taken up again, so that none stands twice.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

JOURNAL_NAME = "journal.jsonl"
CURVE_NAME = "curve.png"


class Journal:
    """Appends to `journal.jsonl` in the run's folder, and to TensorBoard's files beside it."""

    def __init__(self, folder: Path, first_step: int) -> None:
        self._path = folder / JOURNAL_NAME
        kept = [line for line in read_journal(folder) if line["step"] <= first_step]
        self._path.write_text("".join(f"{json.dumps(line)}\n" for line in kept), encoding="utf-8")
        self._board = _tensorboard(folder / "tensorboard", first_step)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """What was seen at optimiser step `step`."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """TensorBoard's file is whole afterwards."""
        if self._board is not None:
            self._board.close()


def read_journal(folder: Path) -> list[dict[str, float]]:
    """All whole lines; one that a crash cut short is left out."""
    path = folder / JOURNAL_NAME
    return list(_lines(path.read_text(encoding="utf-8"))) if path.exists() else []


def _lines(content: str) -> Iterator[dict[str, float]]:
    for line in content.splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            log.warning("journal_line_is_cut_short")


def draw_curve(folder: Path) -> Path | None:
    """Loss and validation over steps as a PNG; None where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        log.warning("no_curve_is_drawn: install the extra `train` for matplotlib")
        return None
    lines = read_journal(folder)
    figure = Figure(figsize=(8, 4.5), dpi=110, layout="constrained")
    left = figure.add_subplot()
    for name in sorted({name for line in lines for name in line if name.startswith("loss")}):
        points = [(line["step"], line[name]) for line in lines if name in line]
        left.plot(*zip(*points, strict=True), label=name.replace("_", " "), linewidth=1)
    left.set_xlabel("optimiser step")
    left.set_ylabel("loss")
    validated = [(line["step"], line["validation_dice"]) for line in lines if "validation_dice" in line]
    if validated:
        right = left.twinx()
        right.plot(*zip(*validated, strict=True), color="black", marker=".", label="Dice of validation cases")
        right.set_ylabel("Dice of validation cases")
        right.set_ylim(0, 1)
        right.legend(loc="lower right")
    left.legend(loc="upper right")
    path = folder / CURVE_NAME
    figure.savefig(path)
    return path


def _tensorboard(folder: Path, first_step: int) -> Any | None:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        log.warning("nothing_is_written_for_tensorboard: install the extra `train`")
        return None
    return SummaryWriter(str(folder), purge_step=first_step + 1)
