"""`crlm-model`: train bundles, measure and compare them, carry them away, and say what lies in a folder of them."""

from __future__ import annotations

import math
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from model.cli_measure import BUNDLES, RUNS, register
from model.cli_screen import console, progress

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)
register(app)

OutOption = Annotated[Path, typer.Option("--out", help="Folder that holds one bundle folder per name.")]
WorkersOption = Annotated[int, typer.Option(help="Processes that draw phantoms.", min=1)]


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
        with progress(name) as heard:
            bundle = train_demo(name, out, recipe, cache=cache, workers=workers, start=begun, heard=heard)
        output = bundle.card.output
        console.print(
            f"{bundle.path}: {recipe.images_seen} images seen; a lesion is {output.threshold} or more, somewhere "
            f"{output.minimum_peak_probability} or more, and at least {output.minimum_lesion_ml} ml"
        )


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
    with progress(wanted.name) as heard:
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
        with progress(layout.value) as heard:
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


def main() -> None:
    """Entry point of the console script: what a user can mend is one sentence, exit code 2."""
    from model.card import BundleProblem
    from model.cases import CaseProblem
    from model.plots import PlotsUnavailable
    from model.problems import RecipeProblem, ReportProblem, TrainingProblem, WeightsProblem

    try:
        app()
    except (
        BundleProblem,
        CaseProblem,
        PlotsUnavailable,
        RecipeProblem,
        ReportProblem,
        TrainingProblem,
        WeightsProblem,
    ) as problem:
        console.print(f"[red]{escape(str(problem))}[/red]", highlight=False, soft_wrap=True)
        raise SystemExit(2) from problem


if __name__ == "__main__":
    main()
