"""Contrast in CT: whether it was given, and the votes on its phase that one series alone can cast.

Contrast given is a precondition and no vote. All strings together are one vote, timing is one, the enhanced tag is
one; the order among siblings needs the whole study and is cast in node/routing.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime

from node.dicom.header import FrameHeader
from node.evidence_facts import Sign
from node.evidence_kind import series_texts, text_of
from node.evidence_slices import acquired_at, parse_datetime, parse_time
from node.evidence_words import phase_after, phases_in

_INTRAVENOUS = re.compile(r"i\.?\s?v\b|intra-?\s?ven|venous|vein|veine", re.IGNORECASE)
_NOT_INTRAVENOUS = re.compile(
    r"^(?:oral|rectal|po|p\.o\.|per os|water|gastro\w*|barium|none|no|nein|without|n/?a|-+|\.+|0)$", re.IGNORECASE
)
_INJECTED = ("ContrastBolusVolume", "ContrastBolusTotalDose", "ContrastFlowRate", "ContrastFlowDuration")
MIN_CREDIBLE_DELAY_S = 10.0
"""A bolus time equal to the scan's was typed in or never set."""
_ENHANCED_PHASES = {
    "ARTERIAL": "arterial",
    "PRE_CONTRAST": "non-contrast",
    "PORTAL_VENOUS": "portal-venous",
    "VENOUS": "portal-venous",
    "DELAYED": "delayed",
    "IMMEDIATE": "arterial",
}
SOFT, SHARP = "soft", "sharp"
_KERNELS: tuple[tuple[str, re.Pattern[str]], ...] = (
    (
        SHARP,
        re.compile(
            r"bone|lung|edge|detail|sharp|hrct|ultra|high|^fc(?:0?3[0-9]|[58]\d)|^(?:l|e|d|ya|yb|yc|yd)$", re.IGNORECASE
        ),
    ),
    (SOFT, re.compile(r"standard|soft|smooth|std|body|abd|liver|^fc(?:0\d|1\d)|^(?:a|b|c|ua|ub)$", re.IGNORECASE)),
)
_SIEMENS_KERNEL = re.compile(r"^[A-Z][a-z]?(?P<sharpness>\d{2})[a-z]?", re.ASCII)
SIEMENS_SHARP = 50
"""From here on Siemens' number of a kernel means lung and bone (B70f, Br59, Bl57, Hr60)."""


def contrast(header: FrameHeader) -> tuple[bool | None, tuple[Sign, ...]]:
    """Was contrast given into a vein: True, False where only another way is told, None where nothing is."""
    agents = [part for part in re.split(r"[&,+/;]|\band\b", text_of(header, "ContrastBolusAgent")) if part.strip()]
    route = text_of(header, "ContrastBolusRoute")
    signs = [*_contrast_signs(header, agents, route)]
    if any(sign.says == "yes" for sign in signs):
        return True, tuple(signs)
    return (False if signs else None), tuple(signs)


def _contrast_signs(header: FrameHeader, agents: list[str], route: str) -> Iterator[Sign]:
    administered = text_of(header, "ContrastBolusAgentAdministered")
    if route and not _INTRAVENOUS.search(route):
        yield Sign("no", "contrast was given another way than into a vein", "(0018,1040)")
    elif route:
        yield Sign("yes", "contrast into a vein", "(0018,1040)")
    elif agents and all(_NOT_INTRAVENOUS.match(agent.strip()) for agent in agents):
        yield Sign("no", "no contrast agent for a vein is told", "(0018,0010)")
    elif agents:
        yield Sign("yes", "a contrast agent is told", "(0018,0010)")
    elif administered.upper() in ("YES", "NO"):
        yield Sign(administered.lower(), f"contrast administered: {administered.lower()}", "(0018,9342)")
    elif any(number > 0 for keyword in _INJECTED for number in header.numbers(keyword)):
        yield Sign("yes", "a contrast injection is told", "(0018,1041)")


def phase_votes(header: FrameHeader) -> tuple[Sign, ...]:
    """At most one vote each of words, timing and the enhanced tag. Words that name several phases are one vote each."""
    return (*_by_words(header), *_by_timing(header), *_by_tag(header))


def _by_words(header: FrameHeader) -> Iterator[Sign]:
    texts = [words for words, _ in series_texts(header)]
    for phase in phases_in(texts):
        yield Sign(phase, f"the series' words say {phase}", "(0008,103E)", by="text")


def _by_timing(header: FrameHeader) -> Iterator[Sign]:
    delay_s = delay_after_bolus_s(header)
    if delay_s is not None and delay_s >= MIN_CREDIBLE_DELAY_S and (phase := phase_after(delay_s)):
        yield Sign(phase, f"acquired {delay_s:.0f} s after the injection began", "(0018,1042)", by="timing")


def delay_after_bolus_s(header: FrameHeader) -> float | None:
    """Seconds from Contrast/Bolus Start Time to the slice's acquisition, by one clock; None where either is untold."""
    told, acquired = text_of(header, "ContrastBolusStartTime"), acquired_at(header)
    if acquired is None:
        clock = parse_time(text_of(header, "AcquisitionTime"))
        acquired = datetime.combine(datetime.min, clock) if clock else None
    if acquired is None or not told:
        return None
    start = parse_datetime(told)
    clock = parse_time(told)
    if start is None and clock is not None:
        start = datetime.combine(acquired.date(), clock)
    return (acquired - start).total_seconds() if start else None


def _by_tag(header: FrameHeader) -> Iterator[Sign]:
    told = text_of(header, "ContrastBolusAgentPhase").upper()
    if phase := _ENHANCED_PHASES.get(told):
        yield Sign(phase, f"the enhanced phase tag says {phase}", "(0018,9344)", by="phase-tag")


def kernel_kind(kernel: str) -> str:
    """soft, sharp, or unknown for a name that no table knows."""
    first = kernel.split("\\")[0].strip()
    if named := _SIEMENS_KERNEL.match(first):
        return SHARP if int(named["sharpness"]) >= SIEMENS_SHARP else SOFT
    return next((kind for kind, pattern in _KERNELS if pattern.search(first)), "unknown")
