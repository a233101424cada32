"""The liver as a companion bundle finds it: one organ without holes, widened so that lesions at its capsule stay in."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from model.canonical import VolumeProblem
from model.findings import bounding_box
from model.volume import Half, Volume

_LEAST_LIVER_ML = 100.0
"""Less is no liver: not even one after two thirds of it were taken out."""


def liver_of(probability_DHW: Half, volume: Volume, threshold: float, margin_mm: float) -> NDArray[np.bool_]:
    """The largest component at `threshold` or above, holes filled slice by slice, widened by `margin_mm`.

    Raises VolumeProblem where nothing as large as a liver was found.
    """
    organ_DHW = largest_component(probability_DHW >= np.float16(threshold))
    found_ml = int(np.count_nonzero(organ_DHW)) * volume.voxel_ml
    if found_ml < _LEAST_LIVER_ML:
        raise VolumeProblem(
            f"no liver was found ({found_ml:.0f} ml, at least {_LEAST_LIVER_ML:.0f} are asked); "
            "this network looks for lesions inside the liver only"
        )
    filled_DHW = np.stack([ndimage.binary_fill_holes(part) for part in organ_DHW])
    return widened(filled_DHW, volume.spacing_mm, margin_mm)


def largest_component(mask_DHW: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The component of most voxels, face to face; all of an empty mask."""
    parts_DHW, count = ndimage.label(mask_DHW)
    if count < 2:
        return mask_DHW
    largest: NDArray[np.bool_] = parts_DHW == 1 + int(np.bincount(parts_DHW.ravel())[1:].argmax())
    return largest


def widened(mask_DHW: NDArray[np.bool_], spacing_mm: tuple[float, float, float], margin_mm: float) -> NDArray[np.bool_]:
    """All voxels within `margin_mm` of the mask."""
    box = bounding_box(mask_DHW)
    if box is None or not margin_mm:
        return mask_DHW
    around = tuple(
        slice(max(0, part.start - int(margin_mm / step) - 1), min(side, part.stop + int(margin_mm / step) + 1))
        for part, step, side in zip(box, spacing_mm, mask_DHW.shape, strict=True)
    )
    wide_DHW = mask_DHW.copy()
    wide_DHW[around] = ndimage.distance_transform_edt(~mask_DHW[around], sampling=spacing_mm) <= margin_mm
    return wide_DHW
