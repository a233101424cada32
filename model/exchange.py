"""Files by which the node and its inference process hand arrays over, read by memory map.

One pair of files a worker, written over in place for each study: their pages stay in memory, so that a CT's 150 MB
cost a copy and no allocation. What a file holds counts only while its writer's answer says so; nothing is fsynced,
because a step that was cut short begins anew.

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
    """Write `volume` over what is in `path`."""

    def write(file: IO[bytes]) -> None:
        _write_record(file, volume.affine_lps_mm.astype(np.float64))
        _write_record(file, volume.array_DHW.astype(np.float32, copy=False))

    _write_over(path, write)


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
    """Write probabilities over what is in `path`."""
    _write_over(path, lambda file: _write_record(file, probability_DHW))


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


def _write_over(path: Path, write: Callable[[IO[bytes]], None]) -> None:
    """In place, and cut to length. The file is the reader's and ours alone."""
    path.touch(mode=0o600)
    with path.open("r+b") as file:
        write(file)
        file.truncate()
