"""The terminal of `crlm-model`: where it prints, and its progress bars."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

console = Console()


@contextmanager
def progress(title: str) -> Iterator[Callable[[str, int, int, float], None]]:
    """A bar per phase: `heard(phase, done, of, latest value)`."""
    columns = (
        TextColumn(title),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[value]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bars_on_screen:
        bars: dict[str, TaskID] = {}

        def heard(phase: str, done: int, of: int, value: float) -> None:
            if phase not in bars:
                bars[phase] = bars_on_screen.add_task(phase, total=of, value="")
            shown = "" if value != value else f"{value:.3f}"
            bars_on_screen.update(bars[phase], completed=done, total=of, value=shown)

        yield heard
