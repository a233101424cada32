"""Planes of a segmentation → the slices of a volume that they cover, by positions in the patient alone.

A segmentation may hold fewer slices than its images, in any order, its rows and columns flipped, transposed or cut to
a smaller matrix. What it may not be is on another grid: between the slices or between the pixels. That is refused, and
never resampled: a label must be what a person drew.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from model.volume import Float64
from node.dicom.grid import SPACING_TOLERANCE_MM, SPACING_TOLERANCE_PART
from node.dicom.seg_file import Plane, SegFrame, SegmentationFile
from node.dicom.volume import SourceVolume
from node.errors import GeometryError

_TOLERANCE_PIXELS = 0.05
"""A frame's first pixel lies on a pixel of the slice to this, and its last one to three times this."""


@dataclass
class PlacedSegment:
    """The voxels of one segment on a grid: (H, W) by slice index. `outside` counts those that lie beyond the grid."""

    shape_DHW: tuple[int, int, int]
    planes: dict[int, Plane] = field(default_factory=dict)
    outside: int = 0

    @property
    def voxels(self) -> int:
        """How many lie on the grid."""
        return sum(int(plane_HW.sum()) for plane_HW in self.planes.values())

    def whole(self) -> NDArray[np.bool_]:
        """The mask (D, H, W); memory for it is taken anew."""
        mask_DHW = np.zeros(self.shape_DHW, bool)
        for d, plane_HW in self.planes.items():
            mask_DHW[d] = plane_HW
        return mask_DHW


@dataclass(frozen=True)
class _Window:
    """How a frame's array becomes the slice's: transpose, flip, then its first row and column stand at (h, w)."""

    is_transposed: bool
    flips: tuple[int, ...]
    first_hw: tuple[int, int]

    def paste(self, plane_HW: Plane, shape_HW: tuple[int, int]) -> Plane:
        """The frame on the slice's matrix; what lies beyond it is cut off."""
        turned = np.flip(plane_HW.T if self.is_transposed else plane_HW, self.flips)
        pasted = np.zeros(shape_HW, bool)
        of_slice, of_frame = [], []
        for first, length, size in zip(self.first_hw, turned.shape, shape_HW, strict=True):
            low, high = max(first, 0), max(min(first + length, size), 0)
            of_slice.append(slice(low, max(low, high)))
            of_frame.append(slice(low - first, max(low, high) - first))
        pasted[tuple(of_slice)] = turned[tuple(of_frame)]
        return pasted


def place(seg: SegmentationFile, source: SourceVolume, wanted: Collection[int]) -> Mapping[int, PlacedSegment]:
    """The wanted segments on the volume's grid; one without any voxel is there, empty.

    Raises GeometryError where a frame does not lie on the grid, UnreadableInstance where pixels cannot be decoded.
    """
    shape_DHW = source.volume.array_DHW.shape
    placed = {number: PlacedSegment((shape_DHW[0], shape_DHW[1], shape_DHW[2])) for number in wanted}
    for frame, number, plane_HW in seg.planes(wanted):
        target = placed[number]
        d, window = _where(frame, plane_HW.shape, source)
        if not 0 <= d < shape_DHW[0]:
            target.outside += int(plane_HW.sum())
            continue
        pasted_HW = window.paste(plane_HW, shape_DHW[1:])
        target.outside += int(plane_HW.sum()) - int(pasted_HW.sum())
        target.planes[d] = pasted_HW | target.planes[d] if d in target.planes else pasted_HW
    return placed


def _where(frame: SegFrame, size: tuple[int, ...], source: SourceVolume) -> tuple[int, _Window]:
    """Slice index (it may lie beyond the volume) and window of a frame. Raises GeometryError."""
    affine = source.volume.affine_lps_mm
    inverse = np.asarray(np.linalg.inv(affine[:3, :3]), dtype=np.float64)
    first: Float64 = inverse @ (np.array(frame.position_lps_mm) - affine[:3, 3])
    d = round(float(first[0]))
    if 0 <= d < len(source.slices):
        # positions of slices are even to a tolerance: where the slice really lies counts, not where it should
        first = first - inverse @ (np.array(source.slices[d].position_lps_mm) - affine[:3, 3]) + (d, 0, 0)
    spacing_mm = source.volume.spacing_mm[0]
    if abs(first[0] - d) * spacing_mm > max(SPACING_TOLERANCE_MM, SPACING_TOLERANCE_PART * spacing_mm):
        off_mm = abs(first[0] - d) * spacing_mm
        raise GeometryError(f"a frame of the segmentation lies {off_mm:.2f} mm beside the nearest slice")
    return d, _window(frame, first[1:], inverse, size)


def _window(frame: SegFrame, first_hw: Float64, inverse: Float64, size: tuple[int, ...]) -> _Window:
    down = inverse @ (np.array(frame.orientation[3:]) * frame.pixel_spacing_mm[0])
    right = inverse @ (np.array(frame.orientation[:3]) * frame.pixel_spacing_mm[1])
    steps = np.array([down, right])
    whole = np.rint(steps)
    off = np.abs(steps - whole) * (np.array(size)[:, None] - 1)
    is_turn = not whole[:, 0].any() and np.array_equal(np.abs(whole[:, 1:]).sum(axis=0), (1, 1))
    if not is_turn or abs(np.linalg.det(whole[:, 1:])) != 1 or off.max(initial=0) > 3 * _TOLERANCE_PIXELS:
        raise GeometryError("the segmentation has other pixels than the slices: other spacing or orientation")
    if np.abs(first_hw - np.rint(first_hw)).max() > _TOLERANCE_PIXELS:
        raise GeometryError("the segmentation lies between the pixels of the slices")
    is_transposed = bool(whole[0, 1] == 0)
    turned_size = size[::-1] if is_transposed else size
    signs = whole[:, 1:].sum(axis=0)
    flips = tuple(axis for axis in (0, 1) if signs[axis] < 0)
    corner = [round(float(at)) - (turned_size[axis] - 1 if axis in flips else 0) for axis, at in enumerate(first_hw)]
    return _Window(is_transposed, flips, (corner[0], corner[1]))
