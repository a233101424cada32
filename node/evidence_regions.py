"""Which part of the body a volume shows: what words name, in the languages of the sites, and what attributes say."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from pydicom.dataset import Dataset

from node.dicom.header import FrameHeader, text, value
from node.evidence_facts import Sign
from node.evidence_texts import series_texts, text_of
from node.evidence_words import whole_words

# Region → words. The liver's own first: a series may name several, "CT CH/AB/PEL" covers three.
REGIONS: tuple[tuple[str, re.Pattern[str]], ...] = (
    (
        "liver",
        whole_words(
            r"liver|h[eé]pat\w*|hepar|leber\w*|foie|h[ií]gado|fegato|lever|f[ií]gado|w[aą]trob\w*|j[aá]tra|jater\w*|"
            r"máj|maksa|karaci[gğ]er|печен\w*|肝|간장|(?<![가-힣])간(?![가-힣])"
        ),
    ),
    (
        "abdomen",
        whole_words(
            r"\w*abd[oôó]m\w*|abd(?:o|omen|pel\w*|opel\w*)?|\w*oberbauch\w*|\w*bauch|\w*buik|\w*addom\w*|vientre|"
            r"brzu(?:ch|sz)\w*|b[rř]ich\w*|buk|vatsa|bat[ıi]n|живот\w*|брюш\w*|腹(?!臥|卧)|복부|ct ?cap|cap|tap|"
            r"c ?/ ?a ?/ ?p|ab(?=\s*/)|(?<=/)ab"
        ),
    ),
    (
        "kidney",
        whole_words(r"kidneys?|renal|nieren?|reins|ri[nñ][oó]n\w*|rene|renes|nerk\w*|ledvin\w*|почк\w*|腎|肾|신장"),
    ),
    ("prostate", whole_words(r"prostat\w*|prostaat|前列腺|전립선")),
    ("pancreas", whole_words(r"pancrea\w*|pankreas\w*|trzustk\w*|膵|胰")),
    ("pelvis", whole_words(r"pelvi[sc]|pel|becken|bekken|bassin|pelve|miednic\w*|骨盤|盆腔|골반")),
    ("rectum", whole_words(r"rect(?:um|al)|re[ck]tum|直腸|直肠")),
    ("uterus", whole_words(r"uter(?:us|ine)|cervix uteri|ovar\w*|子宮|子宫")),
    ("bladder", whole_words(r"bladder|harnblase|vessie|vejiga|膀胱")),
    (
        "brain",
        whole_words(
            r"brain|cerebr\w*|hirn|gehirn|sch[aä]del-?hirn|cerveau|cervello|enc[eé]fal\w*|hersenen|m[oó]zg\w*|脳|脑|뇌"
        ),
    ),
    (
        "head",
        whole_words(r"head|skull|kopf|sch[aä]del|cr[aâ]ne|t[eê]te|testa|cabeza|cabe[cç]a|hoofd|głow\w*|頭部|头部|두부"),
    ),
    ("neck", whole_words(r"neck|headneck|hals|cou|collo|cuello|pesco[cç]o|頸部|颈部|경부")),
    (
        "chest",
        whole_words(
            r"chest|thora[xkc]\w*|lungs?|pulmon\w*|lunge|poumon|torac\w*|t[oó]rax|klatk\w*|ch(?=\s*/)|胸|肺|흉부"
        ),
    ),
    ("heart", whole_words(r"heart|cardiac|cardio\w*|herz|c[oœ]e?ur|cuore|coraz[oó]n|心臓|心脏|심장")),
    ("breast", whole_words(r"breasts?|mamm[ao]\w*|brust|seins|borst|乳腺|乳房|유방")),
    (
        "spine",
        whole_words(r"[cltshb]?-?spine|spinal|lumbar|cervical|wirbels\w*|[lbh]ws|rachis|columna|colonna|脊|척추"),
    ),
    ("knee", whole_words(r"knees?|knie|genou|rodilla|ginocchio|膝")),
    ("shoulder", whole_words(r"shoulders?|schulter|[eé]paule|hombro|spalla|肩")),
    ("hip", whole_words(r"hips?|h[uü]fte|hanche|cadera|anca")),
    ("thigh", whole_words(r"thigh|femur|oberschenkel|cuisse")),
    ("leg", whole_words(r"legs?|calf|tibia|unterschenkel|jambe")),
    ("foot", whole_words(r"foot|feet|ankle|fu[sß]|cheville|pied")),
    # in the singular: "arms down" tells how a patient lay, ARMS is a sequence of UIH's
    ("arm", whole_words(r"arm|humerus|forearm|elbow|ellenbogen|coude")),
    ("hand", whole_words(r"hands?|wrist|finger|handgelenk|poignet")),
    ("extremity", whole_words(r"extremit\w*")),
)

# Body Part Examined writes words together: CHESTABDPELVIS, UPPERABDOMEN (PS3.16 Annex L)
BODY_PART_PARTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("liver", ("LIVER", "HEPAT")),
    ("abdomen", ("ABDOM", "ABD")),
)
NEIGHBOURS = frozenset({"chest", "pelvis"})
"""Parts of the trunk that one run covers together with the liver, while Body Part Examined has room for one word."""


def regions_in(text: str) -> tuple[str, ...]:
    """Every region that the text names, the liver first."""
    return tuple(region for region, pattern in REGIONS if pattern.search(text))


def regions_of_body_part(value: str) -> tuple[str, ...]:
    """Regions of a Body Part Examined: the words, or the parts that defined terms are glued from."""
    glued = tuple(region for region, parts in BODY_PART_PARTS if any(part in value.upper() for part in parts))
    return glued or regions_in(value)


def region_signs(header: FrameHeader) -> tuple[str, tuple[Sign, ...]]:
    """The region's name as told first, and every sign of a region; what the study is called is none.

    Body Part Examined and the series' own words come first, a coded Anatomic Region where they are silent. The
    Frame Anatomy of multi-frame images must be filled, so scanners fill it whether or not somebody meant it: it
    can veto where nothing else is told (by="frame-anatomy"), never vouch.
    """
    signs = [
        Sign(region, f"Body Part Examined is the {region}", "(0018,0015)")
        for region in regions_of_body_part(text_of(header, "BodyPartExamined"))
    ]
    for words, where in series_texts(header):
        signs += [Sign(region, f"the series names the {region}", where, by="text") for region in regions_in(words)]
    if not signs:
        coded = value(header.root, "AnatomicRegionSequence", ())
        signs = [*_regions_by_code(coded, "tag", "Anatomic Region")]
    named = signs[0].says if signs else "unknown"
    if not signs:
        framed = header.get("AnatomicRegionSequence", ())
        signs = [*_regions_by_code(framed, "frame-anatomy", "Frame Anatomy")]
    return named, (*signs, *_by_side(header))


def _by_side(header: FrameHeader) -> Iterator[Sign]:
    """Left or right is told of paired parts only (PS3.3 C.7.3.1): of a knee or a breast, never of the liver."""
    for keyword, where in (("Laterality", "(0020,0060)"), ("ImageLaterality", "(0020,0062)")):
        if (side := text_of(header, keyword).upper()) in ("L", "R"):
            yield Sign("paired part", f"a side is told ({side}): a paired part of the body", where)


def _regions_by_code(items: Iterable[Dataset], by: str, name: str) -> Iterator[Sign]:
    for item in items:
        meaning = text(item, "CodeMeaning")
        for region in regions_in(meaning):
            yield Sign(region, f"{name} is the {region}", "(0008,2218)", by=by)
