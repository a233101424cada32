"""Where each vendor writes its diffusion facts: rows of tables, read always through the private creator.

The order of reading a b-value (PS3.3 C.8.13.5.9 first, then the vendors): a vendor's nominal value where it has
one beside the actual, the public attribute, the vendors' private ones, the CSA header, the name of the sequence,
words. Sources: headers of the vendors' own files (dcm2niix's vendor notes name the same places).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from node.dicom.elements import tag_of
from node.dicom.header import FrameHeader, as_numbers, numbers_at, value

GE_MODULUS = 1_000_000_000
"""GE adds an offset of 1e9 to the b-value of some multi-b series: 1000001000 is b = 1000."""
CUSTOMARY_BLOCK = 0x10
LOWEST_WEIGHTED_B = 50
"""s/mm²: below it a volume is not diffusion-weighted for our purposes."""


@dataclass(frozen=True)
class PrivateTag:
    """A private element: creator, group, and the offset in whatever block the creator reserved (PS3.5 7.8)."""

    creator: str
    group: int
    offset: int

    def __str__(self) -> str:
        return f"({self.group:04X},xx{self.offset:02X}) {self.creator}"


@dataclass(frozen=True)
class BSource:
    """A private place of a b-value. `maker` recognises the vendor where the creator is lost."""

    tag: PrivateTag
    maker: re.Pattern[str]
    decode: Callable[[tuple[float, ...]], float] = field(default=lambda numbers: numbers[0])
    needs_diffusion: bool = False
    """The element exists on other sequences too and means nothing there."""


_SIEMENS = re.compile("siemens", re.IGNORECASE)
_GE = re.compile(r"^ge\b|general electric", re.IGNORECASE)
_PHILIPS = re.compile("philips", re.IGNORECASE)
_UIH = re.compile(r"uih|united imaging", re.IGNORECASE)

UIH_NOMINAL_B = BSource(PrivateTag("Image Private Header", 0x0065, 0x0A), _UIH)
GE_B = BSource(
    PrivateTag("GEMS_PARM_01", 0x0043, 0x39), _GE, lambda numbers: numbers[0] % GE_MODULUS, needs_diffusion=True
)
PRIVATE_B: tuple[BSource, ...] = (
    BSource(PrivateTag("SIEMENS MR HEADER", 0x0019, 0x0C), _SIEMENS),
    GE_B,
    BSource(PrivateTag("Philips Imaging DD 001", 0x2001, 0x03), _PHILIPS),
    BSource(PrivateTag("Image Private Header", 0x0065, 0x09), _UIH, lambda numbers: 50.0 * round(numbers[0] / 50)),
)
"""UIH's 0065,xx09 is the actual value (929.75, 1.25), here brought to the nearest 50."""

SIEMENS_IMAGE_TYPE_TEXT = PrivateTag("SIEMENS MR SDI 02", 0x0021, 0x75)
"""XA scanners name trace and maps here where Image Type says DERIVED\\PRIMARY\\DIFFUSION\\NONE."""
SIEMENS_DIRECTIONALITY = PrivateTag("SIEMENS MR HEADER", 0x0019, 0x0D)
SIEMENS_CSA = PrivateTag("SIEMENS CSA HEADER", 0x0029, 0x10)
PHILIPS_DIRECTION = PrivateTag("Philips Imaging DD 001", 0x2001, 0x04)
PHILIPS_SPIR = PrivateTag("Philips Imaging DD 001", 0x2001, 0x21)
PHILIPS_TECHNIQUE = PrivateTag("Philips Imaging DD 001", 0x2001, 0x20)
PHILIPS_EPI_FACTOR = PrivateTag("Philips Imaging DD 001", 0x2001, 0x13)
"""Lines read after one refocusing pulse: 1 of a turbo spin echo, 31 of a DwiSE."""
GE_IMAGE_KIND = PrivateTag("GEMS_PARM_01", 0x0043, 0x30)
GE_SERIES_KIND = PrivateTag("GEMS_RELA_01", 0x0021, 0x5A)
GE_SEQUENCE = PrivateTag("GEMS_ACQU_01", 0x0019, 0x9C)
GE_IMAGE_KINDS = {
    **dict.fromkeys((3, 4, 5, 16), "directional"),
    14: "none",
    **dict.fromkeys((15, 19), "isotropic"),
}
"""One axis each (right-left, anterior-posterior, superior-inferior), a tensor's direction; T2; combined, trace."""
GE_SINGLE_AXES = frozenset({1, 2, 4, 8})
GE_ANISOTROPY = 18
"""The image kind of a map of fractional anisotropy."""
VECTORS: tuple[tuple[PrivateTag, ...], ...] = (
    (PrivateTag("SIEMENS MR HEADER", 0x0019, 0x0E),),
    tuple(PrivateTag("GEMS_ACQU_01", 0x0019, offset) for offset in (0xBB, 0xBC, 0xBD)),
    tuple(PrivateTag("Philips MR Imaging DD 001", 0x2005, offset) for offset in (0xB0, 0xB1, 0xB2)),
    (PrivateTag("Image Private Header", 0x0065, 0x37),),
)
"""Gradient directions: one element of three numbers, or three of one."""

GROUPS = frozenset((0x0019, 0x0021, 0x0029, 0x0043, 0x0065, 0x2001, 0x2005))
"""The private groups of all tables here."""

# *ep_b800t is the trace at 800; *ep_b1000#12 a direction; ep_b50_800 was calculated from b = 50 and 800;
# the letters before are the read-out: ep single-shot, re readout-segmented (RESOLVE), ez zoomed
SIEMENS_SEQUENCE_NAME = re.compile(r"(?<![a-z])[a-z]{2}_b(?P<b>\d+)(?:_(?P<upper>\d+))?(?P<mark>t|#\d+)?$")
CANON_COMMENT = re.compile(r"\bb\s*=\s*(?P<b>\d+(?:\.\d+)?)\s*(?:\((?P<vector>[-\d.,\s]+)\))?", re.IGNORECASE)
B_IN_WORDS = re.compile(r"(?<![^\W\d_])b[ _=-]?(?P<b>\d{2,4})(?!\d)", re.IGNORECASE)
DIFFUSION_SEQUENCE = re.compile(r"ep2d_diff|^\*?[a-z]{2}_b\d|epi2|dwi|dti|resolve|diff", re.IGNORECASE)

Creators = dict[tuple[int, str], tuple[int, ...]]


def creators_of(dataset: Dataset) -> Creators:
    """(group, creator) → the blocks it reserved in this data set, in one pass over the tags of our groups."""
    found: dict[tuple[int, str], tuple[int, ...]] = {}
    for tag in dataset.keys():  # noqa: SIM118 - iterating a data set itself decodes every element
        if tag & 0xFFFF <= 0xFF and tag >> 16 in GROUPS and tag & 0xFFFF >= 0x10:
            key = (tag >> 16, _creator(dataset, tag))
            found[key] = (*found.get(key, ()), tag & 0xFF)
    return found


def _creator(dataset: Dataset, tag: BaseTag) -> str:
    """The creator's name, from the raw bytes where they are still raw: there are a thousand headers to look at."""
    raw = dataset.get_item(tag).value
    return (
        raw.decode("ascii", "replace").strip("\0 ") if isinstance(raw, bytes) else str(value(dataset, tag, "")).strip()
    )


@dataclass(frozen=True)
class PrivateReader:
    """Private elements of one slice. Classic headers are indexed once, functional groups are searched."""

    header: FrameHeader
    creators: Creators

    def has(self, creator: str) -> bool:
        """Whether the creator reserved a block at the top of the data set."""
        return any(name == creator for _, name in self.creators)

    def get(self, tag: PrivateTag) -> object:
        """The element's value, None where this creator did not write it."""
        for at in self._places(tag):
            found = value(self.header.root, at)
            if found is not None:
                return found
        if self.header.number is not None:
            return self.header.private(tag.creator, tag.group, tag.offset)
        return None

    def numbers(self, tag: PrivateTag) -> tuple[float, ...]:
        """As `get`, as numbers."""
        for at in self._places(tag):
            numbers = numbers_at(self.header.root, at)
            if numbers is not None:
                return numbers
        found = self.header.private(tag.creator, tag.group, tag.offset) if self.header.number is not None else None
        return () if found is None else as_numbers(found)

    def _places(self, tag: PrivateTag) -> Iterator[BaseTag]:
        """Where the element may stand in the root: in each block that its creator reserved there."""
        for block in self.creators.get((tag.group, tag.creator), ()):
            yield tag_of(tag.group << 16 | block << 8 | tag.offset)

    def text(self, tag: PrivateTag) -> str:
        """As `get`, as one stripped text."""
        found = self.get(tag)
        if isinstance(found, bytes):
            return found.decode("ascii", "replace").strip("\0 ")
        return "" if found is None else str(found).strip()

    def orphan_numbers(self, tag: PrivateTag) -> tuple[float, ...]:
        """What stands at the vendor's customary block in a group whose creators were removed by a de-identifier."""
        if self.header.number is not None or any(group == tag.group for group, _ in self.creators):
            return ()
        found = value(self.header.root, tag_of(tag.group << 16 | CUSTOMARY_BLOCK << 8 | tag.offset))
        return () if found is None else as_numbers(found)


def csa_fields(raw: object, names: frozenset[str]) -> dict[str, str]:
    """First items of the named fields of a Siemens CSA header (format SV10), {} where it is none.

    Layout: "SV10", 4 bytes, count u32, 77 u32; then per field name[64], multiplicity i32, vr[4], type i32,
    items i32, 77|205; per item four i32 of which the second is its length, then the bytes, padded to four.
    """
    if not isinstance(raw, bytes) or raw[:4] != b"SV10":
        return {}
    try:
        return dict(_csa_items(raw, tuple(name.encode() + b"\0" for name in names)))
    except struct.error:
        return {}


_csa_count = struct.Struct("<I").unpack_from
_csa_field = struct.Struct("<64s12xi").unpack_from
_csa_length = struct.Struct("<4xi").unpack_from


def _csa_items(raw: bytes, wanted: tuple[bytes, ...]) -> Iterator[tuple[str, str]]:
    """Of a hundred fields with six items each two are wanted: the others are only stepped over."""
    (count,) = _csa_count(raw, 8)
    at = 16
    for _ in range(min(count, 512)):
        name, items = _csa_field(raw, at)
        at += 84
        first = b""
        for number in range(min(max(items, 0), 4096)):
            (length,) = _csa_length(raw, at)
            if not 0 <= length <= len(raw) - at:
                return
            if number == 0:
                first = raw[at + 16 : at + 16 + length]
            at += 16 + (length + 3) // 4 * 4
        if name.startswith(wanted):
            yield _csa_text(name), _csa_text(first)


def _csa_text(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode("ascii", "replace").strip()
