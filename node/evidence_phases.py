"""Which contrast phase words name, in the languages of the sites, and which one a delay after the injection means."""

from __future__ import annotations

import re
from collections.abc import Iterable

from node.evidence_words import LETTER, whole_words

_NOT_GIVEN = r"(?:sin|sem|senza|sans|ohne|zonder|bez|utan|uten|uden|without|w/?o|no)"
_CONTRAST = r"(?:i\.?v\.?|civ|km|mdc|cm|pdc|prod\w*|inj\w*|[ck]ontr\w*|c)"
PHASES: tuple[tuple[str, re.Pattern[str]], ...] = (
    (
        "portal-venous",
        whole_words(
            r"p\.?v\.?|pvp|port|port[aá]l\w*|portaal|porta|port[oa]?-?\s*\w*ven\w*|"
            r"ven(?:ous|[öø]s\w*|fas\w*|öz\w*|oes\w*|os[aoe]?|[oó]z\w*|eux|euse|eus|euze)?|veineu(?:x|se)|v[eé]n[aá]s|"
            r"[zż]yln\w*|wrotn\w*|портал\w*|воротн\w*|венозн\w*|門脈|門靜脈|门脉|门静脉|静脉期|靜脈期|静脈相|문맥|정맥기"
        ),
    ),
    (
        "arterial",
        whole_words(r"art|art[eéä]r\w*|aort\w*|angio\w*|cta|hap|bolus ?phase|t[eę]tn\w*|артер\w*|動脈|动脉|동맥"),
    ),
    (
        "delayed",
        whole_words(
            r"late|laat|delay(?:ed)?|del(?=\.|[\s_]*(?:\d|$))|spät\w*|spaet\w*|spat(?:phase|ven\w*)?|verz[oö]gert\w*|tard[ií]\w*|"
            r"retard\w*|ritard\w*|[eé]quil\w*|excr[eé]t\w*|n[eé](?:ph|f)rogr\w*|uro\w*gra\w*|op[oó][zź]ni\w*|pozdn\w*|"
            r"odlo[zž]en\w*|отсроч\w*|поздн\w*|平衡|延迟|延遲|遅延|後期|后期|晚期|排泄|排泌|지연|평형"
        ),
    ),
    (
        "non-contrast",
        whole_words(
            rf"non[- _]?(?:con(?:trast\w*)?|enhanced|iv)|nc|ncct|nect|tnc|nativ\w*|natyw\w*|blan[ck]o|unenhanced|plain|"
            rf"(?:without|w/?o|ohne)(?![ _-]*(?:oral|po(?!\w)))|{_NOT_GIVEN}[ _-]?{_CONTRAST}|s/ ?c(?:ontr\w*|iv)?|spc|"
            r"(?:ce?|iv|km)\s?(?:-|\(-\))(?=$|[\s_,;])|basale|diretta|simple|pre[- _]?(?:contrast|km|inj\w*)|pre|"
            r"натив\w*|бескон\w*|без контр\w*|単純|造影前|増強前|增强前|平扫|平掃|조영 ?전|비조영"
        ),
    ),
)

# "late arterial" is an arterial phase; what stands alone ("spätvenös", "late") is a late one
_LATE = r"late|late-|spät|spaet|späte?|tard[ií]\w*|laat"
_LATE_ARTERIAL = re.compile(
    rf"(?:{_LATE})[ _-]*(?=art)|(?<=動脈)[後晚]期|(?<=动脉)[晚后後]期|后(?=动脉)|"
    rf"(?:(?<=art[eé]rial)|(?<=art[eé]riel)|(?<=art[eé]riale))[ _-]+(?:late|tard[ií]\w*)",
    re.IGNORECASE,
)
# "late venous" is a late phase, as "spätvenös" is; "late portal venous" names two
_LATE_VENOUS = re.compile(
    rf"(?<!{LETTER})(?:(?:{_LATE})[ _-]*v[eé]i?n\w*|(?<!porto[ _-])v[eé]i?n\w*[ _-]+(?:{_LATE})(?!{LETTER}))",
    re.IGNORECASE,
)
# Siemens ends the name of a kernel in a letter, and often in this one: B70s is no delay of 70 s
_KERNEL = re.compile(r"(?<![^\W\d_])[bdhijqtu][a-z]?\d{2}[a-z]?(?![^\W\d_])", re.IGNORECASE)
_STATED = re.compile(
    r"(?<!\d)(?<!\d[.,])(?:(?P<seconds>\d{2,3})\s?(?:s(?:ec(?:onds?|s)?|ek)?|сек|秒|초)|(?P<minutes>\d{1,2})\s?(?:min|分|분))"
    rf"(?!{LETTER}|\d)",
    re.IGNORECASE,
)
PHASE_SECONDS: tuple[tuple[str, float, float], ...] = (
    ("arterial", 15, 45),
    ("portal-venous", 55, 100),
    ("delayed", 150, 900),
)
"""Seconds after the start of the injection; what lies between belongs to nobody."""


def phases_in(texts: Iterable[str]) -> tuple[str, ...]:
    """The phases that the first speaking text names. Stated seconds decide over words: "PV 180 s" is a late one."""
    for told in texts:
        text = _LATE_VENOUS.sub(" late ", _LATE_ARTERIAL.sub(" ", _KERNEL.sub(" ", told)))
        if stated := _stated_phase(text):
            return (stated,)
        if named := tuple(phase for phase, pattern in PHASES if pattern.search(text)):
            return named
    return ()


def _stated_phase(text: str) -> str | None:
    for match in _STATED.finditer(text):
        seconds = float(match["seconds"]) if match["seconds"] else 60.0 * float(match["minutes"])
        if phase := phase_after(seconds):
            return phase
    return None


def phase_after(seconds: float) -> str | None:
    """The phase so many seconds after the start of the injection; None between the windows."""
    return next((phase for phase, low, high in PHASE_SECONDS if low <= seconds <= high), None)
