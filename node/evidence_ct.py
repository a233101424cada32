"""Contrast in CT: whether it was given, and the votes on its phase that one series alone can cast.

Contrast given is a precondition and no vote. All strings together are one vote, timing is one, the enhanced tag is
one; the order among siblings needs the whole study and is cast in node/routing_choice.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime

from node.dicom.header import FrameHeader, text, value
from node.evidence_facts import Sign
from node.evidence_phases import phase_after, phases_in
from node.evidence_slices import acquired_at, parse_datetime, parse_time
from node.evidence_texts import series_texts, text_of

_INTRAVENOUS = re.compile(
    r"(?<![^\W\d_])[ie]\.?\s?v\b|intra-?\s?v[eé]n|endov[eé]n|venous|vein|veine|dożyln|dozyln|в/в|внутривен|静脈|静脉|정맥",
    re.IGNORECASE,
)
_ANOTHER_WAY = re.compile(
    r"(?<![^\W\d_])(?:oral\w*|rectal\w*|per os|p\.?\s?o\.?|gastr\w*|enter\w*|enema|peroral\w*|bar(?:ium|yt)\w*|water|"
    r"wasser|eau|agua|acqua|swallow\w*|intra-?\s?(?:thec|art|lumb|ves|perit|caver)\w*|経口|口服|경구)(?![^\W\d_])",
    re.IGNORECASE,
)
_NOTHING = re.compile(
    r"^(?:(?:no|none|non|nein|kein\w*|without|w/?o|ohne|sans|senza|sin|sem|bez|zonder|unenhanced|nativ\w*|plain|なし|无|없음)"
    r"(?![-\s]?ionic)(?![^\W\d_]).*|n/?a|n|-+|\.+|0(?:\.0*)?\s?(?:ml|cc)?)$",
    re.IGNORECASE,
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
_SHARP_NAMES = r"bone|lung|edge|detail|sharp|hrct|ultra|high|chst|^l_|^fc(?:0?3[0-9]|[58]\d)|^(?:l|e|d|y[a-f])$"
_SOFT_NAMES = r"standard|stnd|soft|smooth|std|body|abd|liver|^fc(?:0\d|1\d)|^(?:a|b|x?c[a-c]?|u[a-c]|imr1)$"
_KERNELS = ((SHARP, re.compile(_SHARP_NAMES, re.IGNORECASE)), (SOFT, re.compile(_SOFT_NAMES, re.IGNORECASE)))
_SIEMENS_KERNEL = re.compile(r"^(?P<body_part>[A-Z])[a-z]?(?P<sharpness>\d{2})[a-z]?", re.ASCII)
SIEMENS_SHARP = 50
"""From here on Siemens' number of a kernel means lung and bone (B70f, Br59, Bl57, Hr60)."""
_SIEMENS_BODY = frozenset("BIQD")
"""Body, the same iterative, quantitative, dual energy; the others are for heads (H, J, C), topograms (T), details."""


def contrast(header: FrameHeader) -> tuple[bool | None, tuple[Sign, ...]]:
    """Was contrast given into a vein: True or False where all signs agree, None where they differ or there are none."""
    signs = (*_contrast_signs(header),)
    told = {sign.says == "yes" for sign in signs}
    return (told.pop() if len(told) == 1 else None), signs


def _contrast_signs(header: FrameHeader) -> Iterator[Sign]:
    """Each source speaks for itself, so that none silences another whose loss would then change the answer.

    A route that names a place ("right antecubital") names no way and says nothing.
    """
    route, agents = _route(header), _agents(header)
    administered = text_of(header, "ContrastBolusAgentAdministered")
    if _INTRAVENOUS.search(route):
        yield Sign("yes", "contrast into a vein", "(0018,1040)")
    elif _ANOTHER_WAY.search(route):
        yield Sign("no", "contrast was given another way than into a vein", "(0018,1040)")
    if agents and not any(map(_may_be_intravenous, agents)):
        yield Sign("no", "no contrast agent for a vein is told", "(0018,0010)")
    elif agents:
        yield Sign("yes", "a contrast agent is told", "(0018,0010)")
    if administered.upper() in ("YES", "NO"):
        yield Sign(administered.lower(), f"contrast administered: {administered.lower()}", "(0018,9342)")
    if any(number > 0 for keyword in _INJECTED for number in header.numbers(keyword)):
        yield Sign("yes", "a contrast injection is told", "(0018,1041)")


def _route(header: FrameHeader) -> str:
    """As text, or as coded beside the agents (classic) or inside the first of them (enhanced)."""
    agents = header.get("ContrastBolusAgentSequence", ())
    coded = [*header.get("ContrastBolusAdministrationRouteSequence", ())]
    coded += [code for agent in agents for code in value(agent, "ContrastBolusAdministrationRouteSequence", ())]
    return text_of(header, "ContrastBolusRoute") or " & ".join(text(code, "CodeMeaning") for code in coded)


def _agents(header: FrameHeader) -> list[str]:
    """One by one: "GASTRO & OMNI" are two."""
    coded = (text(agent, "CodeMeaning") for agent in header.get("ContrastBolusAgentSequence", ()))
    told = text_of(header, "ContrastBolusAgent") or "&".join(coded)
    return [part.strip() for part in re.split(r"[&,+;]|/(?!\s?[oa]\b)|\band\b", told) if part.strip()]


def _may_be_intravenous(agent: str) -> bool:
    return not _NOTHING.match(agent) and bool(_INTRAVENOUS.search(agent) or not _ANOTHER_WAY.search(agent))


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
    """soft, sharp, or unknown for a name that no table knows or that is made for another part of the body."""
    first = kernel.split("\\")[0].strip()
    if named := _SIEMENS_KERNEL.match(first):
        if int(named["sharpness"]) >= SIEMENS_SHARP:
            return SHARP
        return SOFT if named["body_part"] in _SIEMENS_BODY else "unknown"
    return next((kind for kind, pattern in _KERNELS if pattern.search(first)), "unknown")
