"""Which way round a volume lies, and how to turn it as a radiologist would see it.

Canonical order: slices from feet to head, rows from anterior to posterior, columns from the patient's right to
the left (the left edge of the picture is the patient's right). In the LPS frame these are +z, +y and +x. Turning
is by permuting and flipping axes only, so it is exact and undone exactly; an oblique plane stays oblique.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from model.volume import Float64

ScalarT = TypeVar("ScalarT", bound=np.generic)


class VolumeProblem(Exception):
    """A volume cannot be analysed; the message says why in words for the person who sent it."""


@dataclass(frozen=True)
class Turn:
    """Array axes → canonical axes: transpose by `order`, then flip the axes named in `flips`."""

    order: tuple[int, int, int]
    flips: tuple[int, ...]

    def apply(self, array_DHW: NDArray[ScalarT]) -> NDArray[ScalarT]:
        """A view of the array in canonical order."""
        return np.flip(array_DHW.transpose(self.order), self.flips)

    def undo(self, canonical_DHW: NDArray[ScalarT]) -> NDArray[ScalarT]:
        """A view of the canonical array in the original order."""
        return np.flip(canonical_DHW, self.flips).transpose(tuple(int(i) for i in np.argsort(self.order)))

    def spacing_mm(self, affine_lps_mm: Float64) -> tuple[float, float, float]:
        """Distance of voxel centres along the canonical slice, row and column axes."""
        d, h, w = np.linalg.norm(affine_lps_mm[:3, list(self.order)], axis=0)
        return float(d), float(h), float(w)


def turn_to_axial(affine_lps_mm: Float64) -> Turn:
    """How to see a mostly axial volume canonically. Raises VolumeProblem for a sagittal or coronal plane.

    Mostly axial: the normal of the plane of rows and columns is nearer to the body's long axis than to any other.
    """
    axes = affine_lps_mm[:3, :3] / np.linalg.norm(affine_lps_mm[:3, :3], axis=0)
    normal = np.abs(np.cross(axes[:, 1], axes[:, 2]))
    if int(np.argmax(normal)) != 2:
        plane = ("sagittal", "coronal")[int(np.argmax(normal))]
        raise VolumeProblem(f"the slices are {plane}; this network was trained on axial slices")
    x, y, z = 0, 1, 2
    as_stored = abs(axes[y, 1]) + abs(axes[x, 2])
    swapped = abs(axes[y, 2]) + abs(axes[x, 1])
    order = (0, 1, 2) if as_stored >= swapped else (0, 2, 1)
    along = (axes[z, order[0]], axes[y, order[1]], axes[x, order[2]])
    return Turn(order, tuple(axis for axis, direction in enumerate(along) if direction < 0))
