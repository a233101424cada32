"""Normal anatomy onto a grid: which tissue each voxel is, painted from the back to the front."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from model.phantom_anatomy import LiverVessels, Patient
from model.phantom_shapes import Coordinates, Ellipsoid, Grid, Tube, warped_coordinates
from model.phantom_tissues import Tissue
from model.volume import Float

TissueMap: TypeAlias = NDArray[np.uint8]

_WARP_REACH_MM = 18.0  # the deformation moves no surface further than this
_RIB_PITCH_MM = 32.0
_VERTEBRA_PITCH_MM = 34.0


class Vessel(IntEnum):
    """Which vessel a voxel of blood belongs to; 0 is none of these. The portal-venous phase shows them alike."""

    NONE = 0
    AORTA = 1
    CAVA = 2
    PORTAL_VEIN = 3
    HEPATIC_VEIN = 4


@dataclass(frozen=True, eq=False)
class Painted:
    """Each voxel's tissue and vessel, (D, H, W) uint8 of `Tissue` and `Vessel`, and the liver, (D, H, W) bool.

    The liver is meant with its vessels and lesions.
    """

    tissue_DHW: TissueMap
    vessel_DHW: NDArray[np.uint8]
    liver_DHW: NDArray[np.bool_]


class _Canvas:
    """The grid in warped coordinates and the map under work; later strokes cover earlier ones."""

    def __init__(self, patient: Patient, grid: Grid) -> None:
        self.grid = grid
        self.warped: Coordinates = warped_coordinates(grid, patient.warp)
        self.tissue_DHW: TissueMap = np.zeros(grid.shape, np.uint8)
        self.vessel_DHW: NDArray[np.uint8] = np.zeros(grid.shape, np.uint8)
        self.cavity_DHW: NDArray[np.bool_] = np.zeros(grid.shape, np.bool_)  # inside the body wall

    def stroke(
        self, shape: Ellipsoid | Tube, tissue: Tissue, inset_mm: float = 0.0, vessel: Vessel = Vessel.NONE
    ) -> None:
        """Paints a shape, smaller by `inset_mm`, as far as it lies inside the body wall."""
        box = self.grid.box_around(shape.centre_mm, shape.reach_mm + _WARP_REACH_MM)
        if box is not None:
            x, y, z = (axis[box] for axis in self.warped)
            inside = (shape.depth_mm(x, y, z) > inset_mm) & self.cavity_DHW[box]
            self.tissue_DHW[box][inside] = tissue
            if vessel:
                self.vessel_DHW[box][inside] = vessel


def paint(patient: Patient, liver_vessels: LiverVessels, grid: Grid) -> Painted:
    """Paints the patient without focal lesions."""
    canvas = _Canvas(patient, grid)
    _paint_body(canvas, patient)
    _paint_gut(canvas, patient)
    _paint_solid_organs(canvas, patient)
    liver = _paint_liver(canvas, patient, liver_vessels)
    _paint_chest(canvas, patient)
    _paint_spine(canvas, patient)
    _paint_great_vessels(canvas, patient)
    liver &= np.isin(canvas.tissue_DHW, (Tissue.LIVER, Tissue.LIVER_VESSEL))
    canvas.vessel_DHW[~np.isin(canvas.tissue_DHW, (Tissue.BLOOD, Tissue.LIVER_VESSEL))] = Vessel.NONE  # painted over
    return Painted(canvas.tissue_DHW, canvas.vessel_DHW, liver)


def _paint_body(canvas: _Canvas, patient: Patient) -> None:
    x, y, z = canvas.warped
    body = patient.body
    depth = body.depth_mm(x, y)
    fat = body.fat_depth_mm(x, y) + patient.wall_variation.on(canvas.grid)
    below_fat = depth - fat
    tissue = canvas.tissue_DHW
    tissue[depth > 0] = Tissue.SKIN
    tissue[depth > 2.2] = Tissue.FAT
    tissue[below_fat > 0] = Tissue.MUSCLE
    canvas.cavity_DHW = below_fat > body.wall_mm
    tissue[canvas.cavity_DHW] = Tissue.FAT
    along = np.mod(z - 0.55 * y + body.rib_phase_mm, _RIB_PITCH_MM) - _RIB_PITCH_MM / 2
    middle = below_fat - 0.5 * body.wall_mm
    radius = np.square(along / np.float32(7.0)) + np.square(middle / np.float32(4.0))
    rib = (radius < 1) & (z - 0.55 * y > -70) & (np.abs(x) > 45)
    tissue[rib] = Tissue.BONE
    tissue[rib & (radius < 0.45)] = Tissue.MARROW


def _paint_chest(canvas: _Canvas, patient: Patient) -> None:
    x, y, z = canvas.warped
    canvas.tissue_DHW[canvas.cavity_DHW & (z > patient.diaphragm_mm(x, y))] = Tissue.LUNG
    canvas.stroke(patient.heart, Tissue.HEART)


def _paint_gut(canvas: _Canvas, patient: Patient) -> None:
    for loop in patient.bowel:
        canvas.stroke(loop, Tissue.BOWEL_WALL)
        canvas.stroke(loop, Tissue.BOWEL_CONTENT, inset_mm=3.0)
    for part in patient.pancreas:
        canvas.stroke(part, Tissue.PANCREAS)
    for part in patient.colon:
        canvas.stroke(part, Tissue.BOWEL_WALL)
    for part in patient.colon:
        canvas.stroke(part, Tissue.BOWEL_CONTENT, inset_mm=2.5)
    _gas_above(canvas, patient.colon, -6.0)
    canvas.stroke(patient.stomach, Tissue.STOMACH_WALL)
    canvas.stroke(patient.stomach, Tissue.STOMACH_FLUID, inset_mm=4.5)
    box = canvas.grid.box_around(patient.stomach.centre_mm, patient.stomach.reach_mm + _WARP_REACH_MM)
    if box is not None:  # the patient lies on the back: gas in front of a level
        inside = canvas.tissue_DHW[box]
        level = (
            np.broadcast_to(_cut(canvas.grid.straight().coordinates()[1], box), inside.shape) < patient.stomach_level_mm
        )
        inside[(inside == Tissue.STOMACH_FLUID) & level] = Tissue.GAS


def _gas_above(canvas: _Canvas, tubes: tuple[Tube, ...], level_mm: float) -> None:
    """Gas in the front part of a loop, from `level_mm` in front of its own middle."""
    for tube in tubes:
        box = canvas.grid.box_around(tube.centre_mm, tube.reach_mm + _WARP_REACH_MM)
        if box is None:
            continue
        part = canvas.tissue_DHW[box]
        x, y, z = (axis[box] for axis in canvas.warped)
        inside = tube.depth_mm(x, y, z) > 2.5
        part[inside & (y < tube.centre_mm[1] + level_mm) & (part == Tissue.BOWEL_CONTENT)] = Tissue.GAS


def _paint_solid_organs(canvas: _Canvas, patient: Patient) -> None:
    canvas.stroke(patient.spleen, Tissue.SPLEEN)
    for kidney in patient.kidneys:
        canvas.stroke(kidney, Tissue.CORTEX)
        canvas.stroke(kidney, Tissue.MEDULLA, inset_mm=7.0)
        canvas.stroke(kidney, Tissue.FAT, inset_mm=19.0)  # the renal sinus


def _paint_liver(canvas: _Canvas, patient: Patient, vessels: LiverVessels) -> NDArray[np.bool_]:
    """Liver, its vessels, gallbladder and hilar nodes; returns where the liver is."""
    x, y, z = canvas.warped
    depth = patient.liver.depth_mm(x, y, z) + patient.liver.surface.on(canvas.grid)
    liver = np.asarray((depth > 0) & (patient.liver_limit_mm(x, y, z) > 0))
    canvas.tissue_DHW[liver] = Tissue.LIVER
    for node in patient.nodes:
        _stroke_outside(canvas, node, Tissue.NODE, liver)
    for tree, vessel in ((vessels.portal, Vessel.PORTAL_VEIN), (vessels.hepatic, Vessel.HEPATIC_VEIN)):
        for tube in tree:
            _stroke_vessel(canvas, tube, vessel)
    canvas.stroke(patient.gallbladder, Tissue.BILE)
    return liver


def _stroke_outside(canvas: _Canvas, shape: Ellipsoid, tissue: Tissue, keep: NDArray[np.bool_]) -> None:
    box = canvas.grid.box_around(shape.centre_mm, shape.reach_mm + _WARP_REACH_MM)
    if box is not None:
        x, y, z = (axis[box] for axis in canvas.warped)
        canvas.tissue_DHW[box][(shape.depth_mm(x, y, z) > 0) & ~keep[box]] = tissue


def _stroke_vessel(canvas: _Canvas, tube: Tube, vessel: Vessel) -> None:
    """A liver vessel, in plain coordinates as it was grown; outside the liver it is blood in fat."""
    box = canvas.grid.box_around(tube.centre_mm, tube.reach_mm)
    if box is not None:
        x, y, z = canvas.grid.cut(box).coordinates()
        inside = tube.depth_mm(x, y, z) > 0
        canvas.tissue_DHW[box][inside] = Tissue.LIVER_VESSEL
        canvas.vessel_DHW[box][inside] = vessel


def _paint_spine(canvas: _Canvas, patient: Patient) -> None:
    x, y, z = canvas.warped
    middle = np.float32(patient.spine_y_mm)
    for side in (-1.0, 1.0):
        muscle = np.square((x - side * 31.0) / 25.0) + np.square((y - middle - 23.0) / 16.0)
        canvas.tissue_DHW[(muscle < 1) & (canvas.tissue_DHW != Tissue.OUTSIDE)] = Tissue.MUSCLE
    arch = (np.abs(x) < 4.5) & (y > middle + 28) & (y < middle + 52) & (np.mod(z, _VERTEBRA_PITCH_MM) < 20)
    canvas.tissue_DHW[arch & (canvas.tissue_DHW == Tissue.FAT)] = Tissue.BONE
    canvas.tissue_DHW[arch & (canvas.tissue_DHW == Tissue.MUSCLE)] = Tissue.BONE
    disc = np.mod(z, _VERTEBRA_PITCH_MM) < 7.0
    vertebra = np.square(x / 22.0) + np.square((y - middle) / 16.5)
    canvas.tissue_DHW[vertebra < 1] = Tissue.BONE
    canvas.tissue_DHW[(vertebra < 0.82) & ~disc] = Tissue.MARROW
    canvas.tissue_DHW[(vertebra < 0.9) & disc] = Tissue.DISC
    canal = np.square(x / 10.0) + np.square((y - middle - 24.0) / 8.0)
    canvas.tissue_DHW[canal < 1.7] = Tissue.BONE
    canvas.tissue_DHW[canal < 1] = Tissue.CSF
    cord = np.square(x / 5.0) + np.square((y - middle - 24.0) / 4.0)
    canvas.tissue_DHW[cord < 1] = Tissue.CORD


def _paint_great_vessels(canvas: _Canvas, patient: Patient) -> None:
    for tubes, vessel in ((patient.aorta, Vessel.AORTA), (patient.cava, Vessel.CAVA)):
        for tube in tubes:
            canvas.stroke(tube, Tissue.BLOOD, vessel=vessel)


def _cut(axis: Float, box: tuple[slice, slice, slice]) -> Float:
    """A box of a coordinate array that may be one long on an axis."""
    return axis[tuple(part if n > 1 else slice(None) for part, n in zip(box, axis.shape, strict=True))]
