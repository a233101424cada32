"""Which of several volumes that fit is the one, and what siblings say of each other's contrast phase."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from node.config_routes import Evidence
from node.domain import Decision
from node.evidence_facts import CT, DERIVED_MEAN, ISOTROPIC, Sign, VolumeFacts

NEARLY_AXIAL = 0.95
NEARLY_FULL = 0.9
"""A volume that covers this part of the largest covers as much: the last slice is no reason to take the older one."""
CUSTOMARY_CT_MM = (1.0, 5.0)

# In a biphasic or triphasic CT, seconds from one acquisition of the same place to the next
ARTERIAL_TO_PORTAL_S = (20.0, 60.0)
PORTAL_TO_DELAYED_S = 50.0
SAME_ACQUISITION_S = 8.0
MIN_OVERLAP = 0.7
MIN_SIBLING_SLICES = 8

Criterion = tuple[str, Callable[[VolumeFacts, Evidence, Sequence[VolumeFacts]], Any]]
RANKS: tuple[Criterion, ...] = (
    ("it is more nearly axial", lambda v, need, all_: _z(v) < NEARLY_AXIAL),
    ("it is the scanner's own, no mean derived in the node", lambda v, need, all_: v.directionality == DERIVED_MEAN),
    ("it is no reformat", lambda v, need, all_: v.weighting == CT and v.image_type[:1] != ("ORIGINAL",)),
    ("its kernel is for soft tissue", lambda v, need, all_: v.weighting == CT and v.kernel_kind != "soft"),
    (
        "its slices are 1 to 5 mm apart",
        lambda v, need, all_: v.weighting == CT and not CUSTOMARY_CT_MM[0] <= _spacing(v) <= CUSTOMARY_CT_MM[1],
    ),
    (
        "it covers more",
        lambda v, need, all_: v.geometry.extent_mm < NEARLY_FULL * max(other.geometry.extent_mm for other in all_),
    ),
    ("it is the trace", lambda v, need, all_: v.b_s_mm2 is not None and v.directionality != ISOTROPIC),
    ("its b-value is nearer to the preferred one", lambda v, need, all_: abs((v.b_s_mm2 or 0) - _preferred(need))),
    ("it was acquired later", lambda v, need, all_: -((v.acquired or datetime.min) - datetime.min).total_seconds()),
    ("it has more slices", lambda v, need, all_: -v.geometry.slices),
    ("its series has the higher number", lambda v, need, all_: -(v.series_number or 0)),
    ("its identifier comes first", lambda v, need, all_: (v.series_uid, v.source, v.b_s_mm2 or 0, str(v.members[:1]))),
)


def rank(volume: VolumeFacts, need: Evidence, rivals: Sequence[VolumeFacts]) -> tuple[Any, ...]:
    """Lower is better; no two volumes are equal, so that the choice does not depend on their order."""
    return tuple(criterion(volume, need, rivals) for _, criterion in RANKS)


def why_better(
    winner: VolumeFacts, winner_decision: Decision, loser: VolumeFacts, loser_decision: Decision, need: Evidence
) -> str:
    """The first criterion that told them apart, as said of the winner."""
    if winner_decision is not loser_decision:
        return "it needs no confirmation"
    rivals = (winner, loser)
    return next(
        (words for words, criterion in RANKS if criterion(winner, need, rivals) != criterion(loser, need, rivals)),
        "it comes first",
    )


def _z(volume: VolumeFacts) -> float:
    return abs(volume.geometry.normal[2]) if volume.geometry.normal else 0.0


def _spacing(volume: VolumeFacts) -> float:
    return volume.geometry.spacing_mm or 0.0


def _preferred(need: Evidence) -> float:
    return need.b_preferred_s_mm2 or 0.0


def order_votes(study: Sequence[VolumeFacts]) -> dict[int, tuple[Sign, ...]]:
    """Index of a CT volume → its vote from the order among enhanced siblings of the same place.

    Two acquisitions 20 to 60 s apart are arterial and portal-venous; a third at least 50 s later is delayed.
    Anything else says nothing: portal-venous and delayed alone are two as well. So is an order that a sibling
    denies by what it tells of itself: after one of 70 s, the next is not the portal-venous one.
    """
    votes: dict[int, tuple[Sign, ...]] = {}
    for index, volume in enumerate(study):
        if _is_enhanced_ct(volume):
            siblings = [other for other in study if _is_enhanced_ct(other) and _is_same_place(volume, other)]
            others = [other for other in siblings if other is not volume]
            phase = _phase_by_order(volume, siblings)
            if phase and not any(_denies(other, _phase_by_order(other, siblings)) for other in others):
                what = f"{phase} by its place in the order of enhanced acquisitions"
                votes[index] = (Sign(phase, what, "(0008,0032) of its siblings", by="order"),)
    return votes


def _denies(volume: VolumeFacts, phase: str | None) -> bool:
    return volume.contrast_phase not in (None, phase)


def _is_enhanced_ct(volume: VolumeFacts) -> bool:
    return (
        volume.weighting == CT
        and bool(volume.contrast_given)
        and volume.acquired is not None
        and volume.geometry.slices >= MIN_SIBLING_SLICES
        and volume.geometry.is_axial
        and not any(vote.says == "non-contrast" for vote in volume.phase_signs)
    )


def _is_same_place(one: VolumeFacts, other: VolumeFacts) -> bool:
    if one.geometry.frame_of_reference_uid != other.geometry.frame_of_reference_uid:
        return False
    (low, high), (other_low, other_high) = _span(one), _span(other)
    overlap = min(high, other_high) - max(low, other_low)
    return overlap >= MIN_OVERLAP * min(high - low, other_high - other_low)


def _span(volume: VolumeFacts) -> tuple[float, float]:
    low = volume.geometry.first_mm or 0.0
    return low, low + volume.geometry.extent_mm


def _phase_by_order(volume: VolumeFacts, siblings: Sequence[VolumeFacts]) -> str | None:
    moments: list[datetime] = []
    for moment in sorted(other.acquired for other in siblings if other.acquired):
        if not moments or (moment - moments[-1]).total_seconds() > SAME_ACQUISITION_S:
            moments.append(moment)
    gaps = [(after - before).total_seconds() for before, after in itertools.pairwise(moments)]
    if not 1 <= len(gaps) <= 2 or not ARTERIAL_TO_PORTAL_S[0] <= gaps[0] <= ARTERIAL_TO_PORTAL_S[1]:
        return None
    if len(gaps) == 2 and gaps[1] < PORTAL_TO_DELAYED_S:
        return None
    earlier = [moment for moment in moments if volume.acquired and moment <= volume.acquired]
    return ("arterial", "portal-venous", "delayed")[len(earlier) - 1]
