"""A quick look over a plain file: where each element lies, its bytes as they came. What is not plain goes to pydicom.

pydicom's reader asks the file three times for each element and decodes sequences of undefined length at once, wanted
or not: 1 to 4 ms for a scanner's header, a thousand times in a series. Here the head of the file is read in one piece
and walked; each element is kept raw, as pydicom keeps those of defined length, and decoded by pydicom when asked for.

Plain is: preamble, file meta, little endian, VRs of the Standard, lengths that add up. The walk follows every
sequence of undefined length to its end, so that what it takes, pydicom takes as well and alike.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, KeysView, MutableMapping, MutableSequence
from functools import lru_cache
from typing import BinaryIO, cast

from pydicom.charset import convert_encodings, default_encoding
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement, convert_raw_data_element, empty_value_for_VR
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    RLETransferSyntaxes,
)
from pydicom.valuerep import EXPLICIT_VR_LENGTH_16, EXPLICIT_VR_LENGTH_32

HEAD_BYTES = (1 << 16, 1 << 18, 1 << 20, 1 << 24)
"""How much is read at first, and how much more where the header does not end within it."""
MAX_DEPTH = 8
"""Of sequences in sequences; real headers nest five deep."""

_IMPLICIT = ImplicitVRLittleEndian.encode()
_EXPLICIT = frozenset(
    uid.encode()
    for uid in (
        ExplicitVRLittleEndian,
        *JPEGTransferSyntaxes,
        *JPEGLSTransferSyntaxes,
        *JPEG2000TransferSyntaxes,
        *RLETransferSyntaxes,
    )
)
_SHORT = {str(vr).encode(): str(vr) for vr in EXPLICIT_VR_LENGTH_16}
_LONG = {str(vr).encode(): str(vr) for vr in EXPLICIT_VR_LENGTH_32}
_UNDEFINED = 0xFFFFFFFF
_CHARACTER_SET, _TRANSFER_SYNTAX = BaseTag(0x00080005), BaseTag(0x00020010)
_PIXEL_DATA = frozenset((0x7FE00008, 0x7FE00009, 0x7FE00010))
_ITEM = b"\xfe\xff\x00\xe0"
_ITEM_END = b"\xfe\xff\x0d\xe0\0\0\0\0"
_SEQUENCE_END = b"\xfe\xff\xdd\xe0\0\0\0\0"
_implicit_heading = struct.Struct("<HHL").unpack_from
_explicit_heading = struct.Struct("<HH2sH").unpack_from
_length = struct.Struct("<L").unpack_from

Element = DataElement | RawDataElement
Encoding = str | MutableSequence[str]
tag_of = lru_cache(maxsize=1 << 15)(BaseTag)
"""One object for each tag: a data set is then asked by identity, without pydicom's comparison of tags."""


class Elements(MutableMapping[BaseTag, Element]):
    """The elements of a data set, each made when it is asked for; until then it is a place in the bytes of the header.

    A study's headers stay in memory: so they are a few objects each, and not one for every element.
    """

    def __init__(self, head: bytes, places: dict[BaseTag, int], encoding: Encoding, *, is_implicit: bool) -> None:
        self._head = head
        self._is_implicit = is_implicit
        self._found: dict[BaseTag, int | Element] = {**places}
        self.encoding = encoding
        if _CHARACTER_SET in places and isinstance(told := self[_CHARACTER_SET], RawDataElement):
            self.encoding = convert_encodings(convert_raw_data_element(told).value)

    def __getitem__(self, tag: BaseTag) -> Element:
        found = self._found[tag]
        if isinstance(found, int):
            found = self._found[tag] = _element(self._head, found, self.encoding, self._is_implicit)
        return found

    def forget_beyond(self, end: int) -> None:
        """Keep no more bytes than the elements have: pixel data may follow."""
        self._head = self._head[:end]

    def __setitem__(self, tag: BaseTag, element: Element) -> None:
        self._found[tag] = element

    def __delitem__(self, tag: BaseTag) -> None:
        del self._found[tag]

    def __contains__(self, tag: object) -> bool:
        return tag in self._found

    def __iter__(self) -> Iterator[BaseTag]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def keys(self) -> KeysView[BaseTag]:
        return self._found.keys()


def quick_header(file: BinaryIO) -> FileDataset | None:
    """What `dcmread` reads before the pixel data, from a file at its start; None where the file is not plain."""
    head = b""
    for size in HEAD_BYTES:
        head += file.read(size - len(head))
        is_whole = len(head) < size
        try:
            return _data_set(file, head, is_whole=is_whole)
        except (ValueError, struct.error):  # not plain, or it does not end here
            if is_whole:
                break
    return None


def _data_set(file: BinaryIO, head: bytes, *, is_whole: bool) -> FileDataset:
    if head[128:132] != b"DICM":
        raise ValueError("no preamble")
    begin, meta = _walk(head, 132, len(head), lambda tag: tag >> 16 != 2, default_encoding, is_implicit=False)
    if _TRANSFER_SYNTAX not in meta:
        raise ValueError("no transfer syntax")
    syntax = bytes(meta[_TRANSFER_SYNTAX].value or b"").rstrip(b"\0 ")
    is_implicit = syntax == _IMPLICIT
    if not is_implicit and syntax not in _EXPLICIT:
        raise ValueError("not a plain transfer syntax")
    if _heading(head, begin, is_implicit)[0] >> 16 <= 2 or (is_implicit and head[begin + 4 : begin + 6].isupper()):
        raise ValueError("a command group, or another encoding than it says")
    end, elements = _walk(head, begin, len(head), _PIXEL_DATA.__contains__, default_encoding, is_implicit)
    if end == len(head) and not is_whole:
        raise ValueError("goes on")
    elements.forget_beyond(end)
    file_meta = FileMetaDataset({**meta})
    file_meta.set_original_encoding(False, True, default_encoding)
    found = FileDataset(file, Dataset(elements), head[:128], file_meta, is_implicit, True)
    found.set_original_encoding(is_implicit, True, elements.encoding)
    return found


def _walk(
    head: bytes, at: int, end: int, is_beyond: Callable[[int], bool], encoding: Encoding, is_implicit: bool
) -> tuple[int, Elements]:
    """Where the first element lies that is beyond, else `end`; and the elements from `at` to there."""
    places: dict[BaseTag, int] = {}
    while at < end:
        number, vr, length, value_at = _heading(head, at, is_implicit)
        if is_beyond(number):
            break
        places[tag_of(number)] = at
        at = _end_of_element(head, number, vr, length, value_at, is_implicit, 0)
    if at > end:
        raise ValueError("a value without end")
    return at, Elements(head, places, encoding, is_implicit=is_implicit)


def _element(head: bytes, at: int, encoding: Encoding, is_implicit: bool) -> Element:
    """The element at `at`: a sequence with its items, anything else raw, as pydicom decodes it when it is asked for."""
    number, vr, length, begin = _heading(head, at, is_implicit)
    tag, is_open = tag_of(number), length == _UNDEFINED
    if is_open or vr == "SQ":
        try:
            items = Sequence(_items(head, begin, None if is_open else begin + length, encoding, is_implicit))
        except (ValueError, struct.error):
            vr = "SQ"  # pydicom makes of it what it can
        else:
            items.is_undefined_length = is_open
            return DataElement(tag, "SQ", items, begin, is_open, already_converted=True)
    end = begin + length
    if is_open:
        end = _end_of_element(head, number, vr, length, begin, is_implicit, 0) - len(_SEQUENCE_END)
    content = head[begin:end] if length else cast("bytes | None", empty_value_for_VR(vr, raw=True))
    return RawDataElement(tag, vr, length, content, begin, is_implicit, True)


def _items(head: bytes, at: int, end: int | None, encoding: Encoding, is_implicit: bool) -> Iterator[Dataset]:
    """The items of a sequence; without `end` up to its delimiter."""
    limit = len(head) if end is None else end
    while at < limit:
        if end is None and head[at : at + 8] == _SEQUENCE_END:
            return
        if head[at : at + 4] != _ITEM:
            raise ValueError("no item")
        begin, length = at + 8, _length(head, at + 4)[0]
        is_open = length == _UNDEFINED
        at = limit if is_open else begin + length
        at, elements = _walk(head, begin, at, _is_item_end if is_open else _is_nothing, encoding, is_implicit)
        if is_open and head[at : at + 8] != _ITEM_END:
            raise ValueError("an item without end")
        at += is_open * len(_ITEM_END)
        item = Dataset(elements, parent_encoding=encoding)
        item.set_original_encoding(is_implicit, True, elements.encoding)
        item.is_undefined_length_sequence_item = is_open
        yield item
    if at != end:
        raise ValueError("a sequence without end")


def _is_item_end(number: int) -> bool:
    return number == 0xFFFEE00D


def _is_nothing(_: int) -> bool:
    return False


def _heading(head: bytes, at: int, is_implicit: bool) -> tuple[int, str | None, int, int]:
    """Tag, VR ("" for none that we know), and length of the element at `at`, and where its value begins."""
    if is_implicit:
        group, element, length = _implicit_heading(head, at)
        return group << 16 | element, None, length, at + 8
    group, element, code, length = _explicit_heading(head, at)
    if code in _SHORT:
        return group << 16 | element, _SHORT[code], length, at + 8
    if code in _LONG:
        return group << 16 | element, _LONG[code], _length(head, at + 8)[0], at + 12
    return group << 16 | element, "", 0, at


def _end_of_element(
    head: bytes, number: int, vr: str | None, length: int, value_at: int, is_implicit: bool, depth: int
) -> int:
    if vr == "" or number >> 16 == 0xFFFE:
        raise ValueError("no VR of the Standard, or a delimiter out of place")
    if length != _UNDEFINED:
        return value_at + length
    if depth == MAX_DEPTH or not _is_sequence(head, value_at, number, vr):
        raise ValueError("deep, or no sequence")
    at = value_at
    while head[at : at + 8] != _SEQUENCE_END:
        if head[at : at + 4] != _ITEM:
            raise ValueError("no item")
        at = _end_of_item(head, at + 8, _length(head, at + 4)[0], is_implicit, depth + 1)
    return at + len(_SEQUENCE_END)


def _end_of_item(head: bytes, at: int, length: int, is_implicit: bool, depth: int) -> int:
    """Where an item of a sequence ends, its delimiter included, whose elements begin at `at`."""
    is_open = length == _UNDEFINED
    end = len(head) if is_open else at + length
    while at < end:
        if is_open and head[at : at + 8] == _ITEM_END:
            return at + len(_ITEM_END)
        at = _end_of_element(head, *_heading(head, at, is_implicit), is_implicit, depth)
    if is_open or at > end:
        raise ValueError("an item without end")
    return at


def _is_sequence(head: bytes, at: int, number: int, vr: str | None) -> bool:
    """Whether pydicom takes a value of undefined length for a sequence, too."""
    if vr is not None:
        return vr == "SQ"
    try:
        return dictionary_VR(number) == "SQ"
    except KeyError:
        return head[at : at + 4] == _ITEM
