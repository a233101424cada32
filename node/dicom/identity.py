"""Which instance a data set is: four UIDs out of its first elements, and nothing more of it is read.

A C-STORE request names class and instance, but not the series; that stands in the data set alone. The parse stops
behind (0020,000E): pixel data and whatever follows stay bytes.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag
from pydicom.uid import UID

from node.dicom.header import PARSE_FAULTS
from node.errors import UnreadableInstance

MAX_INFLATED_BYTES = 16 << 20
"""Headers of deflated data sets are looked for within their first so many bytes."""

_TAGS = {"sop_class_uid": 0x00080016, "sop_instance_uid": 0x00080018, "study_uid": 0x0020000D, "series_uid": 0x0020000E}
_LAST = max(_TAGS.values())


@dataclass(frozen=True)
class Identity:
    """What a data set says of itself; empty where it says nothing."""

    sop_class_uid: str
    sop_instance_uid: str
    study_uid: str
    series_uid: str


def read_identity(dataset: bytes, transfer_syntax_uid: str) -> Identity:
    """The UIDs of an encoded data set. Raises UnreadableInstance for bytes that are none."""
    if not dataset:
        raise UnreadableInstance("an empty data set")
    syntax = UID(transfer_syntax_uid)
    try:
        if syntax.is_deflated:
            dataset = zlib.decompressobj(-zlib.MAX_WBITS).decompress(dataset, MAX_INFLATED_BYTES)
        head = read_dataset(
            BytesIO(dataset),
            syntax.is_implicit_VR,
            syntax.is_little_endian,
            stop_when=_is_behind_series,
            specific_tags=[BaseTag(tag) for tag in _TAGS.values()],
        )
        return Identity(**{name: _text(head, tag) for name, tag in _TAGS.items()})
    except PARSE_FAULTS as error:
        # without the parser's text, which may quote a value
        raise UnreadableInstance(f"not readable as a data set ({type(error).__name__})") from None


def _is_behind_series(tag: BaseTag, vr: str | None, length: int) -> bool:
    return int(tag) > _LAST


def _text(head: Dataset, tag: int) -> str:
    if tag not in head:
        return ""
    element: Any = head.get_item(tag)
    # pydicom takes what is there; half a series UID would be another series
    if isinstance(element, RawDataElement) and len(element.value or b"") < element.length:
        raise UnreadableInstance("cut off within its identifiers")
    return str(head[tag].value or "").strip(" \0")
