"""What words in headers mean, as tables: kinds of image, fat suppression, weighting (regions and phases beside it).

Words are the weakest evidence, for people write them: every pattern is anchored to whole words (a bare /fs/ takes
GE's FRFSE for fat suppression, a bare /art/ vetoes "partial"), an underscore or a digit ends a word as a space
does, and the languages of sites that name their protocols in their own are there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from node.evidence_facts import UNSURE

_UNSPACED = r"\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
"""Chinese, Japanese and Korean characters: 上腹部门脉期 is written in one, and so is 복부CT."""
LETTER = rf"[^\W\d_{_UNSPACED}]"
"""A letter of a script that sets spaces between words."""


def whole_words(pattern: str) -> re.Pattern[str]:
    """Whole words of any language; digits, underscores and East Asian characters separate."""
    start, end = rf"(?:(?<!{LETTER})|(?=[{_UNSPACED}]))", rf"(?:(?!{LETTER})|(?<=[{_UNSPACED}]))"
    return re.compile(f"{start}(?:{pattern}){end}", re.IGNORECASE)


# Kinds of image that are not what was acquired, by what the series calls itself
# Siemens glues CALC_BVAL to the name before it, so this one pattern is not anchored
COMPUTED = re.compile(
    r"calc(?:ulated)?[ _-]?b[ _-]?val|(?<![^\W\d_])(?:calc\w*|computed|comp ?dwi|cdwi|berechn\w*|virtual b|"
    r"syn(?:thetic|thetisch\w*|dwi)?|extrapol\w*)(?![^\W\d_])",
    re.IGNORECASE,
)
Kind = tuple[str, str, re.Pattern[str]]
_KINDS: tuple[Kind, ...] = (
    (
        "localizer",
        "a localizer",
        whole_words(
            r"lo[ck]ali[sz]\w*|loc|lok\w{0,3}|\w*scouts?|surveys?|topo|topogram\w*|scanogra\w*|scanoscop\w*|surview|"
            r"3[ -]?plane|pilot|rep[eé]rage|plan ?scan|定位|位置決め"
        ),
    ),
    (
        "projection",
        "a projection",
        whole_words(r"mips?|minips?|projection\w*|3d ?mip|mrcp ?(?:3d ?)?mip|volume ?render\w*|vrt?"),
    ),
    ("subtraction", "a subtraction", whole_words(r"sub(?:tract\w*|trak\w*)?|differenz\w*")),
    (
        "perfusion",
        "a perfusion or functional series",
        whole_words(r"perf(?:usion)?\w*|dsc|asl|bold|fmri|cbf|cbv|mtt|ttp"),
    ),
    ("reformat", "a reformat", whole_words(r"mprs?|mpr_\w+|reformat\w*|curved|coronal ?ref\w*")),
    (
        "screenshot",
        "a screenshot",
        whole_words(r"screen ?(?:shot|save|capture)\w*|snapshots?|dose ?(?:report|info)\w*|dosis\w*|patient protocol"),
    ),
    (
        UNSURE,
        "an intervention: needles, and a liver that is treated",
        whole_words(r"biops\w*|intervent\w*|ablat\w*|punktion\w*|ponction\w*|puncture|drainage\w*|rfa|mwa|needle"),
    ),
    (UNSURE, "a fused or coloured image", whole_words(r"fused|fusion\w*|fusioniert\w*|colou?r\w*|farb\w*")),
)
_CT_KINDS: tuple[Kind, ...] = (
    (
        "monitoring",
        "bolus tracking",
        whole_words(
            r"(?:pre|test)?-?monitoring|smart ?prep|bolus ?track\w*|sure ?start|care ?bolus|test ?bolus|locator|tracker"
        ),
    ),
    (
        "material",
        "a map of one material, or an image with one taken out, and no attenuation as measured",
        whole_words(
            r"vnc|vue|virt\w*[ _-]?(?:non|nativ|un)\w*|iod(?:ine|e|io|o)|jod\w*|yodo|z ?eff\w*|eff\w* ?(?:z|atomic\w*)|"
            r"rho/?z|(?:electron|e)[ _-]?density|overlay|pbv|md|water(?= ?\()|fat ?map|"
            r"ca(?:lcium)?[ _-]?supp?\w*|碘|ヨード"
        ),
    ),
    (
        UNSURE,
        "a virtual monoenergetic image: its contrast is not that of the tube's voltage",
        whole_words(r"mono(?:e\w*|chrom\w*|\+|plus)?|vmi|\d{2,3} ?kev"),
    ),
    # 100 and 120 kV alone are customary of one tube; 80, 140 and a tin filter are a half of dual energy
    (
        UNSURE,
        "the image of one tube of a dual-energy CT: its contrast is not that of the mixed image",
        whole_words(r"[ab][_ ](?:sn ?)?\d{2,3} ?kvp?|sn ?1[0-5]0(?: ?kvp?)?|(?<!\d)(?:70|80|90|140|150) ?kvp?"),
    ),
    (
        UNSURE,
        "a CT for attenuation correction: of a low dose, and breathing freely",
        whole_words(r"ct[ _-]?ac|ac[ _-]?ct|attenuation[ _-]?corr\w*|schwächungskorr\w*"),
    ),
)
_MR_KINDS: tuple[Kind, ...] = (
    ("adc", "a map of the apparent diffusion coefficient", whole_words(r"d?adc\w*|apparent diff\w*|dapp")),
    ("eadc", "an exponential ADC map", whole_words(r"e[- _]?adc|exp\w* (?:apparent|adc)\w*|exponential\w*")),
    ("fa", "a map of fractional anisotropy", whole_words(r"fa(?! ?\d)|colfa|fractional aniso\w*")),
    (
        "map",
        "a parameter map",
        whole_words(
            r"t[12]\*? ?map\w*|r2\*? ?map|ideal ?iq|fat ?frac\w*|ff|pdff|elasto\w*|stiffness|ivim\w*|"
            r"kurtosis|tensor ?map"
        ),
    ),
    ("phase", "phase, real or imaginary values", whole_words(r"phase ?images?|imaginary")),
    ("fluid-suppressed", "an image with fluid suppressed", whole_words(r"flair|dark[ _-]?fluid")),
    (
        "calibration",
        "a calibration scan",
        whole_words(r"cal(?:ibration)?|asset(?: ?cal\w*)?|(?:sense|coil)[ _-]?(?:ref|sens)\w*|prescan\w*"),
    ),
    ("fluid-only", "a heavily T2-weighted cholangiogram", whole_words(r"mrcp\w*|cholangio\w*|hydro\w*")),
    # GE sets the name before a colon ("FAT: Ax T2 Flex"), Siemens a letter at the end ("t2_tse_dixon_tra_F")
    (
        "fat-only",
        "the fat image of a Dixon pair",
        whole_words(r"fat(?=\s?:)|fat[ _-]?only|\w*dixon\w*_f(?:at)?(?=$)|(?:ideal|flex)[ _]f(?:at)?(?=$)"),
    ),
    (UNSURE, "an image of inverted greys", whole_words(r"invert\w*|invers(?:e|é|ée)?")),
    (UNSURE, "eDWI, which GE acquires and others compute", whole_words(r"edwi")),
)
MIXED_TUBES = whole_words(r"[mf]_?0\.\d+|mix(?:ed)?|gemischt|blended")
"""What a dual-energy series calls the mean of its two tubes: Siemens writes the share of the lower voltage, M_0.6."""
KINDS: dict[str, tuple[Kind, ...]] = {"CT": (*_KINDS, *_CT_KINDS), "MR": (*_KINDS, *_MR_KINDS)}
"""Modality → kinds: "hydro" is a cholangiogram in MR and water drunk before a CT."""
HOUNSFIELD_UNITS = re.compile(r"hu|h\.?u\.?|hounsfield\w*(?: units?)?|us|unspecified", re.IGNORECASE)
"""Rescale Types of CT (PS3.3 C.11.1.1.2) that may be Hounsfield units: what is unspecified names no other unit."""
DIFFUSION_UNITS = re.compile(r"[mµμu]m\^?2\s*(?:/|\*)?\s*s", re.IGNORECASE)
"""mm²/s and µm²/s as vendors write them, whatever power of ten stands before."""

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
    **dict.fromkeys(
        ("MPR", "CSA MPR", "CSAPARALLEL", "CURVED_MPR", "RESAMPLED", "REFORMATTED"), ("reformat", "a reformat")
    ),
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
        ("SCREEN SAVE", "SCREENSHOT", "SCREEN", "DOSE_INFO", "DOSE", "CSA REPORT", "REPORT"),
        ("screenshot", "a screenshot or report"),
    ),
    **dict.fromkeys(
        (
            "MAT_SPECIFIC",
            "MAT_REMOVED",
            "MAT_FRACTIONAL",
            "MAT_MODIFIED",
            "MAT_VALUE_BASED",
            "EFF_ATOMIC_NUM",
            "ELECTRON_DENSITY",
        ),
        ("material", "a map of one material, or an image with one taken out, and no attenuation as measured"),
    ),
    "VMI": (UNSURE, "a virtual monoenergetic image: its contrast is not that of the tube's voltage"),
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
IN_OR_OPPOSED_TOKENS = frozenset({"IN_PHASE", "IP", "OUT_PHASE", "OPP_PHASE", "OPPOSED_PHASE", "OP"})

_FAT_SUPPRESSION = whole_words(
    r"fs|fat[ _-]?sat\w*|fat[ _-]?sup\w*|spair|aspir|spir|stir|chess|tirm|fett(?:ges|supp|unter)\w*|vetond\w*|"
    r"(?:sat\w*|supr?\w*|sopp?r\w*)\.? ?(?:de |del? |della )?(?:graisse|gras\w*|gordura)|water(?=\s?:)|water[ _-]?only|"
    r"\w*dixon\w*_w(?:ater)?(?=$)|脂肪抑制|压脂|抑脂|지방 ?억제"
)
_NO_FAT_SUPPRESSION = whole_words(
    r"(?:no|non|without|ohne|sans|w/?o|sin|sem|senza|zonder|bez)[ _-]?(?:fs|fat[ _-]?\w*)|nofs|nonfs"
)

DIFFUSION_WORDS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("dwi", whole_words(r"\w?dwi\w*|\w*diff\w*|dw|resolve|trace\w*|epi[ _]?dwi|dti|扩散|弥散|拡散|확산")),
)
WEIGHTINGS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("t2", whole_words(r"t2w?i?|haste|sshtse|ssfse")),
    (
        "t1",
        whole_words(
            r"t1w?i?|vibe|lava|thrive|(?<!e)dixon|ethrive|mdixon|flash|quick3d|starvibe|dyn\w*|"
            r"in[- _]?(?:/|and)?[- _]?(?:out|opp)\w*"
        ),
    ),
    *DIFFUSION_WORDS,
    ("pd", whole_words(r"pdw?i?|proton")),
)
T1_KINDS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("in-phase or opposed-phase", whole_words(r"in[- _]?phase|opp\w*(?:[- _]?phase)?|out[- _]?of[- _]?phase|ip|op")),
    (
        "a hepatobiliary phase",
        whole_words(r"hbp|h[eé]pato?-?bil\w*|hepatospez\w*|20 ?min\w*|primovist|eovist|gadoxet\w*|肝胆\w*|肝細胞\w*"),
    ),
    (
        "a dynamic contrast phase",
        whole_words(
            r"dyn\w*|art\w*|port\w*|pvp?|ven\w*|delayed|late|spät\w*|tard\w*|post[- _]?(?:gd|km|contrast)|\+ ?c|c\+"
        ),
    ),
)


def fat_suppression_in(text: str) -> bool | None:
    """What the words say of fat suppression; None when they say nothing."""
    if _NO_FAT_SUPPRESSION.search(text):
        return False
    return True if _FAT_SUPPRESSION.search(text) else None


def first_named(text: str, table: Iterable[tuple[str, re.Pattern[str]]]) -> str | None:
    """The first entry of the table whose words stand in the text."""
    return next((name for name, pattern in table if pattern.search(text)), None)
