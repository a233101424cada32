"""`crlm-node dataset`: images and segmentations of others become cases for training and evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from node.cli_files import require_existing
from node.cli_print import JsonOption, console, counted, plain, print_json, print_table, stderr

if TYPE_CHECKING:
    from node.dataset import Heard, Imported, Skipped

dataset_app = typer.Typer(no_args_is_help=True)


class Collection(StrEnum):
    """Whose manners the sources follow; `auto` knows the collections by their Patient IDs."""

    AUTO = "auto"
    CRLM_CT = "crlm-ct"
    HCC_TACE = "hcc-tace"
    CHAOS = "chaos"


class TimePointWish(StrEnum):
    """Before or after chemotherapy."""

    PRE = "pre"
    POST = "post"


@dataset_app.callback()
def dataset() -> None:
    """Data sets of others, as cases for training and evaluation."""


@dataset_app.command("import")
def import_command(
    sources: Annotated[
        list[Path], typer.Argument(metavar="SOURCE...", help="Folders with images and segmentations, or DICOM files.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the cases; one of the same name is replaced.", file_okay=False)],
    collection: Annotated[Collection, typer.Option(help="How labels and phases are to be read.")] = Collection.AUTO,
    licence: Annotated[str | None, typer.Option(help="What may be done with the data, for case.json.")] = None,
    time_point: Annotated[
        TimePointWish | None, typer.Option(help="Before or after chemotherapy: no header tells it.")
    ] = None,
    automatic: Annotated[
        bool, typer.Option("--automatic", help="Take also segments that an algorithm made and nobody corrected.")
    ] = False,
    pseudonyms: Annotated[
        bool, typer.Option(help="Name patients by a keyed digest of their ID; public collections keep their own IDs.")
    ] = True,
    key: Annotated[
        Path | None,
        typer.Option(help="File of the pseudonyms' key, made if absent. In the cases' folder if not named."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """DICOM images with DICOM segmentations → case folders (docs/datasets.md). Exit 1 if no case was written."""
    from node.dataset import Imported, Skipped

    require_existing(sources)
    out.mkdir(parents=True, exist_ok=True)
    with _progress() as heard:
        answers = list(_answers(sources, out, collection, licence, time_point, automatic, pseudonyms, key, heard))
    imported = [answer for answer in answers if isinstance(answer, Imported)]
    skipped = [answer for answer in answers if isinstance(answer, Skipped)]
    if as_json:
        print_json({"cases": [each.as_json() for each in imported], "skipped": [each.as_json() for each in skipped]})
    else:
        _print(imported, skipped, out)
    if not imported:
        raise typer.Exit(1)


def _answers(
    sources: list[Path],
    out: Path,
    collection: Collection,
    licence: str | None,
    time_point: TimePointWish | None,
    automatic: bool,
    pseudonyms: bool,
    key: Path | None,
    heard: Heard,
) -> Iterator[Imported | Skipped]:
    from node.dataset import ImportWish, import_dataset
    from node.dataset_chaos import import_chaos
    from node.dataset_pseudonyms import KEY_NAME, Pseudonyms

    if collection is Collection.CHAOS:
        return import_chaos(sources, out, heard)
    wish = ImportWish(
        pseudonyms=Pseudonyms((key or out / KEY_NAME) if pseudonyms else None),
        collection=collection.value,
        licence=licence,
        time_point=time_point.value if time_point else None,
        takes_automatic=automatic,
    )
    return import_dataset(sources, out, wish, heard)


def _print(imported: Sequence[Imported], skipped: Sequence[Skipped], out: Path) -> None:
    if imported:
        rows = [(each.case, ", ".join(each.images), str(each.lesions), plain(_told(each))) for each in imported]
        print_table(("case", "images", "lesions", "remarks"), rows)
    for each in skipped:
        console.print(f"[red]skipped[/] {plain(each.source)}: {plain(each.reason)}", highlight=False)
    images, lesions = sum(len(each.images) for each in imported), sum(each.lesions for each in imported)
    console.print(
        f"{counted(len(imported), 'case')} with {counted(images, 'image')} and {counted(lesions, 'lesion')} in "
        f"[bold]{plain(out)}[/]; {len(skipped)} skipped."
    )


def _told(case: Imported) -> str:
    absent = [] if any("lesion" in labels for labels in case.images.values()) else ["lesions not annotated"]
    return "; ".join([*absent, *case.remarks])


@contextmanager
def _progress() -> Iterator[Heard]:
    """A bar per phase on stderr; none where it is no terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as progress:
        bars: dict[str, TaskID] = {}

        def heard(phase: str, done: int, of: int) -> None:
            if phase not in bars:
                bars[phase] = progress.add_task(phase, total=of)
            progress.update(bars[phase], completed=done, total=of)

        yield heard
