"""What kind of image a volume is, and of what: an acquired one or a map, a localizer, a projection; which region.

Image Type and the series' own description are both asked to speak for a volume, and either can speak against it:
so that a missing one leaves a question and never an acceptance.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence

from pydicom.dataset import Dataset

from node.dicom.header import FrameHeader, text, value
from node.evidence_facts import SOUND, UNSURE, Sign
from node.evidence_regions import regions_in, regions_of_body_part
from node.evidence_split import Part
from node.evidence_vendors import DIFFUSION_SEQUENCE, SIEMENS_SEQUENCE_NAME
from node.evidence_words import (
    COMPUTED,
    DIFFUSION_WORDS,
    IMAGE_TYPE_KINDS,
    KINDS,
    MATERIAL_UNITS,
    MIXED_TUBES,
    TRACE_TOKENS,
    first_named,
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


SERIES_TEXTS: tuple[tuple[str, str], ...] = (
    ("SeriesDescription", "(0008,103E)"),
    ("ProtocolName", "(0018,1030)"),
    ("AcquisitionProtocolName", "(0018,9423)"),
    ("ImageComments", "(0020,4000)"),
)
"""Where a series speaks of itself. What the study is called says what was ordered, not what this series shows."""
_GREY = frozenset({"MONOCHROME1", "MONOCHROME2"})
MAX_LOCALIZER_SLICES = 10
MIN_FLUID_NULL_MS = 1500.0


def series_texts(header: FrameHeader) -> Iterator[tuple[str, str]]:
    """(text, where) of each place in which the series speaks of itself."""
    for keyword, where in SERIES_TEXTS:
        if found := text_of(header, keyword):
            yield found, where


def text_of(header: FrameHeader, keyword: str) -> str:
    """An attribute of the slice as text, "" where absent; full-width letters and split accents made plain."""
    found = header.get(keyword, "")
    joined = "\\".join(map(str, found)) if isinstance(found, Sequence) and not isinstance(found, str) else str(found)
    return unicodedata.normalize("NFKC", joined).strip()


def kind_signs(part: Part, series: Sequence[Part]) -> tuple[Sign, ...]:
    """Signs that say `SOUND`, or what else the volume is."""
    first = part.slices[0]
    modality = IMAGE_CLASSES[text(first.header.root, "SOPClassUID")]
    signs = [
        *_by_image_type(first.image_type, modality),
        *_by_description(first.header, modality),
        *(_by_ct_tags(first.header, first.image_type) if modality == "CT" else _by_mr_tags(first.header, part)),
        *_by_tags(first.header),
    ]
    if _is_localizer_by_planes(series):
        planes = len({other.slices[0].orientation for other in series})
        what = f"a localizer: {planes} orientations of a few slices each in one series"
        signs.append(Sign("localizer", what, "(0020,0037)", by="geometry"))
    return tuple(signs)


def _by_image_type(image_type: tuple[str, ...], modality: str) -> Iterator[Sign]:
    bad = [IMAGE_TYPE_KINDS[token] for token in image_type if token in IMAGE_TYPE_KINDS]
    if modality == "CT" and not bad:
        # what a dual-energy image is made of, vendors write into longer values: "CT_SOM7 SPI DUAL VNC"
        bad = [(kind, what) for kind, what, pattern in KINDS["CT"] if any(map(pattern.search, image_type))]
    for kind, what in bad:
        yield Sign(kind, f"Image Type says: {what}", "(0008,0008)")
    if image_type and not bad:
        yield Sign(SOUND, "Image Type names no map, projection or localizer", "(0008,0008)")


def _by_description(header: FrameHeader, modality: str) -> Iterator[Sign]:
    description = text_of(header, "SeriesDescription")
    bad = [*_kinds_in_words(description, modality)]
    for kind, what in bad:
        yield Sign(kind, f"the series calls itself {what}", "(0008,103E)", by="text")
    if description and not bad:
        yield Sign(SOUND, "the series' description names no map, projection or localizer", "(0008,103E)", by="text")
    if modality == "MR" and COMPUTED.search(text_of(header, "DerivationDescription")):
        yield Sign("computed", "the derivation tells of a computed b-value", "(0008,2111)", by="text")
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
    if (unit := text_of(header, "RescaleType").upper()) in MATERIAL_UNITS:
        yield Sign("material", f"its values are no Hounsfield units as measured: {unit}", "(0028,1054)")
    told = text_of(header, "SeriesDescription"), *image_type
    is_dual = any("DUAL" in token.replace("_", " ").split() for token in image_type)
    if is_dual and not any(map(MIXED_TUBES.search, told)):
        yield Sign(UNSURE, "dual energy, and not told to be the mixed image of both tubes", "(0008,0008)")


def _by_mr_tags(header: FrameHeader, part: Part) -> Iterator[Sign]:
    if "mm2/s" in text_of(header, "RescaleType").lower():
        yield Sign("adc", "its values are diffusion coefficients, mm²/s", "(0028,1054)")
    named = SIEMENS_SEQUENCE_NAME.search(text_of(header, "SequenceName"))
    if named and named["upper"]:
        yield Sign("computed", "the sequence's name tells of an image calculated from several b-values", "(0018,0024)")
    if part.b is not None and not _tells_diffusion(header, part.slices[0].image_type):
        what = "a b-value, and nothing else of diffusion: a functional or perfusion series cannot be ruled out"
        yield Sign(UNSURE, what, "(0018,0020)")
    yield from _by_inversion(header)


def _tells_diffusion(header: FrameHeader, image_type: tuple[str, ...]) -> bool:
    """A spin echo, or diffusion by contrast, by the sequence's name or by words: a b-value alone may be a left-over."""
    told = text_of(header, "AcquisitionContrast").upper(), *image_type
    names = " ".join(text_of(header, keyword) for keyword in ("SequenceName", "PulseSequenceName"))
    words = next((True for found, _ in series_texts(header) if first_named(found, DIFFUSION_WORDS)), False)
    return (
        "SE" in text_of(header, "ScanningSequence").upper()
        or bool({"DIFFUSION", *TRACE_TOKENS} & set(told))
        or bool(DIFFUSION_SEQUENCE.search(names))
        or words
    )


def _by_tags(header: FrameHeader) -> Iterator[Sign]:
    yield from _by_colour(header)
    if text_of(header, "BurnedInAnnotation").upper() == "YES":
        yield Sign("screenshot", "annotation is burned into the pixels", "(0028,0301)")
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
    """An inversion that nulls water makes another image of the liver; one whose time is untold may do so."""
    inversion_ms = max(*header.numbers("InversionTimes"), *header.numbers("InversionTime"), 0.0, 0.0)
    if inversion_ms >= MIN_FLUID_NULL_MS and text_of(header, "ScanningSequence").upper() != "GR":
        yield Sign("fluid-suppressed", f"TI {inversion_ms:.4g} ms: fluid is suppressed", "(0018,0082)")
    elif not inversion_ms and "IR" in text_of(header, "ScanningSequence").upper().split("\\"):
        yield Sign(UNSURE, "an inversion recovery whose inversion time is not told", "(0018,0082)")


def _is_localizer_by_planes(series: Sequence[Part]) -> bool:
    planes = {part.slices[0].orientation for part in series}
    return len(planes) > 1 and all(len(part.slices) <= MAX_LOCALIZER_SLICES for part in series)


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
