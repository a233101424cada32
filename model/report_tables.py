"""Reports and comparisons as tables for a terminal; docs/evaluation.md defines every line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from model.compare import Comparison, Row
from model.measures import MEASURES, Measure
from model.report import Report
from model.statistics import Interval

_FOR = {"first": "A", "second": "B", "": ""}
_BETTER = {"higher": "↑", "lower": "↓", "near 0": "0"}
_NAME_WIDTH, _REPORT_WIDTH = 34, 24
_NEW_SECTION = (
    "dice_all_liver_slices",
    "dice_tumour_slices",
    "dice_of_cases_with_lesions",
    "soft_dice_batch",
    "assd_mm",
    "lesion_recall",
    "lesion_recall_iou50",
    "lesion_recall_under_10_mm",
    "ece",
)
"""Measures that begin a new group of lines."""


def measure_tables(reports: Sequence[Report], width: int) -> Iterator[Table]:
    """Every measure, one column of value and 95 % interval a report; as many reports a table as `width` holds.

    An interval that rests on fewer cases than the report has says on how many.
    """
    together = max(1, (width - _NAME_WIDTH) // _REPORT_WIDTH)
    for first in range(0, len(reports), together):
        yield _measure_table(reports[first : first + together])


def head_of(report: Report) -> str:
    """What was measured, in a sentence."""
    sample = report.sample
    return (
        f"{report.bundle} on {report.condition}: {len(set(sample.cases))} series of {len(set(sample.patients))} "
        f"patients; {report.test_set}"
    )


def notes_on(report: Report) -> Iterator[str]:
    """What must be read along with the table, each in a sentence."""
    if report.empty_cases:
        yield f"series without a lesion: {report.empty_cases}; in {report.empty_cases_right} of them none was answered"
    if any(not case.has_liver for case in report.cases):
        count = sum(not case.has_liver for case in report.cases)
        yield f"series without a mask of the liver: {count}; all of their slices count as slices with liver"
    if report.best_threshold is not None:
        yield (
            f"the best single intensity threshold, chosen on these very cases, has Dice "
            f"{report.best_threshold.mean_dice:.3f}, {report.margin:.3f} lower"
        )
    for remark in report.remarks:
        yield f"the engine remarked on {remark.cases} of {len(report.cases)}: {remark.says}"
    for case, reason in report.left_out.items():
        yield f"left out: {case}: {reason}"


def summary_table(reports: Sequence[Report]) -> Table:
    """One line a report: outline, what is found, what is invented."""
    table = Table("condition", "Dice per case", "lesion recall", "FP per case", "best threshold", "empty, right")
    for report in reports:
        best = report.best_threshold
        table.add_row(
            report.condition,
            str(report.dice),
            str(report["lesion_recall"]),
            str(report["false_positives_per_case"]),
            f"{best.mean_dice:.3f} ({report.margin:.3f} lower)" if best else "–",
            f"{report.empty_cases_right} of {report.empty_cases}",
        )
    return table


def comparison_tables(comparison: Comparison) -> tuple[Table, Table]:
    """What was tested, with p, then all other measures; A is the reference. No name is broken in 80 columns."""
    tested = [row for row in comparison.rows if row.p_holm is not None]
    others = [row for row in comparison.rows if row.p_holm is None]
    return _comparison_table("tested", tested), _comparison_table("not tested", others)


def _comparison_table(title: str, rows: Sequence[Row]) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=0)
    is_tested = any(row.p_holm is not None for row in rows)
    for name in (title, "A", "B", "B − A (95 % CI)", *(("p",) if is_tested else ()), "for"):
        table.add_column(name, no_wrap=True, justify="right" if name in "AB" else "left")
    for row in rows:
        values = (f"{side.value:.3f}" for side in (row.result.first, row.result.second))
        *_, difference, p = row.cells()
        short_p = (p.partition(" (")[0].removeprefix("p = ").removeprefix("p "),) if is_tested else ()
        table.add_row(row.measure, *values, difference, *short_p, _FOR[row.favours])
    return table


def _measure_table(reports: Sequence[Report]) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("measure", no_wrap=True)
    table.add_column("", no_wrap=True)
    for report in reports:
        name = report.condition if len({r.condition for r in reports}) > 1 or len(reports) == 1 else report.bundle
        table.add_column(name, overflow="fold")
    for measure in MEASURES:
        if measure.name in _NEW_SECTION:
            table.add_section()
        if any(report[measure.name].is_defined for report in reports):
            table.add_row(measure.name, _BETTER[measure.better], *(_cell(measure, report) for report in reports))
    return table


def _cell(measure: Measure, report: Report) -> str:
    interval: Interval = report[measure.name]
    cases = len(set(report.sample.cases))
    rests_on = f"  n={interval.cases}" if interval.is_defined and interval.cases < cases else ""
    return f"{interval}{rests_on}"
