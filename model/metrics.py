"""How good an answer is, on the native grid, by the definitions of the project (models.md §5).

Voxel measures are per case, never pooled over cases or slices: Dice of an empty truth is 1 for an empty answer and 0
for any other. Lesions are matched one to one, by an overlap of IoU ≥ 0.1. Intervals are percentile bootstraps that
resample whole cases, because lesions and slices of one patient are not independent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from model.volume import Float64, Labels

MATCH_IOU = 0.1
RESAMPLES = 10_000


@dataclass(frozen=True)
class Overlap:
    """Voxel counts of one case."""

    true_positive: int
    false_positive: int
    false_negative: int

    @classmethod
    def of(cls, answer_DHW: NDArray[np.bool_], truth_DHW: NDArray[np.bool_]) -> Overlap:
        """Counts of two masks on one grid. Raises ValueError for different shapes."""
        if answer_DHW.shape != truth_DHW.shape:
            raise ValueError(f"answer {answer_DHW.shape} and truth {truth_DHW.shape} are not on one grid")
        both = int(np.count_nonzero(answer_DHW & truth_DHW))
        return cls(both, int(np.count_nonzero(answer_DHW)) - both, int(np.count_nonzero(truth_DHW)) - both)

    @property
    def dice(self) -> float:
        """2TP / (2TP + FP + FN); 1 where both are empty."""
        total = 2 * self.true_positive + self.false_positive + self.false_negative
        return 2 * self.true_positive / total if total else 1.0

    @property
    def iou(self) -> float:
        """TP / (TP + FP + FN); 1 where both are empty."""
        total = self.true_positive + self.false_positive + self.false_negative
        return self.true_positive / total if total else 1.0


@dataclass(frozen=True)
class LesionMatches:
    """Which answered lesion is which true one: pairs of (answer label, truth label), and how many there were."""

    pairs: tuple[tuple[int, int], ...]
    answered: int
    true: int

    @property
    def missed(self) -> int:
        return self.true - len(self.pairs)

    @property
    def false_positives(self) -> int:
        return self.answered - len(self.pairs)


def match_lesions(answer_DHW: Labels, truth_DHW: Labels, minimum_iou: float = MATCH_IOU) -> LesionMatches:
    """One-to-one matching of labels 1..N: as many pairs as possible, among those the largest sum of IoU."""
    if answer_DHW.shape != truth_DHW.shape:
        raise ValueError(f"answer {answer_DHW.shape} and truth {truth_DHW.shape} are not on one grid")
    iou_AT = iou_table(answer_DHW, truth_DHW)
    answered, true = iou_AT.shape
    # an eligible pair always outweighs every gain in IoU that could be had by giving it up
    worth = np.where(iou_AT >= minimum_iou, iou_AT + min(iou_AT.shape) + 1, 0.0)
    rows, columns = linear_sum_assignment(worth, maximize=True)
    pairs = tuple((int(a) + 1, int(t) + 1) for a, t in zip(rows, columns, strict=True) if iou_AT[a, t] >= minimum_iou)
    return LesionMatches(pairs, answered, true)


def iou_table(answer_DHW: Labels, truth_DHW: Labels) -> Float64:
    """Intersection over union of each answered lesion (rows) with each true one (columns)."""
    answered, true = int(answer_DHW.max(initial=0)), int(truth_DHW.max(initial=0))
    either = (answer_DHW > 0) | (truth_DHW > 0)
    joint = answer_DHW[either].astype(np.int64) * (true + 1) + truth_DHW[either]
    counts = np.bincount(joint, minlength=(answered + 1) * (true + 1)).reshape(answered + 1, true + 1)
    shared = counts[1:, 1:]
    union = counts.sum(axis=1)[1:, None] + counts.sum(axis=0)[None, 1:] - shared
    table: Float64 = shared / np.maximum(union, 1)
    return table


@dataclass(frozen=True)
class Interval:
    """An estimate over cases with its 95 % confidence interval."""

    value: float
    low: float
    high: float
    cases: int

    @property
    def is_defined(self) -> bool:
        """There was something to measure."""
        return not math.isnan(self.value)

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f}–{self.high:.3f})" if self.is_defined else "–"


UNDEFINED = Interval(math.nan, math.nan, math.nan, 0)


def bootstrap(
    per_case_NK: Sequence[Sequence[float]] | Float64,
    statistic: Callable[[Float64], Float64],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap over cases. `statistic` maps sums over cases (…, K), given with their number as a last
    column (…, K+1), to the estimate (…): so a ratio of sums is resampled as whole cases, too.

    Without any case the interval is UNDEFINED.
    """
    values = np.asarray(per_case_NK, np.float64)
    if not len(values):
        return UNDEFINED
    rows = np.column_stack([values, np.ones(len(values))])
    draws = np.random.default_rng(seed).multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=resamples)
    estimates = statistic(draws.astype(np.float64) @ rows)
    low, high = np.nanpercentile(estimates, [2.5, 97.5])
    return Interval(float(statistic(rows.sum(axis=0))), float(low), float(high), len(rows))


def bootstrap_mean(per_case: Sequence[float], *, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """Mean over cases with its interval."""
    return bootstrap([[value] for value in per_case], lambda s: s[..., 0] / s[..., 1], resamples=resamples, seed=seed)


def bootstrap_ratio(
    parts: Sequence[float], wholes: Sequence[float], *, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Σ parts / Σ wholes with its interval, as for lesion recall; undefined where no case has a whole."""
    if not sum(wholes):
        return UNDEFINED

    def ratio(sums: Float64) -> Float64:
        quotient: Float64 = np.full(sums.shape[:-1], np.nan)
        np.divide(sums[..., 0], sums[..., 1], out=quotient, where=sums[..., 1] > 0)
        return quotient

    return bootstrap(np.column_stack([parts, wholes]), ratio, resamples=resamples, seed=seed)
