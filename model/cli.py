"""`crlm-model`: train demo bundles, measure them, and say what lies in a folder of bundles."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

if TYPE_CHECKING:
    from model.report import Report

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)
console = Console()

BUNDLES = Path("model/bundles")
RUNS = Path("runs")

OutOption = Annotated[Path, typer.Option("--out", help="Folder that holds one bundle folder per name.")]
WorkersOption = Annotated[int, typer.Option(help="Processes that draw phantoms.", min=1)]
SeedsOption = Annotated[int, typer.Option("--seeds", help="How many unseen phantoms.", min=1)]
FirstSeedOption = Annotated[int, typer.Option(help="First seed; evaluation's begin at 900000.")]


class Layout(StrEnum):
    """Layouts of public data that are no DICOM."""

    LITS = "lits"
    MSD = "msd"
    PNG = "png"


@app.command("train-demo")
def train_demo_command(
    condition: Annotated[str, typer.Option(help="A condition's name, or `all`.")],
    out: OutOption = BUNDLES,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps; the recipe's own number if not given.")] = None,
    cases: Annotated[int | None, typer.Option(help="Training phantoms; the recipe's own number if not given.")] = None,
    start: Annotated[
        Path | None, typer.Option(help="A bundle folder whose weights to begin with, in place of the recipe's.")
    ] = None,
    cache: Annotated[Path, typer.Option(help="Where drawn training slices are kept.")] = RUNS / "cases",
    workers: WorkersOption = 2,
) -> None:
    """Train demo weights on phantoms, on this machine's CPU, and write the bundle. Metrics come from `campaign`."""
    from model.bundle import load_bundle
    from model.training.demo import train_demo
    from model.training.demo_card import bundle_name
    from model.training.demo_recipes import RECIPES

    for name in _conditions(condition):
        recipe = RECIPES[name]
        recipe = replace(recipe, steps=steps or recipe.steps, cases=cases or recipe.cases)
        beginning = start or (out / bundle_name(recipe.start) if recipe.start else None)
        begun = load_bundle(beginning) if beginning else None
        with _progress(name) as heard:
            bundle = train_demo(name, out, recipe, cache=cache, workers=workers, start=begun, heard=heard)
        output = bundle.card.output
        console.print(
            f"{bundle.path}: {recipe.images_seen} images seen; a lesion is {output.threshold} or more, somewhere "
            f"{output.minimum_peak_probability} or more, and at least {output.minimum_lesion_ml} ml"
        )


@app.command()
def evaluate(
    bundle: Annotated[Path, typer.Argument(help="A bundle folder.")],
    condition: Annotated[str | None, typer.Option(help="The bundle's own condition if not given.")] = None,
    seeds: SeedsOption = 20,
    first_seed: FirstSeedOption = 900_000,
    report: Annotated[Path | None, typer.Option(help="Write the whole report as JSON.")] = None,
    update_card: Annotated[
        bool, typer.Option("--update-card", help="Put the measures into the bundle's card.")
    ] = False,
    workers: WorkersOption = 1,
) -> None:
    """Measure a bundle on unseen phantoms through the serving engine, with 95 % intervals."""
    from model.bundle import load_bundle, write_card
    from model.engine import Engine
    from model.evaluate import evaluate as measure
    from model.report import into_card, write_report

    loaded = load_bundle(bundle)
    name = condition or loaded.card.conditions[0]
    done = 0
    with _progress(name) as heard:

        def one_more(dice: float) -> None:
            nonlocal done
            done += 1
            heard("unseen phantoms", done, seeds, dice)

        result = measure(
            Engine(loaded, "auto"),
            name,
            range(first_seed, first_seed + seeds),
            workers=workers,
            done=lambda case: one_more(case.dice),
        )
    console.print(_measures_table([result]))
    if report is not None:
        write_report(report, result)
    if update_card:
        write_card(bundle, into_card(loaded.card, result))


@app.command()
def campaign(
    bundles: Annotated[Path, typer.Option(help="Folder of bundles.")] = BUNDLES,
    out: Annotated[Path, typer.Option(help="One JSON per bundle; those already there are not measured again.")] = RUNS
    / "campaign",
    seeds: SeedsOption = 100,
    first_seed: FirstSeedOption = 900_000,
    update_cards: Annotated[bool, typer.Option("--update-cards", help="Put the measures into the cards.")] = False,
    workers: WorkersOption = 1,
) -> None:
    """Measure every demo bundle on unseen phantoms; stopped, it goes on where it was. Exit 1 below the bounds."""
    from model.campaign import run_campaign

    with _progress("campaign") as heard:
        outcome = run_campaign(
            bundles, out, range(first_seed, first_seed + seeds), workers=workers, update_cards=update_cards, heard=heard
        )
    console.print(_measures_table(outcome.reports))
    for failure in outcome.below_bounds:
        console.print(f"[red]below the bound:[/red] {failure}")
    if outcome.below_bounds:
        raise typer.Exit(1)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="A YAML file, or one of those that `recipes` lists.")],
    out: OutOption = BUNDLES,
    cases: Annotated[
        Path | None, typer.Option(help="A folder of case folders to learn from, in place of the recipe's source.")
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="Where the training's state is kept; begun again, it goes on from there.")
    ] = None,
    cache: Annotated[Path, typer.Option(help="Where prepared slices and volumes are kept.")] = RUNS / "slices",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    workers: WorkersOption = 2,
) -> None:
    """Train by a recipe and write the bundle, its run card and the curve. Killed, it goes on where it was; under
    `torchrun` every process takes its part of each batch."""
    from model.bundle import load_bundle
    from model.hardware import choose_device
    from model.training.distributed import join_world, leave_world
    from model.training.journal import draw_curve
    from model.training.loop import Training
    from model.training.publish import companions_of, publish, write_run_card
    from model.training.recipe import find_recipe, read_recipe, with_cases

    wanted = with_cases(read_recipe(find_recipe(recipe)), cases)
    companions_of(wanted, out)  # one that is absent is told before the training, not after it
    folder = run or RUNS / "training" / wanted.name
    begun = load_bundle(_beginning(wanted.start, out)).state_dict() if wanted.start else None
    world = join_world(choose_device(device))
    with _progress(wanted.name) as heard:
        training = Training(
            wanted, folder, cache=cache, workers=workers, device=device, world=world, begun=begun, heard=heard
        )
        trained = training.run()
        if world.is_first:
            bundle = publish(wanted, trained, out, workers=workers, heard=heard)
            draw_curve(folder)
            console.print(write_run_card(folder, wanted, trained, bundle).read_text(encoding="utf-8"))
            console.print(f"bundle: {bundle.path}    run: {folder}")
    leave_world(world)


def _beginning(start: str, out: Path) -> Path:
    """A folder by its path, or a bundle of that name beside the one that is written."""
    return Path(start) if (Path(start) / "card.json").exists() else out / start


@app.command("recipes")
def list_recipes() -> None:
    """The recipes that ship."""
    from model.training.recipe import RECIPES_FOLDER, read_recipe

    table = Table("recipe", "system", "profile", "scheme", "network", "title")
    for path in sorted(RECIPES_FOLDER.glob("*.yaml")):
        found = read_recipe(path)
        table.add_row(path.stem, found.system, found.profile, found.scheme, found.network.id, found.title)
    console.print(table)


@app.command("list")
def list_bundles(bundles: Annotated[Path, typer.Argument(help="Folder of bundles.")] = BUNDLES) -> None:
    """What lies in a folder of bundles, and whether it may be used."""
    from model.bundle import load_bundle
    from model.card import BundleProblem

    table = Table("bundle", "version", "conditions", "use", "trained on", "Dice on unseen phantoms", "state")
    for folder in sorted(path for path in bundles.iterdir() if path.is_dir()):
        try:
            card = load_bundle(folder).card
        except BundleProblem as problem:
            table.add_row(folder.name, "", "", "", "", "", f"[red]{problem}[/red]")
            continue
        dice = card.metrics.get("dice")
        measured = f"{dice.value:.2f} ({dice.low:.2f}–{dice.high:.2f})" if dice else "not measured"
        trained = card.training.trained_on if card.trained else "nothing: random weights"
        table.add_row(
            folder.name, card.version, ", ".join(card.conditions), card.intended_use, trained, measured, "whole"
        )
    console.print(table)


@app.command("import")
def import_command(
    layout: Annotated[Layout, typer.Argument(help="How the source is laid out.")],
    source: Annotated[Path, typer.Argument(help="Folder of the data set.", exists=True, file_okay=False)],
    out: Annotated[Path, typer.Option(help="Folder for the cases; one of the same name is replaced.", file_okay=False)],
    spacing_mm: Annotated[
        tuple[float, float, float] | None,
        typer.Option(help="png: distance of slices, rows and columns in mm.", metavar="SLICE ROW COLUMN"),
    ] = None,
    window: Annotated[
        tuple[float, float] | None, typer.Option(help="png: the HU of grey levels 0 and 255.", metavar="LOW HIGH")
    ] = None,
) -> None:
    """NIfTI and picture data sets → case folders (docs/datasets.md); DICOM comes by `crlm-node dataset import`.

    Exit 1 if no case was written.
    """
    from model.cases import CaseProblem
    from model.import_cases import PictureScale, Written, import_layout

    try:
        scale = PictureScale(spacing_mm, window) if spacing_mm else None
        with _progress(layout.value) as heard:
            answers = list(
                import_layout(layout.value, source, out, scale, lambda done, of: heard("cases", done, of, math.nan))
            )
    except CaseProblem as problem:
        console.print(f"[red]{escape(str(problem))}[/red]", highlight=False)
        raise typer.Exit(1) from None
    written = [answer for answer in answers if isinstance(answer, Written)]
    table = Table("case", "images", "lesions")
    for each in written:
        table.add_row(each.case, ", ".join(each.images), str(each.lesions))
    console.print(table)
    for answer in answers:
        if not isinstance(answer, Written):
            console.print(f"[red]skipped[/red] {escape(f'{answer.source}: {answer.reason}')}", highlight=False)
    lesions = sum(each.lesions for each in written)
    cases = "1 case" if len(written) == 1 else f"{len(written)} cases"
    console.print(f"{cases} in {out}, lesions in all: {lesions}; {len(answers) - len(written)} skipped.")
    if not written:
        raise typer.Exit(1)


def _conditions(wish: str) -> tuple[str, ...]:
    from model.training.demo_card import DEMO_CONDITIONS

    if wish == "all":
        return DEMO_CONDITIONS
    if wish not in DEMO_CONDITIONS:
        raise typer.BadParameter(f"{wish!r} is no condition; there are: all, {', '.join(DEMO_CONDITIONS)}")
    return (wish,)


def _measures_table(reports: Sequence[Report]) -> Table:
    table = Table("condition", "Dice per case", "lesion recall", "FP per case", "best threshold", "empty, right")
    for r in reports:
        table.add_row(
            r.condition,
            str(r.dice),
            str(r["lesion_recall"]),
            str(r["false_positives_per_case"]),
            f"{r.best_threshold.mean_dice:.3f} ({r.margin:.3f} lower)" if r.best_threshold else "–",
            f"{r.empty_cases_right} of {r.empty_cases}",
        )
    return table


@contextmanager
def _progress(title: str) -> Iterator[Callable[[str, int, int, float], None]]:
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
    with Progress(*columns, console=console) as progress:
        bars: dict[str, TaskID] = {}

        def heard(phase: str, done: int, of: int, value: float) -> None:
            if phase not in bars:
                bars[phase] = progress.add_task(phase, total=of, value="")
            shown = "" if value != value else f"{value:.3f}"
            progress.update(bars[phase], completed=done, total=of, value=shown)

        yield heard


def main() -> None:
    """Entry point of the console script: what a user can mend is one sentence, exit code 2."""
    from model.card import BundleProblem
    from model.cases import CaseProblem
    from model.problems import RecipeProblem, TrainingProblem

    try:
        app()
    except (BundleProblem, CaseProblem, RecipeProblem, TrainingProblem) as problem:
        console.print(f"[red]{problem}[/red]", highlight=False, soft_wrap=True)
        raise SystemExit(2) from problem


if __name__ == "__main__":
    main()
