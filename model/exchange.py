"""Files by which the node and its inference process hand arrays over: whole or absent, read by memory map.

Not fsynced: after a power cut the step begins anew and writes them again, and 150 MB a CT would wait for the disk.

A volume file is two npy records in one file, the 4×4 affine (float64) and the voxels (float32), so that array and
affine cannot be parted. A probability file is one npy record, float16.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from model.volume import Half, Volume


class ExchangeProblem(Exception):
    """A hand-over file is not what its name promises."""


def write_volume(path: Path, volume: Volume) -> None:
    """Write `volume` to `path` (any suffix), atomically."""

    def write(file: IO[bytes]) -> None:
        _write_record(file, volume.affine_lps_mm.astype(np.float64))
        _write_record(file, volume.array_DHW.astype(np.float32, copy=False))

    _write_whole(path, write)


def read_volume(path: Path) -> Volume:
    """The volume in `path`, its voxels a read-only memory map. Raises ExchangeProblem."""
    try:
        with path.open("rb") as file:
            affine = np.array(_map_record(file, path))
            array_DHW = _map_record(file, path)
        return Volume(array_DHW, affine)
    except (OSError, ValueError, EOFError) as error:
        raise ExchangeProblem(f"{path.name}: not a volume file ({error})") from error


def write_probability(path: Path, probability_DHW: Half) -> None:
    """Write probabilities to `path`, atomically."""
    _write_whole(path, lambda file: _write_record(file, probability_DHW))


def read_probability(path: Path) -> Half:
    """Probabilities (D, H, W), a read-only memory map. Raises ExchangeProblem."""
    try:
        with path.open("rb") as file:
            stored = _map_record(file, path)
        if stored.dtype != np.float16 or stored.ndim != 3:
            raise ValueError(f"{stored.ndim} axes of {stored.dtype}")
        return stored
    except (OSError, ValueError, EOFError) as error:
        raise ExchangeProblem(f"{path.name}: not a probability file ({error})") from error


def _write_record(file: IO[bytes], array: NDArray[Any]) -> None:
    npy.write_array(file, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)


def _map_record(file: BufferedReader, path: Path) -> NDArray[Any]:
    """The npy record at the file's position as a read-only map; the position moves behind it."""
    if npy.read_magic(file) != (1, 0):
        raise ValueError("unknown npy version")
    shape, is_fortran, dtype = npy.read_array_header_1_0(file)
    if is_fortran or dtype.hasobject:
        raise ValueError("not a plain C-ordered array")
    start = file.tell()
    length = int(np.prod(shape)) * dtype.itemsize
    if file.seek(0, os.SEEK_END) < start + length:
        raise ValueError("the file is cut short")
    file.seek(start + length)
    return np.memmap(path, dtype=dtype, mode="r", offset=start, shape=shape) if length else np.empty(shape, dtype)


def _write_whole(path: Path, write: Callable[[IO[bytes]], None]) -> None:
    """Under a temporary name, then renamed: a reader finds all of it or nothing."""
    draft = path.with_name(f"{path.name}.part")
    with draft.open("wb") as file:
        write(file)
    draft.replace(path)
