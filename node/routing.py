"""Facts × routes → which volumes are analysed for which condition, and for every other one why not. Pure.

A volume is taken by the first route that it fits; of all that a study offers for one condition exactly one is
chosen (a route with `all: true` takes them all) and the losers are told what beat them. The time point comes from
outside: unknown, it holds what depends on it and is never guessed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from node.config_routes import Evidence, Route
from node.domain import Decision, Reason, TimePoint, TimePointFinding
from node.evidence_facts import DIFFUSION_WEIGHTED, VolumeFacts
from node.routing_choice import order_votes, rank, why_better
from node.routing_criteria import SEVERITY, Verdict, has_weighting, is_akin, judge

WAITS = "waits for its other roles"
"""What is said of a volume that a route with several roles has, until they are there or its patience is over."""


@dataclass(frozen=True)
class VolumeDecision:
    """What becomes of one volume. `candidates` are the conditions between which an unknown time point leaves it."""

    volume: VolumeFacts
    decision: Decision
    condition: str | None
    time_point: TimePoint
    reasons: tuple[Reason, ...]
    hold_reason: str | None = None
    loser_of: str | None = None
    """Series Instance UID of the series that was chosen instead."""
    candidates: tuple[str, ...] = ()
    b_pick_s_mm2: int | None = None
    margin: int = -1
    """How firm the decision is (node/routing_criteria.py); -1 where no question but choice or time point refused."""


@dataclass(frozen=True)
class Pick:
    """One analysis: role → volume. `condition` is None while several `candidates` wait for the time point."""

    condition: str | None
    candidates: tuple[str, ...]
    decision: Decision
    time_point: TimePoint
    inputs: tuple[tuple[str, VolumeFacts], ...]
    reasons: tuple[Reason, ...]
    hold_reason: str | None = None
    margin: int = 0
    """The least of its roles'."""


@dataclass(frozen=True)
class Wait:
    """A route that a study fills in part: what it has, and the roles that are missing."""

    route: Route
    held: tuple[VolumeFacts, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True)
class StudyDecision:
    """A decision per volume, in the order given, and the analyses that follow from them."""

    volumes: tuple[VolumeDecision, ...]
    picks: tuple[Pick, ...]
    waits: tuple[Wait, ...] = ()


@dataclass(frozen=True)
class Fit:
    """How well a volume fills a role of a route; never a refusal."""

    volume: VolumeFacts
    route: Route
    role: str
    verdict: Verdict

    @property
    def decision(self) -> Decision:
        return self.verdict.decision

    @property
    def reasons(self) -> tuple[Reason, ...]:
        return self.verdict.reasons

    @property
    def need(self) -> Evidence:
        return self.route.needs[self.role]


def decide(
    study: Sequence[VolumeFacts],
    routes: Sequence[Route],
    time_point: TimePointFinding,
    *,
    waited_s: Callable[[Wait], float] = lambda wait: 0.0,
) -> StudyDecision:
    """The decision on all volumes of one study, whatever their order.

    `waited_s` says how long a route that has some of its roles has waited for the others. Where its patience is over,
    its volumes go to the next route that they fit.
    """
    return _decide(_with_order_votes(study), tuple(routes), time_point, waited_s)


def _decide(
    volumes: Sequence[VolumeFacts],
    routes: tuple[Route, ...],
    time_point: TimePointFinding,
    waited_s: Callable[[Wait], float],
) -> StudyDecision:
    claims = [_claims(volume, routes, time_point.time_point) for volume in volumes]
    chosen = _choose([fit for fits in claims for fit in fits])
    waits = _waits(routes, chosen)
    over = next((wait for wait in waits if waited_s(wait) >= wait.route.patience_s), None)
    if over is not None:
        others = tuple(route for route in routes if route is not over.route)
        claimed = {
            volume for volume, fits in zip(volumes, claims, strict=True) if any(f.route is over.route for f in fits)
        }
        return _told_of(over, claimed, _decide(volumes, others, time_point, waited_s))
    picks = _picks(chosen, routes, time_point)
    decisions = []
    for volume, fits in zip(volumes, claims, strict=True):
        decision = _of_picked(volume, picks) or (
            _of_loser(volume, fits[0], chosen, time_point) if fits else _of_refused(volume, routes, time_point)
        )
        decisions.append(replace(decision, b_pick_s_mm2=_b_pick(volume, routes)))
    return StudyDecision(tuple(decisions), picks, waits)


def _waits(routes: Sequence[Route], chosen: Mapping[tuple[str, str], tuple[Fit, ...]]) -> tuple[Wait, ...]:
    waits = []
    for route in routes:
        missing = tuple(role for role in route.needs if (route.condition, role) not in chosen)
        if 0 < len(missing) < len(route.needs):
            held = [fit.volume for role in route.needs for fit in chosen.get((route.condition, role), ())]
            waits.append(Wait(route, tuple(held), missing))
    return tuple(waits)


def _told_of(over: Wait, claimed: Collection[VolumeFacts], decision: StudyDecision) -> StudyDecision:
    """The decision without a route that waited in vain, with that said of each volume it would have taken."""
    what = f"{over.route.condition} waited {over.route.patience_s:g} s in vain for {', '.join(over.missing)}"
    reason = Reason(False, what, "routes.yaml")
    volumes = tuple(
        replace(item, reasons=(reason, *item.reasons)) if item.volume in claimed else item for item in decision.volumes
    )
    return replace(decision, volumes=volumes)


def _with_order_votes(study: Sequence[VolumeFacts]) -> list[VolumeFacts]:
    votes = order_votes(study)
    return [
        replace(volume, phase_signs=(*volume.phase_signs, *votes.get(index, ()))) for index, volume in enumerate(study)
    ]


def _is_asked(route: Route, time_point: TimePoint) -> bool:
    """Does the route ask about studies of this time point? Unknown leaves pre and post both possible."""
    if route.time_point == "any":
        return True
    if time_point in (TimePoint.PRE, TimePoint.POST):
        return route.time_point == time_point.value
    return True


def _claims(volume: VolumeFacts, routes: Sequence[Route], time_point: TimePoint) -> tuple[Fit, ...]:
    """The route that takes the volume; more than one only where the time point must decide between them."""
    fits = [fit for route in routes if _is_asked(route, time_point) for fit in _fits(volume, route)]
    if not fits:
        return ()
    best = min(SEVERITY[fit.decision] for fit in fits)
    fits = [fit for fit in fits if SEVERITY[fit.decision] == best]
    mixed = [fit for fit in fits if fit.route.time_point == "unknown"]
    if mixed:
        return (mixed[0],)
    first = fits[0]
    if first.route.time_point == "any":
        return (first,)
    return tuple({fit.route.time_point: fit for fit in reversed(fits) if fit.route.time_point != "any"}.values())[::-1]


def _fits(volume: VolumeFacts, route: Route) -> list[Fit]:
    judged = [(role, judge(volume, need)) for role, need in route.needs.items()]
    fits = [Fit(volume, route, role, verdict) for role, verdict in judged]
    return [fit for fit in fits if fit.decision is not Decision.REFUSE]


def _choose(fits: Sequence[Fit]) -> Mapping[tuple[str, str], tuple[Fit, ...]]:
    """(condition, role) → the chosen fits, the best first; all of them where the route says so."""
    offered: dict[tuple[str, str], list[Fit]] = defaultdict(list)
    for fit in fits:
        offered[fit.route.condition, fit.role].append(fit)
    chosen: dict[tuple[str, str], tuple[Fit, ...]] = {}
    for key, rivals in offered.items():
        volumes = [fit.volume for fit in rivals]
        ordered = sorted(rivals, key=lambda fit: (SEVERITY[fit.decision], rank(fit.volume, fit.need, volumes)))
        chosen[key] = tuple(ordered) if ordered[0].route.all else (ordered[0],)
    return chosen


def _picks(
    chosen: Mapping[tuple[str, str], tuple[Fit, ...]], routes: Sequence[Route], time_point: TimePointFinding
) -> tuple[Pick, ...]:
    """Analyses, those that only the time point tells apart merged into one that is held."""
    found: dict[tuple[VolumeFacts, ...], list[tuple[Route, tuple[Fit, ...]]]] = defaultdict(list)
    for route in routes:
        for fits in _filled(route, chosen):
            found[tuple(fit.volume for fit in fits)].append((route, fits))
    return tuple(_pick(offers, time_point) for offers in found.values())


def _filled(route: Route, chosen: Mapping[tuple[str, str], tuple[Fit, ...]]) -> list[tuple[Fit, ...]]:
    """The route's inputs, one fit a role; none while a role is empty."""
    offers = [chosen.get((route.condition, role), ()) for role in route.needs]
    if len(offers) == 1:
        return [(fit,) for fit in offers[0]]
    return [tuple(offer[0] for offer in offers)] if all(offers) else []


def _pick(offers: Sequence[tuple[Route, tuple[Fit, ...]]], finding: TimePointFinding) -> Pick:
    route, fits = offers[0]
    conditions = tuple(route.condition for route, _ in offers)
    waits = route.time_point in ("pre", "post") and finding.time_point not in (TimePoint.PRE, TimePoint.POST)
    reasons = tuple(dict.fromkeys(reason for fit in fits for reason in fit.reasons))
    return Pick(
        condition=None if len(conditions) > 1 or waits else route.condition,
        candidates=conditions,
        decision=max((fit.decision for fit in fits), key=SEVERITY.__getitem__),
        time_point=TimePoint.NOT_APPLICABLE if route.time_point == "any" else finding.time_point,
        inputs=tuple((fit.role, fit.volume) for fit in fits),
        reasons=(*reasons, *(finding.reasons if route.time_point != "any" else ())),
        hold_reason=_hold_reason(conditions, finding) if waits else None,
        margin=min(fit.verdict.margin for fit in fits),
    )


def _hold_reason(conditions: tuple[str, ...], finding: TimePointFinding) -> str:
    why = finding.hold_reason or "nobody told whether this study is before or after chemotherapy"
    return f"{why}; it may be {' or '.join(conditions)}"


def _of_picked(volume: VolumeFacts, picks: Sequence[Pick]) -> VolumeDecision | None:
    pick = next((pick for pick in picks for _, member in pick.inputs if member == volume), None)
    if pick is None:
        return None
    return VolumeDecision(
        volume=volume,
        decision=pick.decision,
        condition=pick.condition,
        time_point=pick.time_point,
        reasons=pick.reasons,
        hold_reason=pick.hold_reason,
        candidates=pick.candidates,
        margin=pick.margin,
    )


def _of_loser(
    volume: VolumeFacts, lost: Fit, chosen: Mapping[tuple[str, str], tuple[Fit, ...]], finding: TimePointFinding
) -> VolumeDecision:
    winner = chosen[lost.route.condition, lost.role][0]
    refused = _refused(volume, finding)
    missing = [role for role in lost.route.needs if (lost.route.condition, role) not in chosen]
    if winner.volume == volume:
        others = ", ".join(missing)
        patience = f"for up to {lost.route.patience_s:g} s after the last image"
        waits = Reason(False, f"{lost.route.condition} {WAITS}, {patience}: {others}", "routes.yaml")
        return replace(refused, reasons=(waits, *lost.reasons))
    why = why_better(winner.volume, winner.decision, volume, lost.decision, lost.need)
    is_same = winner.volume.series_uid == volume.series_uid
    where = "another volume of this series" if is_same else f"series {winner.volume.series_number}"
    would = "would be" if missing else "was"  # a route that still waits has chosen nothing yet
    beaten = Reason(False, f"for {lost.route.condition} another {would} chosen: {why}", where)
    return replace(refused, reasons=(beaten, *lost.reasons), loser_of=winner.volume.series_uid)


def _of_refused(volume: VolumeFacts, routes: Sequence[Route], finding: TimePointFinding) -> VolumeDecision:
    told = _explanation(volume, routes, finding)
    return replace(_refused(volume, finding), reasons=told.reasons, margin=told.margin)


def _refused(volume: VolumeFacts, finding: TimePointFinding) -> VolumeDecision:
    time_point = TimePoint.NOT_APPLICABLE if volume.modality == "CT" else finding.time_point
    return VolumeDecision(volume, Decision.REFUSE, None, time_point, ())


def _explanation(volume: VolumeFacts, routes: Sequence[Route], finding: TimePointFinding) -> Verdict:
    """Why nothing took it: by the route of its modality that came nearest."""
    fitting = [route for route in routes if _fits(volume, route)]
    if fitting:
        what = f"it fits {fitting[0].condition}, but the study is {finding.time_point.value}-treatment"
        return Verdict(Decision.REFUSE, (Reason(False, what, finding.source), *finding.reasons), -1)
    needs = [need for route in routes for need in route.needs.values()]
    if not needs:
        return Verdict(Decision.REFUSE, (Reason(False, "no route is configured", "routes.yaml"),), -1)
    nearest = min(
        needs,
        key=lambda need: (not has_weighting(volume, need), not is_akin(volume, need), -judge(volume, need).margin),
    )
    return judge(volume, nearest)


def _b_pick(volume: VolumeFacts, routes: Sequence[Route]) -> int | None:
    """The b-value of the volume's series that a diffusion route would take."""
    needs = [need for route in routes for need in route.needs.values() if need.b_value_s_mm2]
    if volume.weighting not in DIFFUSION_WEIGHTED or not needs:
        return None
    (low, high), preferred = needs[0].b_value_s_mm2 or (0, 0), needs[0].b_preferred_s_mm2
    fitting = [b for b in volume.b_values_s_mm2 if low <= b <= high]
    return min(fitting, key=lambda b: (abs(b - (preferred or (low + high) / 2)), -b), default=None)


def as_json(decision: StudyDecision) -> list[dict[str, Any]]:
    """One object per volume: the stable explanation that `crlm-node route --json` prints and a job keeps."""
    return [_volume_json(item) for item in decision.volumes]


def _volume_json(item: VolumeDecision) -> dict[str, Any]:
    volume = item.volume
    return {
        "study_uid": volume.study_uid,
        "series_uid": volume.series_uid,
        "series_number": volume.series_number,
        "source": volume.source,
        "slices": volume.geometry.slices,
        "weighting": volume.weighting,
        "b_values_s_mm2": list(volume.b_values_s_mm2),
        "b_s_mm2": volume.b_s_mm2,
        "b_pick_s_mm2": item.b_pick_s_mm2,
        "directionality": volume.directionality if volume.b_s_mm2 is not None else None,
        "fat_suppressed": volume.fat_suppressed,
        "contrast_phase": volume.contrast_phase,
        "region": volume.region,
        "decision": item.decision.value,
        "margin": item.margin,
        "condition": item.condition,
        "candidates": list(item.candidates),
        "time_point": item.time_point.value,
        "hold_reason": item.hold_reason,
        "loser_of": item.loser_of,
        "reasons": [reason.as_json() for reason in item.reasons],
    }
