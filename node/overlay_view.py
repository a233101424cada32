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

from model.body import Body
from model.volume import Float64, Labels, Mask, Volume

# Where left-to-right and top-to-bottom of the display should point, by the axis that the slice's normal is nearest to
_TARGETS = {
    0: ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0)),
    1: ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0)),
    2: ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),
}
_LETTERS = (("R", "L"), ("A", "P"), ("F", "H"))
_MINOR_DIRECTION = 0.3
_Any = TypeVar("_Any", bound=np.generic)
_NEAR_MM = 40.0
_LIVER_PLACE = ((0.10, 0.45), (0.25, 0.75), (0.25, 0.75))
"""Shares of the body's extent from the right, the front and the feet: on phantoms seven voxels in ten there are liver,
and their median is the liver's to 5 %."""
CT_WINDOW_HU = (-140.0, 240.0)
"""Soft tissue: level 50, width 380."""
MR_BODY_PERCENT = (2.0, 95.0)
MR_SEGMENTED_PERCENT = (1.0, 99.0)
MR_LIVER_GREY = 0.4
"""Between black and white; lesions that are brighter still push the liver below."""


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


def body_crop(volume: Volume, body: Body, slice_index: int, view: Hanging, *, margin_mm: float = 8.0) -> Crop:
    """The part of a slice with the body in it, without table and blankets.

    The body of the slices within 40 mm counts: a body wall that is too dark in one slice is often seen in the next.
    """
    reach = int(_NEAR_MM / volume.spacing_mm[0])
    near_DHW = body.inside_DHW[max(0, slice_index - reach) : slice_index + reach + 1]
    # opened, so that noise and a table that touch the body do not belong to it
    shadow_HW = ndimage.binary_opening(near_DHW, np.ones((1, 3, 3), bool), iterations=2).any(axis=0)
    if not shadow_HW.any():
        shadow_HW = near_DHW.any(axis=0)
    parts_HW, _ = ndimage.label(shadow_HW)
    largest = 1 + int(np.bincount(parts_HW.ravel())[1:].argmax())
    rows, columns = ndimage.find_objects(parts_HW)[largest - 1]
    corners = np.array([[rows.start, columns.start], [rows.stop, columns.stop]]) * body.step - 0.5
    shape_HW = (volume.array_DHW.shape[1], volume.array_DHW.shape[2])
    (left, top), (right, bottom) = np.sort(view.to_display(corners, shape_HW), axis=0)
    across, down = (margin_mm / size for size in reversed(view.pixel_mm))
    height, width = shape_HW[::-1] if view.is_transposed else shape_HW
    return Crop(
        max(0.0, float(left) - across),
        max(0.0, float(top) - down),
        min(float(width), float(right) + across),
        min(float(height), float(bottom) + down),
    )


def crop_around(center_xy: Float64, side_mm: float, view: Hanging, shape_HW: tuple[int, int]) -> Crop:
    """A square of `side_mm` about a display position, pushed inside the slice where it would stick out."""
    rows, columns = shape_HW[::-1] if view.is_transposed else shape_HW
    height, width = (side_mm / size for size in view.pixel_mm)
    left = float(np.clip(center_xy[0] - width / 2, 0, max(0.0, columns - width)))
    top = float(np.clip(center_xy[1] - height / 2, 0, max(0.0, rows - height)))
    return Crop(left, top, left + width, top + height)


def window_of(volume: Volume, body: Body, segmented_DHW: NDArray[np.bool_], *, is_ct: bool) -> tuple[float, float]:
    """Values shown black and white: soft tissue in CT.

    MR has no units, so the body gives them: black is what only a fiftieth of it lies below; the liver is mid-grey,
    unless the segmented voxels or a twentieth of the body are brighter than white would be. The segmented voxels stay
    between black and white, all but one in a hundred at each end: a rim or a necrosis can be seen.
    """
    if is_ct:
        return CT_WINDOW_HU
    low, bright = (float(part) for part in np.percentile(body.values_DHW[body.inside_DHW], MR_BODY_PERCENT))
    segmented = volume.array_DHW[segmented_DHW]
    if segmented.size:
        darkest, brightest = (float(part) for part in np.percentile(segmented, MR_SEGMENTED_PERCENT))
        low, bright = min(low, darkest), max(bright, brightest)
    high = max(bright, low + (_liver_level(volume, body) - low) / MR_LIVER_GREY)
    return low, high if high > low else low + 1.0


def _liver_level(volume: Volume, body: Body) -> float:
    """The median in the middle of the body's right half, which is liver in a series of the liver."""
    d, h, w = np.nonzero(body.inside_DHW)
    steps = volume.affine_lps_mm[:3, :3] * (1, body.step, body.step)
    within = np.ones(d.size, bool)
    # x counts from the right, y from the front, z from the feet
    for (d_mm, h_mm, w_mm), (first, last) in zip(steps, _LIVER_PLACE, strict=True):
        # sums of scaled axes, as in slice_of: no matrix product
        place_mm = d * d_mm + h * h_mm + w * w_mm
        start_mm, end_mm = np.percentile(place_mm, (1, 99))
        share = (place_mm - start_mm) / max(end_mm - start_mm, 1e-6)
        within &= (share >= first) & (share <= last)
    values = body.values_DHW[body.inside_DHW]
    return float(np.median(values[within] if within.any() else values))


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
    """Which slice of how many, in the array's order."""
    return f"slice {slice_index + 1}/{len(volume.array_DHW)}"


def place_label(volume: Volume, slice_index: int) -> str:
    """Where a slice's middle lies along the axis of the patient that its normal is nearest to."""
    _, rows, columns = volume.array_DHW.shape
    center = volume.to_lps_mm(np.array([[slice_index, (rows - 1) / 2, (columns - 1) / 2]]))[0]
    axis = int(np.abs(np.cross(volume.affine_lps_mm[:3, 1], volume.affine_lps_mm[:3, 2])).argmax())
    return f"{'xyz'[axis]} {center[axis]:+.1f} mm"


def window_label(window: tuple[float, float], *, is_ct: bool) -> str:
    """Width and level as viewers write them; only those of CT have a unit."""
    low, high = window
    width, level = high - low, (low + high) / 2
    digits = 0 if width >= 10 else 2
    return f"W {width:.{digits}f}  L {level:.{digits}f}" + (" HU" if is_ct else "")
