"""Diffusion of one slice, as each place of its header tells it: b-value and direction, the vendors' own included.

The first place that tells a b-value is believed, and what another tells instead is kept beside it; what is told of
the direction is kept sign by sign.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from node.dicom.header import FrameHeader, as_numbers
from node.evidence_facts import DIRECTIONAL, ISOTROPIC, UNTOLD, UNWEIGHTED, Sign
from node.evidence_sequence import diffusion_places
from node.evidence_texts import image_type_of
from node.evidence_vendors import (
    B_IN_WORDS,
    CANON_COMMENT,
    DIFFUSION_SEQUENCE,
    GE_IMAGE_KIND,
    GE_IMAGE_KINDS,
    GE_SEQUENCE,
    GE_SERIES_KIND,
    GE_SINGLE_AXES,
    LOWEST_WEIGHTED_B,
    PHILIPS_DIRECTION,
    PRIVATE_B,
    SIEMENS_CSA,
    SIEMENS_DIRECTIONALITY,
    SIEMENS_SEQUENCE_NAME,
    UIH_NOMINAL_B,
    VECTORS,
    BSource,
    PrivateReader,
    csa_fields,
)
from node.evidence_words import TRACE_TOKENS

SAME_NOMINAL_PART = 0.1
"""An actual b-value differs from its nominal one by less (UIH: 930 of 1000)."""
PUBLIC_VECTOR, DESCRIPTION = "(0018,9089)", "(0008,103E)"
_SIEMENS_FID = re.compile(r"\*?epfid")
_CSA_NAMES = frozenset({"B_value", "DiffusionDirectionality"})


@dataclass(frozen=True)
class BReading:
    """A b-value in s/mm² and where it stands; uncertain in words, and in private elements without their creator."""

    value: float
    where: str
    is_certain: bool = True


@dataclass(frozen=True)
class DiffusionFacts:
    """Of one slice; without a b-value nothing is told."""

    b: BReading | None = None
    signs: tuple[Sign, ...] = ()
    vector: tuple[float, ...] = ()


NO_DIFFUSION = DiffusionFacts()


def read_diffusion(private: PrivateReader, image_type: tuple[str, ...]) -> DiffusionFacts:
    """The b-value and what is told of directions. A b-value on a sequence without diffusion is no b-value."""
    csa = _csa(private)
    b = _b_value(private, csa)
    if b is None or (is_gradient_echo(private.header) and not diffusion_places(private.header, ())):
        return NO_DIFFUSION
    signs, vectors = [*_directions(private, csa, image_type)], [*_vectors(private)]
    for vector, where in vectors:
        if any(vector):
            signs.append(Sign(DIRECTIONAL, "a single gradient direction is told", where))
        elif where != PUBLIC_VECTOR:
            signs.append(Sign(ISOTROPIC, "the vendor tells a gradient without direction: the trace", where))
    return DiffusionFacts(b, tuple(signs), next((vector for vector, _ in vectors if any(vector)), ()))


def is_gradient_echo(header: FrameHeader) -> bool:
    """A gradient echo and no spin echo, as functional series are; diffusion weighting needs the latter.

    Siemens XA calls the echo-planar read-out of its diffusion a GRADIENT echo: there the contrast goes before.
    """
    told = str(header.get("ScanningSequence", "")).upper()
    if "SE" in told or "DIFFUSION" in image_type_of(header):
        return False
    name = str(header.get("SequenceName") or header.get("PulseSequenceName") or "")
    return (
        "GR" in told or bool(_SIEMENS_FID.match(name)) or str(header.get("EchoPulseSequence", "")).upper() == "GRADIENT"
    )


def directionality_of(b: BReading | None, signs: tuple[Sign, ...]) -> str:
    """What the signs say together; two that differ say nothing."""
    if b is None or b.value < LOWEST_WEIGHTED_B:
        return UNWEIGHTED
    told = {sign.says for sign in signs}
    return told.pop() if len(told) == 1 else UNTOLD


def _b_value(private: PrivateReader, csa: dict[str, str]) -> BReading | None:
    return next(_told_b_values(private, csa), None) or _orphan(private) or _b_in_words(private.header)


def _told_b_values(private: PrivateReader, csa: dict[str, str]) -> Iterator[BReading]:
    """Every place that tells the b-value for certain, the one that is believed first."""
    header = private.header
    if nominal := private.numbers(UIH_NOMINAL_B.tag):
        yield BReading(nominal[0], str(UIH_NOMINAL_B.tag))
    if public := header.numbers("DiffusionBValue"):
        yield BReading(public[0], "(0018,9087)")
    for source in PRIVATE_B:
        if (not source.needs_diffusion or _is_ge_diffusion(private)) and (numbers := private.numbers(source.tag)):
            yield BReading(source.decode(numbers), str(source.tag))
    if numbers := as_numbers(csa.get("B_value", "")):
        yield BReading(numbers[0], f"{SIEMENS_CSA} B_value")
    named = _sequence_name(header)
    if named and not named["upper"]:
        yield BReading(float(named["b"]), "(0018,0024)")


def disputing_b_values(private: PrivateReader, b: BReading) -> tuple[BReading, ...]:
    """What other places tell of a slice's b-value and is another one, not the same as measured or rounded."""
    tolerance = max(LOWEST_WEIGHTED_B, SAME_NOMINAL_PART * b.value)
    told = _told_b_values(private, _csa(private))
    return tuple(other for other in told if abs(other.value - b.value) > tolerance)


def _csa(private: PrivateReader) -> dict[str, str]:
    return csa_fields(private.get(SIEMENS_CSA), _CSA_NAMES) if private.has(SIEMENS_CSA.creator) else {}


def _is_ge_diffusion(private: PrivateReader) -> bool:
    """GE writes 0043,xx39 on every echo-planar sequence: the pulse sequence or the kind of series must agree."""
    return private.text(GE_SEQUENCE).lower().startswith("epi2") or any(private.numbers(GE_SERIES_KIND))


def _looks_diffusion_weighted(header: FrameHeader) -> bool:
    sequence = str(header.get("ScanningSequence", ""))
    name = str(header.get("SequenceName") or header.get("PulseSequenceName") or "")
    is_planar = "EP" in sequence and "GR" not in sequence
    return is_planar or "DIFFUSION" in image_type_of(header) or bool(DIFFUSION_SEQUENCE.search(name))


def _orphan(private: PrivateReader) -> BReading | None:
    """A de-identifier may remove creators and leave elements: believed only on a sequence that looks the part."""
    maker = str(private.header.get("Manufacturer", ""))
    sources: list[BSource] = [source for source in (UIH_NOMINAL_B, *PRIVATE_B) if source.maker.search(maker)]
    for source in sources:
        numbers = private.orphan_numbers(source.tag)
        if numbers and _looks_diffusion_weighted(private.header):
            return BReading(source.decode(numbers), f"{source.tag}, its creator missing", is_certain=False)
    return None


def _b_in_words(header: FrameHeader) -> BReading | None:
    comment = CANON_COMMENT.search(str(header.get("ImageComments", "")))
    if comment:
        return BReading(float(comment["b"]), "(0020,4000)", is_certain=False)
    told = set(B_IN_WORDS.findall(str(header.get("SeriesDescription", ""))))
    if len(told) == 1 and _looks_diffusion_weighted(header):
        return BReading(float(told.pop()), DESCRIPTION, is_certain=False)
    return None


def _sequence_name(header: FrameHeader) -> re.Match[str] | None:
    return SIEMENS_SEQUENCE_NAME.search(str(header.get("SequenceName", "")))


def _directions(private: PrivateReader, csa: dict[str, str], image_type: tuple[str, ...]) -> Iterator[Sign]:
    header = private.header
    for told, where in (
        (str(header.get("DiffusionDirectionality", "")), "(0018,9075)"),
        (private.text(SIEMENS_DIRECTIONALITY), str(SIEMENS_DIRECTIONALITY)),
        (csa.get("DiffusionDirectionality", ""), f"{SIEMENS_CSA} DiffusionDirectionality"),
    ):
        if told.upper() in ("ISOTROPIC", "DIRECTIONAL"):
            yield _sign(told.lower(), where)
    if letter := private.text(PHILIPS_DIRECTION):
        yield _sign(ISOTROPIC if letter.upper().startswith("I") else DIRECTIONAL, str(PHILIPS_DIRECTION))
    yield from _ge_directions(private)
    named = _sequence_name(header)
    if named and named["mark"]:
        yield _sign(ISOTROPIC if named["mark"] == "t" else DIRECTIONAL, "(0018,0024)")
    if TRACE_TOKENS & set(image_type):
        yield _sign(ISOTROPIC, "(0008,0008)")


def _ge_directions(private: PrivateReader) -> Iterator[Sign]:
    image_kind = private.numbers(GE_IMAGE_KIND)
    told = GE_IMAGE_KINDS.get(int(image_kind[0])) if image_kind else None
    if told in (ISOTROPIC, DIRECTIONAL):
        yield _sign(told, str(GE_IMAGE_KIND))
    series_kind = private.numbers(GE_SERIES_KIND)
    if series_kind and int(series_kind[0]) in GE_SINGLE_AXES:
        yield _sign(DIRECTIONAL, str(GE_SERIES_KIND))


def _sign(says: str, where: str) -> Sign:
    what = "the trace over directions" if says == ISOTROPIC else "a single gradient direction"
    return Sign(says, what, where)


def _vectors(private: PrivateReader) -> Iterator[tuple[tuple[float, ...], str]]:
    """The gradient direction as each place tells it, zeros included, a vendor's own first.

    Vendors write zeros into their own element for a trace. In (0018,9089), which the Standard wants for single
    directions only, zeros may as well mean that a converter knew nothing.
    """
    for tags in VECTORS:
        numbers = tuple(number for tag in tags for number in private.numbers(tag))
        if len(numbers) == 3 and (tags[0].creator != "GEMS_ACQU_01" or _is_ge_tensor(private)):
            yield _senseless(numbers), str(tags[0])
    comment = CANON_COMMENT.search(str(private.header.get("ImageComments", "")))
    numbers = as_numbers(comment["vector"].replace(",", "\\")) if comment and comment["vector"] else ()
    if len(numbers) == 3:
        yield _senseless(numbers), "(0020,4000)"
    public = private.header.numbers("DiffusionGradientOrientation")
    if len(public) == 3:
        yield _senseless(public), PUBLIC_VECTOR


def _is_ge_tensor(private: PrivateReader) -> bool:
    """GE's 0019,xxBB..BD are "user data": directions in tensor series only."""
    kinds = private.numbers(GE_IMAGE_KIND), private.numbers(GE_SERIES_KIND)
    return not any(kinds) or any(kind and int(kind[0]) == 16 for kind in kinds)


def _senseless(vector: tuple[float, ...]) -> tuple[float, ...]:
    """Rounded, and v as −v: a gradient weights both ways alike."""
    rounded = tuple(round(number, 2) + 0.0 for number in vector)
    return rounded if rounded >= tuple(-number for number in rounded) else tuple(-number + 0.0 for number in rounded)
