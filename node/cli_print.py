"""How the command line speaks: tables for people, JSON for programs, one sentence for failures."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from node.orders import SeriesTold
    from node.retrial import Retrial

console = Console()
stderr = Console(stderr=True)

DEFAULT_CONFIG = Path("dicom_config")
ConfigOption = Annotated[
    Path,
    typer.Option(
        "--config",
        metavar="DIR",
        envvar="CRLM_NODE_CONFIG",
        help="Folder with node.yaml, peers.yaml, routes.yaml and terminology.yaml.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]

STATE_COLOURS = {
    "committed": "green",
    "failed": "red",
    "held": "yellow",
    "cancelled": "dim",
    "superseded": "dim",
    "accept": "green",
    "confirm": "yellow",
    "refuse": "dim",
}


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, title: str = "") -> None:
    """Cells are rich markup: escape what was read somewhere with `plain`."""
    table = Table(box=None, pad_edge=False, header_style="bold", title=title or None, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def counted(number: int, noun: str, plural: str = "") -> str:
    """`1 lesion`, `2 lesions`, `2 series`."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def retrial_json(item: Retrial) -> dict[str, Any]:
    """One series of `route --dry-run --json`."""

    def told(decision: SeriesTold | None) -> dict[str, Any] | None:
        if decision is None:
            return None
        return {"decision": decision.decision, "condition": decision.condition, "reason": decision.reason}

    return {
        "study_uid": item.study_uid,
        "series_uid": item.series_uid,
        "changed": item.is_changed,
        "before": told(item.before),
        "after": told(item.after),
    }


def print_retrial(item: Retrial) -> None:
    """A series that would be decided otherwise: before, after, and why."""
    assert item.after is not None  # only what was decided anew can have changed
    before, after = ((told.decision, told.condition or "") for told in (item.before, item.after))
    console.print(f"[bold]{item.series_uid}[/]  [dim]study {item.study_uid}[/]", highlight=False)
    console.print(
        f"    was      {coloured(before[0])} {plain(before[1])}  [dim]{plain(item.before.reason)}[/]", highlight=False
    )
    console.print(
        f"    would be {coloured(after[0])} {plain(after[1])}  [dim]{plain(item.after.reason)}[/]", highlight=False
    )


def plain(text: object) -> str:
    """Text whose brackets are no markup."""
    return escape(str(text))


def coloured(word: str) -> str:
    """A state or decision in its colour."""
    colour = STATE_COLOURS.get(word)
    return f"[{colour}]{plain(word)}[/]" if colour else plain(word)


def verdict(is_ok: bool) -> str:
    """`ok` or `no`, in colour."""
    return "[green]ok[/]" if is_ok else "[red]no[/]"


def fail(message: str, code: int) -> NoReturn:
    """Say what is wrong on stderr and end with that exit code."""
    for line in message.splitlines():
        stderr.print(f"[red]crlm-node:[/] {plain(line)}", soft_wrap=True, highlight=False)
    sys.exit(code)
