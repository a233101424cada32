"""Which slices make which batch: a pure function of (seed, number of the batch), so that a training that was cut short
goes on as if it had not been, and each of several processes knows its own part."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.problems import TrainingProblem
from model.training.recipe import Sampling
from model.training.slices import PlanarSet

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Pools:
    """Slices by what they show, and how often each of the empty ones comes among the hard ones."""

    with_lesion: Indices
    without_lesion: Indices
    code_N: NDArray[np.int64]
    hardness: NDArray[np.float64] | None = None

    @classmethod
    def of(cls, slices: PlanarSet, sampling: Sampling) -> Pools:
        """Raises TrainingProblem where there is no lesion to learn from."""
        with_lesion = slices.with_lesion()
        if not len(with_lesion):
            raise TrainingProblem(f"none of the {len(slices)} training slices shows a lesion: nothing to learn from")
        none = sampling.negatives == "none"
        without = with_lesion[:0] if none else slices.without_lesion(liver_only=sampling.negatives == "liver")
        return cls(with_lesion, without, slices.code_N)

    def __len__(self) -> int:
        """Slices that may come: an epoch is as many."""
        return len(self.with_lesion) + len(self.without_lesion)


def batch_indices(pools: Pools, sampling: Sampling, batch: int, seed: int, number: int) -> Indices:
    """The slices of batch `number`, shuffled."""
    if sampling.lesion_share is None and not sampling.balance_modalities:
        return _of_epoch(np.concatenate([pools.with_lesion, pools.without_lesion]), batch, seed, number)
    rng = np.random.default_rng((seed, number))
    if not sampling.balance_modalities:
        return rng.permutation(_draw(pools, sampling, batch, rng))
    codes = np.unique(pools.code_N[pools.with_lesion])
    # which modality has one more changes from batch to batch
    counts = np.roll([batch // len(codes) + (i < batch % len(codes)) for i in range(len(codes))], number)
    parts = [_draw(_of_code(pools, code), sampling, int(n), rng) for code, n in zip(codes, counts, strict=True)]
    return rng.permutation(np.concatenate(parts))


def _of_epoch(slices_N: Indices, batch: int, seed: int, number: int) -> Indices:
    """Each slice once an epoch, in an order of its own; what is left over of an epoch is dropped."""
    if len(slices_N) < batch:
        return np.random.default_rng((seed, number)).choice(slices_N, batch)
    epoch, place = divmod(number, len(slices_N) // batch)
    order = np.random.default_rng((seed, epoch)).permutation(slices_N)
    return order[place * batch : (place + 1) * batch]


def _of_code(pools: Pools, code: int) -> Pools:
    is_kept = pools.code_N[pools.without_lesion] == code
    return Pools(
        pools.with_lesion[pools.code_N[pools.with_lesion] == code],
        pools.without_lesion[is_kept],
        pools.code_N,
        None if pools.hardness is None else pools.hardness[is_kept],
    )


def _draw(pools: Pools, sampling: Sampling, count: int, rng: np.random.Generator) -> Indices:
    """`count` slices with replacement: the share with lesions that is asked for, of the rest the hard share."""
    natural = len(pools.with_lesion) / len(pools)
    share = natural if sampling.lesion_share is None else sampling.lesion_share
    lesions = round(count * share) if len(pools.without_lesion) else count
    empty = count - lesions
    hard = round(empty * sampling.hard_share) if pools.hardness is not None else 0
    drawn = [rng.choice(pools.with_lesion, lesions)]
    if empty:
        drawn.append(rng.choice(pools.without_lesion, empty - hard))
    if hard and pools.hardness is not None:
        drawn.append(rng.choice(pools.without_lesion, hard, p=pools.hardness / pools.hardness.sum()))
    return np.concatenate(drawn)
