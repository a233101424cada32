"""One image on another's grid, by the places in the patient that both tell.

Two series of one examination share a frame of reference, seldom a grid. Values outside the moved image's field are its
lowest value. Breathing moves the liver between two phases all the same: what is left is `model.registration`'s.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from model.pipeline import Placed
from model.volume import Volume

LEAST_LIVER_DICE = 0.85
"""Two phases whose livers overlap less do not show the same place in the same voxel."""


def onto_grid(moving: Volume, fixed: Volume, *, order: int = 1) -> Volume:
    """`moving` sampled at the voxel centres of `fixed`; `order` 1 is trilinear, 0 the nearest voxel (for masks)."""
    if moving.array_DHW.shape == fixed.array_DHW.shape and np.allclose(
        moving.affine_lps_mm, fixed.affine_lps_mm, atol=1e-4
    ):
        return moving
    index_of = np.linalg.inv(moving.affine_lps_mm) @ fixed.affine_lps_mm
    array_DHW = ndimage.affine_transform(
        moving.array_DHW,
        index_of[:3, :3],
        offset=index_of[:3, 3],
        output_shape=fixed.array_DHW.shape,
        order=order,
        mode="grid-constant",
        cval=float(moving.array_DHW.min()),
        prefilter=False,
    )
    return fixed.with_array(array_DHW.astype(np.float32, copy=False))


def shared_extent(moving: Volume, fixed: Volume) -> float:
    """Share of the slices of `fixed` whose middles lie in the field of `moving`: 0 for images of other places."""
    slices, rows, columns = fixed.array_DHW.shape
    middles = np.column_stack([np.arange(slices), np.full(slices, (rows - 1) / 2), np.full(slices, (columns - 1) / 2)])
    places = fixed.to_lps_mm(middles.astype(np.float64))
    inverse = np.linalg.inv(moving.affine_lps_mm)
    found = places @ inverse[:3, :3].T + inverse[:3, 3]
    limits = np.array(moving.array_DHW.shape) - 0.5
    return float(np.mean(((found >= -0.5) & (found <= limits)).all(axis=1)))


def registration_remarks(placed: Sequence[Placed], registration: str) -> Iterator[str]:
    """What a reader should know of images that were moved onto the first: sentences.

    Where the livers are known their overlap is the measure; else only that moving brought the images no nearer is told.
    """
    if registration == "none":
        return
    if registration == "deformable":
        yield "the card asks for deformable registration, which there is not yet; the registration was affine"
    first = placed[0]
    for other in placed[1:]:
        role = other.spec.role
        if first.inside_DHW is not None and other.inside_DHW is not None:
            dice = overlap(first.inside_DHW, other.inside_DHW)
            if dice < LEAST_LIVER_DICE:
                yield (
                    f"after affine registration the livers of {first.spec.role} and {role} overlap by Dice "
                    f"{dice:.2f}; below {LEAST_LIVER_DICE:.2f} the phases may not show the same place"
                )
        elif other.gain == 0.0:
            yield f"affine registration brought {role} no nearer to {first.spec.role}; it was left as it lies"


def overlap(one_DHW: NDArray[np.bool_], other_DHW: NDArray[np.bool_]) -> float:
    """Dice of two masks; 1 where both are empty."""
    total = int(one_DHW.sum()) + int(other_DHW.sum())
    return 2 * int((one_DHW & other_DHW).sum()) / total if total else 1.0
