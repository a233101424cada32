"""How sure a number is that was measured on a few patients: intervals, paired differences, tests.

Everything rests on one idea: an estimate is a function of *weights*, how often each case is drawn. All weights one
give the value itself; weights drawn with replacement give the bootstrap (Efron, Tibshirani 1993). What is drawn is
the patient, with all series of his, because cases, slices and lesions of one patient are not independent. Where one
recipe was trained with several seeds, its trainings are drawn too, apart from the patients, and a case answered by
one of them weighs the product (two crossed factors: Owen, Ann Appl Stat 2007;1:386).

What an interval cannot say: with one training it tells of these weights, not of the recipe; with three it understates
the trainings' part of the variance by a third. And where all patients agree it has no width, which is no certainty:
of n patients without a failure, up to 3/n of others may fail (Hanley, Lippman-Hand, JAMA 1983;249:1743).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from model.volume import Float64

RESAMPLES = 10_000
_CHUNK = 500
_MOST_EXACT = 400

Weighted: TypeAlias = Callable[[Float64], Float64]
"""Weights of the cases (…, N) → the estimate (…); NaN where the drawn cases have nothing to measure."""


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % confidence interval; `cases` is how many cases it rests on."""

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


@dataclass(frozen=True, eq=False)
class Statistic:
    """An estimate over N cases, ready to be resampled.

    `counted_N` says which cases have something to measure. `per_case_N` is the value of each case (NaN where it has
    none) when the estimate is their mean, else None: a pooled estimate has no value per case, and no rank test.
    """

    of: Weighted
    counted_N: NDArray[np.bool_]
    per_case_N: Float64 | None = None

    @property
    def value(self) -> float:
        """The estimate over all cases, each once."""
        return float(self.of(np.ones(len(self.counted_N)))) if self.counted_N.any() else math.nan


def mean_of(values: Sequence[float | None]) -> Statistic:
    """Mean over the cases that have a value; None is not counted."""
    value_N = np.array([math.nan if value is None else value for value in values], np.float64)
    counted_N = ~np.isnan(value_N)
    ratio = ratio_of(np.where(counted_N, value_N, 0.0), counted_N.astype(np.float64))
    return Statistic(ratio.of, counted_N, value_N)


def ratio_of(parts: Sequence[float] | Float64, wholes: Sequence[float] | Float64) -> Statistic:
    """Σ parts / Σ wholes, as for the recall of lesions; a case whose whole is 0 is not counted."""

    def quotient(sums: Float64) -> Float64:
        result: Float64 = np.full(sums.shape[:-1], np.nan)
        np.divide(sums[..., 0], sums[..., 1], out=result, where=sums[..., 1] > 0)
        return result

    return of_sums(np.column_stack([parts, wholes]), quotient, np.asarray(wholes, np.float64) > 0)


def of_sums(rows_NK: Float64, function: Callable[[Float64], Float64], counted_N: NDArray[np.bool_]) -> Statistic:
    """`function` of sums over cases: (…, K) → (…). Rows of cases that are not counted should be zero."""
    table = np.asarray(rows_NK, np.float64)
    return Statistic(lambda weights: function(weights @ table), counted_N)


@dataclass(frozen=True)
class Sample:
    """Which N answers were measured: of which case, of which patient, and by which training of the network."""

    cases: tuple[str, ...]
    patients: tuple[str, ...]
    trainings: tuple[int, ...]

    def __post_init__(self) -> None:
        if not len(self.cases) == len(self.patients) == len(self.trainings):
            counts = f"{len(self.cases)} cases, {len(self.patients)} patients and {len(self.trainings)} trainings"
            raise ValueError(f"{counts}: each answer needs one of each")

    @classmethod
    def of(cls, patients: Sequence[str]) -> Sample:
        """One answer a case, all by one network; cases are numbered."""
        return cls(tuple(str(n) for n in range(len(patients))), tuple(patients), (0,) * len(patients))


def bootstrap(statistic: Statistic, sample: Sample, *, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """The estimate with its percentile interval; UNDEFINED where no case has anything to measure.

    The same sample and seed give the same draws, so intervals can be reproduced to the last digit.
    """
    return bootstraps([statistic], sample, resamples=resamples, seed=seed)[0]


def bootstraps(
    statistics: Sequence[Statistic], sample: Sample, *, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[Interval, ...]:
    """The intervals of several statistics of one sample, all on the same draws."""
    for statistic in statistics:
        if len(statistic.counted_N) != len(sample.cases):
            raise ValueError(f"a statistic of {len(statistic.counted_N)} answers, a sample of {len(sample.cases)}")
    drawn = [[s.of(weights) for s in statistics] for (weights,) in _draws((sample,), resamples, seed)]
    of_each = (np.concatenate(parts) for parts in zip(*drawn, strict=True))
    return tuple(_interval(s, sample, values) for s, values in zip(statistics, of_each, strict=True))


@dataclass(frozen=True)
class Difference:
    """Two estimates on the same patients, second minus first, and how likely so large a difference is by chance.

    `p_bootstrap`: two-sided, twice the smaller tail of the resampled differences beyond 0. `p_wilcoxon`: signed-rank
    test on the patients' mean values; None for pooled estimates, which have no value per patient.
    """

    first: Interval
    second: Interval
    difference: Interval
    p_bootstrap: float
    p_wilcoxon: float | None

    @property
    def p(self) -> float:
        """The rank test's where it applies: it asks less of the sample than the bootstrap does."""
        return self.p_bootstrap if self.p_wilcoxon is None else self.p_wilcoxon


Pair: TypeAlias = tuple[Statistic, Statistic]


def paired_difference(
    pair: Pair, samples: tuple[Sample, Sample], *, resamples: int = RESAMPLES, seed: int = 0
) -> Difference:
    """`paired_differences` of one pair."""
    return paired_differences([pair], samples, resamples=resamples, seed=seed)[0]


def paired_differences(
    pairs: Sequence[Pair], samples: tuple[Sample, Sample], *, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[Difference, ...]:
    """Pairs of statistics on the same draws of patients; trainings are drawn for each side by itself.

    A mean is taken over the cases that both sides could measure: a distance that one side lacks, because it answered
    nothing, must not make the other side's mean worse. Raises ValueError where the sides are not of the same cases.
    """
    first, second = (set(zip(sample.cases, sample.patients, strict=True)) for sample in samples)
    if first != second:
        raise ValueError("a paired difference needs the same cases of the same patients on both sides")
    fair = [_on_common_cases(pair, samples) for pair in pairs]
    drawn = [[(a.of(wa), b.of(wb)) for a, b in fair] for wa, wb in _draws(samples, resamples, seed)]
    of_each = (np.concatenate(parts, axis=1) for parts in zip(*drawn, strict=True))
    return tuple(_difference(pair, samples, values_2R) for pair, values_2R in zip(fair, of_each, strict=True))


def wilcoxon_p(differences: Sequence[float] | Float64) -> float:
    """Two-sided p of the signed-rank test, zeros dropped (Wilcoxon 1945); 1 where nothing differs.

    Exact with ties, too: every assignment of signs to the ranks that there are is counted. Beyond 400 differences
    the normal approximation is as good.
    """
    # equal differences must stay ties: 0.3 − 0.2 and 0.2 − 0.1 are not equal in binary
    rounded = np.round(np.asarray(differences, np.float64), 12)
    rounded = rounded[rounded != 0]
    if not len(rounded):
        return 1.0
    if len(rounded) > _MOST_EXACT:
        return float(stats.wilcoxon(rounded, method="asymptotic", correction=True).pvalue)
    # the mean rank of ties is a half at most
    doubled = np.rint(2 * stats.rankdata(np.abs(rounded))).astype(np.int64)
    share_of_sum = np.ones(1)
    for rank in doubled:
        share_of_sum = (np.pad(share_of_sum, (0, rank)) + np.pad(share_of_sum, (rank, 0))) / 2
    smaller = min(int(doubled[rounded > 0].sum()), int(doubled[rounded < 0].sum()))
    return min(1.0, 2 * float(share_of_sum[: smaller + 1].sum()))


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Adjusted p of m tests, in their order: controls the chance of any false claim among them (Holm 1979)."""
    order = np.argsort(p_values, kind="stable")
    stepped = np.asarray(p_values, np.float64)[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return tuple(float(p) for p in adjusted)


def _interval(statistic: Statistic, sample: Sample, drawn: Float64) -> Interval:
    if math.isnan(statistic.value):
        return UNDEFINED
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    counted = {case for case, is_counted in zip(sample.cases, statistic.counted_N, strict=True) if is_counted}
    return Interval(statistic.value, float(low), float(high), len(counted))


def _difference(pair: Pair, samples: tuple[Sample, Sample], drawn_2R: Float64) -> Difference:
    first, second = (_interval(*side) for side in zip(pair, samples, drawn_2R, strict=True))
    if not (first.is_defined and second.is_defined):
        return Difference(first, second, UNDEFINED, math.nan, None)
    differences = drawn_2R[1] - drawn_2R[0]
    differences = differences[~np.isnan(differences)]
    low, high = np.percentile(differences, [2.5, 97.5])
    interval = Interval(second.value - first.value, float(low), float(high), max(first.cases, second.cases))
    return Difference(first, second, interval, _bootstrap_p(differences), _rank_p(pair, samples))


def _on_common_cases(pair: Pair, samples: tuple[Sample, Sample]) -> Pair:
    """Means over the cases that both sides measured; pooled estimates stay as they are."""
    a, b = (statistic.per_case_N for statistic in pair)
    if a is None or b is None:
        return pair
    common = set.intersection(*(_measured(values, sample) for values, sample in zip((a, b), samples, strict=True)))
    return _only(a, samples[0], common), _only(b, samples[1], common)


def _draws(samples: tuple[Sample, ...], resamples: int, seed: int) -> Iterator[tuple[Float64, ...]]:
    """Weights (R, N) of each sample, a chunk of resamples at a time: patients drawn together, trainings apart."""
    patients = sorted(set(samples[0].patients))
    rng, *training_rngs = (np.random.default_rng([seed, stream]) for stream in range(1 + len(samples)))
    for first in range(0, resamples, _CHUNK):
        rows = min(_CHUNK, resamples - first)
        patients_RP = _multinomial(rng, len(patients), rows)
        yield tuple(
            patients_RP[:, np.searchsorted(patients, sample.patients)]
            * _training_weights(training_rng, sample.trainings, rows)
            for training_rng, sample in zip(training_rngs, samples, strict=True)
        )


def _training_weights(rng: np.random.Generator, training_N: tuple[int, ...], rows: int) -> Float64:
    trainings = sorted(set(training_N))
    weights: Float64 = _multinomial(rng, len(trainings), rows)[:, np.searchsorted(trainings, training_N)]
    return weights


def _multinomial(rng: np.random.Generator, count: int, rows: int) -> Float64:
    return rng.multinomial(count, np.full(count, 1 / count), size=rows).astype(np.float64)


def _bootstrap_p(drawn: Float64) -> float:
    """The +1 keeps p above 0: so few resamples cannot show less (Davison, Hinkley 1997, 4.11)."""
    tail = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    return min(1.0, 2 * (tail + 1) / (len(drawn) + 1))


def _measured(value_N: Float64, sample: Sample) -> set[str]:
    return {case for case, value in zip(sample.cases, value_N, strict=True) if not math.isnan(value)}


def _only(value_N: Float64, sample: Sample, cases: set[str]) -> Statistic:
    is_kept = np.array([case in cases for case in sample.cases], bool)
    return mean_of(list(np.where(is_kept, value_N, np.nan)))


def _rank_p(pair: Pair, samples: tuple[Sample, Sample]) -> float | None:
    """Of second minus first of each patient, means over the cases and the trainings; None for pooled estimates."""
    a, b = (statistic.per_case_N for statistic in pair)
    if a is None or b is None:
        return None
    first, second = (_patient_means(values, sample) for values, sample in zip((a, b), samples, strict=True))
    return wilcoxon_p([second[patient] - mean for patient, mean in first.items()])


def _patient_means(value_N: Float64, sample: Sample) -> dict[str, float]:
    values: dict[str, list[float]] = {}
    for patient, value in zip(sample.patients, value_N, strict=True):
        if not math.isnan(value):
            values.setdefault(patient, []).append(float(value))
    return {patient: float(np.mean(of)) for patient, of in values.items()}
