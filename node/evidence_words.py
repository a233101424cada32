"""What words in headers mean, as tables: regions, contrast phases, kinds of image, fat suppression, weighting.

Words are the weakest evidence, for people write them: every pattern is anchored to whole words (a bare /fs/ takes
GE's FRFSE for fat suppression, a bare /art/ vetoes "partial"), an underscore or a digit ends a word as a space
does, and the languages of sites that name their protocols in their own are there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable


def _words(pattern: str) -> re.Pattern[str]:
    """Whole words of any language; digits and underscores separate."""
    return re.compile(rf"(?<![^\W\d_])(?:{pattern})(?![^\W\d_])", re.IGNORECASE)


# Region → words. The liver's own first: a series may name several, "CT CH/AB/PEL" covers three.
REGIONS: tuple[tuple[str, re.Pattern[str]], ...] = (
    (
        "liver",
        _words(r"liver|hepat\w*|hepar|leber\w*|foie|h[ií]gado|fegato|lever|f[ií]gado|w[aą]trob\w*|печен\w*|肝\w*"),
    ),
    (
        "abdomen",
        _words(
            r"abdom\w*|abdo|abd|oberbauch|bauch|bovenbuik|buik|addom\w*|vientre|brzuch\w*|живот\w*|"
            r"上?腹\w*|(?:ct )?cap|tap|ab(?=\s*/)|(?<=/)ab"
        ),
    ),
    ("kidney", _words(r"kidneys?|renal|nieren?|reins|ri[nñ][oó]n\w*|rene|renes|nerk\w*|почк\w*|腎\w*|肾\w*")),
    ("prostate", _words(r"prostat\w*|prostaat|前列腺")),
    ("pancreas", _words(r"pancrea\w*|pankreas\w*|膵|胰\w*")),
    ("pelvis", _words(r"pelvi[sc]|pel|becken|bekken|bassin|pelve|miednic\w*|骨盤|盆腔")),
    ("rectum", _words(r"rect(?:um|al)|re[ck]tum")),
    ("uterus", _words(r"uter(?:us|ine)|cervix uteri|ovar\w*")),
    ("bladder", _words(r"bladder|harnblase|vessie|vejiga")),
    (
        "brain",
        _words(
            r"brain|cerebr\w*|hirn|gehirn|sch[aä]del-?hirn|cerveau|cervello|enc[eé]fal\w*|hersenen|m[oó]zg\w*|脳|脑"
        ),
    ),
    ("head", _words(r"head|skull|kopf|sch[aä]del|cr[aâ]ne|t[eê]te|testa|cabeza|cabe[cç]a|hoofd|głow\w*|頭部|头部")),
    ("neck", _words(r"neck|headneck|hals|cou|collo|cuello|pesco[cç]o|頸部|颈部")),
    ("chest", _words(r"chest|thora[xk]\w*|lungs?|pulmon\w*|lunge|poumon|torace|t[oó]rax|ch(?=\s*/)|胸\w*")),
    ("heart", _words(r"heart|cardiac|cardio\w*|herz|c[oœ]e?ur|cuore|coraz[oó]n|心\w*")),
    ("breast", _words(r"breasts?|mamm[ao]\w*|brust|seins|borst|乳\w*")),
    ("spine", _words(r"[cltshb]?-?spine|spinal|lumbar|cervical|wirbels\w*|[lbh]ws|rachis|columna|colonna|脊\w*")),
    ("knee", _words(r"knees?|knie|genou|rodilla|ginocchio")),
    ("shoulder", _words(r"shoulders?|schulter|[eé]paule|hombro|spalla")),
    ("hip", _words(r"hips?|h[uü]fte|hanche|cadera|anca")),
    ("thigh", _words(r"thigh|femur|oberschenkel|cuisse")),
    ("leg", _words(r"legs?|calf|tibia|unterschenkel|jambe")),
    ("foot", _words(r"foot|feet|ankle|fu[sß]|cheville|pied")),
    ("arm", _words(r"arms?|humerus|forearm|elbow|ellenbogen|coude")),
    ("hand", _words(r"hands?|wrist|finger|handgelenk|poignet")),
    ("extremity", _words(r"extremit\w*")),
)

# Body Part Examined writes words together: CHESTABDPELVIS, UPPERABDOMEN (PS3.16 Annex L)
BODY_PART_PARTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("liver", ("LIVER", "HEPAT")),
    ("abdomen", ("ABDOM", "ABD")),
)

PHASES: tuple[tuple[str, re.Pattern[str]], ...] = (
    (
        "portal-venous",
        _words(
            r"p\.?v\.?|pvp|portal\w*|porto-?\s*(?:venous|ven\w*)|porta|ven(?:ous|ös\w*|oes\w*|osa|oso|eux|euse|euze)?|veneuze|"
            r"portovenös\w*|門脈\w*|门脉\w*|静脉期"
        ),
    ),
    (
        "arterial",
        _words(r"art(?:erial|eriel\w*|ériel\w*|erieel|eria|eriosa)?|angio\w*|cta|hap|bolus ?phase|動脈\w*|动脉\w*"),
    ),
    (
        "delayed",
        _words(
            r"late|del(?:ayed)?|delay|spät\w*|spaet\w*|tardiv?[eoaf]?|equil\w*|excret\w*|nephrogr\w*|uro\w*graph\w*|平衡\w*|延迟\w*|遅延"
        ),
    ),
    (
        "non-contrast",
        _words(
            r"non[- _]?con(?:trast)?|nc|ncct|nativ\w*|blanco|without(?: contrast)?|w/?o(?: ?contrast)?|ohne(?: km)?|"
            r"sans(?: inj\w*)?|unenhanced|plain|pre[- _]?(?:contrast|km|inj\w*)|pre|simple|単純|平扫"
        ),
    ),
)
STATED_SECONDS = re.compile(r"(?<!\d)(\d{2,3})\s?s(?:ec(?:onds?|s)?|ek)?(?![^\W\d_])", re.IGNORECASE)
PHASE_SECONDS: tuple[tuple[str, float, float], ...] = (
    ("arterial", 15, 45),
    ("portal-venous", 55, 100),
    ("delayed", 150, 900),
)
"""Seconds after the start of the injection; what lies between belongs to nobody."""

# Kinds of image that are not what was acquired, by what the series calls itself
# Siemens glues CALC_BVAL to the name before it, so this one pattern is not anchored
COMPUTED = re.compile(
    r"calc(?:ulated)?[ _-]?b[ _-]?val|(?<![^\W\d_])(?:calc|computed|comp ?dwi|cdwi|edwi|syn(?:thetic|thetisch\w*|dwi)?|"
    r"extrapol\w*)(?![^\W\d_])",
    re.IGNORECASE,
)
KINDS: tuple[tuple[str, str, re.Pattern[str]], ...] = (
    (
        "localizer",
        "a localizer",
        _words(
            r"locali[sz]er\w*|loc|lok\w{0,3}|\w*scouts?|surveys?|topogram\w*|scanogram\w*|surview|"
            r"3[ -]?plane|pilot|rep[eé]rage|plan ?scan|定位\w*"
        ),
    ),
    ("adc", "a map of the apparent diffusion coefficient", _words(r"d?adc\w*|apparent diff\w*|dapp")),
    ("eadc", "an exponential ADC map", _words(r"e[- _]?adc|exp\w* (?:apparent|adc)\w*|exponential\w*")),
    ("fa", "a map of fractional anisotropy", _words(r"fa|colfa|fractional aniso\w*")),
    (
        "projection",
        "a projection",
        _words(r"mips?|minips?|projection\w*|3d ?mip|mrcp ?(?:3d ?)?mip|volume ?render\w*|vrt?"),
    ),
    ("subtraction", "a subtraction", _words(r"sub(?:tract\w*|trak\w*)?|differenz\w*")),
    ("perfusion", "a perfusion or functional series", _words(r"perf(?:usion)?\w*|dsc|asl|bold|fmri|cbf|cbv|mtt|ttp")),
    (
        "map",
        "a parameter map",
        _words(
            r"t[12]\*? ?map\w*|r2\*? ?map|ideal ?iq|fat ?frac\w*|ff|pdff|elasto\w*|stiffness|ivim\w*|"
            r"kurtosis|tensor ?map"
        ),
    ),
    ("phase", "phase, real or imaginary values", _words(r"phase ?images?|imaginary")),
    ("reformat", "a reformat", _words(r"mprs?|mpr_\w+|reformat\w*|curved|coronal ?ref\w*")),
    (
        "screenshot",
        "a screenshot",
        _words(r"screen ?(?:shot|save|capture)\w*|snapshots?|dose ?(?:report|info)\w*|patient protocol"),
    ),
    (
        "monitoring",
        "bolus tracking",
        _words(r"(?:pre|test)?-?monitoring|smart ?prep|bolus ?track\w*|sure ?start|care ?bolus|test ?bolus"),
    ),
    ("fluid-suppressed", "an image with fluid suppressed", _words(r"flair|dark[ _-]?fluid")),
    (
        "calibration",
        "a calibration scan",
        _words(r"cal(?:ibration)?|asset(?: ?cal\w*)?|(?:sense|coil)[ _-]?(?:ref|sens)\w*|prescan\w*"),
    ),
    ("fluid-only", "a heavily T2-weighted cholangiogram", _words(r"mrcp\w*|cholangio\w*|hydro\w*")),
)

# The same by the tokens of Image Type and Frame Type, which the Standard and the vendors define
IMAGE_TYPE_KINDS: dict[str, tuple[str, str]] = {
    **dict.fromkeys(("LOCALIZER", "SCOUT", "TOPOGRAM"), ("localizer", "a localizer")),
    **dict.fromkeys(
        ("ADC", "ADC_UNSPECIFIED", "APPARENT_DIFFUSION_COEFFICIENT"),
        ("adc", "a map of the apparent diffusion coefficient"),
    ),
    **dict.fromkeys(("EADC", "EXP_ADC", "EXPONENTIAL_ADC", "ATTENUATION"), ("eadc", "an exponential ADC map")),
    **dict.fromkeys(("FA", "FRACTIONAL_ANISOTROPY", "RELATIVE_ANISOTROPY"), ("fa", "a map of fractional anisotropy")),
    **dict.fromkeys(
        (
            "PROJECTION IMAGE",
            "PROJECTION",
            "MIP",
            "MIN_IP",
            "MAX_IP",
            "MINIP",
            "VOLUME RENDER",
            "VOLUME_RENDER",
            "VRT",
            "CSA 3D EDITOR",
        ),
        ("projection", "a projection or rendering"),
    ),
    **dict.fromkeys(("MPR", "CSA MPR", "CURVED_MPR", "RESAMPLED", "REFORMATTED"), ("reformat", "a reformat")),
    **dict.fromkeys(("SUBTRACTION", "SUBTRACT", "SUB"), ("subtraction", "a subtraction")),
    **dict.fromkeys(
        ("PERFUSION", "ASL", "CBF", "CBV", "RCBF", "RCBV", "MTT", "TTP", "FMRI", "BOLD", "TMAX"),
        ("perfusion", "a perfusion or functional map"),
    ),
    **dict.fromkeys(
        (
            "T1 MAP",
            "T2 MAP",
            "T2_STAR MAP",
            "T1_MAP",
            "T2_MAP",
            "T2*_MAP",
            "R2_MAP",
            "R2_STAR_MAP",
            "R2_STAR",
            "FAT_FRACTION",
            "FF",
            "B0 MAP",
            "VELOCITY",
            "STIFFNESS",
            "TENSOR",
        ),
        ("map", "a parameter map"),
    ),
    **dict.fromkeys(
        ("P", "PHASE", "PHASE MAP", "I", "R", "REAL", "IMAGINARY", "IMAGINERY"),
        ("phase", "phase, real or imaginary values"),
    ),
    **dict.fromkeys(
        ("SCREEN SAVE", "SCREENSHOT", "SCREEN", "DOSE_INFO", "DOSE", "CSA REPORT", "REPORT", "CSAPARALLEL"),
        ("screenshot", "a screenshot or report"),
    ),
    **dict.fromkeys(("FAT", "F", "DIXON_FAT", "FAT_ONLY"), ("fat-only", "the fat image of a Dixon pair")),
    **dict.fromkeys(
        (
            "CALC_BVALUE",
            "CALC_BVAL",
            "CALCULATED_BVALUE",
            "COMPUTED_BVALUE",
            "CALC",
            "CDWI",
            "SYNTHETIC",
            "SYNTHETIC_DWI",
        ),
        ("computed", "a computed b-value, never acquired"),
    ),
    **dict.fromkeys(("MOSAIC", "VFRAME"), ("tiled", "slices tiled into one image by a private layout")),
}
TRACE_TOKENS = frozenset({"TRACEW", "TRACE", "ISOTROPIC", "ISO", "TRACE_W", "TRACEWEIGHTED", "COMBINED_TRACE"})
WATER_TOKENS = frozenset({"WATER", "W", "DIXON_WATER", "WATER_ONLY"})

_FAT_SUPPRESSION = _words(
    r"fs|fat[ _-]?sat\w*|fat[ _-]?sup\w*|spair|spir|stir|chess|tirm|fettges\w*|sat(?:uration)? (?:de )?graisse|"
    r"脂肪抑制|压脂|抑脂"
)
_NO_FAT_SUPPRESSION = _words(r"(?:no|non|without|ohne|sans|w/?o|sin)[ _-]?(?:fs|fat[ _-]?\w*)|nofs|nonfs")

WEIGHTINGS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("t2", _words(r"t2w?i?|haste|sshtse|ssfse")),
    (
        "t1",
        _words(
            r"t1w?i?|vibe|lava|thrive|(?<!e)dixon|ethrive|mdixon|flash|quick3d|starvibe|dyn\w*|"
            r"in[- _]?(?:/|and)?[- _]?(?:out|opp)\w*"
        ),
    ),
    ("dwi", _words(r"dwi|diff\w*|dw|resolve|epi[ _]?dwi|dti|扩散\w*|弥散\w*|拡散\w*")),
    ("pd", _words(r"pdw?i?|proton")),
)
T1_KINDS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("in-phase or opposed-phase", _words(r"in[- _]?phase|opp\w*(?:[- _]?phase)?|out[- _]?of[- _]?phase|ip|op")),
    ("a hepatobiliary phase", _words(r"hbp|hepatobil\w*|20 ?min\w*|primovist|eovist|gadoxet\w*")),
    (
        "a dynamic contrast phase",
        _words(r"dyn\w*|art\w*|portal\w*|pvp?|ven\w*|delayed|post[- _]?(?:gd|km|contrast)|\+ ?c|c\+"),
    ),
)


def regions_in(text: str) -> tuple[str, ...]:
    """Every region that the text names, the liver first."""
    return tuple(region for region, pattern in REGIONS if pattern.search(text))


def regions_of_body_part(value: str) -> tuple[str, ...]:
    """Regions of a Body Part Examined: the words, or the parts that defined terms are glued from."""
    glued = tuple(region for region, parts in BODY_PART_PARTS if any(part in value.upper() for part in parts))
    return glued or regions_in(value)


def phases_in(texts: Iterable[str]) -> tuple[str, ...]:
    """The phases that the first speaking text names. Stated seconds decide over words: "PV 180 s" is a late one."""
    for text in texts:
        if stated := _stated_phase(text):
            return (stated,)
        if named := tuple(phase for phase, pattern in PHASES if pattern.search(text)):
            return named
    return ()


def _stated_phase(text: str) -> str | None:
    for match in STATED_SECONDS.finditer(text):
        if phase := phase_after(float(match.group(1))):
            return phase
    return None


def phase_after(seconds: float) -> str | None:
    """The phase so many seconds after the start of the injection; None between the windows."""
    return next((phase for phase, low, high in PHASE_SECONDS if low <= seconds <= high), None)


def fat_suppression_in(text: str) -> bool | None:
    """What the words say of fat suppression; None when they say nothing."""
    if _NO_FAT_SUPPRESSION.search(text):
        return False
    return True if _FAT_SUPPRESSION.search(text) else None


def first_named(text: str, table: Iterable[tuple[str, re.Pattern[str]]]) -> str | None:
    """The first entry of the table whose words stand in the text."""
    return next((name for name, pattern in table if pattern.search(text)), None)
