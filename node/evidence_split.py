"""One series may hold several volumes: b-values, directions, echoes, phases at the same positions, planes.

First the slices are told apart by what they are; then, where positions still repeat, by when they were made. The
acquisition's number alone divides nothing: step-and-shoot CT counts it up from one table position to the next. Only
where CT slices of two numbers interleave are they two volumes, phases reconstructed at other positions.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from node.dicom.header import text
from node.evidence_diffusion import DESCRIPTION, BReading, directionality_of
from node.evidence_facts import DIRECTIONAL, UNTOLD, Sign
from node.evidence_slices import SliceFacts
from node.evidence_vendors import LOWEST_WEIGHTED_B

SAME_POSITION_MM = 0.01
PARALLEL = 0.02
"""Direction cosines of one stack of slices differ by less; what is smaller but too much, the grid refuses."""
MIN_PIECE_SLICES = 3
"""Time divides a series into volumes, not a single slice into frames of a film."""
SAME_B_S_MM2, SAME_B_PART = 8.0, 0.03
"""Actual b-values scatter about the nominal one from direction to direction by the larger of the two."""


@dataclass(frozen=True)
class Part:
    """The slices of one volume, lowest position first, with what they have in common."""

    slices: tuple[SliceFacts, ...]
    b: BReading | None
    directionality: str
    direction_signs: tuple[Sign, ...]

    @property
    def order_key(self) -> tuple[int, float, str, tuple[float, ...], datetime, tuple[str, int]]:
        """An order of volumes that does not depend on the order of files."""
        first = self.slices[0]
        return (
            self.b is not None,
            self.b.value if self.b else 0.0,
            self.directionality,
            first.orientation,
            first.acquired or datetime.min,
            min(item.order_key for item in self.slices),
        )


def split(slices: Iterable[SliceFacts]) -> tuple[Part, ...]:
    """The volumes of a series, in a fixed order."""
    ordered = sorted(slices, key=lambda item: item.order_key)
    weighted = _with_nominal_b(ordered)
    planes = _planes(weighted)
    groups: dict[Hashable, list[SliceFacts]] = defaultdict(list)
    for item, plane in zip(weighted, planes, strict=True):
        groups[_identity(item, plane)].append(item)
    parts = [part for group in groups.values() for part in _volumes(group)]
    return tuple(sorted(parts, key=lambda part: part.order_key))


def _with_nominal_b(slices: Sequence[SliceFacts]) -> list[SliceFacts]:
    """Each slice with its series' nominal b-value; one without any, beside weighted siblings, has b = 0.

    Where no slice is weighted the b-values, all about zero, mean nothing and are dropped: Philips writes
    (0018,9087) = 0 on every sequence.
    """
    if any(item.b and item.b.where != DESCRIPTION for item in slices):
        # a description speaks of the series: beside slices that know their own b-value it says nothing of this one
        slices = [replace(item, b=None) if item.b and item.b.where == DESCRIPTION else item for item in slices]
    told = Counter(item.b.value for item in slices if item.b)
    nominal = _nominal(told)
    if not any(b >= LOWEST_WEIGHTED_B for b in nominal.values()):
        return [replace(item, b=None, direction_signs=(), vector=()) for item in slices]
    absent = BReading(0.0, "absent, and told beside it")
    return [replace(item, b=replace(item.b, value=nominal[item.b.value]) if item.b else absent) for item in slices]


def _nominal(told: Counter[float]) -> dict[float, float]:
    """Actual → nominal: values that lie together count as the most frequent, then the roundest of them."""
    clusters: list[list[float]] = []
    for b in sorted(told):
        if clusters and b - clusters[-1][-1] <= max(SAME_B_S_MM2, SAME_B_PART * b):
            clusters[-1].append(b)
        else:
            clusters.append([b])
    names = [max(cluster, key=lambda b: (told[b], b % 50 == 0, -b)) for cluster in clusters]
    return {b: float(round(name)) for cluster, name in zip(clusters, names, strict=True) for b in cluster}


def _planes(slices: Sequence[SliceFacts]) -> list[int]:
    """Which stack of parallel slices each belongs to; those without orientation are one of their own."""
    known: list[tuple[float, ...]] = []
    for orientation in sorted({item.orientation for item in slices}):
        if not any(is_parallel(orientation, other) for other in known):
            known.append(orientation)
    number = {
        orientation: next(index for index, other in enumerate(known) if is_parallel(orientation, other))
        for orientation in {item.orientation for item in slices}
    }
    return [number[item.orientation] for item in slices]


def is_parallel(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return len(one) == len(other) and all(abs(a - b) < PARALLEL for a, b in zip(one, other, strict=True))


def _identity(item: SliceFacts, plane: int) -> Hashable:
    is_weighted = item.b is not None and item.b.value >= LOWEST_WEIGHTED_B
    direction = (directionality_of(item.b, item.direction_signs), item.vector) if is_weighted else ()
    return plane, make_of(item), direction


def make_of(item: SliceFacts) -> Hashable:
    """What slices of one volume share wherever they lie, and directions of one b-value too."""
    spacing = tuple(round(mm, 3) for mm in item.pixel_spacing_mm)
    echo = None if item.echo_time_ms is None else round(item.echo_time_ms)
    # de-identified copies lose b0's echo number but never its matrix; Image Type is the vendors' own divider
    return item.matrix, spacing, item.image_type, echo, item.b and item.b.value


def _volumes(group: Sequence[SliceFacts]) -> list[Part]:
    """The group as it is where its positions are unique, else by the first divider that makes them so."""
    if not _repeats(group) and not _interleaves(group):
        return [_part(group)]
    for divide in (_by(lambda item: item.temporal_position), _by(lambda item: item.acquisition_number), _by_turn):
        pieces = divide(group)
        is_whole = all(len(piece) >= MIN_PIECE_SLICES and not _repeats(piece) for piece in pieces)
        if len(pieces) > 1 and is_whole:
            return [_part(piece, siblings=len(pieces)) for piece in pieces]
    return [_part(group)]


def _part(slices: Sequence[SliceFacts], siblings: int = 1) -> Part:
    ordered = sorted(slices, key=lambda item: (_along(item), item.order_key))
    first = ordered[0]
    signs = first.direction_signs
    directionality = directionality_of(first.b, signs) if first.b else UNTOLD
    if siblings > 1 and directionality == UNTOLD and first.b and first.b.value >= LOWEST_WEIGHTED_B:
        what = f"one of {siblings} volumes at this b-value, so a single direction or repetition"
        signs, directionality = (*signs, Sign(DIRECTIONAL, what, "(0020,0032)", by="geometry")), DIRECTIONAL
    return Part(tuple(ordered), first.b, directionality, signs)


def _along(item: SliceFacts) -> float:
    """Position along the slice's normal, in mm; 0 where it is not told."""
    if not item.position_lps_mm or not item.orientation:
        return 0.0
    return sum(a * b for a, b in zip(item.position_lps_mm, normal_of(item.orientation), strict=True))


def normal_of(orientation: tuple[float, ...]) -> tuple[float, float, float]:
    """Row direction × column direction, of unit length where these are."""
    (a, b, c), (d, e, f) = orientation[:3], orientation[3:]
    return b * f - c * e, c * d - a * f, a * e - b * d


def _repeats(slices: Sequence[SliceFacts]) -> bool:
    """True where two slices lie at one position; slices without a position tell nothing."""
    along = sorted(_along(item) for item in slices if item.position_lps_mm and item.orientation)
    return any(after - before < SAME_POSITION_MM for before, after in itertools.pairwise(along))


def _interleaves(slices: Sequence[SliceFacts]) -> bool:
    """True where CT acquisitions cover the same part of the patient. MR numbers its concatenations so, within one."""
    if text(slices[0].header.root, "Modality") != "CT":
        return False
    pieces = _by(lambda item: item.acquisition_number)(slices)
    if len(pieces) < 2 or min(map(len, pieces)) < MIN_PIECE_SLICES:
        return False
    ranges = sorted((min(map(_along, piece)), max(map(_along, piece))) for piece in pieces)
    return any(after[0] < before[1] for before, after in itertools.pairwise(ranges))


def _by(key: Callable[[SliceFacts], float | None]) -> Callable[[Sequence[SliceFacts]], list[list[SliceFacts]]]:
    def divide(slices: Sequence[SliceFacts]) -> list[list[SliceFacts]]:
        pieces: dict[float | None, list[SliceFacts]] = defaultdict(list)
        for item in slices:
            pieces[key(item)].append(item)
        return list(pieces.values())

    return divide


def _by_turn(slices: Sequence[SliceFacts]) -> list[list[SliceFacts]]:
    """First, second … acquisition at each position by the clock; one pile where clocks do not tell them apart."""
    at: dict[float, list[SliceFacts]] = defaultdict(list)
    for item in slices:
        at[round(_along(item) / SAME_POSITION_MM / 10)].append(item)
    depth = len(next(iter(at.values())))
    pieces: list[list[SliceFacts]] = [[] for _ in range(depth)]
    for same in at.values():
        if len(same) != depth or len({item.acquired for item in same} - {None}) != depth:
            return [list(slices)]
        for turn, item in enumerate(sorted(same, key=lambda item: item.acquired or datetime.min)):
            pieces[turn].append(item)
    return pieces
