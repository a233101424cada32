"""A liver mask made whole: the first stage of system (d), and the region of whatever searches within the liver.

Largest piece and filled holes are right for an organ and wrong for lesions, of which there may be several: here they
are applied to the liver only (models.md §4.5).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from model.canonical import VolumeProblem
from model.findings import bounding_box
from model.volume import Half, Volume

Bools = NDArray[np.bool_]

LEAST_LIVER_ML = 100.0
"""Less is no liver: not even one after two thirds of it were taken out."""


def whole_liver(liver_DHW: Bools, lesions_DHW: Bools | None = None) -> Bools:
    """The largest 26-connected piece, its holes filled; with the lesions that touch it or lie in it, where given.

    Holes are filled in 3-D and then slice by slice, for a hole that opens through the top slice is one too. An empty
    mask stays empty.
    """
    pieces_DHW, count = ndimage.label(liver_DHW, np.ones((3, 3, 3), bool))
    if not count:
        return np.zeros(liver_DHW.shape, bool)
    largest_DHW = pieces_DHW == 1 + int(np.bincount(pieces_DHW.ravel())[1:].argmax())
    filled_DHW = _filled(largest_DHW)
    if lesions_DHW is None or not lesions_DHW.any():
        return filled_DHW
    return _filled(filled_DHW | _touching(lesions_DHW, filled_DHW))


def liver_of(probability_DHW: Half, volume: Volume, threshold: float, margin_mm: float) -> Bools:
    """The whole liver at `threshold` or above, and all within `margin_mm` of it.

    Raises VolumeProblem where nothing as large as a liver was found.
    """
    liver_DHW = whole_liver(probability_DHW >= np.float16(threshold))
    found_ml = int(np.count_nonzero(liver_DHW)) * volume.voxel_ml
    if found_ml < LEAST_LIVER_ML:
        raise VolumeProblem(
            f"no liver was found ({found_ml:.0f} ml, at least {LEAST_LIVER_ML:.0f} are asked); "
            "this network looks for lesions inside the liver only"
        )
    return dilated(liver_DHW, margin_mm, volume.spacing_mm)


def dilated(mask_DHW: Bools, margin_mm: float, spacing_mm: tuple[float, float, float]) -> Bools:
    """The mask and all within `margin_mm` of it, so that a lesion under the capsule is not cut off."""
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


def _filled(mask_DHW: Bools) -> Bools:
    return np.stack([ndimage.binary_fill_holes(plane) for plane in ndimage.binary_fill_holes(mask_DHW)])


def _touching(lesions_DHW: Bools, liver_DHW: Bools) -> Bools:
    """Those lesions that share a face, edge or corner with the liver, or a voxel."""
    neighbours = np.ones((3, 3, 3), bool)
    pieces_DHW, _ = ndimage.label(lesions_DHW, neighbours)
    met = np.unique(pieces_DHW[ndimage.binary_dilation(liver_DHW, neighbours)])
    touching: Bools = np.isin(pieces_DHW, met[met > 0])
    return touching
