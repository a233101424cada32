"""One slice of a classic or multi-frame instance → what tells it from its neighbours: place, time, b-value, echo.

Only what can differ inside one series is read per slice; what a series says once is read from one header of each
volume (node/evidence.py). That, and reading no pixel, keeps a thousand slices under 1.5 s (bench/routing.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from pathlib import Path

from pydicom.dataset import Dataset

from node.dicom.header import FrameHeader, as_numbers, frames, text, value
from node.evidence_diffusion import NO_DIFFUSION, BReading, read_diffusion
from node.evidence_facts import Sign
from node.evidence_texts import image_type_of
from node.evidence_vendors import PrivateReader, creators_of


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
        diffusion = read_diffusion(private, image_type) if is_mr else NO_DIFFUSION
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


def _integer(found: object) -> int:
    numbers = as_numbers(found) if found is not None else ()
    return int(numbers[0]) if numbers else 0
