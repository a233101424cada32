"""How a slice is looked at: turned as radiologists hang it, cut out, windowed; and where a patient position falls.

Axial slices are seen from the feet with the patient's right on the left; coronal ones from the front; sagittal ones
from the left with the face to the left. All of it follows from the affine, so that a series with slices or rows the
other way round looks the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from model.volume import Float64, Labels, Mask, Volume

# Where left-to-right and top-to-bottom of the display should point, by the axis that the slice's normal is nearest to
_TARGETS = {
    0: ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0)),
    1: ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0)),
    2: ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),
}
_LETTERS = (("R", "L"), ("A", "P"), ("F", "H"))
_MINOR_DIRECTION = 0.3
_COARSE = 2  # every second pixel is enough to find a body
_Any = TypeVar("_Any", bound=np.generic)
CT_WINDOW_HU = (-140.0, 240.0)
"""Soft tissue: level 50, width 380."""
MR_WINDOW_PERCENT = (1.0, 98.8)


@dataclass(frozen=True)
class Hanging:
    """The turn that brings array slices to the display: columns and rows swapped or not, then each flipped or not."""

    is_transposed: bool
    flips: tuple[bool, bool]
    """Rows (top to bottom), columns (left to right), after the transposition."""
    step_down_mm: Float64
    """From one display row to the next, as a vector in the patient."""
    step_right_mm: Float64

    @property
    def pixel_mm(self) -> tuple[float, float]:
        """Height and width of a display pixel."""
        return float(np.linalg.norm(self.step_down_mm)), float(np.linalg.norm(self.step_right_mm))

    def turned(self, slice_HW: NDArray[_Any]) -> NDArray[_Any]:
        """A slice of the array as it is displayed."""
        turned = slice_HW.T if self.is_transposed else slice_HW
        return turned[:: -1 if self.flips[0] else 1, :: -1 if self.flips[1] else 1]

    def to_display(self, points_HW: Float64, shape_HW: tuple[int, int]) -> Float64:
        """Array indices (N, 2) as (row, column) → display coordinates (N, 2) as (x, y); pixel centres are at +0.5."""
        points = points_HW[:, ::-1] if self.is_transposed else points_HW
        rows, columns = shape_HW[::-1] if self.is_transposed else shape_HW
        down = rows - 1 - points[:, 0] if self.flips[0] else points[:, 0]
        right = columns - 1 - points[:, 1] if self.flips[1] else points[:, 1]
        return np.stack([right + 0.5, down + 0.5], axis=1)

    @property
    def letters(self) -> tuple[str, str, str, str]:
        """What the left, right, top and bottom edges point to, as PS3.3 C.7.6.1.1.1 writes it."""
        right, down = (step / np.linalg.norm(step) for step in (self.step_right_mm, self.step_down_mm))
        return direction_letters(-right), direction_letters(right), direction_letters(-down), direction_letters(down)


def hanging(affine_lps_mm: Float64) -> Hanging:
    """The radiological hanging of a volume with this affine."""
    down, right = affine_lps_mm[:3, 1], affine_lps_mm[:3, 2]
    normal_axis = int(np.abs(np.cross(down / np.linalg.norm(down), right / np.linalg.norm(right))).argmax())
    x_target, y_target = (np.array(target) for target in _TARGETS[normal_axis])
    is_transposed = abs(down @ x_target) > abs(right @ x_target)
    if is_transposed:
        down, right = right, down
    flips = bool(down @ y_target < 0), bool(right @ x_target < 0)
    return Hanging(is_transposed, flips, -down if flips[0] else down, -right if flips[1] else right)


def direction_letters(direction: Float64) -> str:
    """Patient direction in letters, the main one first: RA for right and slightly anterior."""
    order = np.argsort(-np.abs(direction))
    return "".join(
        _LETTERS[axis][int(direction[axis] > 0)]
        for rank, axis in enumerate(order)
        if rank == 0 or abs(direction[axis]) > _MINOR_DIRECTION
    )


@dataclass(frozen=True)
class Crop:
    """A rectangle of the display, in display pixels."""

    left: float
    top: float
    right: float
    bottom: float

    def size_mm(self, view: Hanging) -> tuple[float, float]:
        """Width and height in mm."""
        height_mm, width_mm = view.pixel_mm
        return (self.right - self.left) * width_mm, (self.bottom - self.top) * height_mm


def body_crop(volume: Volume, slice_index: int, view: Hanging, *, is_ct: bool, margin_mm: float = 8.0) -> Crop:
    """The part of a slice with the body in it, without table and blankets; all of it where no body stands out."""
    values_HW = volume.array_DHW[slice_index]
    floor = -300.0 if is_ct else 0.05 * float(np.percentile(values_HW, 99.5))
    components, count = ndimage.label(view.turned(values_HW > floor)[::_COARSE, ::_COARSE])
    height, width = view.turned(values_HW).shape
    if not count:
        return Crop(0, 0, width, height)
    largest = 1 + int(np.bincount(components.ravel())[1:].argmax())
    rows, columns = ndimage.find_objects(components)[largest - 1]
    down, right = (margin_mm / size for size in view.pixel_mm)
    return Crop(
        max(0.0, columns.start * _COARSE - right),
        max(0.0, rows.start * _COARSE - down),
        min(float(width), columns.stop * _COARSE + right),
        min(float(height), rows.stop * _COARSE + down),
    )


def crop_around(center_xy: Float64, side_mm: float, view: Hanging, shape_HW: tuple[int, int]) -> Crop:
    """A square of `side_mm` about a display position, pushed inside the slice where it would stick out."""
    rows, columns = shape_HW[::-1] if view.is_transposed else shape_HW
    height, width = (side_mm / size for size in view.pixel_mm)
    left = float(np.clip(center_xy[0] - width / 2, 0, max(0.0, columns - width)))
    top = float(np.clip(center_xy[1] - height / 2, 0, max(0.0, rows - height)))
    return Crop(left, top, left + width, top + height)


def window_of(volume: Volume, *, is_ct: bool) -> tuple[float, float]:
    """Values shown black and white: soft tissue in CT, nearly all that the body shows in MR."""
    if is_ct:
        return CT_WINDOW_HU
    values = volume.array_DHW[:, ::2, ::2]
    body = values[values > 0.05 * float(np.percentile(values, 99.5))]
    if not body.size:
        return 0.0, 1.0
    low, high = (float(part) for part in np.percentile(body, MR_WINDOW_PERCENT))
    return low, max(high, low + 1e-6)


def render(
    volume: Volume, slice_index: int, view: Hanging, crop: Crop, window: tuple[float, float], size: tuple[int, int]
) -> Image.Image:
    """The windowed slice inside `crop` at `size` (width, height) pixels, as RGB; outside of the slice it is black."""
    low, high = window
    grey = np.clip((view.turned(volume.array_DHW[slice_index]) - low) * (255 / (high - low)), 0, 255)
    source = Image.fromarray(np.ascontiguousarray(grey).astype(np.uint8))
    extent = (crop.left, crop.top, crop.right, crop.bottom)
    affine = ((crop.right - crop.left) / size[0], 0, crop.left, 0, (crop.bottom - crop.top) / size[1], crop.top)
    inside = crop.left >= 0 and crop.top >= 0 and crop.right <= source.width and crop.bottom <= source.height
    if inside:
        picture = source.resize(size, Image.Resampling.BICUBIC, box=extent)
    else:
        picture = source.transform(size, Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC)
    return picture.convert("RGB")


def slice_of(mask: Mask, volume: Volume, slice_index: int) -> Labels:
    """The labels of `mask` in a slice of `volume`, by position in the patient: the grids may differ in order."""
    if mask.labels_DHW.shape == volume.array_DHW.shape and np.allclose(mask.affine_lps_mm, volume.affine_lps_mm):
        same: Labels = mask.labels_DHW[slice_index]
        return same
    rows, columns = volume.array_DHW.shape[1:]
    h, w = np.indices((rows, columns)).reshape(2, -1)
    to_mask = np.linalg.inv(mask.affine_lps_mm) @ volume.affine_lps_mm
    # sums of scaled axes: a matrix product would start all cores for three columns
    terms = (slice_index * to_mask[:3, 0], h[:, None] * to_mask[:3, 1], w[:, None] * to_mask[:3, 2], to_mask[:3, 3])
    indices = np.rint(sum(terms)).astype(int)
    within = ((indices >= 0) & (indices < mask.labels_DHW.shape)).all(axis=1)
    labels = np.zeros(h.size, mask.labels_DHW.dtype)
    labels[within] = mask.labels_DHW[tuple(indices[within].T)]
    found: Labels = labels.reshape(rows, columns)
    return found


def slice_label(volume: Volume, slice_index: int) -> str:
    """Which slice of how many, and where it lies along the axis of the patient that it is nearest to."""
    count, rows, columns = volume.array_DHW.shape
    center = volume.to_lps_mm(np.array([[slice_index, (rows - 1) / 2, (columns - 1) / 2]]))[0]
    axis = int(np.abs(np.cross(volume.affine_lps_mm[:3, 1], volume.affine_lps_mm[:3, 2])).argmax())
    return f"slice {slice_index + 1}/{count}   {'xyz'[axis]} {center[axis]:+.1f} mm"
