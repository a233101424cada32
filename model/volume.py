"""Arrays that carry their place in the patient.

Convention for the whole project: `array_DHW[d, h, w]` is slice, row, column, and
`affine_lps_mm @ (d, h, w, 1)` is the patient position of that voxel's centre in mm, in the DICOM patient
frame (x to the left, y to the back, z to the head; PS3.3 C.7.6.2). The affine may be any invertible
matrix: slices may run up or down and the plane may be oblique.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

Float: TypeAlias = NDArray[np.float32]
Half: TypeAlias = NDArray[np.float16]
Float64: TypeAlias = NDArray[np.float64]
Labels: TypeAlias = NDArray[np.uint16]


class Buffer:
    """One array after the other in the same memory: a fresh 100 MB costs the system more than filling it.

    Whoever takes the next array gives up the last one. Arrays beyond `kept_bytes` are not kept.
    """

    def __init__(self, dtype: DTypeLike, kept_bytes: int = 256 << 20) -> None:
        self._flat = np.empty(0, dtype)
        self._kept_bytes = kept_bytes

    def take(self, shape: tuple[int, ...]) -> NDArray[Any]:
        """An array of this shape with arbitrary content."""
        size = math.prod(shape)
        if size * self._flat.itemsize > self._kept_bytes:
            return np.empty(shape, self._flat.dtype)
        if size > self._flat.size:
            self._flat = np.empty(size, self._flat.dtype)
        return self._flat[:size].reshape(shape)


@dataclass(frozen=True)
class Volume:
    """One image volume: `array_DHW` float32 in the modality's units (HU for CT, arbitrary for MR)."""

    array_DHW: Float
    affine_lps_mm: Float64

    def __post_init__(self) -> None:
        if self.array_DHW.ndim != 3:
            raise ValueError(f"a volume has three axes (slice, row, column), got {self.array_DHW.shape}")
        if self.affine_lps_mm.shape != (4, 4):
            raise ValueError(f"an affine is 4×4, got {self.affine_lps_mm.shape}")
        if abs(np.linalg.det(self.affine_lps_mm[:3, :3])) < 1e-9:
            raise ValueError("the affine is singular: two axes of the volume have the same direction or no length")

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between voxel centres along slice, row and column axes, in mm."""
        d, h, w = np.linalg.norm(self.affine_lps_mm[:3, :3], axis=0)
        return float(d), float(h), float(w)

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return float(abs(np.linalg.det(self.affine_lps_mm[:3, :3])) / 1000.0)

    def to_lps_mm(self, indices_N3: Float64) -> Float64:
        """Patient positions (N, 3) in mm of voxel indices (N, 3) given as (d, h, w), fractions allowed."""
        return indices_N3 @ self.affine_lps_mm[:3, :3].T + self.affine_lps_mm[:3, 3]

    def with_array(self, array_DHW: Float) -> Volume:
        """The same grid with other values; the shape must agree."""
        if array_DHW.shape != self.array_DHW.shape:
            raise ValueError(f"shape {array_DHW.shape} is not the grid's {self.array_DHW.shape}")
        return replace(self, array_DHW=array_DHW)


@dataclass(frozen=True)
class Mask:
    """Lesion labels on a source grid: 0 is background, 1..N are the lesions, each one component."""

    labels_DHW: Labels
    affine_lps_mm: Float64

    @property
    def count(self) -> int:
        """How many lesions are labelled."""
        return int(self.labels_DHW.max(initial=0))
