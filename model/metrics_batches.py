"""Measures as CRLM-GAN's published evaluation computes them, to compare with its tables and for nothing else.

Its DSC is a Dice of probabilities, not of a mask, pooled over batches of 16 slices of whichever patients come one
after the other; its IoU, recall, precision and F1 are of the mask, pooled over the same batches. All are means over
batches, each weighing as many slices as it has (models.md §0.2, §5; `val.py` and `metrics.py` of the authors at
f2ba9c4, read, not copied). Two things follow: one large tumour hides the misses of its batch, and the order of the
slices changes the score. Theirs is the file system's; ours is that of the cases. Theirs is taken at 224², ours on the
native grid. Their interval is mean ± 1.96 standard errors over batches; ours resamples patients.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.statistics import Statistic
from model.volume import Float64

BATCH_SLICES = 16
SMOOTH = 1e-5


class BatchScores(NamedTuple):
    """Means over batches, each of shape (R,) for R draws; `soft_dice` is the published DSC."""

    soft_dice: Float64
    iou: Float64
    recall: Float64
    precision: Float64
    f1: Float64


def soft_dice(shared: Float64, probability: Float64, true: Float64) -> Float64:
    """(2ΣPY + ε) / (ΣP + ΣY + ε) of sums, element by element; 1 where nothing is true and nothing thought likely."""
    return (2 * shared + SMOOTH) / (probability + true + SMOOTH)


def soft_dice_batch(tables: Sequence[Float64], batch: int = BATCH_SLICES) -> float:
    """The published DSC of slices (S, 5) of several cases, one case after the other; NaN without a slice.

    Columns as `SliceCounts.table` gives them.
    """
    return float(batch_scores(tables, np.ones((1, len(tables))), batch).soft_dice[0])


def batch_scores(tables: Sequence[Float64], weights_RN: Float64, batch: int = BATCH_SLICES) -> BatchScores:
    """All of them, of R draws of N cases. NaN where no slice was drawn.

    As coded: recall TP / (TP + FN + ε), precision (TP + ε) / (TP + FP + ε), which is 1 where nothing was answered,
    F1 2RP / (R + P + ε).

    A case of weight 3 comes three times: once among all cases that were drawn, again among those drawn twice, and so
    on. Side by side its copies would fill batches of their own, and the scores would no longer be of mixed patients.
    """
    sums_RK5, slices_RK = _batch_sums(tables, weights_RN, batch)
    tp, fp, fn, shared, probability = np.moveaxis(sums_RK5, -1, 0)
    recall, precision = tp / (tp + fn + SMOOTH), (tp + SMOOTH) / (tp + fp + SMOOTH)
    iou = (tp + SMOOTH) / (tp + fp + fn + SMOOTH)
    f1 = 2 * recall * precision / (recall + precision + SMOOTH)
    scores = (soft_dice(shared, probability, tp + fn), iou, recall, precision, f1)
    return BatchScores(*(_mean_of_slices(score_RK, slices_RK) for score_RK in scores))


def batched(tables: Sequence[Float64], trainings: Sequence[int], field: str) -> Statistic:
    """One field of `batch_scores` as a statistic: every draw of cases is put into batches anew.

    Slices answered by different trainings never share a batch; their scores weigh as many slices as they have.
    """
    training_N, length_N = np.array(trainings, int), np.array([len(table) for table in tables], float)

    def of(weights: Float64) -> Float64:
        weights_RN = weights.reshape(-1, len(tables))
        total, slices = np.zeros(len(weights_RN)), np.zeros(len(weights_RN))
        for training in np.unique(training_N):
            of_training = np.where(training_N == training, weights_RN, 0.0)
            drawn = of_training @ length_N
            total += drawn * np.nan_to_num(getattr(batch_scores(tables, of_training), field))
            slices += drawn
        result: Float64 = np.full(len(weights_RN), np.nan)
        np.divide(total, slices, out=result, where=slices > 0)
        return result.reshape(weights.shape[:-1])

    return Statistic(of, length_N > 0)


def _batch_sums(tables: Sequence[Float64], weights_RN: Float64, batch: int) -> tuple[Float64, NDArray[np.int64]]:
    """Sums (R, K, 5) over each batch of each draw, and how many slices it has; 0 behind the last.

    The sum of a draw up to a slice is looked up: that of the whole cases before, and a prefix sum within the case.
    """
    # case N, without a slice, stands for what lies behind all cases
    length_N = np.array([*(len(table) for table in tables), 0], np.int64)
    prefix_S5 = np.concatenate([np.zeros((1, 5)), *tables]).cumsum(axis=0)
    end_N = length_N.cumsum()
    start_N = end_N - length_N
    case_RL = _sequences(weights_RN)
    end_RL = length_N[case_RL].cumsum(axis=1)
    begin_RL = end_RL - length_N[case_RL]
    before_RL5 = _before((prefix_S5[end_N] - prefix_S5[start_N])[case_RL])
    edges_RK = _edges(end_RL[:, -1], batch)
    place_RK = _place_of(end_RL, edges_RK)
    row_R1 = np.arange(len(weights_RN))[:, None]
    start_RK, within_RK = start_N[case_RL[row_R1, place_RK]], edges_RK - begin_RL[row_R1, place_RK]
    up_to_RK5 = before_RL5[row_R1, place_RK] + prefix_S5[start_RK + within_RK] - prefix_S5[start_RK]
    return np.diff(up_to_RK5, axis=1), np.diff(edges_RK, axis=1)


def _sequences(weights_RN: Float64) -> NDArray[np.int64]:
    """The cases of each draw one after the other, (R, L): round k takes those of weight above k. Filled up with N."""
    draws, cases = weights_RN.shape
    rounds = np.arange(max(1, int(weights_RN.max(initial=0))))
    draw, place = np.nonzero((weights_RN[:, None, :] > rounds[:, None]).reshape(draws, -1))
    drawn_R = np.bincount(draw, minlength=draws)
    case_RL = np.full((draws, int(drawn_R.max(initial=0)) + 1), cases)
    case_RL[draw, np.arange(len(draw)) - (drawn_R.cumsum() - drawn_R)[draw]] = place % max(1, cases)
    return case_RL


def _before(values_RL5: Float64) -> Float64:
    sums: Float64 = values_RL5.cumsum(axis=1)
    return sums - values_RL5


def _edges(slices_R: NDArray[np.int64], batch: int) -> NDArray[np.int64]:
    """Where batches begin and end, (R, K + 1); draws with fewer slices end with batches of none."""
    most = -(-int(slices_R.max(initial=0)) // batch)
    return np.minimum(batch * np.arange(most + 1), slices_R[:, None])


def _place_of(end_RL: NDArray[np.int64], edges_RK: NDArray[np.int64]) -> NDArray[np.int64]:
    """The place whose case holds each slice number; the last, which holds none, for the end. One search for all."""
    draws, places = end_RL.shape
    apart = np.arange(draws)[:, None] * (end_RL.max(initial=0) + 1)
    found = np.searchsorted((end_RL + apart).ravel(), (edges_RK + apart).ravel(), side="right")
    place_RK: NDArray[np.int64] = found.reshape(edges_RK.shape) - np.arange(draws)[:, None] * places
    place_RK[place_RK == places] = places - 1
    return place_RK


def _mean_of_slices(score_RK: Float64, slices_RK: NDArray[np.int64]) -> Float64:
    slices = slices_RK.sum(axis=1)
    result: Float64 = np.full(len(score_RK), np.nan)
    np.divide((score_RK * slices_RK).sum(axis=1), slices, out=result, where=slices > 0)
    return result
