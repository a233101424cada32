"""A report: what was measured, of which weights, with the scores of every case and an interval for every measure.

`summarise` makes it of scores, `pooled` of the reports on one recipe trained with several seeds. In its file the
measures stand for a reader; whoever loads it can trust them or compute them again from the scores.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from model.card import Card, Metric, OutputSpec
from model.measures import MEASURE, MEASURES
from model.problems import ReportProblem
from model.scores import CaseScore, from_fields, to_json
from model.statistics import RESAMPLES, UNDEFINED, Interval, Sample, bootstraps
from model.threshold_baseline import BestThreshold

FORMAT: Literal[2] = 2
_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[+-]\d+)?")


@dataclass(frozen=True)
class Measured:
    """The weights and the operating point that a report is of."""

    bundle: str
    weights_sha256: str
    output: OutputSpec


@dataclass(frozen=True)
class Remark:
    """What the engine said of `cases` cases, in the words and numbers of the first."""

    says: str
    cases: int


@dataclass(frozen=True)
class Report:
    """Measures over the cases of one test set. `bundles[i]` gave the answers whose `training` is i."""

    bundles: tuple[Measured, ...]
    condition: str
    test_set: str
    measures: Mapping[str, Interval]
    """By name, those for which these cases have something to measure."""
    cases: tuple[CaseScore, ...]
    best_threshold: BestThreshold | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Cases of the test set that could not be measured, each with the reason."""
    format: Literal[2] = FORMAT

    def __getitem__(self, measure: str) -> Interval:
        """A measure by its name. Raises KeyError for one that the table does not have."""
        return self.measures.get(MEASURE[measure].name, UNDEFINED)

    @property
    def bundle(self) -> str:
        """The bundle's name, or those of all trainings."""
        return ", ".join(dict.fromkeys(measured.bundle for measured in self.bundles))

    @property
    def dice(self) -> Interval:
        """Mean Dice per case over the whole volume."""
        return self["dice"]

    @property
    def margin(self) -> float:
        """Mean Dice above the best single threshold; NaN where none was sought."""
        return math.nan if self.best_threshold is None else self.dice.value - self.best_threshold.mean_dice

    @property
    def empty_cases(self) -> int:
        """Cases without a lesion."""
        return sum(not case.true for case in self.cases)

    @property
    def empty_cases_right(self) -> int:
        """Those in which none was answered."""
        return sum(not case.true and not case.answered for case in self.cases)

    @property
    def remarks(self) -> tuple[Remark, ...]:
        """What the engine remarked, the most frequent first; sentences that differ in their numbers are one."""
        said = [(_NUMBER.sub("…", sentence), sentence) for case in self.cases for sentence in case.remarks]
        first = dict(reversed(said))
        counts = Counter(kind for kind, _ in said)
        return tuple(Remark(first[kind], count) for kind, count in counts.most_common())

    @property
    def sample(self) -> Sample:
        """Of which case, patient and training the scores are."""
        columns = ([getattr(case, field) for case in self.cases] for field in ("case", "patient", "training"))
        return Sample(*(tuple(column) for column in columns))

    def is_of(self, card: Card) -> bool:
        """Measured with the weights and the operating point of this card alone."""
        return [(m.weights_sha256, m.output) for m in self.bundles] == [(card.sha256, card.output)]


def summarise(
    measured: Measured,
    condition: str,
    test_set: str,
    cases: Sequence[CaseScore],
    *,
    best_threshold: BestThreshold | None = None,
    left_out: Mapping[str, str] | None = None,
    resamples: int = RESAMPLES,
) -> Report:
    """Every measure over `cases` of one bundle, with its interval. Raises ReportProblem for no case, or one twice."""
    single = tuple(replace(case, training=0) for case in cases)
    report = Report((measured,), condition, test_set, {}, single, best_threshold, left_out or {})
    return _measured(report, resamples)


def pooled(reports: Sequence[Report], *, resamples: int = RESAMPLES) -> Report:
    """One report on several trainings of one recipe: its intervals tell of the recipe, seeds × patients.

    Raises ReportProblem where the reports are not on the same cases.
    """
    first = reports[0]
    for report in reports:
        if sorted(report.sample.cases) != sorted(first.sample.cases) or report.condition != first.condition:
            raise ReportProblem(f"{report.bundle} and {first.bundle} are not of the same cases: pool what is")
    bundles = tuple(measured for report in reports for measured in report.bundles)
    offsets = [sum(len(report.bundles) for report in reports[:n]) for n in range(len(reports))]
    cases = tuple(
        replace(case, training=offset + case.training)
        for offset, report in zip(offsets, reports, strict=True)
        for case in report.cases
    )
    return _measured(Report(bundles, first.condition, first.test_set, {}, cases, first.best_threshold), resamples)


def _measured(report: Report, resamples: int) -> Report:
    sample = report.sample
    if not report.cases:
        raise ReportProblem("a report needs a case")
    if len(set(zip(sample.cases, sample.trainings, strict=True))) != len(report.cases):
        raise ReportProblem("a case was scored twice: each counts once for each training")
    statistics = [measure.estimate(report.cases) for measure in MEASURES]
    intervals = zip(MEASURES, bootstraps(statistics, sample, resamples=resamples), strict=True)
    return replace(report, measures={measure.name: interval for measure, interval in intervals if interval.is_defined})


def into_card(card: Card, report: Report) -> Card:
    """The card with the report's measures. Raises ReportProblem where the report is of other weights."""
    if not report.is_of(card):
        raise ReportProblem(f"the report on {report.bundle} is of other weights or limits than the card")
    kept = {measure.name: report[measure.name] for measure in MEASURES if measure.in_card}
    metrics = {name: Metric(**asdict(interval)) for name, interval in kept.items() if interval.is_defined}
    words = report.test_set
    if report.best_threshold is not None:
        best = report.best_threshold.mean_dice
        words += f"; the best single intensity threshold reaches Dice {best:.3f} on them"
    return card.model_copy(update={"metrics": metrics, "test_set": words})


def write_report(path: Path, report: Report) -> None:
    """The report as JSON, whole or absent: its head and measures to be read, then one line a case."""
    head = _REPORTS.dump_python(replace(report, cases=()), mode="json")
    del head["cases"]
    text = json.dumps(head, indent=1, ensure_ascii=False, allow_nan=False).removesuffix("\n}")
    lines = ",\n".join(f"  {to_json(case)}" for case in report.cases)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.part")
    draft.write_text(f'{text},\n "cases": [\n{lines}\n ]\n}}\n', encoding="utf-8")
    draft.replace(path)


def read_report(path: Path) -> Report:
    """The report in a file. Raises FileNotFoundError, and ReportProblem for what is no report of this format."""
    try:
        fields = json.loads(path.read_bytes())
        cases = tuple(from_fields(case) for case in fields.pop("cases"))
        return replace(_REPORTS.validate_python({**fields, "cases": ()}), cases=cases)
    except (ValueError, KeyError, TypeError) as error:
        raise ReportProblem(f"{path}: not a report of format {FORMAT}; measure the bundle again ({error})") from error


_REPORTS = TypeAdapter(Report)
