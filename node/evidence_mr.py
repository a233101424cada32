"""What an MR volume is weighted for and whether its fat is suppressed, by what the scanner did, words last."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from node.dicom.header import FrameHeader
from node.evidence_diffusion import is_gradient_echo
from node.evidence_facts import (
    ADC,
    DIRECTIONAL,
    DWI,
    DWI_COMPUTED,
    DWI_TRACE,
    FA,
    ISOTROPIC,
    LOCALIZER,
    OTHER,
    T1,
    T2,
    UNSURE,
    UNTOLD,
    Sign,
)
from node.evidence_sequence import (
    ECHO_PLANAR,
    GRADIENT_ECHO,
    SPIN_ECHO,
    UNKNOWN,
    diffusion_places,
    family_signs,
    sequence_family,
    spin_echo_doubts,
)
from node.evidence_slices import first_number
from node.evidence_split import Part
from node.evidence_texts import image_type_of, series_texts, text_of
from node.evidence_vendors import LOWEST_WEIGHTED_B, PHILIPS_SPIR, PrivateReader
from node.evidence_words import (
    IN_OR_OPPOSED_TOKENS,
    T1_KINDS,
    WATER_TOKENS,
    WEIGHTINGS,
    fat_suppression_in,
    first_named,
)

FAT_SUPPRESSION_OPTIONS = frozenset(
    {"FS", "SFS", "FATSAT", "FAT_SAT", "FAT SAT", "FATSUP", "SPIR", "SPAIR", "SPECIAL", "ASPIR", "WE"}
)
"""Spectral saturation under the vendors' names, and excitation of water alone. SAT_GEMS saturates space, not fat."""
STIR_INVERSION_MS = (120.0, 250.0)
"""The null of fat between 0.5 and 3 T."""
MIN_T2_ECHO_MS = 60.0
SAME_ECHO_MS = 1.0
_ECHO_TIMES = ("EffectiveEchoTime", "EchoTime")
MAX_T1_ECHO_MS = 15.0
MAX_T1_SPIN_ECHO_MS, MAX_T1_SPIN_REPETITION_MS = 30.0, 1200.0
MAX_T1_3D_REPETITION_MS, MAX_T1_2D_REPETITION_MS, MIN_T1_2D_FLIP_DEGREES = 50.0, 400.0, 40.0
T1_INVERSION_MS = (400.0, 1500.0)
_KIND_IS_WEIGHTING = {"localizer": LOCALIZER, "adc": ADC, "fa": FA, "eadc": OTHER, "perfusion": OTHER, "map": OTHER}


def mr_weighting(
    part: Part, series: Sequence[Part], kinds: tuple[Sign, ...], private: PrivateReader
) -> tuple[str, tuple[Sign, ...]]:
    """One word of `evidence_facts` for what the volume is weighted for, and the signs of it."""
    header = part.slices[0].header
    for kind in ("localizer", "eadc", "adc", "fa", "perfusion", "map"):
        if against := _telling(kind, kinds, header):
            return _KIND_IS_WEIGHTING[kind], against
    if part.b is None:
        return _relaxation_weighting(header, private)
    if where := _only_place_of_diffusion(part, series, private):
        weighting, signs = _relaxation_weighting(header, private, frozenset({where}))
        if weighting == T2:
            what = f"b = {part.b.value:.0f} s/mm², and nothing else of diffusion in a turbo spin echo"
            return T2, (*signs, Sign(UNSURE, what, where))
    return _diffusion_weighting(part, series, kinds)


def _only_place_of_diffusion(part: Part, series: Sequence[Part], private: PrivateReader) -> str | None:
    """Where the b-value stands, if a single place of a series with a single b-value tells of diffusion at all."""
    places = {part.b.where} if part.b else set()
    places |= {sign.where for sign in part.direction_signs}
    places |= diffusion_places(private.header, part.slices[0].image_type, private)
    is_single = len({other.b.value for other in series if other.b}) == 1
    return places.pop() if is_single and len(places) == 1 else None


def _telling(kind: str, kinds: tuple[Sign, ...], header: FrameHeader) -> tuple[Sign, ...]:
    """The signs of that kind, if they suffice. Words alone do not make a map of an image that was acquired."""
    signs = tuple(sign for sign in kinds if sign.says == kind)
    is_original = image_type_of(header)[:2] == ("ORIGINAL", "PRIMARY")
    by_words = all(sign.by == "text" for sign in signs)
    return () if by_words and is_original and kind != "localizer" else signs


def _diffusion_weighting(part: Part, series: Sequence[Part], kinds: tuple[Sign, ...]) -> tuple[str, tuple[Sign, ...]]:
    if computed := tuple(sign for sign in kinds if sign.says == "computed"):
        return DWI_COMPUTED, computed
    b = part.b.value if part.b else 0.0
    where = part.b.where if part.b else ""
    signs = (Sign(DWI, "diffusion-weighted", where),)
    # b = 0 has no direction of its own and belongs to what it was acquired with
    asked = [part] if b >= LOWEST_WEIGHTED_B else [other for other in series if other.b]
    return (DWI_TRACE if any(other.directionality == ISOTROPIC for other in asked) else DWI), signs


def weighted_directionality(part: Part, series: Sequence[Part]) -> tuple[str, tuple[Sign, ...]]:
    """The part's directionality; zeros for a vector mean a trace only where siblings at the same b have directions."""
    if part.directionality in (ISOTROPIC, DIRECTIONAL) or part.b is None or part.b.value < LOWEST_WEIGHTED_B:
        return part.directionality, part.direction_signs
    same_b = [other for other in series if other is not part and other.b and other.b.value == part.b.value]
    told = part.slices[0].header.numbers("DiffusionGradientOrientation")
    if told and not any(told) and same_b and all(other.directionality == DIRECTIONAL for other in same_b):
        sign = Sign(ISOTROPIC, "no direction beside single directions of the same b-value: the trace", "(0018,9089)")
        return ISOTROPIC, (*part.direction_signs, sign)
    return part.directionality, part.direction_signs


def _relaxation_weighting(
    header: FrameHeader, private: PrivateReader, untrusted: frozenset[str] = frozenset()
) -> tuple[str, tuple[Sign, ...]]:
    """What the sequence is weighted for without regard to a b-value; `untrusted` places are no word of diffusion."""
    echo_ms, _ = echo_time(header)
    signs = (*family_signs(header, private),)
    family, doubts = sequence_family(signs), spin_echo_doubts(signs)
    echo_told = "TE not told" if echo_ms is None else f"TE {echo_ms:.4g} ms"
    if doubts is not None and echo_ms is not None and echo_ms >= MIN_T2_ECHO_MS:
        of_diffusion = diffusion_places(header, image_type_of(header, private), private) - untrusted
        if len(of_diffusion) > 1:
            return OTHER, (Sign(OTHER, "diffusion is told, and no b-value", min(of_diffusion)),)
        return T2, (Sign(T2, f"{SPIN_ECHO}, {echo_told}", "(0018,0081)"), *doubts, *_t2_doubts(header, of_diffusion))
    told = f"{_family_name(family, header)}, {echo_told}"
    if _is_t1(header, family, echo_ms):
        kind = next((name for words, _ in series_texts(header) if (name := first_named(words, T1_KINDS))), "")
        return T1, (Sign(T1, told + (f", {kind}" if kind else ""), "(0018,0081)"),)
    is_told = family != UNKNOWN and echo_ms is not None
    return OTHER, (Sign(OTHER if is_told else UNTOLD, told, "(0018,0020)"),)


def _t2_doubts(header: FrameHeader, of_diffusion: frozenset[str]) -> Iterator[Sign]:
    """What else a long echo of a spin echo may be: of diffusion without its b-value, or with fluid suppressed."""
    for where in of_diffusion:
        yield Sign(UNSURE, "diffusion is told, and no b-value", where)
    if echo_time(header)[1]:
        yield Sign(UNSURE, "two echo times are told", "(0018,9082)")
    if not text_of(header, "ScanningSequence") and not text_of(header, "InversionRecovery"):
        yield Sign(UNSURE, "not told whether an inversion suppresses fluid", "(0018,9009)")


def echo_time(header: FrameHeader) -> tuple[float | None, bool]:
    """The longest echo time that is told, in ms, and whether two are, one of them under its multi-frame name."""
    told = [number for keyword in _ECHO_TIMES if (number := first_number(header, keyword)) is not None]
    return max(told, default=None), bool(told) and max(told) - min(told) > SAME_ECHO_MS


def _family_name(family: str, header: FrameHeader) -> str:
    if family != ECHO_PLANAR:
        return family
    if is_gradient_echo(header):
        return "an echo-planar gradient echo, as for functional and perfusion imaging"
    return "echo-planar without diffusion weighting"


def _is_t1(header: FrameHeader, family: str, echo_ms: float | None) -> bool:
    repetition_ms = first_number(header, "RepetitionTime")
    inversion_ms = first_number(header, "InversionTimes", "InversionTime") or 0.0
    words = next((name for text, _ in series_texts(header) if (name := first_named(text, WEIGHTINGS))), None)
    if echo_ms is None or repetition_ms is None:
        return False
    if family == SPIN_ECHO:
        return echo_ms <= MAX_T1_SPIN_ECHO_MS and repetition_ms <= MAX_T1_SPIN_REPETITION_MS
    if family != GRADIENT_ECHO or echo_ms > MAX_T1_ECHO_MS or words in ("pd", "t2", "dwi"):
        return False
    if T1_INVERSION_MS[0] <= inversion_ms <= T1_INVERSION_MS[1] or words == "t1":
        return True
    flip = first_number(header, "FlipAngle") or 0.0
    is_3d = text_of(header, "MRAcquisitionType").upper() == "3D"
    limit_ms = MAX_T1_3D_REPETITION_MS if is_3d or flip < MIN_T1_2D_FLIP_DEGREES else MAX_T1_2D_REPETITION_MS
    return repetition_ms <= limit_ms


def fat_suppression(header: FrameHeader, private: PrivateReader) -> tuple[bool | None, tuple[Sign, ...]]:
    """True or False where all signs agree, None where they differ or there are none, with the signs ("yes" / "no")."""
    signs = (*_fat_by_tags(header, private), *_fat_by_words(header))
    told = {sign.says == "yes" for sign in signs}
    return (told.pop() if len(told) == 1 else None), signs


def _fat_by_tags(header: FrameHeader, private: PrivateReader) -> Iterator[Sign]:
    options = header.get("ScanOptions")
    tokens = {str(o).strip().upper() for o in ([options] if isinstance(options, str) else options or ())}
    is_found = False
    for says, what, where in (
        (tokens & FAT_SUPPRESSION_OPTIONS, "Scan Options tell fat suppression", "(0018,0022)"),
        (
            text_of(header, "SpectrallySelectedSuppression").upper() in ("FAT", "FAT_AND_WATER", "SILICON_GEL_AND_FAT"),
            "fat is suppressed spectrally",
            "(0018,9025)",
        ),
        (private.text(PHILIPS_SPIR).upper().startswith("Y"), "SPIR is on", str(PHILIPS_SPIR)),
        (_is_stir(header), "the inversion time nulls fat", "(0018,0082)"),
        (WATER_TOKENS & set(image_type_of(header)), "the water image of a Dixon pair", "(0008,0008)"),
    ):
        if says:
            is_found = True
            yield Sign("yes", what, where)
    if IN_OR_OPPOSED_TOKENS & set(image_type_of(header)):
        yield Sign("no", "the in-phase or opposed-phase image of a Dixon set: its fat shines", "(0008,0008)")
    elif not is_found and (tokens or "ScanOptions" in header.root):
        yield Sign("no", "Scan Options tell no fat suppression", "(0018,0022)")
    elif not is_found and text_of(header, "SpectrallySelectedSuppression"):
        yield Sign("no", "no spectral suppression of fat", "(0018,9025)")


def _is_stir(header: FrameHeader) -> bool:
    inversion_ms = first_number(header, "InversionTimes", "InversionTime") or 0.0
    return STIR_INVERSION_MS[0] <= inversion_ms <= STIR_INVERSION_MS[1]


def _fat_by_words(header: FrameHeader) -> Iterator[Sign]:
    for words, where in series_texts(header):
        told = fat_suppression_in(words)
        if told is not None:
            what = "the series' words tell fat suppression" if told else "the series' words deny fat suppression"
            yield Sign("yes" if told else "no", what, where, by="text")
            return
