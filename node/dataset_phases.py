"""Which contrast phase each acquisition shows, told by the attenuation inside the segmented vessels. Pure.

The portal vein is at its brightest against the aorta in the portal-venous phase, and far below it in the arterial one
(models.md §6.2). A header may lie or say nothing; blood that holds contrast does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model.volume import Float
from node.dataset_conventions import ARTERIAL, NON_CONTRAST, PORTAL_VENOUS
from node.dicom.seg_place import PlacedSegment

ARTERIAL_EXCESS_HU = 80.0
"""An aorta so much brighter than the portal vein is that of an arterial phase."""
UNENHANCED_HU = 75.0
"""Blood without contrast has 30 to 50 HU; after it, a vessel of the abdomen has more than 100 in every phase."""


@dataclass(frozen=True)
class VesselContrast:
    """Median attenuation inside the two segmented vessels."""

    portal_hu: float
    aorta_hu: float

    @property
    def is_unenhanced(self) -> bool:
        return max(self.portal_hu, self.aorta_hu) < UNENHANCED_HU

    @property
    def is_arterial(self) -> bool:
        return self.aorta_hu - self.portal_hu > ARTERIAL_EXCESS_HU


def vessel_contrast(array_DHW: Float, portal: PlacedSegment, aorta: PlacedSegment) -> VesselContrast | None:
    """None where one of them has no voxel on the grid."""
    found = [_median_hu(array_DHW, vessel) for vessel in (portal, aorta)]
    return VesselContrast(*(float(hu) for hu in found)) if np.isfinite(found).all() else None


def phases_of(contrasts: Sequence[VesselContrast | None]) -> tuple[str | None, ...]:
    """A phase for each acquisition, None where the vessels do not tell; at most one is portal-venous."""
    enhanced = [item for item in contrasts if item and not item.is_unenhanced]
    best = max(enhanced, key=lambda item: item.portal_hu - item.aorta_hu, default=None)
    return tuple(_phase(item, is_best=item is best) for item in contrasts)


def _phase(contrast: VesselContrast | None, *, is_best: bool) -> str | None:
    if contrast is None:
        return None
    if contrast.is_unenhanced:
        return NON_CONTRAST
    if contrast.is_arterial:
        return ARTERIAL
    return PORTAL_VENOUS if is_best else None


def _median_hu(array_DHW: Float, vessel: PlacedSegment) -> float:
    values = [array_DHW[d][plane_HW] for d, plane_HW in vessel.planes.items()]
    return float(np.median(np.concatenate(values))) if vessel.voxels else float("nan")
