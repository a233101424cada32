"""Whether probabilities mean what they say, and whether confidence tells good answers from bad ones.

Calibration is judged within 10 mm of the true lesions, lesions included (models.md §5): farther away nearly every
voxel is easy background, and would make any network look calibrated. So it says nothing of cases without a lesion;
their false alarms are counted elsewhere.

`temperature` is the one number that the card's `OutputSpec` can carry: logits are divided by it, which changes no
ranking of voxels, only how sure they sound (Guo et al., ICML 2017).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.optimize import minimize_scalar
from scipy.special import digamma, expit, logit

from model.findings import lesion_boxes
from model.statistics import Weighted
from model.volume import Float, Float64, Half, Labels

BAND_MM = 10.0
BINS = 15
"""As in Guo et al. 2017."""
TEMPERATURES = (0.05, 20.0)
_ROUNDING_MM = 1e-6
_HALVES = int(np.float16(1).view(np.uint16)) + 1
"""Every half in [0, 1] by its bits: 0 … 15360."""


def calibration_band(truth_DHW: Labels, spacing_mm: tuple[float, float, float]) -> NDArray[np.bool_]:
    """Voxels whose centre is within 10 mm of that of a lesion's voxel; labels as `lesion_boxes` asks.

    Axes are taken as perpendicular, as far as the box of one lesion reaches.
    """
    band = np.zeros(truth_DHW.shape, bool)
    margins = [int(BAND_MM / step) + 1 for step in spacing_mm]
    for number, box in enumerate(lesion_boxes(truth_DHW), start=1):
        # a transform of each lesion's surroundings: that of the whole box takes many times as long
        near = tuple(
            slice(max(axis.start - margin, 0), axis.stop + margin) for axis, margin in zip(box, margins, strict=True)
        )
        distance_mm = ndimage.distance_transform_edt(truth_DHW[near] != number, sampling=spacing_mm)
        band[near] |= distance_mm <= BAND_MM + _ROUNDING_MM
    return band


@dataclass(frozen=True, eq=False)
class ProbabilityCounts:
    """How many voxels have each probability: float16, as the engine answers, has only 15,361 values in [0, 1].

    So these two columns are all there is to know of any number of voxels. They can be added over cases.
    """

    negative_C: NDArray[np.int64]
    positive_C: NDArray[np.int64]

    @classmethod
    def of(cls, probability: Float | Half, truth: NDArray[np.bool_]) -> ProbabilityCounts:
        """Counts of voxels and their truth, in any shape. Raises ValueError for values outside [0, 1]."""
        if probability.shape != truth.shape:
            raise ValueError(f"{probability.shape} probabilities and {truth.shape} truths: one of each for a voxel")
        halves = probability.astype(np.float16, copy=False)
        # negative zero has bits of its own
        codes = np.abs(halves).view(np.uint16) if halves.size else np.zeros(0, np.uint16)
        if codes.max(initial=0) >= _HALVES or (halves < 0).any():
            raise ValueError("a probability is a number from 0 to 1")
        positive, negative = (np.bincount(codes[chosen], minlength=_HALVES) for chosen in (truth, ~truth))
        return cls(negative, positive)

    def __add__(self, other: ProbabilityCounts) -> ProbabilityCounts:
        return ProbabilityCounts(self.negative_C + other.negative_C, self.positive_C + other.positive_C)

    def reliability(self, bins: int = BINS) -> Reliability:
        """Sums over equal bins of probability."""
        value_C = _half_values()
        every_C = self.negative_C + self.positive_C
        bin_C = np.minimum((value_C * bins).astype(np.int64), bins - 1)

        def summed(weight_C: NDArray[np.number]) -> tuple[float, ...]:
            sums = np.bincount(bin_C, weight_C.astype(np.float64), bins)
            return tuple(float(total) for total in sums)

        squares = self.negative_C @ value_C**2 + self.positive_C @ (1 - value_C) ** 2
        return Reliability(summed(every_C), summed(every_C * value_C), summed(self.positive_C), float(squares))


@dataclass(frozen=True)
class Reliability:
    """Of each bin of probability: voxels, the sum of their probabilities, and how many are lesion."""

    voxels: tuple[float, ...]
    probability: tuple[float, ...]
    positive: tuple[float, ...]
    squared_error: float
    """Σ (p − y)² over all voxels."""

    @property
    def row(self) -> Float64:
        """All sums in a row, to be added over cases: input of `ece`, `ace` and `brier`."""
        return np.array([*self.voxels, *self.probability, *self.positive, self.squared_error])


def ece(rows: Float64) -> Float64:
    """Expected calibration error of rows (…, 3B + 1): mean over voxels of |share of lesion − probability| of its bin.

    Naeini et al., AAAI 2015. NaN where there is no voxel.
    """
    voxels, gap = _bins(rows)
    return _divided((voxels * gap).sum(axis=-1), voxels.sum(axis=-1))


def ace(rows: Float64) -> Float64:
    """Average calibration error: the same, each bin that holds a voxel weighing the same (Barfoot et al. 2024).

    Not the *adaptive* calibration error of Nixon et al., whose bins hold equally many voxels.
    """
    voxels, gap = _bins(rows)
    is_filled = voxels > 0
    return _divided((gap * is_filled).sum(axis=-1), is_filled.sum(axis=-1).astype(np.float64))


def brier(rows: Float64) -> Float64:
    """Mean of (p − y)² (Brier 1950)."""
    voxels, _ = _bins(rows)
    return _divided(rows[..., -1], voxels.sum(axis=-1))


class Temperature(NamedTuple):
    """What to divide logits by, and the mean negative log-likelihood of a voxel with and without it."""

    value: float
    nll: float
    nll_at_1: float


def fit_temperature(counts: ProbabilityCounts) -> Temperature:
    """The temperature that makes the truth of validation voxels likeliest; take them from the calibration band.

    `counts` are of probabilities at temperature 1. Those that float16 rounds to 0 or 1 count as what lies half a step
    inside. The likelihood has one maximum; it is sought from 0.05 to 20. Raises ValueError where one class is
    missing: then the likelihood grows without end.
    """
    if not counts.positive_C.any() or not counts.negative_C.any():
        raise ValueError("a temperature is fitted on voxels inside and outside of lesions, and one kind is missing")
    logit_C = logit(np.clip(_half_values(), 2.0**-25, 1 - 2.0**-12))

    def nll(log_temperature: float) -> float:
        scaled_C = logit_C / np.exp(log_temperature)
        # −log of a sigmoid, without its overflow
        loss = counts.positive_C @ np.logaddexp(0, -scaled_C) + counts.negative_C @ np.logaddexp(0, scaled_C)
        return float(loss) / float(counts.positive_C.sum() + counts.negative_C.sum())

    best = minimize_scalar(nll, bounds=np.log(TEMPERATURES), method="bounded", options={"xatol": 1e-5})
    return Temperature(float(np.exp(best.x)), float(best.fun), nll(0.0))


def at_temperature(probability: Float64, temperature: float) -> Float64:
    """Probabilities at temperature 1, told with another: sigmoid(logit(p) / T)."""
    told: Float64 = expit(logit(probability) / temperature)
    return told


def soft_dice_confidence(shared: float, probability: float, answered: int, peak: float) -> float:
    """How good an answer believes itself to be, in [0, 1], from its probabilities alone.

    2ΣPŶ / (ΣP + ΣŶ), the Dice that P expects of its own mask Ŷ (Borges, Pacheco, Silva, arXiv:2402.10665). An empty
    answer has none; there it is 1 − the highest probability anywhere.
    """
    return 2 * shared / (probability + answered) if answered else 1.0 - peak


class RiskCoverage(NamedTuple):
    """Mean risk (N,) of the most confident share of cases, the first being the most confident case alone."""

    coverage: Float64
    risk: Float64


def risk_coverage(confidence_N: Float64, risk_N: Float64) -> RiskCoverage:
    """The curve of selective prediction (El-Yaniv, Wiener 2010). Raises ValueError without a case.

    Cases of equal confidence come in no order; each is given their mean risk, which is what any order gives on average.
    """
    if not len(risk_N):
        raise ValueError("risk and coverage need a case")
    _, group_N = np.unique(-confidence_N, return_inverse=True)
    expected_N = (np.bincount(group_N, risk_N) / np.bincount(group_N))[np.sort(group_N)]
    taken = np.arange(1, len(risk_N) + 1)
    return RiskCoverage(taken / len(risk_N), expected_N.cumsum() / taken)


def aurc_of(confidence_N: Float64, risk_N: Float64) -> Weighted:
    """Area under that curve, its mean over coverages, of weights of the cases (…, N). Lower is better.

    With C cases of summed risk R before them, w cases of equal confidence and mean risk r add
    Σⱼ (R + jr) / (C + j) = wr + (R − Cr)(H(C + w) − H(C)), where H are the harmonic numbers.
    """

    def aurc(weights: Float64) -> Float64:
        count, risk = _grouped(confidence_N, risk_N, weights)
        before, risk_before = count.cumsum(axis=-1) - count, risk.cumsum(axis=-1) - risk
        mean = np.nan_to_num(_divided(risk, count))
        steps = _harmonic(before + count) - _harmonic(before)
        return _divided((risk + (risk_before - before * mean) * steps).sum(axis=-1), count.sum(axis=-1))

    return aurc


def excess_aurc_of(confidence_N: Float64, risk_N: Float64) -> Weighted:
    """AURC beyond that of a confidence that knows the risk (Geifman et al., ICLR 2019): judges the confidence alone."""
    told, perfect = aurc_of(confidence_N, risk_N), aurc_of(-risk_N, risk_N)
    return lambda weights: told(weights) - perfect(weights)


def _grouped(confidence_N: Float64, risk_N: Float64, weights: Float64) -> tuple[Float64, Float64]:
    """Weight and weighted risk of each distinct confidence, highest first."""
    order = np.argsort(-confidence_N, kind="stable")
    starts = np.flatnonzero(np.diff(confidence_N[order], prepend=np.inf))
    weight, risk = weights[..., order], (weights * risk_N)[..., order]
    return np.add.reduceat(weight, starts, axis=-1), np.add.reduceat(risk, starts, axis=-1)


def _harmonic(count: Float64) -> Float64:
    """1 + 1/2 + … + 1/n."""
    harmonic: Float64 = digamma(count + 1) - digamma(1.0)
    return harmonic


def _bins(rows: Float64) -> tuple[Float64, Float64]:
    """Voxels of each bin, and |share of lesion − mean probability|, 0 where the bin is empty."""
    count = rows.shape[-1] // 3
    voxels, probability, positive = (rows[..., i * count : (i + 1) * count] for i in range(3))
    return voxels, np.abs(positive - probability) / np.maximum(voxels, 1)


def _divided(parts: Float64, wholes: Float64) -> Float64:
    quotient: Float64 = np.full(np.shape(parts), np.nan)
    return np.divide(parts, wholes, out=quotient, where=wholes > 0)


def _half_values() -> Float64:
    return np.arange(_HALVES, dtype=np.uint16).view(np.float16).astype(np.float64)
