"""What kind of image a volume is: an acquired one, or a map, a localizer, a projection.

Image Type and the series' own description are both asked to speak for a volume, and either can speak against it:
so that a missing one leaves a question and never an acceptance. What a header need not tell at all (a unit, a
derivation, annotation in the pixels) speaks against it, too; alone against both it asks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from node.dicom.header import FrameHeader, text, value
from node.evidence_diffusion import is_gradient_echo
from node.evidence_facts import IMAGE_TYPE_PLACES, ISOTROPIC, SOUND, UNSURE, Sign
from node.evidence_sequence import diffusion_places
from node.evidence_split import Part
from node.evidence_texts import image_types, text_of
from node.evidence_vendors import GE_ANISOTROPY, GE_IMAGE_KIND, SIEMENS_SEQUENCE_NAME, PrivateReader
from node.evidence_words import (
    COMPUTED,
    DIFFUSION_UNITS,
    HOUNSFIELD_UNITS,
    IMAGE_TYPE_KINDS,
    KINDS,
    MIXED_TUBES,
    TRACE_TOKENS,
    WATER_TOKENS,
)

STORAGE = "1.2.840.10008.5.1.4.1.1."
IMAGE_CLASSES: dict[str, str] = {
    STORAGE + "2": "CT",
    STORAGE + "2.1": "CT",
    STORAGE + "2.2": "CT",
    STORAGE + "4": "MR",
    STORAGE + "4.1": "MR",
    STORAGE + "4.4": "MR",
}
"""SOP classes that may hold slices of a patient: classic, enhanced, legacy-converted."""
_PICTURES = ("1", "3", "6", "7", "12", "20", "77", "128", "130", "481.1")


def is_other_picture(sop_class_uid: str) -> bool:
    """A picture, though none of ours: radiograph, ultrasound, secondary capture, nuclear medicine, photograph, PET."""
    return any(f"{sop_class_uid}.".startswith(f"{STORAGE}{root}.") for root in _PICTURES)


_GREY = frozenset({"MONOCHROME1", "MONOCHROME2"})
MAX_LOCALIZER_SLICES = 10
MIN_FLUID_NULL_MS = 1500.0
HIGHEST_HU_OF_AIR = -500.0
"""Air lies at -1000 HU by definition; a little is left for images that were cut off near it."""
_CALCULATED = frozenset({"MAX_IP", "MIN_IP", "VOLUME_RENDER", "SURFACE_RENDER", "MPR", "CURVED_MPR"})
"""Volume Based Calculation Technique (0008,9207) of what was acquired otherwise."""
_DESCRIPTION = "(0008,103E)"
_ASKED_WHEN_MISSING = frozenset({_DESCRIPTION, "(0020,0037)", "(0018,0082)"})
"""Places whose loss leaves a question of its own, or refuses: what they say stands."""


def kind_signs(part: Part, series: Sequence[Part], private: PrivateReader) -> tuple[Sign, ...]:
    """Signs that say `SOUND`, or what else the volume is. `private` reads the volume's first slice."""
    header = private.header
    modality = IMAGE_CLASSES[text(header.root, "SOPClassUID")]
    signs = [
        *(sign for told, where in image_types(header, private) for sign in _by_image_type(told, where, part, modality)),
        *_by_description(header, modality),
        *(_by_ct_tags(header, part.slices[0].image_type) if modality == "CT" else _by_mr_tags(part, private)),
        *_by_tags(header),
    ]
    if _is_localizer_by_planes(series):
        planes = len({other.slices[0].orientation for other in series})
        what = f"a localizer: {planes} orientations of a few slices each in one series"
        signs.append(Sign("localizer", what, "(0020,0037)", by="geometry"))
    return _with_lone_doubt(signs)


def _with_lone_doubt(signs: Sequence[Sign]) -> tuple[Sign, ...]:
    """What one place alone says, against Image Type and description which both vouch, asks a person.

    A genuine image's header may lack that place: so nothing would be left to ask about without it. By the Standard a
    CT without Rescale Type is in Hounsfield units (PS3.3 C.8.2.1), a trace without Sequence Name a trace.
    """
    sound = {sign.where for sign in signs if sign.says == SOUND}
    against = {sign.where for sign in signs if sign.says not in (SOUND, UNSURE)}
    is_vouched = _DESCRIPTION in sound and not sound.isdisjoint(IMAGE_TYPE_PLACES)
    if len(against) != 1 or against & _ASKED_WHEN_MISSING or not is_vouched:
        return tuple(signs)
    return tuple(
        replace(sign, says=UNSURE, what=f"{sign.what}, which nothing else says") if sign.where in against else sign
        for sign in signs
    )


def _by_image_type(image_type: tuple[str, ...], where: str, part: Part, modality: str) -> Iterator[Sign]:
    bad = [IMAGE_TYPE_KINDS[token] for token in image_type if token in IMAGE_TYPE_KINDS]
    if modality == "CT" and not bad:
        # what a dual-energy image is made of, vendors write into longer values: "CT_SOM7 SPI DUAL VNC"
        bad = [(kind, what) for kind, what, pattern in KINDS["CT"] if any(map(pattern.search, image_type))]
    if not bad and image_type[0] == "DERIVED" and not _is_derivation_told(image_type, part):
        bad = [(UNSURE, "derived from other images, and not told how")]
    for kind, what in bad:
        yield Sign(kind, f"Image Type says: {what}", where)
    if not bad and "MIXED" not in image_type:  # of frames of several kinds, which are told one by one (C.8.16.1)
        yield Sign(SOUND, "Image Type names no map, projection or localizer", where)


def _is_derivation_told(image_type: tuple[str, ...], part: Part) -> bool:
    """As one that makes an image of the kind that was acquired: the trace, water, the mixture of two tubes."""
    told = text_of(part.slices[0].header, "SeriesDescription"), *image_type
    is_trace = part.directionality == ISOTROPIC or not TRACE_TOKENS.isdisjoint(image_type)
    return is_trace or not WATER_TOKENS.isdisjoint(image_type) or any(map(MIXED_TUBES.search, told))


def _by_description(header: FrameHeader, modality: str) -> Iterator[Sign]:
    description = text_of(header, "SeriesDescription")
    bad = [*_kinds_in_words(description, modality)]
    for kind, what in bad:
        yield Sign(kind, f"the series calls itself {what}", _DESCRIPTION, by="text")
    if description and not bad:
        yield Sign(SOUND, "the series' description names no map, projection or localizer", _DESCRIPTION, by="text")
    for kind, what in _kinds_in_words(text_of(header, "DerivationDescription"), modality):
        yield Sign(kind, f"its derivation tells of {what}", "(0008,2111)", by="text")
    protocol = text_of(header, "ProtocolName")
    if any(kind == "localizer" and pattern.search(protocol) for kind, _, pattern in KINDS[modality]):
        yield Sign("localizer", "the protocol is a localizer's", "(0018,1030)", by="text")


def _kinds_in_words(description: str, modality: str) -> Iterator[tuple[str, str]]:
    if modality == "MR" and COMPUTED.search(description):
        yield "computed", "a computed b-value, never acquired"
    for kind, what, pattern in KINDS[modality]:
        if pattern.search(description):
            yield kind, what


def _by_ct_tags(header: FrameHeader, image_type: tuple[str, ...]) -> Iterator[Sign]:
    if (unit := text_of(header, "RescaleType")) and not HOUNSFIELD_UNITS.fullmatch(unit):
        yield Sign("material", f"its values are no Hounsfield units as measured: {unit}", "(0028,1054)")
    if (lowest := _lowest_value(header)) is not None and lowest > HIGHEST_HU_OF_AIR:
        what = f"its stored values end at {lowest:g}: no Hounsfield units, for those of air lie at -1000"
        yield Sign("material", what, "(0028,1052)")
    told = text_of(header, "SeriesDescription"), *image_type
    if any(map(MIXED_TUBES.search, told)):
        return
    if any("DUAL" in token.replace("_", " ").split() for token in image_type):
        yield Sign(UNSURE, "dual energy, and not told to be the mixed image of both tubes", "(0008,0008)")
    if text_of(header, "MultienergyCTAcquisition").upper() == "YES":
        yield Sign(UNSURE, "multi-energy, and not told to be the mixed image of all energies", "(0018,9361)")


def _lowest_value(header: FrameHeader) -> float | None:
    """The lowest value that the pixels can hold, rescaled; None where the header does not tell it."""
    keywords = ("RescaleSlope", "RescaleIntercept", "BitsStored", "PixelRepresentation")
    told = [header.numbers(keyword) for keyword in keywords]
    if not all(told):
        return None
    slope, intercept, bits, is_signed = (numbers[0] for numbers in told)
    return intercept - slope * 2.0 ** (bits - 1) if is_signed else intercept


def _by_mr_tags(part: Part, private: PrivateReader) -> Iterator[Sign]:
    header = private.header
    if DIFFUSION_UNITS.search(text_of(header, "RescaleType")):
        yield Sign("adc", "its values are diffusion coefficients, mm²/s", "(0028,1054)")
    if any(map(DIFFUSION_UNITS.search, _real_world_units(header))):
        yield Sign("adc", "its real-world values are diffusion coefficients, mm²/s", "(0040,9096)")
    if private.numbers(GE_IMAGE_KIND)[:1] == (GE_ANISOTROPY,):
        yield Sign("fa", "a map of fractional anisotropy", str(GE_IMAGE_KIND))
    named = SIEMENS_SEQUENCE_NAME.search(text_of(header, "SequenceName"))
    if named and named["upper"]:
        yield Sign("computed", "the sequence's name tells of an image calculated from several b-values", "(0018,0024)")
    if text_of(header, "ComplexImageComponent").upper() in ("PHASE", "REAL", "IMAGINARY"):
        yield Sign("phase", "phase, real or imaginary values", "(0008,9208)")
    if part.b is not None:
        yield from _by_sequence_of_diffusion(header, part.slices[0].image_type)
    yield from _by_inversion(header)


def _real_world_units(header: FrameHeader) -> Iterator[str]:
    """Codes of the units that a Real World Value Mapping gives (PS3.3 C.7.6.16.2.11), of a frame or of the image."""
    mappings = header.get("RealWorldValueMappingSequence", ())
    coded = [item for mapping in mappings for item in value(mapping, "MeasurementUnitsCodeSequence", ())]
    yield from (text(item, "CodeValue") for item in coded or header.get("MeasurementUnitsCodeSequence", ()))


def _by_sequence_of_diffusion(header: FrameHeader, image_type: tuple[str, ...]) -> Iterator[Sign]:
    """A b-value alone may be a left-over: a spin echo, the contrast, a name or words must tell of diffusion, too."""
    if is_gradient_echo(header):
        yield Sign(UNSURE, "a gradient echo, as for functional and perfusion imaging", "(0018,0020)")
    elif "SE" not in text_of(header, "ScanningSequence").upper() and not diffusion_places(header, image_type):
        what = "a b-value, and nothing else of diffusion: a functional or perfusion series cannot be ruled out"
        yield Sign(UNSURE, what, "(0018,0020)")


def _by_tags(header: FrameHeader) -> Iterator[Sign]:
    yield from _by_colour(header)
    if text_of(header, "BurnedInAnnotation").upper() == "YES":
        yield Sign("screenshot", "annotation is burned into the pixels", "(0028,0301)")
    if text_of(header, "VolumeBasedCalculationTechnique").upper() in _CALCULATED:
        yield Sign("projection", "calculated from a volume: a projection or reformat", "(0008,9207)")
    frames = value(header.root, "NumberOfFrames", 1)
    if header.number is None and isinstance(frames, int) and frames > 1:
        yield Sign("tiled", "several frames without their positions", "(0028,0008)")


def _by_colour(header: FrameHeader) -> Iterator[Sign]:
    """A scanner measures one number per voxel: colours are painted afterwards, over a fusion or a map."""
    samples = value(header.root, "SamplesPerPixel", 1)
    if isinstance(samples, int) and samples > 1:
        yield Sign("colour", f"a colour image: {samples} samples per pixel", "(0028,0002)")
    photometric = text(header.root, "PhotometricInterpretation").strip().upper()
    if photometric and photometric not in _GREY:
        yield Sign("colour", f"a colour image: {photometric}", "(0028,0004)")


def _by_inversion(header: FrameHeader) -> Iterator[Sign]:
    """An inversion that nulls water makes another image of the liver; one that is half told may do so."""
    inversion_ms = max(*header.numbers("InversionTimes"), *header.numbers("InversionTime"), 0.0, 0.0)
    sequence, recovery = (text_of(header, keyword).upper() for keyword in ("ScanningSequence", "InversionRecovery"))
    is_inverted = "IR" in sequence.split("\\") or recovery == "YES"
    if inversion_ms >= MIN_FLUID_NULL_MS and is_inverted:
        yield Sign("fluid-suppressed", f"TI {inversion_ms:.4g} ms: fluid is suppressed", "(0018,0082)")
    elif inversion_ms >= MIN_FLUID_NULL_MS and sequence != "GR":
        yield Sign(UNSURE, f"TI {inversion_ms:.4g} ms, as to suppress fluid, and no inversion", "(0018,0082)")
    elif is_inverted and not inversion_ms:
        yield Sign(UNSURE, "an inversion recovery whose inversion time is not told", "(0018,0082)")


def _is_localizer_by_planes(series: Sequence[Part]) -> bool:
    planes = {part.slices[0].orientation for part in series}
    return len(planes) > 1 and all(len(part.slices) <= MAX_LOCALIZER_SLICES for part in series)
