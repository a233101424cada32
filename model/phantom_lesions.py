"""Focal lesions: metastases with rim and necrosis, and the decoys (cysts, haemangiomas).

Parameters are drawn first, without any voxel; a grid later shows which part of each voxel they fill. A patient's
metastases are drawn once and shown twice: before chemotherapy as drawn, after it shrunk, fibrotic and blurred.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from model.phantom_anatomy import Patient
from model.phantom_shapes import Box, Ellipsoid, Grid, Point, WaveField, point, random_rotation
from model.phantom_tissues import (
    CYST,
    HAEMANGIOMA,
    NECROSIS_POST,
    NECROSIS_PRE,
    VIABLE_POST,
    VIABLE_PRE,
    LesionKind,
    Properties,
    Range,
)
from model.phantom_truth import largest_component
from model.volume import Float, Labels

EMPTY_FRACTION = 0.15
MAX_LESIONS = 5
SMALL_FRACTION = 0.42  # of the lesions after the first; the first is measurable disease (≥ 10 mm in RECIST 1.1)
SMALLEST_MM = 5.0
_SUBSLICES = (-1 / 3, 0.0, 1 / 3)


@dataclass(frozen=True, eq=False)
class FocalLesion:
    """One lesion: an ellipsoid with a lobulated surface, a rim and a core.

    `core_radius` is the normalised radius where the core begins (0: none), `edge_mm` the width of its blurred margin.
    """

    shape: Ellipsoid
    lobulation: WaveField
    core_radius: float
    edge_mm: float
    rim: Properties
    core: Properties

    @property
    def nominal_long_axis_mm(self) -> float:
        """Longest diameter by design, before lobulation and sampling."""
        return 2 * max(self.shape.radii_mm)


@dataclass(frozen=True, eq=False)
class Coverage:
    """Where a lesion lies on a grid: the box, and the fractions of each voxel that are rim and core."""

    box: Box
    rim_DHW: Float
    core_DHW: Float


def coverage(lesion: FocalLesion, grid: Grid) -> Coverage | None:
    """The part of each voxel that a lesion fills, averaged over the slice thickness; None outside the grid."""
    box = grid.box_around(lesion.shape.centre_mm, lesion.shape.reach_mm * 1.35 + lesion.edge_mm)
    if box is None:
        return None
    cut = grid.cut(box)
    total: Float = np.zeros(cut.shape, np.float32)
    core: Float = np.zeros(cut.shape, np.float32)
    mean_radius_mm = np.float32(math.prod(lesion.shape.radii_mm) ** (1 / 3))
    for shift in _SUBSLICES:
        part = cut.shifted(shift)
        radius = lesion.shape.radius_at(*part.coordinates()) * (1 + lesion.lobulation.on(part))
        inside = np.clip((1 - radius) * mean_radius_mm / np.float32(lesion.edge_mm) + 0.5, 0, 1)
        total += inside
        if lesion.core_radius > 0:
            core += inside * np.clip((lesion.core_radius - radius) * 5 + 0.5, 0, 1)
    share = np.float32(1 / len(_SUBSLICES))
    return Coverage(box, (total - core) * share, core * share)


def settle(
    covers: Sequence[tuple[int, Coverage | None]], liver_DHW: NDArray[np.bool_]
) -> tuple[tuple[Coverage | None, ...], Labels]:
    """Coverages clipped to the liver, and the raw truth: a lesion's number where it fills half of a voxel or more.

    Each coverage comes with its number; 0 is a decoy, None lies outside the grid. Later lesions cover earlier ones.
    """
    labels = np.zeros(liver_DHW.shape, np.uint16)
    settled: list[Coverage | None] = []
    for number, cover in covers:
        if cover is None:
            settled.append(None)
            continue
        inside = liver_DHW[cover.box]
        cover = replace(cover, rim_DHW=cover.rim_DHW * inside, core_DHW=cover.core_DHW * inside)
        settled.append(cover)
        if number:
            labels[cover.box][largest_component(cover.rim_DHW + cover.core_DHW >= 0.5)] = number
    return tuple(settled), labels


def sample_lesion_count(rng: np.random.Generator) -> int:
    """None in 15 % of the patients, else 1–5, fewer being commoner."""
    if rng.random() < EMPTY_FRACTION:
        return 0
    return int(rng.choice(np.arange(1, MAX_LESIONS + 1), p=(0.26, 0.24, 0.20, 0.16, 0.14)))


def sample_metastases(rng: np.random.Generator, patient: Patient, count: int) -> tuple[FocalLesion, ...]:
    """`count` metastases before chemotherapy, apart from each other, most of each inside the liver."""
    lesions: list[FocalLesion] = []
    for index in range(count):
        diameter_mm = _sample_diameter_mm(rng, first=index == 0)
        centre = _free_centre(rng, patient, diameter_mm / 2, [other.shape for other in lesions])
        lesions.append(_metastasis(rng, centre, diameter_mm))
    return tuple(lesions)


def sample_decoys(
    rng: np.random.Generator, patient: Patient, metastases: tuple[FocalLesion, ...]
) -> tuple[FocalLesion, ...]:
    """Cysts in about half of the patients, a haemangioma in one of five."""
    decoys: list[FocalLesion] = []
    wanted = [CYST] * int(rng.choice(4, p=(0.5, 0.25, 0.15, 0.1))) + [HAEMANGIOMA] * int(rng.random() < 0.2)
    for kind in wanted:
        diameter_mm = float(np.exp(rng.uniform(math.log(5), math.log(24))))
        taken = [lesion.shape for lesion in (*metastases, *decoys)]
        centre = _free_centre(rng, patient, diameter_mm / 2, taken)
        tissue = _draw(rng, kind)
        shape = _ellipsoid(rng, centre, diameter_mm, roundness=0.85)
        decoys.append(FocalLesion(shape, _lobulation(rng, diameter_mm, 0.03), 0.0, 1.0, tissue, tissue))
    return tuple(decoys)


def after_chemotherapy(rng: np.random.Generator, lesions: tuple[FocalLesion, ...]) -> tuple[FocalLesion, ...]:
    """The same lesions after treatment: 45–90 % of the diameter, fibrotic, blurred; those under 5 mm have gone."""
    treated = []
    for index, lesion in enumerate(lesions):
        factor = float(rng.uniform(0.6, 0.92) if index == 0 else rng.uniform(0.45, 0.92))
        rim, core = _draw(rng, VIABLE_POST), _draw(rng, NECROSIS_POST)
        core_radius, edge_mm = float(rng.uniform(0.3, 0.75)), float(rng.uniform(2.0, 4.0))
        if lesion.nominal_long_axis_mm * factor >= SMALLEST_MM:
            radii = point(r * factor for r in lesion.shape.radii_mm)
            shape = replace(lesion.shape, radii_mm=radii)
            treated.append(replace(lesion, shape=shape, rim=rim, core=core, core_radius=core_radius, edge_mm=edge_mm))
    return tuple(treated)


def _sample_diameter_mm(rng: np.random.Generator, *, first: bool) -> float:
    if first:
        return float(np.exp(rng.uniform(math.log(18), math.log(62))))
    if rng.random() < SMALL_FRACTION:
        return float(rng.uniform(SMALLEST_MM + 0.5, 9.8))
    return float(np.exp(rng.uniform(math.log(10), math.log(42))))


def _free_centre(rng: np.random.Generator, patient: Patient, radius_mm: float, taken: list[Ellipsoid]) -> Point:
    """A point deep enough in the liver and 5 mm clear of the others; the best of the tries where none is."""
    low = np.array([-150.0, -100.0, -85.0])
    points = low + rng.random((400, 3)) * (np.array([90.0, 90.0, 80.0]) - low)
    slack = patient.liver_depth_at(points) - (0.62 * radius_mm + 2.0)
    for other in taken:
        gap = np.linalg.norm(points - np.asarray(other.centre_mm), axis=1) - other.reach_mm * 1.12 - radius_mm * 1.12
        slack = np.minimum(slack, gap - 5.0)
    best = int(np.argmax(slack >= 0)) if np.any(slack >= 0) else int(np.argmax(slack))
    return point(points[best])


def _metastasis(rng: np.random.Generator, centre: Point, diameter_mm: float) -> FocalLesion:
    large = diameter_mm > 14 and rng.random() < 0.75  # small metastases are solid
    return FocalLesion(
        shape=_ellipsoid(rng, centre, diameter_mm, roundness=0.68),
        lobulation=_lobulation(rng, diameter_mm, 0.06),
        core_radius=float(rng.uniform(0.35, 0.72)) if large else 0.0,
        edge_mm=float(rng.uniform(1.0, 2.2)),
        rim=_draw(rng, VIABLE_PRE),
        core=_draw(rng, NECROSIS_PRE),
    )


def _ellipsoid(rng: np.random.Generator, centre: Point, diameter_mm: float, roundness: float) -> Ellipsoid:
    middle, short = sorted(rng.uniform(roundness, 1.0, size=2), reverse=True)
    radius = diameter_mm / 2
    return Ellipsoid(centre, (radius, radius * float(middle), radius * float(short)), random_rotation(rng))


def _lobulation(rng: np.random.Generator, diameter_mm: float, rms: float) -> WaveField:
    return WaveField.sample(rng, (0.5 * diameter_mm, 1.6 * diameter_mm), rms=rms, count=12)


def _draw(rng: np.random.Generator, kind: LesionKind) -> Properties:
    def pick(span: Range) -> float:
        return float(rng.uniform(span.low, span.high))

    return Properties(
        density=pick(kind.density),
        t1_ms=pick(kind.t1_ms),
        t2_ms=pick(kind.t2_ms),
        adc=pick(kind.adc),
        perfusion=0.05,
        ct_hu=pick(kind.ct_hu),
        texture=0.06,
        source=kind.source,
    )
