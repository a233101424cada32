"""Headers of stored instances, read within bounds and without pixel data, and one view of a slice for both worlds.

A classic instance is one slice; an enhanced multi-frame instance says what is true of a slice in three places
(PS3.3 C.7.6.16): its per-frame functional groups, the shared ones, the root. `FrameHeader` asks them in that
order, so that whoever reads evidence or geometry need not know which world a slice came from.

The receiver imports this file: nothing here may need more than pydicom and numpy.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from pydicom import dcmread
from pydicom.datadict import dictionary_has_tag, dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from model.volume import Float64
from node.dicom.elements import quick_header, tag_of
from node.errors import UnreadableInstance

MAX_INFLATED_BYTES = 1 << 30
"""A deflated instance may grow to this; every other syntax is bounded by the size of its file."""

IDENTITY = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")

# what pydicom raises on bytes that are no data set, each seen on a truncated, random or mutilated file
PARSE_FAULTS = (
    InvalidDicomError,
    BytesLengthException,
    OSError,  # with an errno it is the disk's, see _read
    EOFError,
    struct.error,
    zlib.error,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    NotImplementedError,
    OverflowError,
    RecursionError,
    MemoryError,
)

_GROUP_DEPTH = 3
_META_LENGTH_AT = 132
_DEFLATED = b"\x02\x00\x10\x00UI\x16\x00" + DeflatedExplicitVRLittleEndian.encode()
"""Transfer Syntax UID (0002,0010) as the file meta group has it."""


def read_header(path: Path, *, required: tuple[str, ...] = IDENTITY) -> Dataset:
    """Everything before the pixel data, private elements and functional groups included.

    Takes what real senders produce: no preamble, no file meta, implicit VR under another name, class and instance
    named only in the file meta. The result always has the UIDs of `required` and a transfer syntax; who only
    explains a file to a person may ask for fewer than the four of `IDENTITY`.
    Raises UnreadableInstance with the file's name and the reason; a missing file is an OSError as anywhere.
    """
    return _read(path, stop_before_pixels=True, required=required)


def read_instance(path: Path) -> Dataset:
    """As `read_header`, with the pixel data still encoded."""
    return _read(path, stop_before_pixels=False, required=IDENTITY)


def _read(path: Path, *, stop_before_pixels: bool, required: tuple[str, ...]) -> Dataset:
    try:
        with path.open("rb") as file:
            if not file.peek(1):
                raise UnreadableInstance(f"{path.name}: the file is empty")
            _refuse_bomb(file)
            dataset = quick_header(file) if stop_before_pixels else None
            if dataset is None:
                file.seek(0)
                dataset = dcmread(file, stop_before_pixels=stop_before_pixels, force=True)
        _complete(dataset)
    except PARSE_FAULTS as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        # neither the parser's text nor its traceback: both may quote a value, which may be a name
        raise UnreadableInstance(f"{path.name}: not readable as a DICOM data set ({type(error).__name__})") from None
    missing = [keyword for keyword in required if not isinstance(value(dataset, keyword), str)]
    if missing:
        raise UnreadableInstance(f"{path.name}: no DICOM instance, it lacks {', '.join(missing)}")
    return dataset


def _refuse_bomb(file: BinaryIO) -> None:
    """A small deflated file must not fill the memory; leaves the file at its start."""
    head = file.read(1024)
    if _DEFLATED in head:
        (length,) = struct.unpack_from("<I", head, _META_LENGTH_AT + 8)
        file.seek(_META_LENGTH_AT + 12 + length)
        inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        total = 0
        while chunk := inflate.unconsumed_tail or file.read(1 << 16):
            total += len(inflate.decompress(chunk, 1 << 20))
            if total > MAX_INFLATED_BYTES:
                raise ValueError("inflates beyond the limit")
    file.seek(0)


def _complete(dataset: Dataset) -> None:
    """Fill what a data set leaves out and its file meta, or its own encoding, tells."""
    meta = dataset.file_meta
    if not meta.get("TransferSyntaxUID"):
        implicit, little = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    for keyword in ("SOPClassUID", "SOPInstanceUID"):
        if not dataset.get(keyword) and meta.get(f"MediaStorage{keyword}"):
            setattr(dataset, keyword, meta.get(f"MediaStorage{keyword}"))


def is_enhanced(dataset: Dataset) -> bool:
    """True where a slice's facts stand in functional groups (enhanced and legacy-converted multi-frame)."""
    return bool(value(dataset, "PerFrameFunctionalGroupsSequence")) or bool(
        value(dataset, "SharedFunctionalGroupsSequence")
    )


def value(dataset: Dataset, key: str | BaseTag, default: Any = None) -> Any:
    """One attribute's value; `default` where it is absent, empty, or so malformed that it cannot be decoded."""
    tag = _tag(key) if isinstance(key, str) else key
    try:
        found = dataset[tag].value if tag in dataset else None
        return default if found is None or (hasattr(found, "__len__") and len(found) == 0) else found
    except PARSE_FAULTS:
        return default


def text(dataset: Dataset, key: str | BaseTag) -> str:
    """As `value`, as one stripped text, several values joined by a backslash; empty where there is none."""
    found = value(dataset, key, "")
    if isinstance(found, bytes):
        return found.decode("ascii", "replace").strip("\0 ")
    parts = found if isinstance(found, list | tuple | MultiValue) else [found]
    return "\\".join(map(str, parts)).strip()


def as_numbers(found: Any) -> tuple[float, ...]:
    """Finite numbers of a value that may be a number, a list, a text, or the raw bytes of a text; else ()."""
    if isinstance(found, bytes):
        found = found.decode("ascii", "replace").strip("\0 ")
    if isinstance(found, str):
        found = found.split("\\")
    try:
        numbers = tuple(float(part) for part in (found if hasattr(found, "__iter__") else [found]))
    except (TypeError, ValueError):
        return ()
    return numbers if all(map(math.isfinite, numbers)) else ()


def numbers_at(dataset: Dataset, tag: BaseTag) -> tuple[float, ...] | None:
    """`as_numbers` of an attribute's value; None where it is absent, empty or cannot be decoded.

    A Decimal String is read from its bytes while they are raw: eleven of them place a slice, and pydicom checks
    and keeps the text of each. What is not simply numbers goes the long way.
    """
    raw: Any = dataset.get_item(tag)  # pydicom declares another type than it gives
    if isinstance(raw, RawDataElement) and raw.value and (raw.VR or _vr(tag)) == "DS":
        try:
            numbers = tuple(map(float, raw.value.decode("latin-1").rstrip("\0 ").split("\\")))
        except ValueError:
            numbers = ()
        if numbers and all(map(math.isfinite, numbers)):
            return numbers
    found = None if raw is None else value(dataset, tag)
    return None if found is None else as_numbers(found)


Place = tuple[Dataset, bool]
"""A data set inside functional groups, and whether a private sequence holds it."""


@dataclass(frozen=True)
class FrameHeader:
    """What is true of one slice. `number` is the 1-based frame number, None in a classic instance.

    Sequences are walked once, when first asked: a data set changed afterwards wants a new header.
    """

    root: Dataset
    number: int | None = None
    shared: tuple[Place, ...] | None = field(default=None, repr=False, compare=False)
    """The data sets inside the shared functional groups, where somebody has already looked for them."""

    @cached_property
    def _places(self) -> tuple[Dataset, ...]:
        """Where to look, nearest first; what a vendor nested into private sequences after all that is standard.

        Philips repeats a whole classic header there, with positions of the corner and not of the first voxel.
        """
        if self.number is None:
            return (self.root,)
        per_frame = value(self.root, "PerFrameFunctionalGroupsSequence", ())
        own = _nested(per_frame[self.number - 1]) if self.number <= len(per_frame) else ()
        shared = shared_places(self.root) if self.shared is None else self.shared
        found = (*own, *shared)
        standard = (place for place, is_private in found if not is_private)
        return (*standard, self.root, *(place for place, is_private in found if is_private))

    @cached_property
    def _tags(self) -> tuple[tuple[AbstractSet[BaseTag], Dataset], ...]:
        """The places, each with its tags: twenty places are asked for twenty attributes, and few of them have one."""
        return tuple((place.keys(), place) for place in self._places)

    def _holding(self, tag: BaseTag) -> list[Dataset]:
        return [place for tags, place in self._tags if tag in tags]

    @cached_property
    def _private_blocks(self) -> dict[tuple[int, str], list[tuple[Dataset, int]]]:
        """(group, creator) → where that creator reserved which block, nearest first."""
        blocks: dict[tuple[int, str], list[tuple[Dataset, int]]] = {}
        for place in self._places:
            for tag in place.keys():  # noqa: SIM118 - iterating a data set itself decodes every element
                if tag & 0x10000 and 0x10 <= tag & 0xFFFF <= 0xFF:
                    blocks.setdefault((tag >> 16, text(place, tag)), []).append((place, tag & 0xFF))
        return blocks

    def get(self, keyword: str, default: Any = None) -> Any:
        """The attribute that holds for this slice: per-frame before shared before root; `default` where none does.

        Inside functional groups the first item of each sequence is searched, so ask for attributes that one
        group owns (DiffusionBValue), not for those that many share (CodeValue).
        """
        tag = _tag(keyword)
        for place in self._holding(tag):
            if (found := value(place, tag)) is not None:
                return found
        return default

    def numbers(self, keyword: str) -> tuple[float, ...]:
        """As `get`, as finite numbers; () where absent or not numeric."""
        tag = _tag(keyword)
        return next((found for place in self._holding(tag) if (found := numbers_at(place, tag)) is not None), ())

    def private(self, creator: str, group: int, offset: int, default: Any = None) -> Any:
        """A private element by its creator, whatever block the creator reserved (PS3.5 section 7.8)."""
        for place, block in self._private_blocks.get((group, creator), ()):
            found = value(place, tag_of(group << 16 | block << 8 | offset))
            if found is not None:
                return found
        return default

    @cached_property
    def position_lps_mm(self) -> tuple[float, ...]:
        """Image Position (Patient): centre of the first voxel; () where unknown."""
        return _of_length(self.numbers("ImagePositionPatient"), 3)

    @cached_property
    def orientation(self) -> tuple[float, ...]:
        """Image Orientation (Patient): direction along a row, then along a column; () where unknown."""
        return _of_length(self.numbers("ImageOrientationPatient"), 6)

    @cached_property
    def pixel_spacing_mm(self) -> tuple[float, ...]:
        """Pixel Spacing: distance between rows, then between columns; () where unknown."""
        return _of_length(self.numbers("PixelSpacing"), 2)


def frames(dataset: Dataset) -> tuple[FrameHeader, ...]:
    """The slices of an instance: one of a classic instance, one per frame of an enhanced one."""
    if not is_enhanced(dataset):
        return (FrameHeader(dataset),)
    shared = shared_places(dataset)
    return tuple(FrameHeader(dataset, number, shared) for number in range(1, frame_count(dataset) + 1))


def shared_places(dataset: Dataset) -> tuple[Place, ...]:
    """The data sets inside the shared functional groups of a multi-frame instance: looked for once, asked often."""
    groups = value(dataset, "SharedFunctionalGroupsSequence", ())
    return tuple(place for group in groups[:1] for place in _nested(group))


def frame_count(dataset: Dataset) -> int:
    """Number of Frames, at least 1; of an enhanced instance not more than it describes."""
    told = as_numbers(value(dataset, "NumberOfFrames", 1))
    count = max(1, int(told[0])) if told else 1
    described = value(dataset, "PerFrameFunctionalGroupsSequence", ())
    return min(count, len(described)) if len(described) else count


def slice_normal(orientation: tuple[float, ...]) -> Float64:
    """Unit normal of a slice, row direction × column direction (PS3.3 C.7.6.2.1.1)."""
    normal = np.cross(orientation[:3], orientation[3:])
    return np.asarray(normal / np.linalg.norm(normal), dtype=np.float64)


def position_along_normal(position_lps_mm: tuple[float, ...], normal: Float64) -> float:
    """Where a slice lies along the normal, in mm: the only order of slices that can be trusted."""
    return float(np.dot(position_lps_mm, normal))


@cache
def _tag(keyword: str) -> BaseTag:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise KeyError(f"{keyword} is no keyword of the DICOM dictionary")
    return tag_of(tag)


@cache
def _vr(tag: BaseTag) -> str:
    """The VR of an attribute of the Standard; of another, and of a private one, that it is unknown."""
    return dictionary_VR(tag) if dictionary_has_tag(tag) else "UN"


def _of_length(numbers: tuple[float, ...], length: int) -> tuple[float, ...]:
    return numbers if len(numbers) == length else ()


def _nested(dataset: Dataset, depth: int = _GROUP_DEPTH, *, is_private: bool = False) -> Iterator[Place]:
    """The data set, then the first items of its sequences down to `depth`, and whether a private one holds them."""
    yield dataset, is_private
    if depth == 0:
        return
    for tag in list(dataset.keys()):
        # only what may be a sequence is decoded: a functional group has hundreds of elements, a file hundreds of groups
        if dataset.get_item(tag).VR in ("SQ", "UN", None):
            first = next(iter(_items(dataset, tag)), None)
            if first is not None:
                yield from _nested(first, depth - 1, is_private=is_private or tag.is_private)


def _items(dataset: Dataset, tag: BaseTag) -> Iterable[Dataset]:
    found = value(dataset, tag, ())
    return found if isinstance(found, Sequence) else ()
