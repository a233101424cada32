"""Does this volume answer this need? One function per question, each with what speaks for and against.

All questions share one algebra, so that evidence that goes missing can never make an acceptance of a refusal:
signs for and none against accept; signs on both sides, or none at all, ask a person; signs against alone refuse.
What a header need not tell asks, where nothing else says it (`UNSURE`; node/evidence_kind.py).

The margin says how firm a verdict is, as a whole number. Refused: minus the number of questions that refuse. Asked
about: 0. Accepted: of the questions that signs vote on (direction, fat suppression, contrast phase, region) the
fewest independent signs for whose loss would turn an answer, at least 1. What every image has to tell anyway (Image
Type, description, b-value, that contrast was given, geometry, …) does not vote: each alone would turn the verdict,
whatever the others say. Signs are independent that stand in different places, of the contrast phase those of
different kinds. A sign for that is lost never raises the margin.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from node.config_routes import Evidence
from node.domain import Decision, Reason
from node.evidence_facts import (
    DERIVED_MEAN,
    DIFFUSION_WEIGHTED,
    DIRECTIONAL,
    IMAGE_TYPE_PLACES,
    ISOTROPIC,
    SEVERAL_IN_SERIES,
    SEVERAL_IN_STUDY,
    SOUND,
    UNSURE,
    Sign,
    VolumeFacts,
)
from node.evidence_regions import NEIGHBOURS

SEVERITY = {Decision.ACCEPT: 0, Decision.CONFIRM: 1, Decision.REFUSE: 2}
VOTES_NEEDED = 2
_DESCRIPTION = "(0008,103E)"
_COVERED_TOGETHER = frozenset(("(0018,0015)", part) for part in NEIGHBOURS)
SPACING_TOLERANCE_MM = 0.05
_MAP_WORDS = frozenset({"adc", "eadc", "fa", "map", "perfusion", "projection", "reformat", "subtraction", "phase"})
"""Words that a description may carry without the image being one: "DWI/ADC" names what a series is for."""


@dataclass(frozen=True)
class Outcome:
    """One question's answer. `votes` are the independent signs for whose loss would turn it, 0 where none vote."""

    decision: Decision
    reasons: tuple[Reason, ...]
    votes: int = 0


@dataclass(frozen=True)
class Verdict:
    """All answers together; the `margin` is explained above."""

    decision: Decision
    reasons: tuple[Reason, ...]
    margin: int


def judge(volume: VolumeFacts, need: Evidence) -> Verdict:
    """The worst of all answers decides; every reason is kept, those against first."""
    answers = [answer for question in QUESTIONS for answer in question(volume, need)]
    decision = max((answer.decision for answer in answers), key=SEVERITY.__getitem__, default=Decision.REFUSE)
    reasons = [reason for answer in answers for reason in answer.reasons]
    against_first = tuple(sorted(dict.fromkeys(reasons), key=lambda reason: reason.is_for))
    return Verdict(decision, against_first, _margin(decision, answers))


def _margin(decision: Decision, answers: Sequence[Outcome]) -> int:
    if decision is Decision.REFUSE:
        return min(-sum(answer.decision is Decision.REFUSE for answer in answers), -1)
    if decision is Decision.CONFIRM:
        return 0
    return min((answer.votes for answer in answers if answer.votes), default=1)


def weigh(pro: Iterable[Sign], contra: Iterable[Sign], untold: str, where: str) -> Outcome:
    """The algebra. `untold` is what to say where no sign speaks."""
    pro, contra = tuple(pro), tuple(contra)
    reasons = (
        *(sign.reason(is_for=False) for sign in contra),
        *(sign.reason(is_for=True) for sign in pro),
    )
    if pro:
        return Outcome(Decision.CONFIRM if contra else Decision.ACCEPT, reasons, votes=len({s.where for s in pro}))
    if contra:
        return Outcome(Decision.REFUSE, reasons)
    return Outcome(Decision.CONFIRM, (Reason(False, untold, where),))


def _refuse(what: str, where: str) -> Outcome:
    return Outcome(Decision.REFUSE, (Reason(False, what, where),))


def _confirm(what: str, where: str) -> Outcome:
    return Outcome(Decision.CONFIRM, (Reason(False, what, where),))


def _accept(what: str, where: str) -> Outcome:
    return Outcome(Decision.ACCEPT, (Reason(True, what, where),))


def identity(volume: VolumeFacts, need: Evidence) -> Iterator[Outcome]:
    """A result must be able to name what it belongs to."""
    for uid, name, where in (
        (volume.study_uid, "Study Instance UID", "(0020,000D)"),
        (volume.series_uid, "Series Instance UID", "(0020,000E)"),
    ):
        if not uid:
            yield _refuse(f"{name} is empty", where)
    if volume.patients == SEVERAL_IN_SERIES:
        yield _refuse("images of several patients under one Series Instance UID", "(0010,0020)")
    elif volume.patients == SEVERAL_IN_STUDY:
        yield _confirm("images of several patients under one Study Instance UID", "(0010,0020)")


def rejection(volume: VolumeFacts, need: Evidence) -> Iterator[Outcome]:
    """What its archive has taken back is not analysed."""
    if volume.rejection:
        yield Outcome(Decision.REFUSE, (volume.rejection.reason(is_for=False),))


def modality(volume: VolumeFacts, need: Evidence) -> Iterator[Outcome]:
    """The scanner's kind, told twice: by SOP class and by Modality."""
    if not volume.geometry.slices:
        yield Outcome(Decision.REFUSE, tuple(sign.reason(is_for=False) for sign in volume.weighting_signs))
    elif volume.modality != need.modality:
        yield _refuse(f"{volume.modality or 'no modality'}, not {need.modality}", "(0008,0060)")


def kind(volume: VolumeFacts, need: Evidence) -> Iterator[Outcome]:
    """An image as acquired, by Image Type and by the series' own description: both must speak, none against."""
    if not volume.geometry.slices:
        return
    is_original = volume.image_type[:2] == ("ORIGINAL", "PRIMARY")
    for sign in volume.kind_signs:
        if sign.says == SOUND:
            yield Outcome(Decision.ACCEPT, (sign.reason(is_for=True),))
        elif sign.says == UNSURE or (sign.by == "text" and is_original and sign.says in _MAP_WORDS):
            yield Outcome(Decision.CONFIRM, (sign.reason(is_for=False),))
        else:
            yield Outcome(Decision.REFUSE, (sign.reason(is_for=False),))
    told = {sign.where for sign in volume.kind_signs}
    if told.isdisjoint(IMAGE_TYPE_PLACES):
        yield _confirm("no Image Type: a map or projection cannot be told from an acquired image", "(0008,0008)")
    if "(0008,103E)" not in told:
        yield _confirm("no description: a computed or subtracted image cannot be ruled out", "(0008,103E)")


def has_weighting(volume: VolumeFacts, need: Evidence) -> bool:
    """The need's weighting; a trace is diffusion-weighted, a computed image is not."""
    return volume.weighting in (DIFFUSION_WEIGHTED if need.weighting == "dwi" else {need.weighting})


def is_akin(volume: VolumeFacts, need: Evidence) -> bool:
    """Maps and computed images are compared with diffusion; what has no b-value, with T2: "T1-, not T2-weighted"."""
    return (need.weighting == "dwi") == (volume.weighting in ("adc", "fa", "dwi-computed"))


_WEIGHTING_NAMES = {
    "dwi": "diffusion-weighted",
    "t2": "T2-weighted",
    "t1": "T1-weighted",
    "ct": "CT",
    "adc": "an ADC map",
    "fa": "a map of anisotropy",
    "dwi-computed": "a computed b-value",
    "dwi-trace": "diffusion-weighted",
    "other": "of another kind",
    "localizer": "a localizer",
}


def weighting(volume: VolumeFacts, need: Evidence) -> Iterator[Outcome]:
    """What the sequence is sensitive to."""
    if not volume.geometry.slices:
        return
    is_wanted = has_weighting(volume, need)
    reasons = tuple(sign.reason(is_for=is_wanted and sign.says != UNSURE) for sign in volume.weighting_signs)
    if is_wanted:
        is_doubted = any(sign.says == UNSURE for sign in volume.weighting_signs)
        yield Outcome(Decision.CONFIRM if is_doubted else Decision.ACCEPT, reasons)
        return
    name, wanted = _WEIGHTING_NAMES.get(volume.weighting, volume.weighting), _WEIGHTING_NAMES[need.weighting]
    yield Outcome(Decision.REFUSE, (Reason(False, f"{name}, not {wanted}", "weighting"), *reasons))


def b_value(volume: VolumeFacts, need: Evidence) -> Iterator[Outcome]:
    """The b-value in range, and the trace or a mean over directions, never one direction."""
    if need.b_value_s_mm2 is None or volume.weighting not in DIFFUSION_WEIGHTED:
        return
    low, high = need.b_value_s_mm2
    where = volume.b_signs[0].where if volume.b_signs else "(0018,9087)"
    b = volume.b_s_mm2 or 0
    is_disputed = any(low <= other <= high for other in volume.b_disputed_s_mm2)
    if not any(low <= told <= high for told in volume.b_values_s_mm2) and not is_disputed:
        told = ", ".join(map(str, volume.b_values_s_mm2))
        yield _refuse(f"no b-value between {low:g} and {high:g} s/mm²: the series has {told}", where)
        return
    if not low <= b <= high and not is_disputed:
        yield _refuse(f"b = {b} s/mm² is outside {low:g} to {high:g}", where)
        return
    if volume.b_disputed_s_mm2:
        others = ", ".join(map(str, volume.b_disputed_s_mm2))
        yield _confirm(f"b = {b} s/mm² in one place, {others} in another", where)
    elif volume.is_b_certain:
        yield _accept(f"b = {b} s/mm²", where)
    else:
        yield _confirm(f"b = {b} s/mm² stands only where it may be wrong", where)
    yield _direction(volume)


def _direction(volume: VolumeFacts) -> Outcome:
    pro = [sign for sign in volume.direction_signs if sign.says in (ISOTROPIC, DERIVED_MEAN)]
    contra = [sign for sign in volume.direction_signs if sign.says in (DIRECTIONAL, UNSURE)]
    return weigh(pro, contra, "not told whether this is the trace or a single direction", "(0018,9075)")


def fat(volume: VolumeFacts, need: Evidence) -> Iterator[Outcome]:
    """Fat suppression; words alone ask a person."""
    if need.fat_suppressed is None or volume.weighting != need.weighting:
        return
    wanted, other = ("yes", "no") if need.fat_suppressed else ("no", "yes")
    pro = [sign for sign in volume.fat_signs if sign.says == wanted]
    contra = [sign for sign in volume.fat_signs if sign.says == other]
    answer = weigh(pro, contra, "not told whether fat is suppressed", "(0018,0022)")
    if answer.decision is Decision.REFUSE:
        what = "not fat-suppressed" if need.fat_suppressed else "fat-suppressed"
        answer = Outcome(Decision.REFUSE, (Reason(False, what, contra[0].where), *answer.reasons))
    if answer.decision is Decision.ACCEPT:
        by_tags = {sign.where for sign in pro if sign.by != "text"}
        answer = replace(answer, votes=len(by_tags))
        if not by_tags:
            in_words = Reason(False, "fat suppression is told in words only", pro[0].where)
            answer = Outcome(Decision.CONFIRM, (in_words, *answer.reasons))
    yield answer


def echo_time(volume: VolumeFacts, need: Evidence) -> Iterator[Outcome]:
    """The echo time within the card's range."""
    if need.echo_time_ms is None or volume.weighting != need.weighting:
        return
    low, high = need.echo_time_ms
    echo_ms = volume.echo_time_ms
    if echo_ms is None:
        yield _confirm("the echo time is not told", "(0018,0081)")
    elif echo_ms > high:
        yield _refuse(f"TE {echo_ms:.4g} ms is over {high:g}: so heavily weighted that only fluid shows", "(0018,0081)")
    elif echo_ms < low:
        yield _refuse(f"TE {echo_ms:.4g} ms is under {low:g}", "(0018,0081)")
    else:
        yield _accept(f"TE {echo_ms:.4g} ms", "(0018,0081)")


def contrast_phase(volume: VolumeFacts, need: Evidence) -> Iterator[Outcome]:
    """Contrast given is a precondition; then two independent votes without dissent, else a person."""
    if need.contrast_phase is None or volume.weighting != need.weighting:
        return
    votes = volume.phase_signs
    if not volume.contrast_signs and not votes:
        yield _refuse("no intravenous contrast is told", "(0018,0010)")
        return
    yes = [sign for sign in volume.contrast_signs if sign.says == "yes"]
    no = [sign for sign in volume.contrast_signs if sign.says == "no"]
    given = weigh(yes, no, "a contrast phase is told, but not that contrast was given", "(0018,0010)")
    yield replace(given, votes=0)  # a precondition: one attribute is asked after the other, the first that tells counts
    yield _phase(votes, need.contrast_phase)


def _phase(votes: tuple[Sign, ...], wanted: str) -> Outcome:
    pro = [vote for vote in votes if vote.says == wanted]
    contra = [vote for vote in votes if vote.says != wanted]
    answer = weigh(pro, contra, "the contrast phase is not told", "(0008,103E)")
    spare = len({vote.by for vote in pro}) - VOTES_NEEDED
    if answer.decision is Decision.ACCEPT and spare < 0:
        what = f"one vote for {wanted}; {VOTES_NEEDED} independent ones are needed"
        return Outcome(Decision.CONFIRM, (Reason(False, what, "contrast phase"), *answer.reasons))
    return replace(answer, votes=spare + 1)


def kernel(volume: VolumeFacts, need: Evidence) -> Iterator[Outcome]:
    """CT reconstructed for soft tissue, not for bone or lung."""
    if volume.weighting != "ct" or need.weighting != "ct":
        return
    if not volume.kernel:
        yield _confirm("the reconstruction kernel is not told", "(0018,1210)")
    elif volume.kernel_kind == "sharp":
        yield _refuse("a sharp kernel, for bone or lung", "(0018,1210)")
    elif volume.kernel_kind == "soft":
        yield _accept("a kernel for soft tissue", "(0018,1210)")
    else:
        yield _confirm(
            "a kernel of unknown name or for another body part: bone or lung cannot be ruled out", "(0018,1210)"
        )


def region(volume: VolumeFacts, need: Evidence) -> Iterator[Outcome]:
    """Positive evidence of the region. One attribute may name several: it speaks for, if any is wanted."""
    if not need.regions or not volume.geometry.slices:
        return
    vouching = {sign.where for sign in volume.region_signs if sign.says in need.regions and sign.by != "frame-anatomy"}
    pro = [sign for sign in volume.region_signs if sign.says in need.regions and sign.where in vouching]
    contra = [sign for sign in volume.region_signs if sign.says not in need.regions and sign.where not in vouching]
    if _DESCRIPTION in vouching:
        # Body Part Examined holds one word: CHEST is no denial of what the series calls "CT CAP"
        contra = [sign for sign in contra if (sign.where, sign.says) not in _COVERED_TOGETHER]
    yield weigh(pro, contra, f"no region is told; {' or '.join(need.regions)} is needed", "(0018,0015)")


def geometry(volume: VolumeFacts, need: Evidence) -> Iterator[Outcome]:
    """Axial slices that form one volume and cover enough."""
    here = volume.geometry
    if not here.slices:
        return
    if here.normal is not None and not here.is_axial:
        normal = ", ".join(f"{number:.2f}" for number in here.normal)
        yield _refuse(f"{_plane(here.normal)}, not axial (slice normal {normal})", "(0020,0037)")
    if here.slices < need.min_slices:
        yield _refuse(f"{here.slices} slices, fewer than {need.min_slices}", "(0020,0032)")
    if here.fault:
        yield _refuse(here.fault, "(0020,0032)")
    if here.spacing_mm is None:
        return
    if need.slice_spacing_mm and not _is_within(here.spacing_mm, need.slice_spacing_mm):
        low, high = need.slice_spacing_mm
        yield _refuse(f"slices {here.spacing_mm:.2f} mm apart, outside {low:g} to {high:g}", "(0020,0032)")
    if here.extent_mm < need.min_extent_mm:
        yield _refuse(f"{here.extent_mm:.0f} mm are covered, less than {need.min_extent_mm:g}", "(0020,0032)")
    elif here.is_axial and not here.fault:
        yield _accept(f"{here.slices} axial slices {here.spacing_mm:.1f} mm apart", "(0020,0032)")


def _is_within(number: float, limits: tuple[float, float]) -> bool:
    return limits[0] - SPACING_TOLERANCE_MM <= number <= limits[1] + SPACING_TOLERANCE_MM


def _plane(normal: tuple[float, float, float]) -> str:
    x, y, _ = (abs(number) for number in normal)
    return "coronal" if y > 0.8 else "sagittal" if x > 0.8 else "oblique"


Question = Callable[[VolumeFacts, Evidence], Iterator[Outcome]]
QUESTIONS: tuple[Question, ...] = (
    identity,
    rejection,
    modality,
    kind,
    weighting,
    b_value,
    fat,
    echo_time,
    contrast_phase,
    kernel,
    region,
    geometry,
)
