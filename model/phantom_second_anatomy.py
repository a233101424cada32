"""One patient of the second family: organs after drawn sections, varied, on a torso that narrows at the waist.

Frame as in the first family: mm about a point in the middle of the liver's height, x to the left, y to the back, z to
the head. The sections below are drawn by hand after the usual proportions of adult axial anatomy; nobody's scan was
traced.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import numpy as np

from model.phantom_anatomy import LiverVessels
from model.phantom_second_shapes import Balls, Section, StarShape, star_shape, string_of_balls
from model.phantom_shapes import Point, Tube, WaveField, point
from model.volume import Float, Float64

# twelve angles each: left, then every 30° over the back (third: back), the right (sixth), the front (ninth)
TORSO = (
    Section(-260, (0, 0), (164, 150, 122, 108, 122, 150, 164, 148, 122, 112, 122, 148)),
    Section(-150, (0, 0), (152, 142, 118, 104, 118, 142, 152, 141, 120, 113, 120, 141)),
    Section(-60, (0, 0), (149, 141, 118, 104, 118, 141, 149, 137, 116, 107, 116, 137)),
    Section(40, (0, 0), (156, 145, 121, 107, 121, 145, 156, 139, 113, 101, 113, 139)),
    Section(140, (0, 0), (160, 147, 124, 111, 124, 147, 160, 142, 116, 104, 116, 142)),
    Section(260, (0, 0), (158, 146, 122, 110, 122, 146, 158, 140, 116, 106, 116, 140)),
)
LIVER = (
    Section(-108, (-82, 8), (24, 26, 30, 34, 38, 40, 40, 38, 34, 30, 26, 24)),
    Section(-74, (-78, 4), (28, 30, 36, 42, 48, 52, 54, 50, 44, 36, 30, 28)),
    Section(-42, (-72, 0), (36, 40, 52, 64, 68, 66, 66, 66, 62, 56, 46, 38)),
    Section(-12, (-62, -6), (52, 42, 56, 74, 80, 78, 78, 80, 78, 70, 70, 68)),
    Section(18, (-54, -10), (76, 44, 60, 80, 88, 88, 90, 90, 86, 80, 92, 116)),
    Section(44, (-50, -12), (102, 52, 62, 80, 90, 92, 94, 92, 86, 80, 92, 122)),
    Section(68, (-50, -10), (86, 54, 60, 74, 82, 84, 86, 82, 76, 70, 72, 84)),
    Section(94, (-56, -4), (46, 44, 46, 50, 52, 54, 56, 52, 48, 46, 46, 48)),
)
SPLEEN = (
    Section(-38, (96, 36), (16, 18, 20, 20, 16, 11, 9, 9, 13, 18, 18, 17)),
    Section(0, (97, 36), (24, 28, 36, 40, 30, 16, 11, 12, 20, 32, 32, 27)),
    Section(38, (96, 34), (27, 31, 40, 47, 36, 18, 12, 13, 24, 39, 36, 30)),
    Section(74, (92, 30), (22, 26, 32, 34, 28, 17, 12, 13, 20, 28, 27, 24)),
)
RIGHT_KIDNEY = (
    Section(-132, (-56, 44), (17, 19, 21, 22, 23, 23, 23, 22, 21, 20, 18, 17)),
    Section(-84, (-58, 46), (15, 22, 28, 31, 30, 28, 28, 29, 29, 26, 19, 13)),
    Section(-40, (-52, 52), (18, 21, 24, 25, 25, 24, 24, 24, 24, 22, 20, 18)),
)
LEFT_KIDNEY = (
    Section(-112, (56, 44), (23, 23, 22, 21, 20, 18, 17, 18, 20, 21, 23, 23)),
    Section(-62, (60, 46), (28, 29, 30, 31, 27, 19, 13, 15, 22, 28, 30, 28)),
    Section(-14, (54, 52), (24, 24, 25, 25, 23, 20, 18, 18, 21, 23, 24, 24)),
)
HEART = (
    Section(58, (18, -46), (60, 40, 32, 34, 32, 34, 40, 42, 38, 36, 44, 58)),
    Section(92, (20, -44), (66, 52, 46, 46, 44, 42, 46, 50, 46, 44, 52, 66)),
    Section(140, (14, -40), (56, 50, 48, 48, 46, 44, 46, 50, 48, 46, 50, 56)),
)
# x, y, z and radius; y of the great vessels is in front of the middle of the spine
AORTA = ((8, -31, -200, 9.0), (10, -31, -90, 9.5), (13, -31, 10, 10.5), (11, -31, 90, 12.0), (16, -31, 220, 13.0))
CAVA = (
    (-22, -33, -200, 10.0),
    (-24, -33, -60, 11.5),
    (-24, -33, 30, 12.5),
    (-20, -33, 74, 12.0),
    (-16, -33, 100, 10.0),
)
PANCREAS = ((-22, -10, -52, 12.0), (-14, -18, -38, 10.0), (6, -20, -28, 8.0), (34, -8, -18, 9.0), (66, 16, 4, 8.0))
DUODENUM = (
    (-26, -26, -26, 10.0),
    (-42, -10, -44, 12.0),
    (-42, 2, -84, 11.0),
    (-10, 12, -104, 11.0),
    (24, 6, -96, 10.0),
)
STOMACH = ((60, 8, 62, 27.0), (72, -14, 34, 31.0), (64, -44, 2, 27.0), (34, -60, -22, 20.0), (-4, -52, -28, 13.0))
COLON = (
    (-104, 26, -190), (-106, 20, -122), (-92, -14, -96), (-46, -66, -92), (22, -74, -84), (70, -52, -58),
    (100, 4, -28), (104, 30, -80), (102, 34, -190),
)  # fmt: skip
VERTEBRA_PITCH_MM = 36.0
DIAPHRAGM_MM = 3.0
RIB_PITCH_MM = 27.0


@dataclass(frozen=True, eq=False)
class Domes:
    """The diaphragm: three bells of Gaussian section (right, left, under the heart) over a ring, blended."""

    tops_mm: tuple[Point, Point, Point]
    ring_mm: float

    def height_mm(self, x: Float, y: Float) -> Float:
        """z of the surface over (x, y)."""
        total: Float = np.zeros((), np.float32)
        for cx, cy, top in self.tops_mm:
            behind = np.where(y > cy, np.float32(74.0), np.float32(106.0))
            bell = np.exp(
                -np.square((x - np.float32(cx)) / np.float32(80.0)) - np.square((y - np.float32(cy)) / behind)
            )
            total = total + np.exp((np.float32(self.ring_mm) + np.float32(top - self.ring_mm) * bell) / np.float32(9.0))
        return np.asarray(np.float32(9.0) * np.log(total))


@dataclass(frozen=True, eq=False)
class SecondPatient:
    """Everything that a seed decides about the normal anatomy of the second family."""

    torso: StarShape
    fat_mm: float
    wall_mm: float
    layers: WaveField
    warp: tuple[WaveField, WaveField, WaveField]
    domes: Domes
    liver: StarShape
    liver_surface: WaveField
    fissure_x_mm: float
    spleen: StarShape
    kidneys: tuple[StarShape, StarShape]
    pyramids: WaveField
    gallbladder: Balls | None
    stomach: Balls
    stomach_filling: float
    meal: WaveField
    heart: StarShape
    spine_y_mm: float
    aorta: Balls
    plaque: WaveField
    cava: Balls
    pancreas: Balls
    duodenum: Balls
    colon: Balls
    haustra: WaveField
    bowel: WaveField
    bowel_gas: WaveField
    strands: WaveField
    ribs: tuple[Tube, ...]
    nodes: tuple[Balls, ...]

    def fat_depth_mm(self, x: Float, y: Float) -> Float:
        """Thickness of the subcutaneous fat: thick at the flanks and the back, thin at the ribs in front."""
        angle = np.arctan2(y, x)
        return np.asarray(np.float32(self.fat_mm) * (1 + 0.3 * np.abs(np.cos(angle)) + 0.35 * np.sin(angle)))

    def wall_depth_mm(self, x: Float, y: Float) -> Float:
        """Thickness of the muscle wall; thin at the linea alba."""
        alba = np.exp(-np.square(x / np.float32(7.0))) * (y < 0)
        return np.asarray(np.float32(self.wall_mm) * (1 - 0.7 * alba))

    def wall_layers_mm(self, x: Float, y: Float, z: Float) -> Float:
        """Depth under the skin along the ray to the torso's axis, and the thickness of fat and wall, (3, …)."""
        layers = np.broadcast_arrays(self.torso.depth_mm(x, y, z), self.fat_depth_mm(x, y), self.wall_depth_mm(x, y))
        return np.stack(layers)

    def liver_room_mm(self, x: Float, y: Float, z: Float) -> Float:
        """Depths in the room that is left to the liver: under the diaphragm, and beside the right kidney, (2, …)."""
        below = self.domes.height_mm(x, y) - z - np.float32(DIAPHRAGM_MM)
        return np.stack(np.broadcast_arrays(below, np.float32(-1.5) - self.kidneys[0].depth_mm(x, y, z)))

    def fissure_mm(self, x: Float, y: Float, z: Float) -> Float:
        """Distance from the fissure between the left lobe and the rest; negative in its fat."""
        across = x - np.float32(self.fissure_x_mm) - np.float32(0.25) * (y + np.float32(60.0))
        cleft = np.hypot(across, np.float32(0.5) * np.maximum(z - np.float32(12.0), 0)) - np.float32(3.2)
        return np.asarray(cleft + np.maximum(y + np.float32(34.0), 0))

    def liver_depth_at(self, points_N3: Float64) -> Float64:
        """Depth in the liver of points in mm; negative outside it and in the gallbladder."""
        moved = points_N3 + np.stack([wave.at(points_N3) for wave in self.warp], axis=1)
        x, y, z = (moved[:, n].astype(np.float32) for n in range(3))
        skin, fat, wall = self.wall_layers_mm(x, y, z)
        depth = self.liver.depth_mm(x, y, z) + self.liver_surface.at(points_N3).astype(np.float32)
        depth = np.minimum(depth, np.minimum(skin - fat - wall - 2, self.fissure_mm(x, y, z)))
        depth = np.minimum(depth, self.liver_room_mm(x, y, z).min(axis=0))
        if self.gallbladder is not None:
            depth = np.minimum(depth, -self.gallbladder.depth_mm(x, y, z))
        return np.asarray(depth, dtype=np.float64)


def sample_second_patient(rng: np.random.Generator) -> SecondPatient:
    """Draws one patient of the second family."""
    u = rng.uniform
    fat, wall = float(np.exp(u(math.log(6), math.log(38)))), float(u(9, 14))
    girth = float(u(0.93, 1.04))
    torso = _grown(star_shape(rng, TORSO, variation=0.022, is_closed=False), girth, fat + wall - 24)
    spine_y = float(torso.radii_LA[24, 24]) - wall - 1.35 * fat - float(u(28, 33))
    gall = _gallbladder(rng) if rng.random() > 0.12 else None
    patient = SecondPatient(
        torso=torso,
        fat_mm=fat,
        wall_mm=wall,
        layers=WaveField.sample(rng, (30.0, 120.0), rms=1.2),
        # three, which the type of a generator's tuple cannot say
        warp=tuple(WaveField.sample(rng, (64.0, 170.0), rms=2.8) for _ in range(3)),  # type: ignore[arg-type]
        domes=_domes(rng),
        liver=_grown(star_shape(rng, LIVER, variation=0.07), girth * float(u(0.94, 1.06))),
        liver_surface=WaveField.sample(rng, (22.0, 80.0), rms=1.6),
        fissure_x_mm=float(u(-22, -4)),
        spleen=_grown(star_shape(rng, SPLEEN, variation=0.10), float(u(1.0, 1.35))),
        kidneys=(star_shape(rng, RIGHT_KIDNEY, variation=0.06), star_shape(rng, LEFT_KIDNEY, variation=0.06)),
        pyramids=WaveField.sample(rng, (17.0, 24.0), rms=1.0),
        gallbladder=gall,
        stomach=_route(rng, STOMACH, 7, 9, 5.0, width=float(u(0.7, 1.2))),
        stomach_filling=float(u(-48, 4)),
        meal=WaveField.sample(rng, (8.0, 30.0), rms=1.0),
        heart=star_shape(rng, HEART, variation=0.05),
        spine_y_mm=spine_y,
        aorta=_route(rng, AORTA, 3.5, 6, 2.0, behind_mm=spine_y),
        plaque=WaveField.sample(rng, (9.0, 22.0), rms=1.0),
        cava=_route(rng, CAVA, 3.5, 6, 2.0, behind_mm=spine_y),
        pancreas=_route(rng, PANCREAS, 5, 7, 3.0),
        duodenum=_route(rng, DUODENUM, 5, 8, 3.0),
        colon=_colon(rng, girth),
        haustra=WaveField.sample(rng, (24.0, 38.0), rms=1.0),
        bowel=WaveField.sample(rng, (44.0, 66.0), rms=1.0, count=32),
        bowel_gas=WaveField.sample(rng, (50.0, 90.0), rms=1.0),
        strands=WaveField.sample(rng, (18.0, 60.0), rms=1.0, count=32),
        ribs=(),
        nodes=tuple(_node(rng) for _ in range(int(rng.integers(1, 5)))),
    )  # fmt: skip
    return replace(patient, ribs=_ribs(rng, patient))


def grow_second_vessels(rng: np.random.Generator, patient: SecondPatient) -> LiverVessels:
    """Portal and hepatic veins: bent twigs that taper and fork, each in short segments."""
    hilum = (-26.0, -14.0, -8.0)
    trunk = _twig(rng, patient, (8.0, -12.0, -34.0), np.subtract(hilum, (8.0, -12.0, -34.0)), 7.4, 3, is_free=True)
    start = trunk[-1].end_mm
    portal = list(trunk)
    for target, radius in (((-82, 10, -16), 5.8), ((-70, -22, 30), 5.0), ((24, -56, 24), 4.6)):
        portal += _tree(rng, patient, start, np.subtract(target, start), radius * float(rng.uniform(0.9, 1.1)))
    root = (-20.0, patient.spine_y_mm - 38.0, 58.0)
    hepatic: list[Tube] = []
    for direction, radius in (((-70, -10, -34), 5.0), ((-34, -52, -40), 4.4), ((36, -50, -18), 4.2)):
        hepatic += _tree(rng, patient, root, np.asarray(direction, float), radius * float(rng.uniform(0.9, 1.1)))
    return LiverVessels(tuple(portal), tuple(hepatic))


def _grown(shape: StarShape, factor: float, by_mm: float = 0.0) -> StarShape:
    """The shape scaled about its axis, and grown by `by_mm` all around."""
    return replace(shape, radii_LA=(shape.radii_LA * factor + by_mm).astype(np.float32))


def _domes(rng: np.random.Generator) -> Domes:
    u = rng.uniform
    right = (-58 + float(u(-5, 5)), -4 + float(u(-6, 6)), float(u(86, 98)))
    left = (62 + float(u(-5, 5)), float(u(-8, 6)), float(u(74, 90)))
    middle = (16 + float(u(-6, 6)), -54 + float(u(-6, 6)), float(u(56, 70)))
    return Domes((right, left, middle), float(u(-46, -22)))


def _route(
    rng: np.random.Generator, drawn: tuple[tuple[float, float, float, float], ...], spread_mm: float, pitch_mm: float,
    blend_mm: float, *, width: float = 1.0, behind_mm: float = 0.0,
) -> Balls:  # fmt: skip
    """Balls along a drawn route (x, y, z, radius), its points moved by up to `spread_mm`."""
    nodes = _near(rng, [(x, y + behind_mm, z) for x, y, z, _ in drawn], spread_mm)
    return string_of_balls(nodes, [width * radius for *_, radius in drawn], pitch_mm, blend_mm)


def _near(rng: np.random.Generator, points: list[tuple[float, float, float]], spread_mm: float) -> list[Point]:
    return [point(np.asarray(p) + rng.uniform(-spread_mm, spread_mm, size=3)) for p in points]


def _gallbladder(rng: np.random.Generator) -> Balls:
    neck = np.array([-32.0, -28.0, -22.0]) + rng.uniform(-5, 5, size=3)
    fundus = neck + np.array([-14.0, -26.0, -32.0]) * rng.uniform(0.7, 1.25)
    curve = [point(neck), point((neck + fundus) / 2), point(fundus)]
    return string_of_balls(curve, (5, 10, float(rng.uniform(10, 16))), 6, 2.5)


def _colon(rng: np.random.Generator, girth: float) -> Balls:
    nodes = _near(rng, [(x * girth, y, z) for x, y, z in COLON], 7)
    return string_of_balls(nodes, rng.uniform(13, 22, size=len(nodes)).tolist(), 10, 3.0)


def _node(rng: np.random.Generator) -> Balls:
    centre = np.array([-10.0, -4.0, -26.0]) + rng.normal(size=3) * [16, 8, 14]
    ends = [point(centre), point(centre + rng.normal(size=3) * 4)]
    return string_of_balls(ends, rng.uniform(3, 6, size=2).tolist(), 4, 1.5)


def _ribs(rng: np.random.Generator, patient: SecondPatient) -> tuple[Tube, ...]:
    """Bows from the spine forward and down, in the middle of the wall, the lower ones shorter."""
    first_mm = 150.0 + float(rng.uniform(-10, 10))
    tubes: list[Tube] = []
    for number, side in itertools.product(range(9), (-1, 1)):
        reach = math.radians(np.interp(number, (0, 5, 8), (168, 150, 84)))
        turns = np.linspace(math.radians(12), reach, 12)
        z = first_mm - RIB_PITCH_MM * number - 62.0 * (turns / math.radians(150)) ** 1.2
        bow = _in_the_wall(patient, math.pi / 2 - side * turns, z)
        tubes += [Tube(a, b, 5.2) for a, b in itertools.pairwise(bow)]
    return tuple(tubes)


def _in_the_wall(patient: SecondPatient, angles_N: Float64, z_N: Float64) -> list[Point]:
    """The middle of the muscle wall at angles (0 left, π/2 back) and heights."""
    x, y = ((100 * turn(angles_N)).astype(np.float32) for turn in (np.cos, np.sin))
    outline, _ = patient.torso.polar(x, y, z_N.astype(np.float32))
    radius = outline - patient.fat_depth_mm(x, y) - 0.5 * patient.wall_depth_mm(x, y)
    return [point(p) for p in zip(radius * np.cos(angles_N), radius * np.sin(angles_N), z_N, strict=True)]


def _tree(
    rng: np.random.Generator, patient: SecondPatient, start: Point, direction: Float64, radius_mm: float
) -> list[Tube]:
    """A twig and the two that it forks into, until they are thin; the sum of the cubes of the radii stays (Murray)."""
    if radius_mm < 1.2:
        return []
    twig = _twig(rng, patient, start, direction, radius_mm, 3)
    if not twig:
        return []
    heading = np.subtract(twig[-1].end_mm, twig[0].start_mm)
    share = float(rng.uniform(0.3, 0.7))
    grown = list(twig)
    for part in (share, 1 - share):
        turned = heading / np.linalg.norm(heading) + rng.normal(scale=0.55, size=3)
        grown += _tree(rng, patient, twig[-1].end_mm, turned, radius_mm * 0.95 * part ** (1 / 3))
    return grown


def _twig(
    rng: np.random.Generator, patient: SecondPatient, start: Point, direction: Float64, radius_mm: float, segments: int,
    *, is_free: bool = False,
) -> list[Tube]:  # fmt: skip
    """Segments that bend a little each and taper to nine tenths; it ends where it would leave the liver."""
    heading = direction / np.linalg.norm(direction)
    length_mm = 4.0 + 1.5 * radius_mm
    tubes: list[Tube] = []
    at = np.asarray(start)
    for number in range(segments):
        heading = heading + rng.normal(scale=0.18, size=3)
        heading /= np.linalg.norm(heading)
        end = at + heading * length_mm
        is_near_root = math.dist(end, start) < 16 and radius_mm > 4
        if not (is_free or is_near_root) and patient.liver_depth_at(end[None])[0] < 3.0:
            break
        tubes.append(Tube(point(at), point(end), radius_mm * (1 - 0.1 * number / segments)))
        at = end
    return tubes
