"""What an MR volume is weighted for and whether its fat is suppressed, by what the scanner did, words last."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from node.dicom.header import FrameHeader
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
    UNTOLD,
    Sign,
)
from node.evidence_kind import series_texts, text_of
from node.evidence_slices import LOWEST_WEIGHTED_B, first_number, image_type_of, is_gradient_echo
from node.evidence_split import Part
from node.evidence_vendors import GE_SEQUENCE, PHILIPS_SPIR, PHILIPS_TECHNIQUE, PrivateReader
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
MAX_T1_ECHO_MS = 15.0
MAX_T1_SPIN_ECHO_MS, MAX_T1_SPIN_REPETITION_MS = 30.0, 1200.0
MAX_T1_3D_REPETITION_MS, MAX_T1_2D_REPETITION_MS, MIN_T1_2D_FLIP_DEGREES = 50.0, 400.0, 40.0
T1_INVERSION_MS = (400.0, 1500.0)
_SPIN_ECHO_NAMES = re.compile(r"tse|fse|haste|fase|^\*?h2d|^\*?tir|ssh|propeller|cube|\bspace|vista", re.IGNORECASE)
_BALANCED = re.compile(r"trufi|tru-?fisp|true-?ss|\*?tfi\d|fiesta|b-?tfe|b-?ffe|bssfp|truesf|balanced", re.IGNORECASE)
_KIND_IS_WEIGHTING = {"localizer": LOCALIZER, "adc": ADC, "fa": FA, "eadc": OTHER, "perfusion": OTHER, "map": OTHER}


def mr_weighting(
    part: Part, series: Sequence[Part], kinds: tuple[Sign, ...], private: PrivateReader
) -> tuple[str, tuple[Sign, ...]]:
    """One word of `evidence_facts` for what the volume is weighted for, and the signs of it."""
    header = part.slices[0].header
    for kind in ("localizer", "eadc", "adc", "fa", "perfusion", "map"):
        if against := _telling(kind, kinds, header):
            return _KIND_IS_WEIGHTING[kind], against
    if part.b is not None:
        return _diffusion_weighting(part, series, kinds)
    return _relaxation_weighting(header, private)


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


def _relaxation_weighting(header: FrameHeader, private: PrivateReader) -> tuple[str, tuple[Sign, ...]]:
    echo_ms = first_number(header, "EffectiveEchoTime", "EchoTime")
    family = _family(header, private)
    told = (
        f"{_FAMILY_NAMES[family]}, TE {echo_ms:.4g} ms"
        if echo_ms is not None
        else f"{_FAMILY_NAMES[family]}, TE not told"
    )
    repetition_ms = first_number(header, "RepetitionTime")
    inversion_ms = first_number(header, "InversionTimes", "InversionTime") or 0.0
    if family == "spin-echo" and echo_ms is not None and echo_ms >= MIN_T2_ECHO_MS:
        return T2, (Sign(T2, told, "(0018,0081)"),)
    if _is_t1(header, family, echo_ms, repetition_ms, inversion_ms):
        kind = next((name for words, _ in series_texts(header) if (name := first_named(words, T1_KINDS))), "")
        return T1, (Sign(T1, told + (f", {kind}" if kind else ""), "(0018,0081)"),)
    is_told = family != "unknown" and echo_ms is not None
    return OTHER, (Sign(OTHER if is_told else UNTOLD, told, "(0018,0020)"),)


_FAMILY_NAMES = {
    "spin-echo": "spin echo",
    "gradient-echo": "gradient echo",
    "echo-planar": "echo-planar without diffusion weighting",
    "functional": "an echo-planar gradient echo, as for functional and perfusion imaging",
    "balanced": "balanced steady state",
    "unknown": "an untold kind of sequence",
}


def _family(header: FrameHeader, private: PrivateReader) -> str:
    """Spin echo or not, by Scanning Sequence, Echo Pulse Sequence, and the sequence's name where they are silent.

    GE's PROPELLER says "research mode" in Scanning Sequence and its name in a private element only.
    """
    sequence = text_of(header, "ScanningSequence").upper().split("\\")
    name = " ".join(
        filter(None, (text_of(header, "SequenceName"), text_of(header, "PulseSequenceName"), _private_name(private)))
    )
    pulse = text_of(header, "EchoPulseSequence").upper()
    if (
        "EP" in sequence
        or text_of(header, "EchoPlanarPulseSequence").upper() == "YES"
        or name.lower().startswith(("*ep", "ep"))
    ):
        return "functional" if is_gradient_echo(header) else "echo-planar"
    is_balanced = _BALANCED.search(name) or any(_BALANCED.search(words) for words, _ in series_texts(header))
    if ("SE" not in sequence and is_balanced) or text_of(header, "SteadyStatePulseSequence").upper() in (
        "FREE_PRECESSION",
        "TRANSVERSE",
    ):
        return "balanced"
    if "GR" in sequence or pulse == "GRADIENT":
        return "gradient-echo"
    if "SE" in sequence or "IR" in sequence or pulse == "SPIN" or _SPIN_ECHO_NAMES.search(name):
        return "spin-echo"
    return "unknown"


def _private_name(private: PrivateReader) -> str:
    """The sequence by the vendor's own name: GE's pulse sequence, Philips' scanning technique."""
    return private.text(GE_SEQUENCE) or private.text(PHILIPS_TECHNIQUE)


def _is_t1(
    header: FrameHeader, family: str, echo_ms: float | None, repetition_ms: float | None, inversion_ms: float
) -> bool:
    words = next((name for text, _ in series_texts(header) if (name := first_named(text, WEIGHTINGS))), None)
    if echo_ms is None or repetition_ms is None:
        return False
    if family == "spin-echo":
        return echo_ms <= MAX_T1_SPIN_ECHO_MS and repetition_ms <= MAX_T1_SPIN_REPETITION_MS
    if family != "gradient-echo" or echo_ms > MAX_T1_ECHO_MS or words in ("pd", "t2", "dwi"):
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
