"""What the second family is made of: organs turned about a bent axis, unions of balls, fields of many scales.

The first family is ellipsoids and capsules. Here an organ is a table of radii by level and angle, drawn after axial
sections of adults and varied smoothly, as a contouring reader would hand it over slice by slice. All in mm, depths
positive inside; `Grid` and `WaveField` are shared with the first family.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import interpolate, ndimage

from model.phantom_shapes import Point, WaveField, point
from model.volume import Float, Float64

_LEVELS, _ANGLES = 48, 96
_HARMONICS, _KNOTS = 5, 6


@dataclass(frozen=True)
class Section:
    """A hand-drawn axial section: height and centre in mm, radii in mm at equal angles from the left over the back."""

    z_mm: float
    centre_mm: tuple[float, float]
    radii_mm: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class StarShape:
    """A solid that is star-shaped in each level about a bent axis.

    `radii_LA` are the radii at levels from `bottom_mm` to `top_mm` and angles from the left over the back, the first
    angle repeated at the end. With `is_closed` both ends are rounded off.
    """

    bottom_mm: float
    top_mm: float
    axis_L2: Float
    radii_LA: Float
    is_closed: bool = True

    @property
    def low_mm(self) -> Point:
        """The corner of a cuboid that holds it."""
        reach = float(self.radii_LA.max())
        return float(self.axis_L2[:, 0].min()) - reach, float(self.axis_L2[:, 1].min()) - reach, self.bottom_mm

    @property
    def high_mm(self) -> Point:
        """The opposite corner."""
        reach = float(self.radii_LA.max())
        return float(self.axis_L2[:, 0].max()) + reach, float(self.axis_L2[:, 1].max()) + reach, self.top_mm

    def polar(self, x: Float, y: Float, z: Float) -> tuple[Float, Float]:
        """Radius of the surface, and distance from the axis, in mm, on the level of each point."""
        level = (z - np.float32(self.bottom_mm)) * np.float32((_LEVELS - 1) / (self.top_mm - self.bottom_mm))
        levels = np.arange(_LEVELS)
        dx, dy = (p - np.interp(level, levels, self.axis_L2[:, n]).astype(np.float32) for n, p in enumerate((x, y)))
        angle = np.arctan2(dy, dx) * np.float32(_ANGLES / (2 * math.pi))
        angle += np.where(angle < 0, np.float32(_ANGLES), np.float32(0))
        where = np.broadcast_arrays(level, angle)
        radius = ndimage.map_coordinates(self.radii_LA, where, order=1, mode="nearest", output=np.float32)
        if self.is_closed:
            share = np.clip(np.abs(level * np.float32(2 / (_LEVELS - 1)) - 1), 0, 1)
            radius = radius * np.sqrt(1 - share**4)
        return np.asarray(radius), np.hypot(dx, dy)

    def depth_mm(self, x: Float, y: Float, z: Float) -> Float:
        """Radius of the surface less the distance from the axis; negative above and below the ends."""
        radius, distance = self.polar(x, y, z)
        beyond = (z < self.bottom_mm) | (z > self.top_mm) if self.is_closed else np.zeros((), np.bool_)
        return np.asarray(np.where(beyond, np.float32(-50), radius - distance))


def star_shape(
    rng: np.random.Generator, sections: Sequence[Section], *, variation: float, is_closed: bool = True
) -> StarShape:
    """A patient's version of drawn sections: smooth between them, its radii varied by `variation` (log, rms)."""
    heights = np.array([section.z_mm for section in sections])
    z = np.linspace(heights[0], heights[-1], _LEVELS)
    axis = interpolate.PchipInterpolator(heights, np.array([section.centre_mm for section in sections]))(z)
    drawn = np.array([section.radii_mm for section in sections])
    around = np.concatenate([drawn, drawn[:, :1]], axis=1)
    angles = np.linspace(0, 2 * math.pi, around.shape[1])
    fine = interpolate.CubicSpline(angles, around, axis=1, bc_type="periodic")(np.linspace(0, 2 * math.pi, _ANGLES + 1))
    radii = interpolate.PchipInterpolator(heights, fine)(z) * np.exp(variation * _wobble(rng))
    return StarShape(
        float(heights[0]), float(heights[-1]), axis.astype(np.float32), radii.astype(np.float32), is_closed
    )


def _wobble(rng: np.random.Generator) -> Float64:
    """(levels, angles + 1) of a smooth field of unit variance that is periodic in the angle.

    Five harmonics of the angle, each with amplitudes that follow a cubic spline through six random knots.
    """
    harmonics = np.repeat(np.arange(1, _HARMONICS + 1), 2)
    knots = rng.normal(size=(2 * _HARMONICS, _KNOTS)) / harmonics[:, None]
    angles = np.linspace(0, 2 * math.pi, _ANGLES + 1)
    quarter = np.tile([0.0, math.pi / 2], _HARMONICS)  # cosine, then sine
    total = (_along_levels() @ knots.T) @ np.cos(harmonics[:, None] * angles - quarter[:, None])
    return np.asarray(total / total.std())


@cache
def _along_levels() -> Float64:
    """What each knot adds at each level, (levels, knots)."""
    spline = interpolate.CubicSpline(np.linspace(0, 1, _KNOTS), np.eye(_KNOTS))
    return np.asarray(spline(np.linspace(0, 1, _LEVELS)))


@dataclass(frozen=True, eq=False)
class Balls:
    """Balls that run into each other: the smooth union of spheres, blended over `blend_mm`."""

    centres_N3: Float64
    radii_N: Float64
    blend_mm: float

    @property
    def low_mm(self) -> Point:
        """The corner of a cuboid that holds them."""
        return point((self.centres_N3 - self.radii_N[:, None]).min(axis=0) - self.blend_mm)

    @property
    def high_mm(self) -> Point:
        """The opposite corner."""
        return point((self.centres_N3 + self.radii_N[:, None]).max(axis=0) + self.blend_mm)

    def depth_mm(self, x: Float, y: Float, z: Float) -> Float:
        """About the distance to the surface: a smooth maximum over the balls (log of summed exponentials)."""
        total: Float = np.zeros((), np.float32)
        for centre, radius in zip(self.centres_N3, self.radii_N, strict=True):
            total = total + self.share(centre, float(radius), x, y, z)
        return self.depth_of(total)

    def share(self, centre_mm: Float64, radius_mm: float, x: Float, y: Float, z: Float) -> Float:
        """What one ball adds to the sum under the logarithm."""
        cx, cy, cz = (np.float32(c) for c in centre_mm)
        distance = np.sqrt(np.square(x - cx) + np.square(y - cy) + np.square(z - cz))
        return np.asarray(np.exp((np.float32(radius_mm) - distance) / np.float32(self.blend_mm)))

    def depth_of(self, total: Float) -> Float:
        """Depth where the shares sum to `total`; far outside it stops falling."""
        return np.asarray(np.float32(self.blend_mm) * np.log(total + np.float32(1e-12)))


def string_of_balls(
    points_mm: Sequence[tuple[float, float, float]], radii_mm: Sequence[float], pitch_mm: float, blend_mm: float
) -> Balls:
    """Balls along a smooth curve through `points_mm`, about `pitch_mm` apart, with interpolated radii."""
    nodes = np.array(points_mm)
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(nodes, axis=0), axis=1))])
    along = np.linspace(0, length[-1], max(2, math.ceil(length[-1] / pitch_mm)))
    centres = interpolate.PchipInterpolator(length, nodes)(along)
    return Balls(centres, interpolate.PchipInterpolator(length, np.array(radii_mm))(along), blend_mm)


def many_scales(
    rng: np.random.Generator, wavelengths_mm: tuple[float, float], exponent: float, count: int = 48
) -> WaveField:
    """A field of unit variance whose waves grow with their length to the power `exponent`: clouds, not ripples."""
    drawn = WaveField.sample(rng, wavelengths_mm, rms=1.0, count=count)
    weight = np.linalg.norm(drawn.k_K3, axis=1) ** -exponent
    return WaveField(drawn.k_K3, weight * math.sqrt(2.0 / np.square(weight).sum()), drawn.phase_K)
