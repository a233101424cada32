"""One slice of a classic or multi-frame instance → what tells it from its neighbours: place, time, b-value, echo.

Only what can differ inside one series is read per slice; what a series says once is read from one header of each
volume (node/evidence.py). That, and reading no pixel, keeps a thousand slices under 1.5 s (bench/routing.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from pathlib import Path

from pydicom.dataset import Dataset

from node.dicom.header import FrameHeader, as_numbers, frames, text, value
from node.evidence_facts import DIRECTIONAL, ISOTROPIC, UNTOLD, UNWEIGHTED, Sign
from node.evidence_vendors import (
    B_IN_WORDS,
    CANON_COMMENT,
    DIFFUSION_SEQUENCE,
    GE_IMAGE_KIND,
    GE_IMAGE_KINDS,
    GE_SEQUENCE,
    GE_SERIES_KIND,
    GE_SINGLE_AXES,
    PHILIPS_DIRECTION,
    PRIVATE_B,
    SIEMENS_CSA,
    SIEMENS_DIRECTIONALITY,
    SIEMENS_IMAGE_TYPE_TEXT,
    SIEMENS_SEQUENCE_NAME,
    UIH_NOMINAL_B,
    VECTORS,
    BSource,
    PrivateReader,
    creators_of,
    csa_fields,
)
from node.evidence_words import TRACE_TOKENS

LOWEST_WEIGHTED_B = 50
"""s/mm²: below it a volume is not diffusion-weighted for our purposes."""
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
class SliceFacts:
    """What may differ between slices of one series. Missing numbers are () or None, never a guess."""

    path: Path
    sop_instance_uid: str
    header: FrameHeader
    orientation: tuple[float, ...]
    position_lps_mm: tuple[float, ...]
    pixel_spacing_mm: tuple[float, ...]
    matrix: tuple[int, int]
    image_type: tuple[str, ...]
    acquired: datetime | None
    temporal_position: float | None
    acquisition_number: float | None
    echo_time_ms: float | None = None
    b: BReading | None = None
    direction_signs: tuple[Sign, ...] = ()
    vector: tuple[float, ...] = ()
    """Gradient direction, (0.49, 0.84, 0.21) without regard to its sense; () where none is told."""

    @property
    def order_key(self) -> tuple[str, int]:
        """An order that no file system or sender decides."""
        return self.sop_instance_uid, self.header.number or 0


def read_slices(path: Path, dataset: Dataset) -> Iterator[SliceFacts]:
    """The slices of one instance, with diffusion facts where it is an MR image."""
    is_mr = text(dataset, "Modality") == "MR"
    creators = creators_of(dataset) if is_mr else {}
    sop_uid = text(dataset, "SOPInstanceUID")
    for header in frames(dataset):
        private = PrivateReader(header, creators)
        image_type = image_type_of(header, private if is_mr else None)
        diffusion = read_diffusion(private, image_type) if is_mr else _NO_DIFFUSION
        yield SliceFacts(
            path=path,
            sop_instance_uid=sop_uid,
            header=header,
            orientation=header.orientation,
            position_lps_mm=header.position_lps_mm,
            pixel_spacing_mm=header.pixel_spacing_mm,
            matrix=(_integer(value(dataset, "Rows")), _integer(value(dataset, "Columns"))),
            image_type=image_type,
            acquired=acquired_at(header),
            temporal_position=_frame_number(header, "TemporalPositionIndex", "TemporalPositionIdentifier"),
            acquisition_number=_frame_number(header, "FrameAcquisitionNumber", "AcquisitionNumber"),
            echo_time_ms=_frame_number(header, "EffectiveEchoTime", "EchoTime") if is_mr else None,
            b=diffusion.b,
            direction_signs=diffusion.signs,
            vector=diffusion.vector,
        )


def first_number(header: FrameHeader, *keywords: str) -> float | None:
    """The first of these attributes that holds a number."""
    for keyword in keywords:
        if numbers := header.numbers(keyword):
            return numbers[0]
    return None


def _frame_number(header: FrameHeader, of_frame: str, classic: str) -> float | None:
    """A number under its multi-frame name first; a classic header is spared the search for it."""
    return first_number(header, classic) if header.number is None else first_number(header, of_frame, classic)


def image_type_of(header: FrameHeader, private: PrivateReader | None = None) -> tuple[str, ...]:
    """Frame Type where there is one, else Image Type, then what a vendor adds; upper case, no empty values."""
    found = (header.get("FrameType") if header.number is not None else None) or header.get("ImageType")
    added = private.get(SIEMENS_IMAGE_TYPE_TEXT) if private and _is_siemens_xa(private) else None
    return tuple(dict.fromkeys((*_tokens(found), *_tokens(added))))


def _tokens(found: object) -> Iterator[str]:
    if isinstance(found, bytes):
        found = found.decode("ascii", "replace").split("\\")
    for item in [found] if isinstance(found, str) else found if isinstance(found, Iterable) else ():
        if token := str(item).strip("\0 ").upper():
            yield token


def _is_siemens_xa(private: PrivateReader) -> bool:
    """Multi-frame, whose private creators stand inside its functional groups, or with the creator of XA's elements."""
    is_multiframe = (
        private.header.number is not None and "SIEMENS" in str(private.header.get("Manufacturer", "")).upper()
    )
    return is_multiframe or _has(private, SIEMENS_IMAGE_TYPE_TEXT.creator)


def acquired_at(header: FrameHeader) -> datetime | None:
    """When the slice was acquired, by the scanner's own clock and without a time zone; None where it is not told."""
    for keyword in ("FrameAcquisitionDateTime", "AcquisitionDateTime"):
        if (found := header.get(keyword)) and (moment := parse_datetime(str(found))):
            return moment
    day = next(
        (d for k in ("AcquisitionDate", "SeriesDate", "StudyDate") if (d := parse_date(str(header.get(k, ""))))), None
    )
    clock = parse_time(str(header.get("AcquisitionTime", "")))
    return datetime.combine(day, clock) if day and clock else None


_DATETIME = re.compile(r"(\d{4})(\d{2})(\d{2})(\d{2})(\d{2})(\d{2})?(?:\.(\d{1,6}))?")
_DATE = re.compile(r"(\d{4})[.-]?(\d{2})[.-]?(\d{2})$")
_TIME = re.compile(r"(\d{2}):?(\d{2}):?(\d{2})?(?:\.(\d{1,6}))?$")


def parse_datetime(text_: str) -> datetime | None:
    """A DT value's date and time (PS3.5 6.2); its offset from UTC is left out, for we compare within one study."""
    if not (match := _DATETIME.match(text_)):
        return None
    day, clock = parse_date("".join(match.group(1, 2, 3))), _clock(match.group(4, 5, 6, 7))
    return datetime.combine(day, clock) if day and clock else None


def parse_date(text_: str) -> date | None:
    """A DA value, None where it is none."""
    if not (match := _DATE.match(text_.strip())):
        return None
    try:
        return date(*(int(part) for part in match.groups()))
    except ValueError:
        return None


def parse_time(text_: str) -> time | None:
    """A TM value, None where it is none."""
    match = _TIME.match(text_.strip())
    return _clock(match.groups()) if match else None


def _clock(parts: tuple[str | None, ...]) -> time | None:
    hour, minute, second, fraction = parts
    try:
        moment = time(int(hour or 0), int(minute or 0), int(second or 0))
    except ValueError:
        return None
    return (datetime.combine(date.min, moment) + timedelta(seconds=float(f"0.{fraction or 0}"))).time()


@dataclass(frozen=True)
class _Diffusion:
    b: BReading | None = None
    signs: tuple[Sign, ...] = ()
    vector: tuple[float, ...] = ()


_NO_DIFFUSION = _Diffusion()


def read_diffusion(private: PrivateReader, image_type: tuple[str, ...]) -> _Diffusion:
    """The b-value and what is told of directions. A b-value on a sequence without diffusion is no b-value."""
    csa = csa_fields(private.get(SIEMENS_CSA), _CSA_NAMES) if _has(private, SIEMENS_CSA.creator) else {}
    b = _b_value(private, csa)
    if b is None or is_gradient_echo(private.header):
        return _NO_DIFFUSION
    vector, where = _vector(private)
    signs = [*_directions(private, csa, image_type)]
    if any(vector):
        signs.append(Sign(DIRECTIONAL, "a single gradient direction is told", where))
    elif vector and where != PUBLIC_VECTOR:
        signs.append(Sign(ISOTROPIC, "the vendor tells a gradient without direction: the trace", where))
    return _Diffusion(b, tuple(signs), vector if any(vector) else ())


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


def _has(private: PrivateReader, creator: str) -> bool:
    return any(name == creator for _, name in private.creators)


def _b_value(private: PrivateReader, csa: dict[str, str]) -> BReading | None:
    header = private.header
    if nominal := private.numbers(UIH_NOMINAL_B.tag):
        return BReading(nominal[0], str(UIH_NOMINAL_B.tag))
    if public := header.numbers("DiffusionBValue"):
        return BReading(public[0], "(0018,9087)")
    for source in PRIVATE_B:
        if (not source.needs_diffusion or _is_ge_diffusion(private)) and (numbers := private.numbers(source.tag)):
            return BReading(source.decode(numbers), str(source.tag))
    if numbers := as_numbers(csa.get("B_value", "")):
        return BReading(numbers[0], f"{SIEMENS_CSA} B_value")
    named = _sequence_name(header)
    if named and not named["upper"]:
        return BReading(float(named["b"]), "(0018,0024)")
    return _orphan(private) or _b_in_words(header)


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


def _vector(private: PrivateReader) -> tuple[tuple[float, ...], str]:
    """The gradient direction as told, zeros included.

    Vendors write zeros into their own element for a trace. In (0018,9089), which the Standard wants for single
    directions only, zeros may as well mean that a converter knew nothing; it speaks when no vendor does.
    """
    for tags in VECTORS:
        numbers = tuple(number for tag in tags for number in private.numbers(tag))
        if len(numbers) == 3 and (tags[0].creator != "GEMS_ACQU_01" or _is_ge_tensor(private)):
            return _senseless(numbers), str(tags[0])
    comment = CANON_COMMENT.search(str(private.header.get("ImageComments", "")))
    numbers = as_numbers(comment["vector"].replace(",", "\\")) if comment and comment["vector"] else ()
    if len(numbers) == 3:
        return _senseless(numbers), "(0020,4000)"
    public = private.header.numbers("DiffusionGradientOrientation")
    return (_senseless(public), PUBLIC_VECTOR) if len(public) == 3 else ((), "")


def _is_ge_tensor(private: PrivateReader) -> bool:
    """GE's 0019,xxBB..BD are "user data": directions in tensor series only."""
    kinds = private.numbers(GE_IMAGE_KIND), private.numbers(GE_SERIES_KIND)
    return not any(kinds) or any(kind and int(kind[0]) == 16 for kind in kinds)


def _senseless(vector: tuple[float, ...]) -> tuple[float, ...]:
    """Rounded, and v as −v: a gradient weights both ways alike."""
    rounded = tuple(round(number, 2) + 0.0 for number in vector)
    return rounded if rounded >= tuple(-number for number in rounded) else tuple(-number + 0.0 for number in rounded)


def _integer(found: object) -> int:
    numbers = as_numbers(found) if found is not None else ()
    return int(numbers[0]) if numbers else 0
