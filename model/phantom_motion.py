"""How a patient lies differently in another breath-hold: a smooth displacement of what is inside the body wall.

Two phases of a CT are two breath-holds. The liver of the second lies some millimetres higher or lower and is bent a
little; the wall and the spine stay. Reproducibility of breath-holds in abdominal imaging is a few millimetres with
single outliers beyond a centimetre (Dawson et al., Int J Radiat Oncol Biol Phys 2001;51:1410, as commonly quoted).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from model.phantom_anatomy import Body
from model.phantom_shapes import Grid, Point, WaveField, point
from model.volume import Float, Float64

FloatAny: TypeAlias = NDArray[np.floating[Any]]

AMPLITUDE_MM = (3.0, 10.0)
_CENTRE_MM = (-20.0, -14.0, 10.0)
_SPREAD_MM = (150.0, 105.0, 130.0)
WAVELENGTHS_MM, UNEVENNESS = (110.0, 260.0), 0.32
"""Of the random part, and its root mean square relative to the common direction."""
_WALL_MM, _SPINE_MM = 38.0, 42.0
"""Over so much depth under the skin, and distance from the spine's surface, the displacement rises from nothing."""
_SPINE_RADIUS_MM = 18.0
_LATTICE = Grid(
    np.array([[0.0, 0.0, 15.0, -180.0], [0.0, 15.0, 0.0, -135.0], [15.0, 0.0, 0.0, -150.0], [0.0, 0.0, 0.0, 1.0]]),
    (21, 19, 25),
)
"""Where a movement is looked at to find its peaks: the abdomen every 15 mm."""


@dataclass(frozen=True, eq=False)
class Breathing:
    """A displacement field u: what is seen at p in this breath-hold rested at p + u(p) in the other.

    `amplitude_mm` is the longest displacement inside the liver, `reach_mm` no less than the longest anywhere.
    Points are in mm about the patient's reference point.
    """

    amplitude_mm: float
    reach_mm: float
    scale_mm: float
    direction: Point
    unevenness: tuple[WaveField, WaveField, WaveField]
    body: Body
    spine_y_mm: float
    finest_mm: float = 64.0

    def displacement_mm(self, points_N3: Float64) -> Float64:
        """u at points in mm, (N, 3) in mm."""
        random_N3 = np.stack([wave.at(points_N3) for wave in self.unevenness], axis=1)
        x, y, z = points_N3.T
        return self.scale_mm * self._freedom(x, y, z)[:, None] * (np.asarray(self.direction) + random_N3)

    def on(self, grid: Grid) -> Float:
        """u on a straight grid, (3, D, H, W) in mm."""
        freedom_DHW = np.float32(self.scale_mm) * self._freedom(*grid.coordinates()).astype(np.float32)
        parts = zip(self.direction, self.unevenness, strict=True)
        return np.stack([freedom_DHW * (np.float32(along) + wave.on(grid)) for along, wave in parts])

    def to_rest_mm(self, points_N3: Float64) -> Float64:
        """Where in the other breath-hold lies what is seen at `points_N3` here."""
        return points_N3 + self.displacement_mm(points_N3)

    def from_rest_mm(self, points_N3: Float64) -> Float64:
        """The inverse of `to_rest_mm`, by fixed-point iteration (u is a contraction: a test looks)."""
        found_N3 = points_N3.copy()
        for _ in range(30):
            found_N3 = points_N3 - self.displacement_mm(found_N3)
        return found_N3

    def _freedom(self, x: FloatAny, y: FloatAny, z: FloatAny) -> FloatAny:
        """How freely what lies at a point can move: 1 around the liver, 0 at the skin and at the spine."""
        apart = [np.square((p - c) / s) for p, c, s in zip((x, y, z), _CENTRE_MM, _SPREAD_MM, strict=True)]
        near_liver = np.exp(-np.square(apart[0] + apart[1] + apart[2]))
        under_skin = _smooth_step(self.body.depth_mm(x, y) / _WALL_MM)
        beside_spine = _smooth_step((np.hypot(x, y - self.spine_y_mm) - _SPINE_RADIUS_MM) / _SPINE_MM)
        return np.asarray(near_liver * under_skin * beside_spine)


def sample_breathing(
    rng: np.random.Generator,
    body: Body,
    spine_y_mm: float,
    liver_depth_at: Callable[[Float64], Float64],
    *,
    wavelengths_mm: tuple[float, float] = WAVELENGTHS_MM,
    unevenness: float = UNEVENNESS,
) -> Breathing:
    """Draws the movement of one breath-hold against another: mostly along the body, scaled by its peak in the liver."""
    amplitude_mm = float(rng.uniform(*AMPLITUDE_MM))
    direction = np.array([rng.normal(0, 0.12), rng.normal(0, 0.3), rng.choice((-1.0, 1.0))])
    drawn = Breathing(
        amplitude_mm,
        reach_mm=0.0,
        scale_mm=1.0,
        direction=point(direction / np.linalg.norm(direction)),
        # three, which the type of a generator's tuple cannot say
        unevenness=tuple(WaveField.sample(rng, wavelengths_mm, rms=unevenness) for _ in range(3)),  # type: ignore[arg-type]
        body=body,
        spine_y_mm=spine_y_mm,
    )
    lengths_mm = np.linalg.norm(drawn.on(_LATTICE), axis=0).ravel()
    points_N3 = np.stack(np.broadcast_arrays(*_LATTICE.coordinates()), axis=-1).reshape(-1, 3).astype(np.float64)
    scale = amplitude_mm / float(lengths_mm[liver_depth_at(points_N3) > 0].max())
    return replace(drawn, scale_mm=scale, reach_mm=1.1 * scale * float(lengths_mm.max()))


def _smooth_step(share: FloatAny) -> FloatAny:
    clipped = np.clip(share, 0, 1)
    return np.asarray(clipped * clipped * (3 - 2 * clipped))
