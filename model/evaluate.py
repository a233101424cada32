"""What a demo bundle really does: unseen phantoms through the serving engine, measured on the native grid.

Nothing here is simplified for the measurement: the same engine, thresholds and findings as in the node. Seeds from
900000 on are for evaluation; training draws below 100000 (model/training/cases.py refuses others).
"""

from __future__ import annotations

import json
import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from model.card import Card, Metric, OutputSpec
from model.engine import Engine
from model.findings import Finding, find_lesions, longest_axes
from model.metrics import Interval, Overlap, bootstrap_mean, bootstrap_ratio, match_lesions
from model.phantom import NETWORK_B_VALUE, make_phantom
from model.threshold_baseline import BestThreshold, ThresholdSweep, scaled_in_body
from model.volume import Labels, Volume

FIRST_EVALUATION_SEED = 900_000
SIZE_CLASSES_MM = {"under 10 mm": (0.0, 10.0), "10 to 20 mm": (10.0, 20.0), "over 20 mm": (20.0, float("inf"))}


@dataclass(frozen=True)
class Exam:
    """One unseen series and its truth on the same grid."""

    seed: int
    image: Volume
    labels_DHW: Labels


@dataclass(frozen=True)
class LesionScore:
    """One true lesion and what was made of it; the answer's values are None where it was missed."""

    true_long_axis_mm: float
    true_volume_ml: float
    long_axis_mm: float | None
    volume_ml: float | None


@dataclass(frozen=True)
class CaseScore:
    """One phantom's result."""

    seed: int
    dice: float
    false_positives: int
    lesions: tuple[LesionScore, ...]
    seconds: float

    @property
    def found(self) -> int:
        return sum(lesion.volume_ml is not None for lesion in self.lesions)


@dataclass(frozen=True)
class Report:
    """Measures of one bundle over unseen cases of one condition."""

    bundle: str
    weights_sha256: str
    output: OutputSpec
    condition: str
    seeds: tuple[int, int]
    dice: Interval
    dice_with_lesions: Interval
    empty_cases: int
    empty_cases_right: int
    lesion_recall: Interval
    recall_by_size: dict[str, Interval]
    false_positives_per_case: Interval
    long_axis_error_mm: Interval
    volume_error_ml: Interval
    best_threshold: BestThreshold
    cases: tuple[CaseScore, ...]

    @property
    def margin(self) -> float:
        """Mean Dice above the best single threshold."""
        return self.dice.value - self.best_threshold.mean_dice

    def is_of(self, card: Card) -> bool:
        """Measured with the weights and the operating point of this card."""
        return (self.weights_sha256, self.output) == (card.sha256, card.output)

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "output": self.output.model_dump(mode="json"), "margin": self.margin}


def evaluate(
    engine: Engine,
    condition: str,
    seeds: Sequence[int],
    *,
    workers: int = 1,
    done: Callable[[CaseScore], None] = lambda _: None,
) -> Report:
    """Measure `engine` on phantoms `seeds` of `condition`; `done` hears of each case. Raises ValueError for no seed,
    or one that training might have seen."""
    if not seeds or min(seeds) < FIRST_EVALUATION_SEED:
        raise ValueError(f"evaluation needs seeds, from {FIRST_EVALUATION_SEED} on: lower ones are training's")
    sweep, cases = ThresholdSweep(), []
    for exam in exams(condition, seeds, workers):
        case = score_case(engine, exam)
        sweep.add(*scaled_in_body(exam.image, exam.labels_DHW > 0, engine.card.input))
        cases.append(case)
        done(case)
    return summarise(engine, condition, cases, sweep.best())


def score_case(engine: Engine, exam: Exam) -> CaseScore:
    """The serving path on one series, compared with its truth."""
    segmentation = engine.segment(exam.image)
    mask, findings = find_lesions(segmentation.probability_DHW, exam.image, engine.card.output)
    matches = match_lesions(mask.labels_DHW, exam.labels_DHW)
    finding_of = {true: findings[answered - 1] for answered, true in matches.pairs}
    lesions = tuple(_score_lesion(exam, true, finding_of.get(true)) for true in range(1, matches.true + 1))
    dice = Overlap.of(mask.labels_DHW > 0, exam.labels_DHW > 0).dice
    return CaseScore(exam.seed, dice, matches.false_positives, lesions, sum(segmentation.seconds.values()))


def _score_lesion(exam: Exam, label: int, finding: Finding | None) -> LesionScore:
    truth_DHW = exam.labels_DHW == label
    return LesionScore(
        # the same ruler for truth and answer
        true_long_axis_mm=longest_axes(truth_DHW, exam.image.affine_lps_mm).long_mm,
        true_volume_ml=int(np.count_nonzero(truth_DHW)) * exam.image.voxel_ml,
        long_axis_mm=finding.long_axis_mm if finding else None,
        volume_ml=finding.volume_ml if finding else None,
    )


def summarise(engine: Engine, condition: str, cases: Sequence[CaseScore], threshold: BestThreshold) -> Report:
    """Means and intervals over `cases`."""
    empty = [case for case in cases if not case.lesions]
    found = [lesion for case in cases for lesion in case.lesions if lesion.volume_ml is not None]
    return Report(
        bundle=engine.card.name,
        weights_sha256=engine.card.sha256,
        output=engine.card.output,
        condition=condition,
        seeds=(min(c.seed for c in cases), max(c.seed for c in cases)),
        dice=bootstrap_mean([c.dice for c in cases]),
        dice_with_lesions=bootstrap_mean([c.dice for c in cases if c.lesions]),
        empty_cases=len(empty),
        empty_cases_right=sum(c.dice == 1.0 for c in empty),
        lesion_recall=bootstrap_ratio([c.found for c in cases], [len(c.lesions) for c in cases]),
        recall_by_size={name: _recall(cases, *limits) for name, limits in SIZE_CLASSES_MM.items()},
        false_positives_per_case=bootstrap_mean([c.false_positives for c in cases]),
        long_axis_error_mm=bootstrap_mean([abs((x.long_axis_mm or 0.0) - x.true_long_axis_mm) for x in found]),
        volume_error_ml=bootstrap_mean([abs((x.volume_ml or 0.0) - x.true_volume_ml) for x in found]),
        best_threshold=threshold,
        cases=tuple(cases),
    )


def exams(condition: str, seeds: Sequence[int], workers: int) -> Iterator[Exam]:
    """Phantoms in the order of `seeds`, drawn ahead by `workers` processes."""
    if workers <= 1:
        yield from (draw_exam(condition, seed) for seed in seeds)
        return
    # spawn: a fork after torch has started its threads may hang
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting: deque[Future[Exam]] = deque()
        for seed in seeds:
            waiting.append(pool.submit(draw_exam, condition, seed))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def draw_exam(condition: str, seed: int) -> Exam:
    """Phantom `seed`, only the volume that the network reads."""
    phantom = make_phantom(condition, seed, b_values=(NETWORK_B_VALUE,) if condition.endswith("dwi") else None)
    return Exam(seed, phantom.image, phantom.labels_DHW)


def into_card(card: Card, report: Report) -> Card:
    """The card with the report's measures. Raises ValueError where the report is of other weights."""
    if not report.is_of(card):
        raise ValueError(f"the report on {report.bundle} is of other weights or another operating point than the card")
    measures = {
        "dice": report.dice,
        "dice_of_cases_with_lesions": report.dice_with_lesions,
        "lesion_recall": report.lesion_recall,
        "false_positives_per_case": report.false_positives_per_case,
        "long_axis_error_mm": report.long_axis_error_mm,
        "volume_error_ml": report.volume_error_ml,
    }
    first, last = report.seeds
    best = report.best_threshold.mean_dice
    return card.model_copy(
        update={
            "metrics": {name: Metric(**asdict(m)) for name, m in measures.items() if m.is_defined},
            "test_set": f"{report.dice.cases} unseen phantoms of {report.condition}, seeds {first} to {last}; "
            f"the best single intensity threshold reaches Dice {best:.3f} on them",
        }
    )


def write_report(path: Path, report: Report) -> None:
    """The report as JSON, whole or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.part")
    draft.write_text(json.dumps(report.as_json(), indent=1) + "\n", encoding="utf-8")
    draft.replace(path)


def _recall(cases: Sequence[CaseScore], low_mm: float, high_mm: float) -> Interval:
    of_size = [[x for x in case.lesions if low_mm <= x.true_long_axis_mm < high_mm] for case in cases]
    return bootstrap_ratio([sum(x.volume_ml is not None for x in of) for of in of_size], [len(of) for of in of_size])
