"""One patient's abdomen, sampled from a seed: body wall, spine, organs, liver and its vessel trees.

Frame: millimetres about a point in the middle of the liver's height on the body's long axis; x to the patient's
left, y to the back, z to the head, as in the DICOM patient frame. Sizes are those of adults (liver about 1.0–1.9 l).
Nothing is symmetrical: liver and gallbladder right, spleen, stomach, aorta and heart left.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from model.phantom_shapes import (
    Coordinates,
    Ellipsoid,
    Point,
    Tube,
    WaveField,
    chain,
    point,
    smooth_union,
)
from model.volume import Float, Float64


@dataclass(frozen=True)
class Body:
    """The outline: half axes of a superellipse, thickness of fat and of the muscle wall."""

    half_width_mm: float
    half_depth_mm: float
    fat_mm: float
    wall_mm: float
    rib_phase_mm: float

    def depth_mm(self, x: Float, y: Float) -> Float:
        """Depth under the skin along the ray to the body's axis, in mm."""
        power = np.float32(2.3)
        rho = ((np.abs(x) / self.half_width_mm) ** power + (np.abs(y) / self.half_depth_mm) ** power) ** (1 / power)
        rho = np.maximum(rho, np.float32(0.02))
        return np.asarray((1 / rho - 1) * np.sqrt(np.square(x) + np.square(y)))

    def fat_depth_mm(self, x: Float, y: Float) -> Float:
        """Thickness of the subcutaneous fat: more at the flanks and the back than in front."""
        lateral = np.square(x / np.float32(self.half_width_mm))
        back = np.clip(y / np.float32(self.half_depth_mm), -1, 1)
        return np.asarray(np.float32(self.fat_mm) * (0.75 + 0.5 * lateral + 0.25 * back))


@dataclass(frozen=True)
class Dome:
    """One part of the diaphragm: a paraboloid, highest over (x, y), that falls less to the front than to the back."""

    x_mm: float
    y_mm: float
    top_mm: float
    fall_x_mm: float
    fall_back_mm: float
    fall_front_mm: float

    def height_mm(self, x: Float, y: Float) -> Float:
        """z of the surface in mm."""
        behind = (y - self.y_mm) / np.where(
            y > self.y_mm, np.float32(self.fall_back_mm), np.float32(self.fall_front_mm)
        )
        across = np.square((x - self.x_mm) / np.float32(self.fall_x_mm)) + np.square(behind)
        return np.asarray(np.float32(self.top_mm) - np.float32(60.0) * across)


@dataclass(frozen=True, eq=False)
class Liver:
    """Right lobe, left lobe and caudate, joined; the under-side is cut by an oblique plane and by the fossae."""

    right: Ellipsoid
    left: Ellipsoid
    caudate: Ellipsoid
    under: tuple[float, float, float, float]  # normal and offset of the visceral plane
    surface: WaveField

    def depth_mm(self, x: Float, y: Float, z: Float) -> Float:
        """Depth under the surface that these shapes make, in mm, before cavity and diaphragm limit it."""
        lobes = smooth_union(self.right.depth_mm(x, y, z), self.left.depth_mm(x, y, z), 14.0)
        lobes = smooth_union(lobes, self.caudate.depth_mm(x, y, z), 8.0)
        a, b, c, offset = (np.float32(v) for v in self.under)
        return np.asarray(np.minimum(lobes, a * x + b * y + c * z + offset))


@dataclass(frozen=True, eq=False)
class Patient:
    """Everything that a seed decides about the normal anatomy. Depth functions take warped coordinates."""

    body: Body
    warp: tuple[WaveField, WaveField, WaveField]
    wall_variation: WaveField
    domes: tuple[Dome, Dome, Dome]
    liver: Liver
    spleen: Ellipsoid
    kidneys: tuple[Ellipsoid, Ellipsoid]
    gallbladder: Ellipsoid
    stomach: Ellipsoid
    stomach_level_mm: float
    heart: Ellipsoid
    spine_y_mm: float
    aorta: tuple[Tube, ...]
    cava: tuple[Tube, ...]
    pancreas: tuple[Tube, ...]
    colon: tuple[Tube, ...]
    bowel: tuple[Tube, ...]
    nodes: tuple[Ellipsoid, ...]

    def warped(self, points_N3: Float64) -> Coordinates:
        """Points in mm → the undeformed coordinates in which the shapes are defined."""
        moved = points_N3 + np.stack([wave.at(points_N3) for wave in self.warp], axis=1)
        x, y, z = (moved[:, i].astype(np.float32) for i in range(3))
        return x, y, z

    def diaphragm_mm(self, x: Float, y: Float) -> Float:
        """Height z of the diaphragm over (x, y)."""
        right, left, centre = (dome.height_mm(x, y) for dome in self.domes)
        return smooth_union(smooth_union(right, left, 8.0), centre, 8.0)

    def liver_limit_mm(self, x: Float, y: Float, z: Float) -> Float:
        """Depth of the room that is left to the liver: inside the wall, under the diaphragm."""
        wall = self.body.fat_depth_mm(x, y) + np.float32(self.body.wall_mm + 2.0)
        under = self.diaphragm_mm(x, y) - z - np.float32(3.0)
        return np.asarray(np.minimum(self.body.depth_mm(x, y) - wall, under))

    def liver_depth_at(self, points_N3: Float64) -> Float64:
        """Depth in the liver of points in mm; negative outside it and in the gallbladder."""
        x, y, z = self.warped(points_N3)
        depth = self.liver.depth_mm(x, y, z) + self.liver.surface.at(points_N3)
        depth = np.minimum(depth, self.liver_limit_mm(x, y, z))
        return np.asarray(np.minimum(depth, -self.gallbladder.depth_mm(x, y, z).ravel()), dtype=np.float64)


@dataclass(frozen=True)
class LiverVessels:
    """The two trees inside the liver: the portal vein from its trunk on, and the hepatic veins."""

    portal: tuple[Tube, ...]
    hepatic: tuple[Tube, ...]


def sample_patient(rng: np.random.Generator) -> Patient:
    """Draws one patient; every length is varied by some per cent around an adult's."""
    body = _sample_body(rng)
    scale = body.half_width_mm / 165.0
    liver, domes = _sample_liver(rng, scale), _sample_domes(rng, scale)
    spine_y = body.half_depth_mm - body.fat_mm * 0.9 - body.wall_mm - float(rng.uniform(24, 30))
    return _with_organs(rng, body, liver, domes, scale, spine_y)


def grow_liver_vessels(rng: np.random.Generator, patient: Patient) -> LiverVessels:
    """Portal and hepatic veins of a patient, about 200 segments; `rng` goes on where `sample_patient` left it."""
    portal = _portal_tree(rng, patient)
    return LiverVessels(portal, _hepatic_veins(rng, patient))


def _sample_body(rng: np.random.Generator) -> Body:
    fat = float(rng.uniform(10, 28))
    return Body(
        half_width_mm=float(rng.uniform(134, 148)) + fat,
        half_depth_mm=float(rng.uniform(92, 102)) + 0.9 * fat,
        fat_mm=fat,
        wall_mm=float(rng.uniform(11, 15)),
        rib_phase_mm=float(rng.uniform(0, 32)),
    )


def _sample_domes(rng: np.random.Generator, scale: float) -> tuple[Dome, Dome, Dome]:
    u = rng.uniform
    right = Dome(-60 * scale, -6.0 + u(-6, 6), u(74, 88), 64 * scale, u(56, 64), u(88, 104))
    left = Dome(66 * scale, -4.0 + u(-6, 6), u(60, 78), 60 * scale, u(54, 62), u(88, 104))
    tendon = Dome(6.0, -30.0, u(52, 64), 70 * scale, 70.0, u(90, 104))
    return right, left, tendon


def _sample_liver(rng: np.random.Generator, scale: float) -> Liver:
    u = rng.uniform
    right = Ellipsoid((-66 * scale + u(-6, 6), -2 + u(-6, 6), u(-10, 4)), (u(66, 78) * scale, u(76, 90), u(82, 100)))
    left = Ellipsoid((4 + u(-10, 14), -44 + u(-6, 6), 28 + u(-8, 8)), (u(68, 100) * scale, u(32, 44), u(36, 52)))
    caudate = Ellipsoid((-14 + u(-4, 4), 6 + u(-3, 3), 22 + u(-6, 6)), (u(16, 22), u(14, 19), u(20, 28)))
    tilt = np.array([-u(0.25, 0.5), -u(0.25, 0.55), 1.0])
    tilt /= np.linalg.norm(tilt)
    surface = WaveField.sample(rng, (35.0, 110.0), rms=2.2)
    return Liver(right, left, caudate, (*point(tilt), float(u(22, 38))), surface)


def _with_organs(
    rng: np.random.Generator, body: Body, liver: Liver, domes: tuple[Dome, Dome, Dome], scale: float, spine_y: float
) -> Patient:
    def near(x: float, y: float, z: float, spread: float = 5.0) -> Point:
        dx, dy, dz = rng.uniform(-spread, spread, size=3)
        return float(x * scale + dx), float(y + dy), float(z + dz)

    def size(x: float, y: float, z: float, spread: float = 0.14) -> Point:
        fx, fy, fz = 1 + rng.uniform(-spread, spread, size=3)
        return float(x * fx), float(y * fy), float(z * fz)

    front = spine_y - 30.0
    return Patient(
        body=body,
        # three, which the type of a generator's tuple cannot say
        warp=tuple(WaveField.sample(rng, (80.0, 220.0), rms=3.6) for _ in range(3)),  # type: ignore[arg-type]
        wall_variation=WaveField.sample(rng, (50.0, 160.0), rms=1.6),
        domes=domes,
        liver=liver,
        spleen=Ellipsoid(near(98, 30, 22), size(27, 46, 52), _tilted(rng, 0.3)),
        kidneys=(
            Ellipsoid(near(-62, 42, -72), size(27, 24, 52), _tilted(rng, 0.2)),
            Ellipsoid(near(64, 42, -50), size(27, 24, 54), _tilted(rng, 0.2)),
        ),
        gallbladder=Ellipsoid(near(-42, -46, -34, 7), size(13, 17, 30, 0.3), _tilted(rng, 0.4)),
        stomach=Ellipsoid(near(58, -26, 18, 8), size(44, 38, 48, 0.25), _tilted(rng, 0.4)),
        stomach_level_mm=float(rng.uniform(-40, -5)),
        heart=Ellipsoid(near(24, -34, 98, 6), size(58, 44, 36)),
        spine_y_mm=spine_y,
        aorta=chain(
            [(12.0, front + 2, -200.0), (11.0, front, 0.0), (14.0, front + 10, 200.0)], float(rng.uniform(9, 12))
        ),
        cava=chain(
            [(-20.0, front + 3, -200.0), (-22.0, front - 2, 20.0), (-20.0, front - 12, 75.0)],
            float(rng.uniform(10, 13)),
        ),
        pancreas=chain(
            [near(-24, -6, -48), near(0, -18, -34), near(34, -10, -22), near(72, 18, -2)], float(rng.uniform(8, 12))
        ),
        colon=_colon(rng, scale),
        bowel=_bowel(rng, scale),
        nodes=tuple(Ellipsoid(near(-8, 0, -26, 16), size(5, 4, 6, 0.35), _tilted(rng, 1.0)) for _ in range(3)),
    )  # fmt: skip


def _tilted(rng: np.random.Generator, angle_rad: float) -> tuple[Point, Point, Point]:
    """A rotation by up to `angle_rad` about a random axis (Rodrigues)."""
    axis = rng.normal(size=3)
    axis /= np.linalg.norm(axis)
    angle = rng.uniform(-angle_rad, angle_rad)
    k = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    r = np.eye(3) + math.sin(angle) * k + (1 - math.cos(angle)) * k @ k
    return point(r[0]), point(r[1]), point(r[2])


def _colon(rng: np.random.Generator, scale: float) -> tuple[Tube, ...]:
    """Hepatic flexure, transverse colon, splenic flexure, in segments of changing width."""
    nodes = np.array([(-98, 10, -120), (-92, -18, -84), (-40, -58, -86), (20, -66, -76), (66, -46, -56), (100, 4, -26)])
    nodes = nodes * [scale, 1, 1] + rng.uniform(-8, 8, size=nodes.shape)
    return tuple(Tube(point(a), point(b), float(rng.uniform(14, 22))) for a, b in itertools.pairwise(nodes))


def _bowel(rng: np.random.Generator, scale: float) -> tuple[Tube, ...]:
    """Small bowel loops and the duodenum: tubes strewn under and to the left of the liver."""
    tubes: list[Tube] = []
    for _ in range(14):
        start = np.array([rng.uniform(-50, 100) * scale, rng.uniform(-70, 22), rng.uniform(-150, -42)])
        radius_mm = float(rng.uniform(8, 13))
        for _ in range(2):  # each loop bends once
            end = start + rng.normal(size=3) * [26, 15, 14]
            tubes.append(Tube(point(start), point(end), radius_mm))
            start = end
    return tuple(tubes)


def _portal_tree(rng: np.random.Generator, patient: Patient) -> tuple[Tube, ...]:
    """Main portal vein from the pancreas to the hilum, then right and left branches into their lobes."""
    hilum = (-24.0, -12.0, -8.0 + float(rng.uniform(-6, 6)))
    trunk = Tube((2.0, -8.0, -38.0), hilum, float(rng.uniform(6.5, 8.0)))
    branches = [trunk]
    for target, radius in ((patient.liver.right.centre_mm, 5.6), (patient.liver.left.centre_mm, 4.6)):
        branches += _grow(rng, patient, hilum, np.subtract(target, hilum), radius * float(rng.uniform(0.9, 1.1)), 6)
    return tuple(branches)


def _hepatic_veins(rng: np.random.Generator, patient: Patient) -> tuple[Tube, ...]:
    """Three veins that leave the cava under the diaphragm: right, middle, left."""
    root = (-20.0, patient.spine_y_mm - 40.0, 48.0)
    branches: list[Tube] = []
    for direction, radius in (((-60, -20, -18), 4.8), ((-25, -55, -22), 4.2), ((35, -60, -6), 4.0)):
        start = np.asarray(direction) + rng.uniform(-8, 8, size=3)
        branches += _grow(rng, patient, root, start, radius * float(rng.uniform(0.9, 1.1)), 6)
    return tuple(branches)


def _grow(
    rng: np.random.Generator, patient: Patient, start: Point, direction: Float64, radius_mm: float, depth: int
) -> list[Tube]:
    """Branches from `start`, each narrower than its parent (Murray's law, about 0.8 a fork), kept inside the liver."""
    if depth == 0 or radius_mm < 1.1:
        return []
    direction = direction / np.linalg.norm(direction)
    tries = direction + rng.normal(scale=0.35, size=(6, 3))
    tries /= np.linalg.norm(tries, axis=1, keepdims=True)
    ends = np.asarray(start) + tries * (radius_mm * 3.0 + rng.uniform(6, 14))
    depths = patient.liver_depth_at(ends)
    best = int(np.argmax(depths > 5.0))
    if depth < 6 and depths[best] <= 5.0:
        return []
    end = point(ends[best])
    grown = [Tube(start, end, radius_mm)]
    for spread in (0.35, 0.75):
        turned = tries[best] + rng.normal(scale=spread, size=3)
        grown += _grow(rng, patient, end, turned, radius_mm * float(rng.uniform(0.7, 0.85)), depth - 1)
    return grown
