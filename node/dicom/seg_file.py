"""A segmentation of any writer as it stands: what its segments are said to be, where its frames lie, whence they came.

BINARY, FRACTIONAL and LABELMAP (PS3.3 A.51, C.8.20) become planes of true and false, segment by segment: of fractions
one half and more is true, of a label map each value is a segment. Nothing here knows what a liver is, and nothing is
placed: node/dicom/seg_place.py does that.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import SegmentationStorage

from node.dicom.header import PARSE_FAULTS, as_numbers, read_header, read_instance, text, value
from node.dicom.pixels import stored_frames
from node.errors import UnreadableInstance

LABEL_MAP_STORAGE = "1.2.840.10008.5.1.4.1.1.66.7"
SEG_CLASSES = (str(SegmentationStorage), LABEL_MAP_STORAGE)
KINDS = ("BINARY", "FRACTIONAL", "LABELMAP")
LEAST_FRACTION = 0.5

Plane = NDArray[np.bool_]
Source = tuple[str, int | None]
"""SOP Instance UID, and the 1-based frame of a multi-frame instance."""


@dataclass(frozen=True)
class Segment:
    """What one segment is said to be. `kind` is its coded property type, `region` its first anatomic region."""

    number: int
    label: str
    kind: Code | None
    region: Code | None
    is_automatic: bool
    """True where no person had a hand in it, by Segment Algorithm Type."""


@dataclass(frozen=True)
class SegFrame:
    """One frame: its 1-based number, its segment (None in a label map), its plane in the patient, its sources."""

    number: int
    segment: int | None
    position_lps_mm: tuple[float, ...]
    orientation: tuple[float, ...]
    pixel_spacing_mm: tuple[float, ...]
    sources: tuple[Source, ...]


@dataclass(frozen=True)
class SegmentationFile:
    """The header of a segmentation; `planes` reads its pixels."""

    path: Path
    kind: str
    study_uid: str
    series_uids: tuple[str, ...]
    """Of the images, by Referenced Series Sequence."""
    frame_of_reference_uid: str
    created: str
    """Content date and time, so that the later of two compares greater."""
    segments: tuple[Segment, ...]
    frames: tuple[SegFrame, ...]

    @property
    def sources(self) -> frozenset[Source]:
        """All instances and frames that any frame names."""
        return frozenset(source for frame in self.frames for source in frame.sources)

    def planes(self, wanted: Collection[int]) -> Iterator[tuple[SegFrame, int, Plane]]:
        """(frame, segment number, plane) for each frame of a wanted segment that has a voxel.

        Raises UnreadableInstance where the pixels cannot be decoded.
        """
        chosen = [frame for frame in self.frames if frame.segment is None or frame.segment in wanted]
        if not chosen:
            return
        dataset = read_instance(self.path)
        least = max(1.0, LEAST_FRACTION * _maximum(dataset)) if self.kind == "FRACTIONAL" else 1.0
        stored = stored_frames(dataset, [frame.number for frame in chosen], name=self.path.name)
        for frame, stored_HW in zip(chosen, stored, strict=True):
            if frame.segment is not None:
                found = [(frame.segment, stored_HW >= least)]
            else:
                found = [(int(number), stored_HW == number) for number in np.unique(stored_HW) if number in wanted]
            yield from ((frame, number, plane_HW) for number, plane_HW in found if plane_HW.any())


def read_segmentation(path: Path) -> SegmentationFile:
    """The segmentation in `path`, without its pixels. Raises UnreadableInstance, with the reason."""
    header = read_header(path)
    kind = text(header, "SegmentationType") or ("LABELMAP" if header.SOPClassUID == LABEL_MAP_STORAGE else "")
    if header.SOPClassUID not in SEG_CLASSES or kind not in KINDS:
        raise UnreadableInstance(f"{path.name}: no segmentation of type {', '.join(KINDS)}")
    try:
        frames = tuple(_frames(header, is_label_map=kind == "LABELMAP"))
        segments = tuple(_segment(item) for item in value(header, "SegmentSequence", ()))
        series = tuple(text(item, "SeriesInstanceUID") for item in value(header, "ReferencedSeriesSequence", ()))
    except PARSE_FAULTS as error:
        raise UnreadableInstance(f"{path.name}: not a segmentation that can be read ({type(error).__name__})") from None
    return SegmentationFile(
        path=path,
        kind=kind,
        study_uid=text(header, "StudyInstanceUID"),
        series_uids=series,
        frame_of_reference_uid=text(header, "FrameOfReferenceUID"),
        created=text(header, "ContentDate") + text(header, "ContentTime"),
        segments=tuple(segment for segment in segments if segment.kind != codes.DCM.Background),
        frames=frames,
    )


def _segment(item: Dataset) -> Segment:
    kinds, regions = value(item, "SegmentedPropertyTypeCodeSequence", ()), value(item, "AnatomicRegionSequence", ())
    return Segment(
        number=int(item.SegmentNumber),
        label=text(item, "SegmentLabel"),
        kind=_code(kinds[0]) if kinds else None,
        region=_code(regions[0]) if regions else None,
        is_automatic=text(item, "SegmentAlgorithmType") == "AUTOMATIC",
    )


def _code(item: Dataset) -> Code:
    found = text(item, "CodeValue") or text(item, "LongCodeValue") or text(item, "URNCodeValue")
    return Code(found, text(item, "CodingSchemeDesignator"), text(item, "CodeMeaning"))


def _frames(header: Dataset, *, is_label_map: bool) -> Iterator[SegFrame]:
    shared = next(iter(value(header, "SharedFunctionalGroupsSequence", ())), Dataset())
    for number, groups in enumerate(header.PerFrameFunctionalGroupsSequence, start=1):
        named = _group(groups, shared, "SegmentIdentificationSequence")
        measures = _group(groups, shared, "PixelMeasuresSequence")
        yield SegFrame(
            number=number,
            segment=None if is_label_map else int(named.ReferencedSegmentNumber),
            position_lps_mm=_numbers(_group(groups, shared, "PlanePositionSequence"), "ImagePositionPatient", 3),
            orientation=_numbers(_group(groups, shared, "PlaneOrientationSequence"), "ImageOrientationPatient", 6),
            pixel_spacing_mm=_numbers(measures, "PixelSpacing", 2),
            sources=tuple(_sources(groups)),
        )


def _group(groups: Dataset, shared: Dataset, keyword: str) -> Dataset:
    """The functional group of the frame, else the one that all frames share; empty where there is none."""
    found: list[Dataset] = [item for place in (groups, shared) for item in value(place, keyword, ())]
    return found[0] if found else Dataset()


def _numbers(item: Dataset, keyword: str, count: int) -> tuple[float, ...]:
    found = as_numbers(value(item, keyword, ()))
    if len(found) != count:
        raise ValueError(f"{keyword} is missing")
    return found


def _sources(groups: Dataset) -> Iterator[Source]:
    for derivation in value(groups, "DerivationImageSequence", ()):
        for item in value(derivation, "SourceImageSequence", ()):
            uid = text(item, "ReferencedSOPInstanceUID")
            numbers = as_numbers(value(item, "ReferencedFrameNumber", ()))
            yield from ((uid, int(number)) for number in numbers) if numbers else ((uid, None),)


def _maximum(dataset: Dataset) -> float:
    return (as_numbers(value(dataset, "MaximumFractionalValue", 255)) or (255.0,))[0]
