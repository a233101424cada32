"""Two bundles on the same cases: what differs, by how much, and whether that is more than chance.

Every measure gets its paired difference with an interval. Only the few that a question is about are tested, chosen
before looking; their p-values are corrected together (Holm), over all bundles that are compared with one reference.
A difference whose interval leaves out 0 but was not tested is a hint, not a finding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from model.measures import MEASURE, MEASURES
from model.problems import ReportProblem
from model.report import Report
from model.scores import CaseScore
from model.statistics import RESAMPLES, Difference, Interval, holm, paired_differences

PRIMARY = ("dice", "lesion_recall", "false_positives_per_case")
"""What is tested unless a question says otherwise: the outline, what is found, and what is invented."""


@dataclass(frozen=True)
class Row:
    """One measure of two reports, each over the cases that both could measure. `p_holm` is None where not tested."""

    measure: str
    unit: str
    result: Difference
    p_holm: float | None = None

    @property
    def test(self) -> str:
        """Which test gave p."""
        return "paired bootstrap" if self.result.p_wilcoxon is None else "Wilcoxon signed-rank"

    @property
    def favours(self) -> str:
        """`first`, `second`, or nothing where the interval of the difference holds 0 or the measure ranks none."""
        interval, better = self.result.difference, MEASURE[self.measure].better
        if better == "near 0" or interval.low <= 0 <= interval.high:
            return ""
        return "second" if (interval.value > 0) == (better == "higher") else "first"

    def cells(self) -> tuple[str, ...]:
        """Measure, first, second, difference, p after correction: a line of a table, as COLUMNS names them."""
        corrected = "" if self.p_holm is None else f"{_p(self.p_holm)} ({self.test})"
        result = self.result
        return self.measure, str(result.first), str(result.second), _signed(result.difference), corrected


COLUMNS = ("measure", "first", "second", "difference", "p after Holm")


@dataclass(frozen=True)
class Comparison:
    """Second minus first, measure by measure, on `cases` cases of `patients` patients."""

    first: str
    second: str
    condition: str
    cases: int
    patients: int
    rows: tuple[Row, ...]

    def row(self, measure: str) -> Row:
        """Raises KeyError for a measure that could not be compared."""
        return {row.measure: row for row in self.rows}[measure]


def compare(
    first: Report,
    second: Report,
    *,
    tested: Sequence[str] = PRIMARY,
    resamples: int = RESAMPLES,
) -> Comparison:
    """All measures of two reports. Raises ReportProblem where they are not on the same cases with the same truth, and
    KeyError for a tested measure that the table does not have."""
    (comparison,) = compare_several(first, [second], tested=tested, resamples=resamples)
    return comparison


def compare_several(
    reference: Report,
    others: Sequence[Report],
    *,
    tested: Sequence[str] = PRIMARY,
    resamples: int = RESAMPLES,
) -> tuple[Comparison, ...]:
    """Each of `others` against `reference`; p-values are corrected over all of them and all tested measures."""
    names = {MEASURE[name].name for name in tested}
    comparisons = tuple(_compared(reference, other, resamples) for other in others)
    asked = [(c, row.measure) for c, of in enumerate(comparisons) for row in of.rows if row.measure in names]
    adjusted = holm([comparisons[c].row(measure).result.p for c, measure in asked])
    p_of = dict(zip(asked, adjusted, strict=True))
    return tuple(
        replace(of, rows=tuple(replace(row, p_holm=p_of.get((c, row.measure))) for row in of.rows))
        for c, of in enumerate(comparisons)
    )


def _compared(first: Report, second: Report, resamples: int) -> Comparison:
    _same_truth(first, second)
    pairs = [(measure.estimate(first.cases), measure.estimate(second.cases)) for measure in MEASURES]
    results = paired_differences(pairs, (first.sample, second.sample), resamples=resamples)
    rows = (Row(measure.name, measure.unit, result) for measure, result in zip(MEASURES, results, strict=True))
    cases, patients = (len(set(of)) for of in (first.sample.cases, first.sample.patients))
    defined = tuple(row for row in rows if row.result.difference.is_defined)
    return Comparison(first.bundle, second.bundle, first.condition, cases, patients, defined)


def _same_truth(first: Report, second: Report) -> None:
    truths = [{case.case: _truth(case) for case in report.cases} for report in (first, second)]
    for case in truths[0].keys() ^ truths[1].keys():
        raise ReportProblem(
            f"{case} was measured of {first.bundle} or {second.bundle} only: measure both on the same cases"
        )
    for case, truth in truths[0].items():
        if truths[1][case] != truth:
            raise ReportProblem(f"{case} has another truth in the report on {second.bundle}: measure both anew")


def _truth(case: CaseScore) -> tuple[object, ...]:
    return case.patient, case.voxel_ml, case.has_liver, tuple(lesion.voxel_count for lesion in case.true)


def _signed(interval: Interval) -> str:
    return f"{interval.value:+.3f} ({interval.low:+.3f} to {interval.high:+.3f})"


def _p(p: float) -> str:
    if math.isnan(p):
        return "–"
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
