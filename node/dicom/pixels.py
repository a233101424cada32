"""Encoded pixel data → stored values. The one place that knows which decoders there are.

Every transfer syntax that the node accepts is decoded: native ones by pydicom, RLE by pylibjpeg-rle, JPEG 2000
and HTJ2K by pylibjpeg-openjpeg, JPEG-LS by pyjpegls, JPEG lossless and JPEG of 8 bits (processes 1 and 2) by
python-gdcm; lossy JPEG of 12 bits (process 4) has no decoder under a licence that we may ship, and is refused.
The decoders hold the interpreter's lock, so threads gain nothing here (measured: 18.8 ms per 512² slice of
JPEG 2000 alone, 23 ms with two threads).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.utils import pixel_array

from node.dicom.header import PARSE_FAULTS, as_numbers, read_instance, value
from node.errors import UnreadableInstance

Stored = NDArray[np.integer[Any]]

# what decoders raise on broken codestreams, beside what a parser raises
_DECODE_FAULTS = (*PARSE_FAULTS, RuntimeError)


def stored_frames(dataset: Dataset, numbers: Sequence[int] = (), *, name: str) -> Iterator[Stored]:
    """Stored values (rows, columns) of the given 1-based frames, all of them where none is named.

    Signed or unsigned as Pixel Representation says, unused bits cleared, no rescaling. `name` is the file's, for
    the message. Raises UnreadableInstance: no pixel data, truncated, colour, or a syntax without a decoder.
    """
    if "PixelData" not in dataset:
        raise UnreadableInstance(f"{name}: it has no pixel data")
    samples = value(dataset, "SamplesPerPixel", 1)
    if samples != 1:
        raise UnreadableInstance(f"{name}: a colour image ({samples} samples per pixel), not CT or MR values")
    for frame in _decoded(dataset, numbers, name):
        yield frame.reshape(frame.shape[-2:])


def pixel_sha256(path: Path) -> str | None:
    """Digest of an instance's decoded pixel values, None where it has none.

    The same for the same pixels in another transfer syntax or under another header: it tells a corrected header
    from another image when a SOP Instance UID comes again. Raises UnreadableInstance.
    """
    dataset = read_instance(path)
    if "PixelData" not in dataset:
        return None
    digest = hashlib.sha256()
    for frame in _decoded(dataset, (), path.name):
        digest.update(repr(frame.shape).encode())
        digest.update(np.ascontiguousarray(frame.astype("<i8")).data)
    return digest.hexdigest()


def _decoded(dataset: Dataset, numbers: Sequence[int], name: str) -> Iterator[NDArray[Any]]:
    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        # frame by frame through pixel_array: pydicom's iter_pixels fails on JPEG 2000 whose sign disagrees with
        # Pixel Representation (3.0.2: "output array is read-only")
        for number in numbers or range(1, encoded_frame_count(dataset) + 1):
            yield pixel_array(dataset, index=number - 1, raw=True)
    except BaseException as error:
        # a panic of the RLE decoder, which is written in Rust, is no Exception, and its type has no public name
        if not isinstance(error, _DECODE_FAULTS) and type(error).__name__ != "PanicException":
            raise
        raise UnreadableInstance(
            f"{name}: pixel data cannot be decoded ({syntax.name}): truncated, damaged or not supported"
        ) from None


def encoded_frame_count(dataset: Dataset) -> int:
    """Number of Frames as told, at least 1."""
    told = as_numbers(value(dataset, "NumberOfFrames", 1))
    return max(1, int(told[0])) if told else 1
