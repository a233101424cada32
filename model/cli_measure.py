"""`crlm-model evaluate`, `compare`, `campaign` and `export`: how good a bundle is, and taking it where it is needed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from model.cli_screen import console, progress

if TYPE_CHECKING:
    from model.bundle import Bundle
    from model.case_sets import CaseSet
    from model.compare import Comparison
    from model.report import Report
    from model.scores import CaseScore

BUNDLES = Path("model/bundles")
RUNS = Path("runs")

SeedsOption = Annotated[int, typer.Option("--seeds", help="How many unseen phantoms.", min=1)]
FirstSeedOption = Annotated[int, typer.Option(help="First seed; evaluation's begin at 900000.", min=900_000)]
MeasuringOption = Annotated[int, typer.Option("--workers", help="Processes that draw or read cases.", min=1)]
PlotsOption = Annotated[Path | None, typer.Option(help="Draw the plots into this folder.", file_okay=False)]


class PartOption(StrEnum):
    """Parts of a folder of cases; `model.training.held_out` says which may be had."""

    TEST = "test"
    VALIDATION = "validation"
    ALL = "all"


def evaluate(
    bundle: Annotated[Path, typer.Argument(help="A bundle folder.")],
    cases: Annotated[
        Path | None, typer.Option(help="Folder of cases (docs/datasets.md); phantoms if not given.", file_okay=False)
    ] = None,
    part: Annotated[
        PartOption | None,
        typer.Option(help="Of --cases; test for a bundle trained on patients, all for one trained on phantoms."),
    ] = None,
    split_seed: Annotated[int, typer.Option(help="Of --cases, as in the recipe.")] = 0,
    shares: Annotated[
        tuple[float, float], typer.Option(help="Of --cases, as in the recipe.", metavar="TRAINING VALIDATION")
    ] = (0.7, 0.15),
    condition: Annotated[
        list[str] | None, typer.Option(help="Of the phantoms; may be repeated. All of the bundle's if not given.")
    ] = None,
    seeds: SeedsOption = 20,
    first_seed: FirstSeedOption = 900_000,
    family: Annotated[int, typer.Option(help="Of the phantoms: 1, as in training, or 2, drawn otherwise.")] = 1,
    report: Annotated[
        Path | None, typer.Option(help="Write the whole report as JSON; of several conditions NAME-<condition>.json.")
    ] = None,
    plots: PlotsOption = None,
    update_card: Annotated[
        bool, typer.Option("--update-card", help="Put the measures into the bundle's card.")
    ] = False,
    workers: MeasuringOption = 1,
) -> None:
    """Measure a bundle through the serving engine, on phantoms or on cases, with 95 % intervals by patient.

    One report for each condition that the cases show.
    """
    from model.bundle import load_bundle, write_card
    from model.report import into_card, write_report
    from model.report_tables import head_of, measure_tables, notes_on

    loaded = load_bundle(bundle)
    if cases is None:
        sets = _phantoms(loaded, condition, range(first_seed, first_seed + seeds), family)
    elif condition:
        raise typer.BadParameter("--condition is of phantoms; the cases say themselves what they show")
    else:
        sets = [_held_out(cases, split_seed, shares, part, loaded)]
    reports = _measured(loaded, sets, workers)
    if update_card and len(reports) > 1:
        raise typer.BadParameter(f"a card holds the measures of one condition, not of {len(reports)}: name one")
    for table in measure_tables(reports, console.width):
        console.print(table)
    for one in reports:
        console.print(f"[bold]{escape(head_of(one))}[/bold]", highlight=False)
        _print_list(notes_on(one))
        if report is not None:
            write_report(report if len(reports) == 1 else report.with_stem(f"{report.stem}-{one.condition}"), one)
        if plots is not None:
            _draw(plots if len(reports) == 1 else plots / one.condition, [one])
    if update_card:
        write_card(bundle, into_card(loaded.card, reports[0]))


def compare(
    reports: Annotated[list[Path], typer.Argument(help="Reports that `evaluate` wrote; the first is the reference.")],
    test: Annotated[
        list[str] | None,
        typer.Option(help="A measure to test; may be repeated. Dice, lesion recall and false positives if not given."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--json", help="Write the comparison as JSON.", dir_okay=False)] = None,
    plots: PlotsOption = None,
) -> None:
    """Compare reports on the same cases: paired differences with 95 % intervals, few tests, corrected by Holm.

    Exit code 2 where the reports are not of the same cases with the same truth.
    """
    from model.compare import PRIMARY, compare_several
    from model.measures import MEASURE
    from model.report_tables import comparison_tables

    if len(reports) < 2:
        raise typer.BadParameter("two or more reports are compared")
    asked = tuple(test or PRIMARY)
    for name in asked:
        if name not in MEASURE:
            raise typer.BadParameter(f"{name!r} is no measure; docs/evaluation.md lists them")
    read = [_read(path) for path in reports]
    comparisons = compare_several(read[0], read[1:], tested=asked)
    for comparison in comparisons:
        for table in comparison_tables(comparison):
            console.print(table, "")
        console.print(f"[bold]A {escape(comparison.first)}, B {escape(comparison.second)}[/bold]", highlight=False)
        _print_list(_words_on(comparison))
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        content = [asdict(comparison) for comparison in comparisons]
        out.write_text(json.dumps(_without_nan(content), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if plots is not None:
        _draw(plots, read)


def campaign(
    bundles: Annotated[Path, typer.Option(help="Folder of bundles.")] = BUNDLES,
    out: Annotated[Path, typer.Option(help="One JSON per bundle; those already there are not measured again.")] = RUNS
    / "campaign",
    seeds: SeedsOption = 100,
    first_seed: FirstSeedOption = 900_000,
    update_cards: Annotated[bool, typer.Option("--update-cards", help="Put the measures into the cards.")] = False,
    workers: MeasuringOption = 1,
) -> None:
    """Measure every demo bundle on unseen phantoms; stopped, it goes on where it was. Exit 1 below the bounds."""
    from model.campaign import run_campaign
    from model.report_tables import summary_table

    with progress("campaign") as heard:
        outcome = run_campaign(
            bundles, out, range(first_seed, first_seed + seeds), workers=workers, update_cards=update_cards, heard=heard
        )
    console.print(summary_table(outcome.reports))
    for failure in outcome.below_bounds:
        console.print(f"[red]below the bound:[/red] {failure}")
    if outcome.below_bounds:
        raise typer.Exit(1)


def export(
    bundle: Annotated[Path, typer.Argument(help="A bundle folder.")],
    to: Annotated[
        Path, typer.Option(help="Folder that gets the bundle's folder and its companions'.", file_okay=False)
    ],
) -> None:
    """Copy a bundle with the bundles that must run before it, every digest verified before and after."""
    from model.export import export_bundle

    for copy in export_bundle(bundle, to):
        console.print(f"{escape(str(copy.path))}: whole; card sha256 {copy.sha256}", highlight=False, soft_wrap=True)


def register(app: typer.Typer) -> None:
    """Add these commands to the program."""
    for command in (evaluate, compare, campaign, export):
        app.command()(command)


def _phantoms(bundle: Bundle, wanted: Sequence[str] | None, seeds: Sequence[int], family: int) -> list[CaseSet]:
    from model.case_sets import unseen_phantoms

    return [unseen_phantoms(condition, seeds, family) for condition in wanted or bundle.card.conditions]


def _held_out(folder: Path, seed: int, shares: tuple[float, float], part: PartOption | None, bundle: Bundle) -> CaseSet:
    from model.training.held_out import held_out
    from model.training.recipe import FolderSource

    try:
        source = FolderSource(path=folder, split_seed=seed, training_share=shares[0], validation_share=shares[1])
    except ValueError as error:
        raise typer.BadParameter("--shares are two shares from 0 to 1, at most 1 together") from error
    found = held_out(source, part.value if part else None, bundle.card)
    if found.warning:
        console.print(f"[bold yellow]warning:[/bold yellow] {escape(found.warning)}", highlight=False)
    return found.cases


def _measured(bundle: Bundle, sets: Sequence[CaseSet], workers: int) -> list[Report]:
    from model.engine import Engine
    from model.evaluate import evaluate as measure

    engine = Engine(bundle, "auto")
    reports: list[Report] = []
    with progress(bundle.card.name) as heard:
        for cases in sets:
            one_more = _counting(heard, cases.condition or "cases", len(cases.sources))
            reports += measure(engine, cases, workers=workers, done=one_more)
    return reports


def _counting(heard: Callable[[str, int, int, float], None], phase: str, of: int) -> Callable[[CaseScore], None]:
    """Tells of every case with the mean Dice so far; a case may hold several images, so `of` is the least."""
    dices: list[float] = []

    def one_more(case: CaseScore) -> None:
        dices.append(case.dice)
        heard(phase, len(dices), max(of, len(dices)), sum(dices) / len(dices))

    return one_more


def _read(path: Path) -> Report:
    from model.problems import ReportProblem
    from model.report import read_report

    try:
        return read_report(path)
    except OSError as error:
        raise ReportProblem(f"{path}: cannot be read ({error.strerror}); name a report of `evaluate`") from error


def _draw(folder: Path, reports: Sequence[Report]) -> None:
    from model.plots import write_plots

    for path in write_plots(folder, reports):
        console.print(f"plot: {escape(str(path))}", highlight=False, soft_wrap=True)


def _words_on(comparison: Comparison) -> Iterable[str]:
    yield f"{comparison.condition}: {comparison.cases} series of {comparison.patients} patients, paired"
    tests = dict.fromkeys(row.test for row in comparison.rows if row.p_holm is not None)
    yield f"p is after Holm's correction over all that was tested here ({', '.join(tests)})"
    yield "a difference without p was not tested: an interval without 0 is a hint there, not a finding"


def _print_list(sentences: Iterable[str]) -> None:
    for sentence in sentences:
        console.print(f"- {escape(sentence)}", highlight=False)


def _without_nan(content: object) -> object:
    """JSON has no NaN: null stands in its place."""
    if isinstance(content, dict):
        return {key: _without_nan(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_without_nan(value) for value in content]
    return None if content != content else content
