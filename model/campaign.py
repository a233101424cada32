"""The campaign: every demo bundle on 100 unseen phantoms, against the bounds that the project set itself.

One JSON a bundle; a campaign that was stopped goes on with the bundles that have none yet, or whose weights or
operating point have changed since.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from model.bundle import load_bundle, write_card
from model.case_sets import unseen_phantoms
from model.engine import Engine
from model.evaluate import evaluate
from model.report import Report, into_card, read_report, write_report

LOWEST_DICE = {"pre-nact-dwi": 0.80, "ct-portal-venous": 0.80}
"""The lower 95 % bound of the mean Dice must reach this; other conditions: OTHER_LOWEST_DICE."""
OTHER_LOWEST_DICE = 0.65
LEAST_MARGIN = 0.3
"""So much better than the best single threshold, or the phantoms are too easy."""

Heard = Callable[[str, int, int, float], None]


@dataclass(frozen=True)
class Outcome:
    """All reports, and a sentence for each bound that was missed."""

    reports: tuple[Report, ...]
    below_bounds: tuple[str, ...]


def run_campaign(
    bundles: Path, out: Path, seeds: Sequence[int], *, workers: int, update_cards: bool, heard: Heard
) -> Outcome:
    """Measure every bundle folder in `bundles` for its first condition. Raises BundleProblem."""
    folders = sorted(path for path in bundles.iterdir() if (path / "card.json").exists())
    reports = []
    for folder in folders:
        report = measure_bundle(folder, out / f"{folder.name}.json", seeds, workers=workers, heard=heard)
        if update_cards:
            write_card(folder, into_card(load_bundle(folder).card, report))
        reports.append(report)
    return Outcome(tuple(reports), tuple(miss for report in reports for miss in missed_bounds(report)))


def measure_bundle(folder: Path, path: Path, seeds: Sequence[int], *, workers: int, heard: Heard) -> Report:
    """The report in `path` where it is of this bundle and these seeds; else measured and written there."""
    bundle = load_bundle(folder)
    condition = bundle.card.conditions[0]
    known, wanted = earlier_report(path), unseen_phantoms(condition, seeds)
    if known is not None and known.is_of(bundle.card) and known.test_set == wanted.words:
        return known
    dices: list[float] = []

    def one_more(dice: float) -> None:
        dices.append(dice)
        heard(bundle.card.name, len(dices), len(seeds), sum(dices) / len(dices))

    engine = Engine(bundle, "auto")
    (report,) = evaluate(engine, wanted, workers=workers, done=lambda case: one_more(case.dice))
    write_report(path, report)
    return report


def missed_bounds(report: Report) -> tuple[str, ...]:
    """What this report fails, in sentences; nothing where it passes."""
    lowest = LOWEST_DICE.get(report.condition, OTHER_LOWEST_DICE)
    misses = []
    if report.dice.low < lowest:
        misses.append(f"{report.condition}: mean Dice {report.dice}, its lower bound must reach {lowest:.2f}")
    if report.best_threshold is not None and report.margin < LEAST_MARGIN:
        misses.append(
            f"{report.condition}: the best single threshold has Dice {report.best_threshold.mean_dice:.3f}, only "
            f"{report.margin:.3f} lower; {LEAST_MARGIN} is asked, else the phantom is too easy"
        )
    return tuple(misses)


def earlier_report(path: Path) -> Report | None:
    """The report in `path`; None where there is none, or one of another format."""
    try:
        return read_report(path)
    except (FileNotFoundError, ValueError):
        return None
