"""Focal lesions of the second family: balls run together, gnawed at their border by noise, with patchy necrosis.

The first family's lesions are ellipsoids with concentric rims. These are unions of one to seven balls whose border
wanders by a random field, whose necrosis is where another field exceeds a level away from the border, and which may lie
against the capsule or in clusters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from model.phantom_gadolinium import shortened
from model.phantom_lesions import Coverage
from model.phantom_second_anatomy import SecondPatient
from model.phantom_second_shapes import Balls, many_scales
from model.phantom_second_tissues import (
    CYSTIC,
    FOCAL_FAT,
    HAEMANGIOMATOUS,
    MUCINOUS,
    NECROTIC,
    TREATED,
    VIABLE,
)
from model.phantom_shapes import Grid, Point, WaveField, point
from model.phantom_tissues import LesionKind, Properties, Range
from model.volume import Float, Float64

EMPTY_SHARE = 0.18
MEAN_FURTHER = 1.5
MOST = 7
MEDIAN_MM, LOG_SPREAD = 17.0, 0.62
SMALLEST_MM, LARGEST_MM = 5.0, 85.0
MUCINOUS_SHARE = 0.14
CAPSULE_SHARE, CLUSTER_SHARE = 0.3, 0.25
BRIGHT_RIM_SHARE = 0.65
BRIGHT_RIM, DARK_RIM, DARK_CORE = Range(92, 140), Range(54, 76), Range(40, 66)
NODULES, POOL = Range(160, 260), Range(60, 80)
VIABLE_MMOL, DEAD_MMOL, POOL_MMOL = Range(0.2, 0.55), Range(0.0, 0.15), Range(0.9, 1.5)
HYPERENHANCEMENT, WASHOUT, CAPSULE, MOSAIC = Range(112, 168), Range(70, 98), Range(112, 142), 0.17
"""Hepatocellular carcinomas, as in the first family but wider."""
_SUBSLICES = (-0.4, -0.2, 0.0, 0.2, 0.4)


@dataclass(frozen=True, eq=False)
class SecondLesion:
    """One lesion. `border` wanders by `border_mm`; the core is where `patches` exceeds `level` under `rim_mm`."""

    kind: str
    balls: Balls
    border: WaveField
    border_mm: float
    edge_mm: float
    patches: WaveField
    level: float
    rim_mm: float
    rim: Properties
    core: Properties

    @property
    def nominal_long_axis_mm(self) -> float:
        """Longest diameter by design, before the border wanders."""
        centres, radii = self.balls.centres_N3, self.balls.radii_N
        apart = np.linalg.norm(centres[:, None] - centres[None], axis=-1) + radii[:, None] + radii[None]
        return float(np.max(apart))

    @property
    def centre_mm(self) -> Point:
        """The middle of the balls."""
        return point(self.balls.centres_N3.mean(axis=0))


def second_coverage(lesion: SecondLesion, grid: Grid) -> Coverage | None:
    """The part of each voxel that a lesion fills, averaged over five sections of the slice; None outside the grid."""
    box = grid.box_of(lesion.balls.low_mm, lesion.balls.high_mm, 3 * lesion.border_mm + lesion.edge_mm)
    if box is None:
        return None
    cut = grid.cut(box)
    rim: Float = np.zeros(cut.shape, np.float32)
    core: Float = np.zeros(cut.shape, np.float32)
    for shift in _SUBSLICES:
        part = cut.shifted(shift)
        depth = lesion.balls.depth_mm(*part.coordinates()) + np.float32(lesion.border_mm) * lesion.border.on(part)
        filled = np.clip(depth / np.float32(lesion.edge_mm) + 0.5, 0, 1)
        dead = np.clip((depth - np.float32(lesion.rim_mm)) / np.float32(1.5), 0, 1)
        dead = dead * np.clip((lesion.patches.on(part) - np.float32(lesion.level)) * 3 + 0.5, 0, 1)
        core += filled * dead
        rim += filled * (1 - dead)
    share = np.float32(1 / len(_SUBSLICES))
    return Coverage(box, rim * share, core * share)


def sample_second_lesions(
    rng: np.random.Generator, patient: SecondPatient, count: int | None
) -> tuple[SecondLesion, ...]:
    """Metastases before chemotherapy: none in 18 % of the patients, else one and a Poisson number of further ones."""
    drawn = 0 if rng.random() < EMPTY_SHARE else 1 + min(int(rng.poisson(MEAN_FURTHER)), MOST - 1)
    lesions: list[SecondLesion] = []
    for _ in range(drawn if count is None else count):
        diameter_mm = float(np.clip(MEDIAN_MM * np.exp(LOG_SPREAD * rng.normal()), SMALLEST_MM, LARGEST_MM))
        centre = _place(rng, patient, diameter_mm / 2, lesions)
        lesions.append(_metastasis(rng, centre, diameter_mm))
    return tuple(lesions)


def sample_second_decoys(
    rng: np.random.Generator, patient: SecondPatient, taken: tuple[SecondLesion, ...]
) -> tuple[SecondLesion, ...]:
    """Cysts, a haemangioma, and a patch of focal fat beside the fissure."""
    kinds = [CYSTIC] * min(int(rng.poisson(0.9)), 5) + [HAEMANGIOMATOUS] * int(rng.random() < 0.25)
    decoys: list[SecondLesion] = []
    for kind in kinds:
        diameter_mm = float(np.exp(rng.uniform(math.log(4), math.log(32))))
        centre = _place(rng, patient, diameter_mm / 2, [*taken, *decoys])
        border_mm = 0.02 * diameter_mm if kind is CYSTIC else 0.07 * diameter_mm
        decoys.append(_lesion(rng, kind, kind, centre, diameter_mm, border_mm, float(rng.uniform(0.7, 1.4))))
    if rng.random() < 0.3:
        centre = (patient.fissure_x_mm + float(rng.uniform(-16, -10)), -62.0, float(rng.uniform(-20, 12)))
        size_mm = float(rng.uniform(14, 30))
        decoys.append(_lesion(rng, FOCAL_FAT, FOCAL_FAT, centre, size_mm, 0.12 * size_mm, 4.0))
    return tuple(decoys)


def after_second_chemotherapy(rng: np.random.Generator, lesions: tuple[SecondLesion, ...]) -> tuple[SecondLesion, ...]:
    """Most shrink, some do not answer, a few grow; all are more fibrous, and those under 5 mm have gone."""
    treated = []
    for lesion in lesions:
        factor = float(np.clip(rng.normal(0.72, 0.2), 0.35, 1.1))
        rim, level, edge_mm = draw(rng, TREATED), float(rng.uniform(-0.6, 1.0)), float(rng.uniform(2.0, 5.5))
        if lesion.nominal_long_axis_mm * factor < SMALLEST_MM:
            continue
        middle = np.asarray(lesion.centre_mm)
        centres = middle + (lesion.balls.centres_N3 - middle) * factor
        balls = Balls(centres, lesion.balls.radii_N * factor, lesion.balls.blend_mm * factor)
        border_mm = lesion.border_mm * factor
        treated.append(replace(lesion, balls=balls, border_mm=border_mm, edge_mm=edge_mm, rim=rim, level=level))
    return tuple(treated)


def in_the_arterial_phase(rng: np.random.Generator, lesion: SecondLesion) -> SecondLesion:
    """The same lesion some 40 s after the injection."""
    hyper, bright, dark, core = (
        rng.random() < BRIGHT_RIM_SHARE,
        *(_pick(rng, r) for r in (BRIGHT_RIM, DARK_RIM, DARK_CORE)),
    )
    nodules, pool = _pick(rng, NODULES), _pick(rng, POOL)
    if lesion.kind in (CYSTIC.source, FOCAL_FAT.source):
        return lesion
    if lesion.kind == HAEMANGIOMATOUS.source:
        return _shown(lesion, nodules, pool, rim_mm=0.12 * lesion.nominal_long_axis_mm, level=-0.8)
    if hyper:
        return _shown(lesion, bright, core, rim_mm=0.09 * lesion.nominal_long_axis_mm, level=min(lesion.level, -0.3))
    return _shown(lesion, dark, core, rim_mm=lesion.rim_mm, level=lesion.level)


def hepatocellular(rng: np.random.Generator, lesion: SecondLesion, *, is_arterial: bool) -> SecondLesion:
    """A hepatocellular carcinoma in the metastasis's place: bright in the arterial phase, later dark in its capsule."""
    bright, washed, capsule = (_pick(rng, span) for span in (HYPERENHANCEMENT, WASHOUT, CAPSULE))
    rim_mm = float(rng.uniform(1.2, 2.6)) if lesion.nominal_long_axis_mm > 18 else 0.0
    rim = replace(lesion.rim, ct_hu=bright if is_arterial else capsule, texture=MOSAIC)
    core = replace(lesion.rim, ct_hu=bright if is_arterial else washed, texture=MOSAIC)
    return replace(lesion, rim=rim if rim_mm else core, core=core, rim_mm=rim_mm, level=-9.0)


def after_gadolinium(rng: np.random.Generator, lesion: SecondLesion) -> SecondLesion:
    """The same lesion about 70 s after the injection of gadolinium."""
    viable, dead, pool = (_pick(rng, span) for span in (VIABLE_MMOL, DEAD_MMOL, POOL_MMOL))
    if lesion.kind in (CYSTIC.source, FOCAL_FAT.source):
        held = (0.0, 0.0) if lesion.kind == CYSTIC.source else (0.55, 0.55)
    else:
        held = (pool, pool) if lesion.kind == HAEMANGIOMATOUS.source else (viable, dead)
    return replace(lesion, rim=shortened(lesion.rim, held[0]), core=shortened(lesion.core, held[1]))


def draw(rng: np.random.Generator, kind: LesionKind) -> Properties:
    """One lesion's own values from the ranges of its kind."""
    density, t1_ms, t2_ms, adc, hu = (
        _pick(rng, span) for span in (kind.density, kind.t1_ms, kind.t2_ms, kind.adc, kind.ct_hu)
    )
    return Properties(density, t1_ms, t2_ms, adc, 0.06, hu, 0.09, kind.source)


def _shown(lesion: SecondLesion, rim_hu: float, core_hu: float, *, rim_mm: float, level: float) -> SecondLesion:
    rim, core = replace(lesion.rim, ct_hu=rim_hu), replace(lesion.core, ct_hu=core_hu)
    return replace(lesion, rim=rim, core=core, rim_mm=rim_mm, level=level)


def _metastasis(rng: np.random.Generator, centre: Point, diameter_mm: float) -> SecondLesion:
    tumour = MUCINOUS if rng.random() < MUCINOUS_SHARE else VIABLE
    border_mm = float(rng.uniform(0.03, 0.09)) * diameter_mm
    made = _lesion(rng, tumour, NECROTIC, centre, diameter_mm, border_mm, float(rng.uniform(0.8, 3.2)))
    level = float(rng.uniform(-0.9, 1.6)) if diameter_mm > 11 else 9.0  # small ones are alive throughout
    return replace(made, level=level, rim_mm=float(rng.uniform(0.05, 0.16)) * diameter_mm)


def _lesion(
    rng: np.random.Generator, rim: LesionKind, core: LesionKind, centre: Point, diameter_mm: float, border_mm: float,
    edge_mm: float,
) -> SecondLesion:  # fmt: skip
    wavelengths = (0.25 * diameter_mm + 2.0, 1.2 * diameter_mm + 4.0)
    return SecondLesion(
        kind=rim.source,
        balls=_balls(rng, centre, diameter_mm),
        border=WaveField.sample(rng, wavelengths, rms=1.0, count=16),
        border_mm=border_mm,
        edge_mm=edge_mm,
        patches=many_scales(rng, wavelengths, 0.5, count=16),
        level=9.0,
        rim_mm=0.0,
        rim=(tissue := draw(rng, rim)),
        core=draw(rng, core) if core is not rim else tissue,
    )


def _balls(rng: np.random.Generator, centre: Point, diameter_mm: float) -> Balls:
    """One to seven balls, the more the larger the lesion, scaled to its diameter."""
    count = 1 + int(rng.binomial(6, np.clip((diameter_mm - 6) / 50, 0.08, 0.7)))
    centres = rng.normal(size=(count, 3))
    centres *= (rng.random(count) ** (1 / 3) / np.linalg.norm(centres, axis=1))[:, None] * [1.0, 0.85, 0.7]
    radii = rng.uniform(0.55, 1.0, size=count)
    raw = Balls(centres, radii, 0.12)
    apart = np.linalg.norm(centres[:, None] - centres[None], axis=-1) + radii[:, None] + radii[None]
    scale = diameter_mm / float(apart.max())
    return Balls(np.asarray(centre) + (raw.centres_N3 - centres.mean(axis=0)) * scale, radii * scale, 0.12 * scale)


def _place(rng: np.random.Generator, patient: SecondPatient, radius_mm: float, others: list[SecondLesion]) -> Point:
    """In the depth of the liver, against its capsule, or near another; 4 mm clear of all others where there is room."""
    points = np.array([-150.0, -110.0, -100.0]) + rng.random((500, 3)) * [250.0, 190.0, 195.0]
    is_at_capsule, is_in_cluster = rng.random() < CAPSULE_SHARE, rng.random() < CLUSTER_SHARE
    depths = patient.liver_depth_at(points)
    points, depths = points[depths > 0], depths[depths > 0]
    wanted = 0.35 * radius_mm if is_at_capsule else 0.7 * radius_mm + 2.0
    slack = depths - wanted
    if is_at_capsule:
        slack = np.minimum(slack, wanted + 6.0 - depths)
    for other in others:
        apart = np.linalg.norm(points - np.asarray(other.centre_mm), axis=1)
        slack = np.minimum(slack, apart - 0.5 * other.nominal_long_axis_mm - radius_mm - 4.0)
        if is_in_cluster and other is others[-1]:
            slack = np.minimum(slack, other.nominal_long_axis_mm + radius_mm + 25.0 - apart)
    best = np.argsort(-np.minimum(slack, 0), kind="stable")[:40]  # those that fit, in the order drawn, then the nearest
    room = np.minimum(slack[best], _room_mm(patient, points[best], 0.6 * radius_mm) - wanted)
    return point(points[best[int(np.argmax(np.minimum(room, 0)))]])


def _room_mm(patient: SecondPatient, points_N3: Float64, reach_mm: float) -> Float64:
    """Depth in the liver of the second worst of six points around each, more by `reach_mm`: clefts are seen so."""
    around = points_N3[:, None] + reach_mm * np.concatenate([np.eye(3), -np.eye(3)])
    depths = patient.liver_depth_at(around.reshape(-1, 3)).reshape(-1, 6)
    return np.asarray(np.sort(depths, axis=1)[:, 1] + reach_mm)


def _pick(rng: np.random.Generator, span: Range) -> float:
    return float(rng.uniform(span.low, span.high))
