"""`crlm-node route` and `segment`: what is asked of files, without a node; and of what a node has received."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from node.cli_print import (
    DEFAULT_CONFIG,
    ConfigOption,
    JsonOption,
    coloured,
    console,
    counted,
    plain,
    print_json,
    print_retrial,
    retrial_json,
    stderr,
)
from node.config import Config, load_config
from node.errors import NodeError

if TYPE_CHECKING:
    from node.offline import Answer


def route(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="DICOM files, or folders that are searched for them.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Decide anew what was received, and show what would change.")
    ] = False,
    since: Annotated[str, typer.Option(help="With --dry-run: how far back, such as 12h, 30d or 8w.")] = "30d",
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Say which condition each series would be, on what evidence, or why none. Reads headers, sends nothing.

    After a change of routes.yaml, `--dry-run --since 30d` shows which series of the past it would decide otherwise.
    """
    from node.survey import survey

    if dry_run:
        if paths:
            raise typer.BadParameter("--dry-run looks at what was received; name files or --dry-run, not both")
        _route_again(load_config(config), _period(since), as_json=as_json)
        return
    if not paths:
        raise typer.BadParameter("name files or folders, or --dry-run for what was received")
    require_existing(paths)
    found = survey(paths, load_config(config))
    told = found.as_json()
    if as_json:
        print_json(told)
        return
    if not told:
        console.print("No DICOM file there.")
    for item in told:
        if item.get("unreadable"):
            console.print(f"[red]unreadable[/] {plain(item['source'])}: {plain(item['reason'])}")
            continue
        condition = item["condition"] or " or ".join(item["candidates"]) or ""
        number = f"series {item['series_number']}, " if item["series_number"] is not None else ""
        b_value = f" b={item['b_s_mm2']:g}" if item["b_s_mm2"] is not None else ""
        mean = " mean of directions" if item["directionality"] == "derived-mean" else ""
        console.print(
            f"{coloured(item['decision'])} [dim]({item['margin']:+d})[/] [bold]{plain(condition)}[/]  "
            f"{number}{item['weighting']}{b_value}{mean}, {item['slices']} slices  [dim]{plain(item['source'])}[/]"
        )
        if item["hold_reason"]:
            console.print(f"    [yellow]held:[/] {plain(item['hold_reason'])}")
        for reason in item["reasons"]:
            mark = "[green]+[/]" if reason["for"] else "[red]−[/]"
            console.print(f"    {mark} {plain(reason['what'])}  [dim]{plain(reason['where'])}[/]", highlight=False)


def _period(words: str) -> timedelta:
    """`30d` → 30 days. Raises BadParameter."""
    found = re.fullmatch(r"(\d+)([hdw])", words)
    if found is None:
        raise typer.BadParameter(f"{words!r} is no period; write 12h, 30d or 8w")
    hours = {"h": 1, "d": 24, "w": 168}[found[2]]
    return timedelta(hours=int(found[1]) * hours)


def _route_again(settings: Config, period: timedelta, *, as_json: bool) -> None:
    from node.database import Database, utc_now
    from node.retrial import retry_since
    from node.spool import Spool

    spool = Spool.of_node(settings.spool_path)
    database = Database.open(settings)
    try:
        found = list(retry_since(settings, spool, database, utc_now() - period))
    finally:
        database.close()
    if as_json:
        print_json([retrial_json(item) for item in found])
        return
    changed = [item for item in found if item.is_changed]
    for item in changed:
        print_retrial(item)
    gone = sum(item.after is None for item in found)
    left = f"; the images of {gone} are no longer here" if gone else ""
    console.print(
        f"{counted(len(found), 'series', 'series')} looked at, {len(changed)} would be decided otherwise{left}."
    )


def segment(
    paths: Annotated[list[Path], typer.Argument(help="DICOM files, or folders that are searched for them.")],
    out: Annotated[Path, typer.Option(help="Folder for the results: one folder in it per series.")],
    condition: Annotated[
        str | None,
        typer.Option(
            help="What the series is, a condition of routes.yaml: settles pre or post and thin evidence, overrules no "
            "contradiction."
        ),
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Analyse files without a node: seg.dcm, sr.dcm, findings.json and overlay.png per series.

    Every series found gets an answer: a result, or the reason why not. Exit 1 if none was segmented.
    """
    from node.offline import segment_files, write_summary

    require_existing(paths)
    settings = load_config(config)
    answers = []
    with stderr.status("reading headers …"):
        for answer in segment_files(paths, out, settings, condition):
            answers.append(answer)
            if answer.is_segmented and not as_json:
                _print_segmented(answer)
    if not as_json:
        _print_refusals(answers)
    write_summary(out, answers)
    if as_json:
        print_json([answer.as_json() for answer in answers])
    if any(answer.is_segmented and answer.is_demo for answer in answers):
        stderr.print(
            "[black on yellow] DEMO WEIGHTS [/] trained on phantoms: these findings mean nothing for a patient."
        )
    if not answers:
        raise NodeError(f"{', '.join(map(str, paths))}: no DICOM file there")
    if not any(answer.is_segmented for answer in answers):
        raise typer.Exit(1)


def _print_segmented(answer: Answer) -> None:
    found = answer.summary or {}
    longest = f", longest axis {found['longest_axis_mm']:.1f} mm" if found["lesion_count"] else ""
    console.print(
        f"[green]segmented[/] [bold]{answer.condition}[/]: {counted(found['lesion_count'], 'lesion')}, "
        f"{found['total_volume_ml']:.2f} ml{longest}  → {plain(answer.folder)}",
        highlight=False,
    )


def _print_refusals(answers: Sequence[Answer]) -> None:
    """One line per series of which nothing was segmented; what a person could mend comes first."""
    taken = {answer.series_uid for answer in answers if answer.is_segmented}
    by_series: dict[tuple[str, str], list[str]] = {}
    for answer in answers:
        if answer.series_uid not in taken or not answer.series_uid:
            by_series.setdefault((answer.source, answer.series_uid), []).append(answer.reason)
    for (source, _), reasons in by_series.items():
        first, *others = sorted(dict.fromkeys(reasons), key=lambda reason: "--condition" not in reason)
        more = f" [dim](and {len(others)} other reasons for its other volumes)[/]" if others else ""
        console.print(f"[red]not segmented[/] {plain(source)}: {plain(first)}{more}", highlight=False)


def require_existing(paths: list[Path]) -> None:
    """Raises BadParameter for a path that is not there."""
    missing = [str(path) for path in paths if not path.exists()]
    if missing:
        raise typer.BadParameter(f"no such file or folder: {', '.join(missing)}")
