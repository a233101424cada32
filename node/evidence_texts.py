"""What a header says in words: an attribute as text, the places in which a series speaks of itself, Image Type."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence

from node.dicom.header import FrameHeader
from node.evidence_facts import IMAGE_TYPE_PLACES
from node.evidence_vendors import SIEMENS_IMAGE_TYPE_TEXT, PrivateReader

SERIES_TEXTS: tuple[tuple[str, str], ...] = (
    ("SeriesDescription", "(0008,103E)"),
    ("ProtocolName", "(0018,1030)"),
    ("AcquisitionProtocolName", "(0018,9423)"),
    ("ImageComments", "(0020,4000)"),
)
"""Where a series speaks of itself. What the study is called says what was ordered, not what this series shows."""


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


def image_type_of(header: FrameHeader, private: PrivateReader | None = None) -> tuple[str, ...]:
    """Frame Type where there is one, else Image Type, then what a vendor adds; upper case, no empty values."""
    found = (header.get("FrameType") if header.number is not None else None) or header.get("ImageType")
    added = private.get(SIEMENS_IMAGE_TYPE_TEXT) if private and _is_siemens_xa(private) else None
    return tuple(dict.fromkeys((*_tokens(found), *_tokens(added))))


def image_types(header: FrameHeader, private: PrivateReader) -> Iterator[tuple[tuple[str, ...], str]]:
    """(tokens, where) of each place that tells the kind of image, so that one can be heard against another."""
    of_frame = header.get("FrameType") if header.number is not None else None
    of_vendor = private.get(SIEMENS_IMAGE_TYPE_TEXT) if _is_siemens_xa(private) else None
    for found, where in zip((header.get("ImageType"), of_frame, of_vendor), IMAGE_TYPE_PLACES, strict=True):
        if tokens := tuple(dict.fromkeys(_tokens(found))):
            yield tokens, where


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
    return is_multiframe or private.has(SIEMENS_IMAGE_TYPE_TEXT.creator)
