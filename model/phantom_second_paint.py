"""The second family's anatomy onto a grid: which tissue each voxel is, from the back to the front."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from model.phantom_anatomy import LiverVessels
from model.phantom_paint import Painted, TissueMap, Vessel
from model.phantom_second_anatomy import DIAPHRAGM_MM, VERTEBRA_PITCH_MM, SecondPatient
from model.phantom_second_shapes import Balls, StarShape
from model.phantom_shapes import Box, Grid, Tube, WaveField, point, warped_coordinates
from model.phantom_tissues import Tissue
from model.volume import Float

_WARP_REACH_MM = 14.0
_WALL_FINEST_MM, _STAR_FINEST_MM = 32.0, 28.0
"""Shortest wavelengths in the outline and the layers under it, and in the surface of an organ."""
_SOFT = (Tissue.FAT, Tissue.MUSCLE)


class _Canvas:
    """The grid in warped coordinates and the map under work; later strokes cover earlier ones."""

    def __init__(self, patient: SecondPatient, grid: Grid) -> None:
        self.grid = grid
        self.warp = patient.warp
        self.warped = warped_coordinates(grid, patient.warp)
        self.skin_mm, self.fat_mm, self.wall_mm = self.smooth(patient.wall_layers_mm, _WALL_FINEST_MM)
        self.fat_mm += self.fine(patient.layers)
        self.cavity_mm: Float = self.skin_mm - self.fat_mm - self.wall_mm
        self.tissue_DHW: TissueMap = np.zeros(grid.shape, np.uint8)
        self.vessel_DHW: NDArray[np.uint8] = np.zeros(grid.shape, np.uint8)

    def smooth(
        self, values_at: Callable[[Float, Float, Float], Float], finest_mm: float, box: Box | None = None
    ) -> Float:
        """A smooth function of warped coordinates, (C, D, H, W), in a box or everywhere; asked on a coarse lattice."""
        grid = self.grid if box is None else self.grid.cut(box)

        def on(nodes: Grid) -> Float:
            return values_at(*warped_coordinates(replace(nodes, bend=grid.bend), self.warp))

        return grid.upsampled(on, finest_mm)

    def at(self, box: Box) -> tuple[Float, Float, Float]:
        """Warped coordinates in a box."""
        x, y, z = (axis[box] for axis in self.warped)
        return x, y, z

    def box(self, shape: StarShape | Balls) -> Box | None:
        """Where a shape may lie on the grid."""
        return self.grid.box_of(shape.low_mm, shape.high_mm, _WARP_REACH_MM)

    def below(self, z_mm: float) -> Box | None:
        """All that may lie below a height."""
        return self.grid.box_of((-300.0, -300.0, -600.0), (300.0, 300.0, z_mm), _WARP_REACH_MM)

    def above(self, z_mm: float) -> Box | None:
        """All that may lie above a height."""
        return self.grid.box_of((-300.0, -300.0, z_mm), (300.0, 300.0, 600.0), _WARP_REACH_MM)

    def fine(self, field: WaveField, box: Box | None = None) -> Float:
        """A fine field in a box or everywhere; it follows no bend, which costs much and would not be seen."""
        grid = self.grid.straight()
        return field.on(grid if box is None else grid.cut(box))

    def depth_mm(self, shape: StarShape | Balls, box: Box) -> Float:
        """Depth in a shape; of balls it is that of the near ones."""
        if isinstance(shape, StarShape):
            return np.asarray(self.smooth(lambda x, y, z: shape.depth_mm(x, y, z)[None], _STAR_FINEST_MM, box)[0])
        total = np.zeros(self.skin_mm[box].shape, np.float32)
        cut = self.grid.cut(box)
        x, y, z = self.at(box)
        for centre, radius in zip(shape.centres_N3, shape.radii_N, strict=True):
            near = cut.box_around(point(centre), float(radius) + 6 * shape.blend_mm + _WARP_REACH_MM)
            if near is not None:
                total[near] += shape.share(centre, float(radius), x[near], y[near], z[near])
        return shape.depth_of(total)

    def stroke(
        self,
        shape: StarShape | Balls,
        tissue: Tissue,
        *,
        lining: tuple[Tissue, float] | None = None,
        uneven: tuple[WaveField, float] | None = None,
        vessel: Vessel = Vessel.NONE,
    ) -> Stroke | None:
        """Paints a shape inside the wall; `lining` is an outer layer (tissue, mm), `uneven` a field and its mm.

        Returns where it was painted and how deep each voxel there lies under the lining.
        """
        box = self.box(shape)
        if box is None:
            return None
        depth = self.depth_mm(shape, box)
        if uneven is not None:
            depth += np.float32(uneven[1]) * self.fine(uneven[0], box)
        free = self.cavity_mm[box] > 0
        if lining is not None:
            self.tissue_DHW[box][free & (depth > 0)] = lining[0]
            depth -= np.float32(lining[1])
        self.tissue_DHW[box][free & (depth > 0)] = tissue
        if vessel:
            self.vessel_DHW[box][free & (depth > 0)] = vessel
        return Stroke(box, depth)


@dataclass(frozen=True, eq=False)
class Stroke:
    """Where a shape was painted."""

    box: Box
    depth_mm: Float


def paint_second(patient: SecondPatient, vessels: LiverVessels, grid: Grid) -> Painted:
    """Paints the patient without focal lesions."""
    canvas = _Canvas(patient, grid)
    _paint_wall(canvas, patient)
    _paint_bowel(canvas, patient)
    _paint_upper_gut(canvas, patient)
    canvas.stroke(patient.spleen, Tissue.SPLEEN)
    liver = _paint_liver(canvas, patient, vessels)
    _paint_kidneys(canvas, patient)
    _paint_chest(canvas, patient)
    _paint_spine(canvas, patient)
    _paint_great_vessels(canvas, patient)
    liver &= np.isin(canvas.tissue_DHW, (Tissue.LIVER, Tissue.LIVER_VESSEL))
    canvas.vessel_DHW[~np.isin(canvas.tissue_DHW, (Tissue.BLOOD, Tissue.LIVER_VESSEL))] = Vessel.NONE  # painted over
    return Painted(canvas.tissue_DHW, canvas.vessel_DHW, liver)


def _paint_wall(canvas: _Canvas, patient: SecondPatient) -> None:
    """Skin, fat, two layers of muscle with fat between them, ribs, and the strands in the fat inside."""
    tissue, under_fat = canvas.tissue_DHW, canvas.skin_mm - canvas.fat_mm
    tissue[canvas.skin_mm > 0] = Tissue.SKIN
    tissue[canvas.skin_mm > 1.8] = Tissue.FAT
    seam = np.abs(under_fat - 0.55 * canvas.wall_mm) < 0.7
    tissue[(under_fat > 0) & ~seam] = Tissue.MUSCLE
    inside = canvas.cavity_mm > 0
    tissue[inside] = Tissue.FAT
    strand = inside & (np.abs(canvas.fine(patient.strands)) < 0.035)
    tissue[strand] = Tissue.NODE  # small vessels and folds of the mesentery, as bright as soft tissue
    for rib in patient.ribs:
        box = canvas.grid.box_around(rib.centre_mm, rib.reach_mm + _WARP_REACH_MM)
        if box is not None:
            depth = rib.depth_mm(*canvas.at(box))
            tissue[box][depth > 0] = Tissue.BONE
            tissue[box][depth > 1.9] = Tissue.MARROW


def _paint_bowel(canvas: _Canvas, patient: SecondPatient) -> None:
    """Small bowel as a random level set in front of the spine: lumen, wall, and fat between the loops; the colon."""
    box = canvas.below(-34.0)
    if box is not None:
        x, y, z = canvas.at(box)
        room = (canvas.cavity_mm[box] > 8) & (y < 30) & (z < -40 - 0.25 * np.abs(x - 20)) & (x > -70)
        field = canvas.fine(patient.bowel, box)
        part = canvas.tissue_DHW[box]
        part[room & (field > 0.05)] = Tissue.BOWEL_WALL
        lumen = room & (field > 0.42)
        part[lumen] = Tissue.BOWEL_CONTENT
        part[lumen & (canvas.fine(patient.bowel_gas, box) - y / np.float32(60) > 1.5)] = Tissue.GAS
    canvas.stroke(patient.colon, Tissue.BOWEL_CONTENT, lining=(Tissue.BOWEL_WALL, 2.2), uneven=(patient.haustra, 2.4))
    box = canvas.box(patient.colon)
    if box is not None:
        part = canvas.tissue_DHW[box]
        gas = canvas.fine(patient.bowel_gas, box) - canvas.at(box)[1] / np.float32(40) > 0.4
        part[(part == Tissue.BOWEL_CONTENT) & gas & (patient.colon.depth_mm(*canvas.at(box)) > 3)] = Tissue.GAS


def _paint_upper_gut(canvas: _Canvas, patient: SecondPatient) -> None:
    canvas.stroke(patient.pancreas, Tissue.PANCREAS, uneven=(patient.meal, 1.1))
    canvas.stroke(patient.duodenum, Tissue.BOWEL_CONTENT, lining=(Tissue.BOWEL_WALL, 2.5))
    for node in patient.nodes:
        canvas.stroke(node, Tissue.NODE)
    stomach = canvas.stroke(
        patient.stomach, Tissue.STOMACH_FLUID, lining=(Tissue.STOMACH_WALL, 4.0), uneven=(patient.meal, 0.8)
    )
    if stomach is not None:  # the patient lies on the back: gas in front of a level, lumps of food in the fluid
        part = canvas.tissue_DHW[stomach.box]
        fluid = part == Tissue.STOMACH_FLUID
        y = canvas.at(stomach.box)[1]
        part[fluid & (canvas.fine(patient.meal, stomach.box) > 0.9)] = Tissue.BOWEL_CONTENT
        part[fluid & (y < patient.stomach_filling)] = Tissue.GAS


def _paint_kidneys(canvas: _Canvas, patient: SecondPatient) -> None:
    """Cortex with columns between the pyramids, fat and fluid in the sinus."""
    for kidney in patient.kidneys:
        box = canvas.box(kidney)
        if box is None:
            continue
        depth = canvas.depth_mm(kidney, box)
        free = canvas.cavity_mm[box] > -4
        wave = canvas.fine(patient.pyramids, box)
        part = canvas.tissue_DHW[box]
        part[free & (depth > 0)] = Tissue.CORTEX
        part[free & (depth > 6.0 + 1.5 * wave) & (wave > -0.7)] = Tissue.MEDULLA
        part[free & (depth > 17.0 + 1.5 * wave)] = Tissue.FAT
        part[free & (depth > 21.5 - 1.5 * wave)] = Tissue.BILE  # urine, water as bile is


def _paint_liver(canvas: _Canvas, patient: SecondPatient, vessels: LiverVessels) -> NDArray[np.bool_]:
    """Liver, its vessels and the gallbladder; returns where the liver is."""
    liver = np.zeros(canvas.grid.shape, np.bool_)
    box = canvas.box(patient.liver)
    if box is not None:
        surface = patient.liver_surface.on(canvas.grid.cut(box))
        room = canvas.smooth(patient.liver_room_mm, _STAR_FINEST_MM, box).min(axis=0)
        room = np.minimum(room, canvas.cavity_mm[box] - np.float32(2.0))
        liver[box] = np.minimum(canvas.depth_mm(patient.liver, box) + surface, room) > 0
        liver[box] &= patient.fissure_mm(*canvas.at(box)) > 0
        canvas.tissue_DHW[liver] = Tissue.LIVER
    for tree, vessel in ((vessels.portal, Vessel.PORTAL_VEIN), (vessels.hepatic, Vessel.HEPATIC_VEIN)):
        for tube in tree:
            _stroke_vessel(canvas, tube, vessel)
    if patient.gallbladder is not None:
        canvas.stroke(patient.gallbladder, Tissue.BILE, lining=(Tissue.STOMACH_WALL, 1.2))
    return liver


def _stroke_vessel(canvas: _Canvas, tube: Tube, vessel: Vessel) -> None:
    """A liver vessel, in plain coordinates as it was grown."""
    box = canvas.grid.box_around(tube.centre_mm, tube.reach_mm)
    if box is not None:
        inside = tube.depth_mm(*canvas.grid.cut(box).coordinates()) > 0
        canvas.tissue_DHW[box][inside] = Tissue.LIVER_VESSEL
        canvas.vessel_DHW[box][inside] = vessel


def _paint_chest(canvas: _Canvas, patient: SecondPatient) -> None:
    box = canvas.above(patient.domes.ring_mm - 25.0)
    if box is not None:
        above = -canvas.smooth(patient.liver_room_mm, _STAR_FINEST_MM, box)[0]
        part, cavity = canvas.tissue_DHW[box], canvas.cavity_mm[box] > 0
        part[cavity & (above > 0)] = Tissue.MUSCLE  # the diaphragm itself
        part[cavity & (above > DIAPHRAGM_MM)] = Tissue.LUNG
    canvas.stroke(patient.heart, Tissue.HEART, lining=(Tissue.FAT, 3.0))


def _paint_spine(canvas: _Canvas, patient: SecondPatient) -> None:
    """Psoas and erector spinae, then vertebrae with waists, discs, arches and transverse processes."""
    box = canvas.grid.box_of((-75.0, patient.spine_y_mm - 40, -600.0), (75.0, patient.spine_y_mm + 90, 600.0), 14.0)
    if box is None:
        return
    x, y, z = canvas.at(box)
    back = y - np.float32(patient.spine_y_mm)
    part, is_body = canvas.tissue_DHW[box], canvas.skin_mm[box] > canvas.fat_mm[box]
    _paint_back_muscles(part, x, back, z, is_body)
    level = np.mod(z + np.float32(11.0), np.float32(VERTEBRA_PITCH_MM)) / np.float32(VERTEBRA_PITCH_MM)
    is_disc, waist = level < 0.2, 1 - 0.11 * np.sin(np.pi * np.clip((level - 0.2) / 0.8, 0, 1))
    radius = np.hypot(x / (22.5 * waist), (back + 2.0) / (16.5 * waist))
    hollow = np.hypot(x / 11.0, (back - 23.0) / 9.5)
    solid = (radius < 1) & (hollow > 1)
    part[solid] = Tissue.BONE
    part[solid & (radius < 0.88) & ~is_disc] = Tissue.MARROW
    part[solid & (radius < 0.95) & is_disc] = Tissue.DISC
    _paint_arches(part, x, back, level)
    part[hollow < 0.93] = Tissue.CSF
    part[np.hypot(x / 5.5, (back - 23.0) / 4.5) < 1] = Tissue.CORD


def _paint_back_muscles(part: TissueMap, x: Float, back: Float, z: Float, is_body: NDArray[np.bool_]) -> None:
    for side in (-1.0, 1.0):
        erector = np.hypot((x - side * 33.0) / 27.0, (back - 36.0) / 20.0)
        seam = np.abs(np.mod(x * side + 0.4 * back, np.float32(17.0)) - 8.0) < 0.7
        part[(erector < 1) & is_body & ~seam] = Tissue.MUSCLE
        width = np.clip((np.float32(-20.0) - z) / 7.0, 3, 24)
        psoas = np.hypot((x - side * (25.0 + 0.55 * width)) / width, (back - 2.0) / (0.8 * width))
        part[(psoas < 1) & is_body & (z < -30)] = Tissue.MUSCLE
    crus = (np.abs(np.abs(x - 3.0) - 17.0) < 2.6) & (np.abs(back + 24.0) < 16) & (z > -60) & np.isin(part, _SOFT)
    part[crus] = Tissue.MUSCLE


def _paint_arches(part: TissueMap, x: Float, back: Float, level: Float) -> None:
    ring = np.abs(np.hypot(x / 15.0, (back - 23.0) / 13.5) - 0.94) < 0.16
    is_arch = (level > 0.42) & (level < 0.9)
    part[ring & is_arch & (back > 8)] = Tissue.BONE
    spinous = (np.abs(x) < 3.6) & (back > 34) & (back < 62) & (level > 0.15) & (level < 0.75)
    part[spinous] = Tissue.BONE
    part[spinous & (np.abs(x) < 1.9) & (back < 59)] = Tissue.MARROW
    across = (np.abs(back - 24.0 - 0.1 * np.abs(x)) < 4.0) & (np.abs(x) > 14) & (np.abs(x) < 38)
    part[across & (level > 0.5) & (level < 0.78)] = Tissue.BONE


def _paint_great_vessels(canvas: _Canvas, patient: SecondPatient) -> None:
    canvas.stroke(patient.cava, Tissue.BLOOD, vessel=Vessel.CAVA)
    aorta = canvas.stroke(patient.aorta, Tissue.BLOOD, vessel=Vessel.AORTA)
    if aorta is not None:  # calcified plaques in the wall
        plaque = canvas.fine(patient.plaque, aorta.box) > 1.9
        plaque &= (aorta.depth_mm > 0) & (aorta.depth_mm < 1.8)
        canvas.tissue_DHW[aorta.box][plaque] = Tissue.BONE
