"""NIfTI-1 single files (`.nii`, `.nii.gz`) ↔ arrays in this project's convention, with every affine as it is.

Written and read here, and not by SimpleITK, because ITK knows right angles only: it bends the grid of a CT with a
tilted gantry when it writes one, and refuses to read it. A file is a header of 348 bytes, four bytes, and the voxels,
the column index running fastest, so that the order of voxels is that of `array_DHW`. Positions are stored in RAS and
in single precision, 0.03 µm at half a metre.

Source: NIfTI-1 data format, https://nifti.nimh.nih.gov/nifti-1 (`nifti1.h`).
"""

from __future__ import annotations

import gzip
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.volume import Float64

HEADER_BYTES = 348
VOXELS_AT = 352
GZIP_LEVEL = 3
"""A phantom CT of 40 slices shrinks to 54 % at level 1, 53 % at 3, 54 % at 6, which takes three times as long as 3."""

_DTYPES = {
    **{2: "u1", 256: "i1", 4: "i2", 512: "u2", 8: "i4", 768: "u4", 1024: "i8", 1280: "u8"},
    **{16: "f4", 64: "f8"},
}
_CODES = {np.dtype(name): code for code, name in _DTYPES.items()}
_MM, _SCANNER = 2, 1
_UNIT_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
_RAS_FROM_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


class NiftiProblem(Exception):
    """A file is no NIfTI image that can be read; the message names it and says why."""


@dataclass(frozen=True)
class Nifti:
    """Voxels as stored, or float64 where the file scales them, and their place as in `model.volume`."""

    array_DHW: NDArray[Any]
    affine_lps_mm: Float64


def write_nifti(path: Path, array_DHW: NDArray[Any], affine_lps_mm: Float64) -> None:
    """Write `path` (`.nii.gz` is compressed) and fsync it; the same array gives the same bytes. Raises ValueError."""
    if array_DHW.ndim != 3 or array_DHW.dtype not in _CODES:
        raise ValueError(f"{path.name}: NIfTI holds no {array_DHW.dtype} of {array_DHW.ndim} axes")
    voxels = np.ascontiguousarray(array_DHW.astype(array_DHW.dtype.newbyteorder("<"), copy=False))
    with path.open("wb") as file:
        if path.suffix == ".gz":
            with gzip.GzipFile(filename="", mode="wb", compresslevel=GZIP_LEVEL, fileobj=file, mtime=0) as packed:
                packed.write(_header(array_DHW, affine_lps_mm))
                packed.write(voxels.data)
        else:
            file.write(_header(array_DHW, affine_lps_mm))
            file.write(voxels.data)
        file.flush()
        os.fsync(file.fileno())


def read_nifti(path: Path) -> Nifti:
    """The image in `path`. Where sform and qform both say how it lies, the sform counts. Raises NiftiProblem."""
    raw = _bytes_of(path)
    order = _byte_order(raw, path)
    dim = struct.unpack_from(f"{order}8h", raw, 40)
    shape_DHW = tuple(reversed(dim[1:4]))
    if not 3 <= dim[0] <= 7 or min(shape_DHW) < 1 or any(size > 1 for size in dim[4 : dim[0] + 1]):
        raise NiftiProblem(f"{path.name}: its size is {dim[1 : dim[0] + 1]}, and one volume of three axes is needed")
    (code,) = struct.unpack_from(f"{order}h", raw, 70)
    if code not in _DTYPES:
        raise NiftiProblem(f"{path.name}: voxels of NIfTI data type {code} are not supported")
    dtype = np.dtype(f"{order}{_DTYPES[code]}")
    offset, slope, intercept = struct.unpack_from(f"{order}3f", raw, 108)
    count, start = int(np.prod(shape_DHW)), max(int(offset), VOXELS_AT)
    if len(raw) < start + count * dtype.itemsize:
        raise NiftiProblem(f"{path.name}: the file is cut short")
    array_DHW = np.frombuffer(raw, dtype, count, start).reshape(shape_DHW)
    return Nifti(_rescaled(array_DHW, slope, intercept), _affine(raw, order, path))


def _header(array_DHW: NDArray[Any], affine_lps_mm: Float64) -> bytes:
    raw = bytearray(VOXELS_AT)
    depth, height, width = array_DHW.shape
    spacing_mm = np.linalg.norm(affine_lps_mm[:3, [2, 1, 0]], axis=0)
    struct.pack_into("<i", raw, 0, HEADER_BYTES)
    struct.pack_into("<8h", raw, 40, 3, width, height, depth, 1, 1, 1, 1)
    struct.pack_into("<2h", raw, 70, _CODES[array_DHW.dtype], array_DHW.dtype.itemsize * 8)
    struct.pack_into("<4f", raw, 76, 1.0, *spacing_mm)
    struct.pack_into("<3f", raw, 108, VOXELS_AT, 1.0, 0.0)
    raw[123] = _MM
    struct.pack_into("<2h", raw, 252, 0, _SCANNER)
    struct.pack_into("<12f", raw, 280, *(_RAS_FROM_LPS @ affine_lps_mm)[:3, [2, 1, 0, 3]].ravel())
    raw[344:348] = b"n+1\0"
    return bytes(raw)


def _bytes_of(path: Path) -> bytes:
    try:
        raw = path.read_bytes()
        return gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise NiftiProblem(f"{path.name}: the compressed file is damaged or cut short") from error
    except OSError as error:
        raise NiftiProblem(f"{path.name}: cannot be read ({error.strerror})") from error


def _byte_order(raw: bytes, path: Path) -> str:
    for order in "<>" if len(raw) > VOXELS_AT and raw[344:348] == b"n+1\0" else "":
        if struct.unpack_from(f"{order}i", raw, 0) == (HEADER_BYTES,):
            return order
    raise NiftiProblem(f"{path.name}: not a NIfTI-1 image in a single file (.nii or .nii.gz)")


def _rescaled(array_DHW: NDArray[Any], slope: float, intercept: float) -> NDArray[Any]:
    """A slope of 0 says that nothing is scaled."""
    if (slope in (0.0, 1.0) and intercept == 0.0) or not np.isfinite([slope, intercept]).all():
        return array_DHW
    return array_DHW * np.float64(slope or 1.0) + intercept


def _affine(raw: bytes, order: str, path: Path) -> Float64:
    unit_mm = _UNIT_MM.get(raw[123] & 7)
    qform_code, sform_code = struct.unpack_from(f"{order}2h", raw, 252)
    if unit_mm is None or (sform_code <= 0 and qform_code <= 0):
        raise NiftiProblem(f"{path.name}: it does not say how it lies in the patient (qform_code and sform_code are 0)")
    ras = np.eye(4)
    if sform_code > 0:
        ras[:3] = np.reshape(struct.unpack_from(f"{order}12f", raw, 280), (3, 4))
    else:
        ras[:3] = _quaternion_affine(raw, order)
    ras[:3] *= unit_mm
    affine: Float64 = (_RAS_FROM_LPS @ ras)[:, [2, 1, 0, 3]]
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise NiftiProblem(f"{path.name}: its affine is singular, so it lies nowhere")
    return affine


def _quaternion_affine(raw: bytes, order: str) -> Float64:
    """(3, 4): the rotation of `quatern_b..d`, the spacings, and the sign of the third axis in `pixdim[0]`."""
    pixdim = struct.unpack_from(f"{order}4f", raw, 76)
    b, c, d, *origin = struct.unpack_from(f"{order}6f", raw, 256)
    a = max(0.0, 1.0 - (b * b + c * c + d * d)) ** 0.5
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    steps = np.array(pixdim[1:4]) * (1.0, 1.0, -1.0 if pixdim[0] < 0 else 1.0)
    return np.column_stack([rotation * steps, origin])
