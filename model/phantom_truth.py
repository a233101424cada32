"""What a phantom truly shows: its lesions, measured on the masks by the ruler of a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from model.findings import longest_axes
from model.phantom_shapes import Point, point
from model.volume import Float64, Labels


@dataclass(frozen=True)
class TrueLesion:
    """One true lesion, measured on the truth mask; `nominal_mm` is its longest diameter by design.

    Axes as `model.findings` defines them for a report, so that truth and result differ by the mask alone.
    """

    number: int
    long_axis_mm: float
    short_axis_mm: float
    volume_ml: float
    center_lps_mm: Point
    nominal_mm: float


def largest_component(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest piece of a mask, diagonal neighbours connected."""
    parts, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    if count < 2:
        return mask
    return np.asarray(parts == 1 + int(np.argmax(np.bincount(parts.ravel())[1:])))


def measure_lesions(
    labels: Labels, affine: Float64, nominal_mm: Sequence[float]
) -> tuple[Labels, tuple[TrueLesion, ...]]:
    """Renumbers the lesions that have a voxel as 1..N and measures each."""
    numbered = np.zeros_like(labels)
    lesions: list[TrueLesion] = []
    for original, box in enumerate(ndimage.find_objects(labels, len(nominal_mm)), start=1):
        if box is None:
            continue
        mask = labels[box] == original
        numbered[box][mask] = len(lesions) + 1
        lesions.append(_measure_one(mask, box, affine, len(lesions) + 1, nominal_mm[original - 1]))
    return numbered, tuple(lesions)


def _measure_one(
    mask: NDArray[np.bool_], box: tuple[slice, ...], affine: Float64, number: int, nominal_mm: float
) -> TrueLesion:
    start = [part.start for part in box]
    x, y, z = (np.argwhere(mask) + start).mean(axis=0) @ affine[:3, :3].T + affine[:3, 3]
    axes = longest_axes(mask, affine)
    volume_ml = float(mask.sum() * abs(np.linalg.det(affine[:3, :3])) / 1000)
    return TrueLesion(number, axes.long_mm, axes.short_mm, volume_ml, point((x, y, z)), nominal_mm)
