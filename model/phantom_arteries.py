"""What only an arterial phase shows apart: arteries, portal vein, hepatic veins and cava, each with its own code.

Other phases show blood alike, so the painted maps of both families know one blood. Here it is told apart by the map of
vessels, and arteries are added that nothing else shows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model.phantom_paint import Painted, TissueMap, Vessel
from model.phantom_shapes import Grid, Point, Tube, WaveField, chain, point
from model.phantom_tissues import Tissue
from model.volume import Float

_LAST_TISSUE = max(Tissue)  # the codes after it are the vessels, in the order of their numbers
AORTA, CAVA, PORTAL_VEIN, HEPATIC_VEIN = (_LAST_TISSUE + vessel for vessel in list(Vessel)[1:])
ARTERY = HEPATIC_VEIN + 1
VESSEL_CODES = (AORTA, CAVA, PORTAL_VEIN, HEPATIC_VEIN, ARTERY)


@dataclass(frozen=True)
class Landmarks:
    """Where arteries begin and end: the aorta at the coeliac trunk, the organs' middles, in mm."""

    aorta_mm: Point
    spleen_mm: Point
    spleen_reach_mm: float
    right_kidney_mm: Point
    left_kidney_mm: Point


@dataclass(frozen=True, eq=False)
class Stripes:
    """The spleen's uneven enhancement in the first minute: a field that is driven into saturation, and its HU."""

    field: WaveField
    hu: float


def vessels_told_apart(painted: Painted) -> TissueMap:
    """The tissue map with a code for each kind of vessel."""
    codes_DHW = painted.tissue_DHW.copy()
    is_vessel = painted.vessel_DHW > 0
    codes_DHW[is_vessel] = painted.vessel_DHW[is_vessel] + np.uint8(_LAST_TISSUE)
    return codes_DHW


def paint_arteries(codes_DHW: TissueMap, marks: Landmarks, portal: tuple[Tube, ...], grid: Grid) -> None:
    """Arteries into the map, in soft tissue and fat only."""
    soft = (Tissue.FAT, Tissue.LIVER, Tissue.PANCREAS, Tissue.MUSCLE, Tissue.NODE, HEPATIC_VEIN)
    for tube in _arteries(marks, portal[0].end_mm) + _hepatic_arteries(portal):
        box = grid.box_around(tube.centre_mm, tube.reach_mm)
        if box is not None:
            x, y, z = grid.cut(box).coordinates()
            part = codes_DHW[box]
            part[(tube.depth_mm(x, y, z) > 0) & np.isin(part, soft)] = ARTERY


def uneven_hu(codes_DHW: TissueMap, marks: Landmarks, stripes: Stripes, renal_return_hu: float, grid: Grid) -> Float:
    """The stripes of the spleen, and the renal veins' return in the upper cava, (D, H, W) in HU."""
    uneven_DHW = np.zeros(grid.shape, np.float32)
    box = grid.box_around(marks.spleen_mm, marks.spleen_reach_mm + 20.0)
    if box is not None:
        waves = np.tanh(1.6 * stripes.field.on(grid.straight().cut(box))) * np.float32(stripes.hu)
        uneven_DHW[box] = np.where(codes_DHW[box] == Tissue.SPLEEN, waves, 0)
    z = np.broadcast_to(grid.straight().coordinates()[2], grid.shape)
    cava = codes_DHW == CAVA
    uneven_DHW[cava] = renal_return_hu * np.clip((z[cava] - marks.right_kidney_mm[2]) / np.float32(40.0), 0, 1)
    return uneven_DHW


def _arteries(marks: Landmarks, hilum: Point) -> tuple[Tube, ...]:
    """Coeliac trunk with the common hepatic and the splenic artery, superior mesenteric and renal arteries."""
    x, y, _ = marks.aorta_mm
    coeliac: Point = (x - 3, y - 22, 2.0)
    right, left = marks.right_kidney_mm, marks.left_kidney_mm
    return (
        *chain([(x, y - 6, 0.0), coeliac, (-8.0, -22.0, -6.0), (hilum[0] + 2, hilum[1] - 4, hilum[2])], 2.6),
        *chain([coeliac, (40.0, 2.0, 4.0), (68.0, 20.0, 12.0), marks.spleen_mm], 2.4),
        *chain([(x, y - 6, -20.0), (x - 4, y - 26, -42.0), (x - 6, y - 34, -130.0)], 3.2),
        *chain([(x, y, right[2] + 14), (-24.0, y + 6, right[2] + 8), right], 2.3),
        *chain([(x, y, left[2] + 8), left], 2.3),
    )


def _hepatic_arteries(portal: tuple[Tube, ...]) -> tuple[Tube, ...]:
    """One beside each large branch of the portal vein, a quarter as wide."""
    large = [tube for tube in portal if tube.radius_mm > 2.4]
    return tuple(_beside(tube, max(0.9, 0.26 * tube.radius_mm)) for tube in large)


def _beside(tube: Tube, radius_mm: float) -> Tube:
    """A tube of `radius_mm` along another, in front of it and to its left."""
    aside = np.array([0.3, -1.0, 0.2]) * (tube.radius_mm + 1.4)
    return Tube(point(np.asarray(tube.start_mm) + aside), point(np.asarray(tube.end_mm) + aside), radius_mm)
