"""Single diffusion directions of one series → the trace-weighted volume that the node could derive of them.

Where no scanner made a trace, the voxelwise geometric mean over directions is one: with S_i = S_0 exp(-b g_i·D g_i)
it is S_0 exp(-b tr(MD)), M the mean of the outer products g_i g_iᵀ of the unit gradient vectors. Directions that
spread evenly have M = I/3, and tr(MD) is the mean diffusivity whatever the tissue's orientation.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from node.evidence_facts import DERIVED_MEAN, DIRECTIONAL, UNSURE, Sign
from node.evidence_split import SAME_POSITION_MM, Part, is_parallel, make_of

MIN_DIRECTIONS = 3
"""Fewer cannot span space, and one direction is never an input."""
EVENNESS = 0.05
"""The eigenvalues of M lie within this of 1/3 each. With a b-value of 1000 s/mm² and tissue whose diffusivity
differs by 0.4·10⁻³ mm²/s between its axes, twice what liver shows, the mean is then within 4 % of the true trace:
less than the noise of one image. Three orthogonal axes and the schemes of three vendors with 6 and 16 directions
are within 0.035; three directions in one plane, or 6 of which one is missing, are off by 0.13 and more."""


@dataclass(frozen=True)
class DirectionMean:
    """Parts of one b-value at the same positions, the first of them the reference, and what is told of their mean."""

    parts: tuple[Part, ...]
    signs: tuple[Sign, ...]


def direction_means(series: Sequence[Part]) -> Iterator[DirectionMean]:
    """The means that a series offers, in the order of its parts; none of repetitions whose direction nobody told."""
    for parts in _at_one_place([part for part in series if _is_direction(part)]):
        vectors = {part.slices[0].vector for part in parts}
        distinct = len(vectors) if all(vectors) else len(parts)
        if distinct >= MIN_DIRECTIONS:
            where = parts[0].direction_signs[-1].where
            repeated = f" ({distinct} of them distinct)" if distinct < len(parts) else ""
            what = f"geometric mean of {len(parts)} directions{repeated}, derived in the node"
            yield DirectionMean(tuple(parts), (Sign(DERIVED_MEAN, what, where), *_doubts(parts, where)))


def _is_direction(part: Part) -> bool:
    """Told to be one direction; that a volume stands beside others like it is no word of its direction."""
    told = [sign for sign in part.direction_signs if sign.says == DIRECTIONAL and sign.by != "geometry"]
    return part.directionality == DIRECTIONAL and bool(told)


def _at_one_place(parts: Sequence[Part]) -> list[list[Part]]:
    """Parts of one make that lie slice upon slice."""
    found: dict[Hashable, list[list[Part]]] = defaultdict(list)
    for part in parts:
        first = part.slices[0]
        rows = found[make_of(first), str(first.header.get("FrameOfReferenceUID", ""))]
        row = next((row for row in rows if _is_same_place(row[0], part)), None)
        if row is None:
            rows.append([part])
        else:
            row.append(part)
    return [row for rows in found.values() for row in rows]


def _is_same_place(one: Part, other: Part) -> bool:
    return len(one.slices) == len(other.slices) and all(
        bool(a.position_lps_mm and b.position_lps_mm)
        and math.dist(a.position_lps_mm, b.position_lps_mm) < SAME_POSITION_MM
        and is_parallel(a.orientation, b.orientation)
        for a, b in zip(one.slices, other.slices, strict=True)
    )


def _doubts(parts: Sequence[Part], where: str) -> Iterator[Sign]:
    """Why a person should look first."""
    vectors = [part.slices[0].vector for part in parts]
    if not all(vectors):
        yield Sign(UNSURE, "single directions are told, but not which: they may be repetitions of one", where)
        return
    shares = _shares(vectors)
    if max(abs(share - 1 / 3) for share in shares) > EVENNESS:
        told = ", ".join(f"{share:.2f}" for share in shares)
        yield Sign(UNSURE, f"the directions do not spread evenly: {told} along their axes, not a third each", where)


def _shares(vectors: Sequence[tuple[float, ...]]) -> list[float]:
    """Eigenvalues of the mean outer product of the unit vectors, lowest first; their sum is 1.

    Repetitions count as they are averaged: each once.
    """
    rows_N3 = np.array(vectors)
    units_N3 = rows_N3 / np.linalg.norm(rows_N3, axis=1, keepdims=True)
    return [float(share) for share in np.linalg.eigvalsh(units_N3.T @ units_N3 / len(units_N3))]
