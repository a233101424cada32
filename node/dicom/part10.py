"""The DICOM file format (PS3.10 section 7.1) around a data set that stays encoded as it came.

The file meta group is where the receiver, which has no database, keeps who sent an instance and which of our
AE titles was called: (0002,0016) to (0002,0018). The called title may be all that tells pre- from post-treatment.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

IMPLEMENTATION_CLASS_UID = "2.25.152576604689858459117616210738524937969"
PREFIX = b"\0" * 128 + b"DICM"
_LONG_VRS = frozenset({b"OB", b"OW", b"UN", b"SQ", b"UT", b"UC", b"UR", b"OD", b"OF", b"OL", b"OV", b"SV", b"UV"})
_CLASS, _INSTANCE, _SYNTAX, _IMPLEMENTATION, _SOURCE, _SENDING, _RECEIVING = (
    0x0002,
    0x0003,
    0x0010,
    0x0012,
    0x0016,
    0x0017,
    0x0018,
)


@dataclass(frozen=True)
class FileMeta:
    """What the file meta group tells of an instance and of its way here."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    calling_ae: str = ""
    called_ae: str = ""

    def encode(self) -> bytes:
        """Preamble, prefix and file meta group, Explicit VR Little Endian."""
        elements = [
            _element(0x0001, b"OB", b"\0\1"),
            _element(_CLASS, b"UI", _ascii(self.sop_class_uid)),
            _element(_INSTANCE, b"UI", _ascii(self.sop_instance_uid)),
            _element(_SYNTAX, b"UI", _ascii(self.transfer_syntax_uid)),
            _element(_IMPLEMENTATION, b"UI", _ascii(IMPLEMENTATION_CLASS_UID)),
        ]
        for number, title in ((_SOURCE, self.calling_ae), (_SENDING, self.calling_ae), (_RECEIVING, self.called_ae)):
            if title:
                elements.append(_element(number, b"AE", _ascii(title)))
        body = b"".join(elements)
        return PREFIX + _element(0x0000, b"UL", struct.pack("<I", len(body))) + body


def split(data: bytes) -> tuple[FileMeta, memoryview]:
    """A file of ours apart again: its file meta and its encoded data set. Raises ValueError for another format."""
    if data[: len(PREFIX)] != PREFIX or data[len(PREFIX) : len(PREFIX) + 8] != b"\2\0\0\0UL\4\0":
        raise ValueError("no file meta group as this node writes it")
    start = len(PREFIX) + 12
    (length,) = struct.unpack_from("<I", data, start - 4)
    values = _values(data[start : start + length])
    meta = FileMeta(*(values.get(number, "") for number in (_CLASS, _INSTANCE, _SYNTAX, _SOURCE, _RECEIVING)))
    return meta, memoryview(data)[start + length :]


def _element(number: int, vr: bytes, value: bytes) -> bytes:
    value += (b"\0" if vr in (b"UI", b"OB") else b" ") * (len(value) % 2)
    length = struct.pack("<HI", 0, len(value)) if vr in _LONG_VRS else struct.pack("<H", len(value))
    return struct.pack("<HH", 0x0002, number) + vr + length + value


def _values(group: bytes) -> dict[int, str]:
    values = {}
    at = 0
    while at < len(group):
        number, vr = struct.unpack_from("<H2s", group, at + 2)
        layout, begin = ("<I", 12) if vr in _LONG_VRS else ("<H", 8)
        (length,) = struct.unpack_from(layout, group, at + begin - struct.calcsize(layout))
        values[number] = group[at + begin : at + begin + length].decode("ascii").rstrip("\0 ")
        at += begin + length
    return values


def _ascii(text: str) -> bytes:
    # an association may carry any bytes for a UID; what we write is always readable again
    return text.encode("ascii", "backslashreplace")[:1024]
