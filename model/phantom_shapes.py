"""Geometry that the phantoms are made of: grids, smooth random fields, ellipsoids and tubes, all in mm.

A phantom lives in patient space and knows nothing of voxels; a `Grid` is only where it is looked at. So two
geometries of one seed show the same patient. A grid may be bent: then it looks at a patient who has moved. Depths are
signed distances in mm, positive inside.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from model.volume import Float, Float64

Box: TypeAlias = tuple[slice, slice, slice]
Point: TypeAlias = tuple[float, float, float]
Coordinates: TypeAlias = tuple[Float, Float, Float]


class Bend(Protocol):
    """A smooth movement of the patient: where a grid looks, it sees what rested a displacement further on."""

    @property
    def reach_mm(self) -> float:
        """No displacement is longer."""
        ...

    @property
    def finest_mm(self) -> float:
        """The shortest wavelength in it; nothing changes over less."""
        ...

    def on(self, grid: Grid) -> Float:
        """Displacements in mm on a straight grid, (3, D, H, W) float32."""
        ...


@dataclass(frozen=True, eq=False)
class Grid:
    """Voxel centres in mm: `affine_mm @ (d, h, w, 1)`, for indices below `shape`, displaced where it is bent."""

    affine_mm: Float64
    shape: tuple[int, int, int]
    bend: Bend | None = None

    def coordinates(self) -> Coordinates:
        """x, y, z in mm as float32 arrays that broadcast to `shape`; on an axial grid each is one axis long."""
        if self.bend is None:
            return self._straight_coordinates()
        x, y, z = self._straight_coordinates()
        dx, dy, dz = self.upsampled(self.bend.on, self.bend.finest_mm)
        return x + dx, y + dy, z + dz

    def straight(self) -> Grid:
        """The same grid without its bend."""
        return replace(self, bend=None)

    def upsampled(self, values_on: Callable[[Grid], Float], finest_mm: float) -> Float:
        """A smooth function of straight grids, (C, D, H, W), on this grid without its bend.

        It is asked at nodes an eighth of its shortest wavelength `finest_mm` apart and interpolated between them by
        cubic convolution (Keys, IEEE Trans Acoust Speech Signal Process 1981;29:1153), whose error there is under a
        hundredth of an amplitude. Where the voxels are no closer than that it is asked at each.
        """
        spacing_mm = np.linalg.norm(self.affine_mm[:3, :3], axis=0)
        axes = [_nodes(n, finest_mm / 8 / float(mm)) for n, mm in zip(self.shape, spacing_mm, strict=True)]
        affine = self._moved(np.array([axis.first for axis in axes]))
        affine[:3, :3] *= [axis.pitch for axis in axes]
        values_CDHW = values_on(Grid(affine, (axes[0].count, axes[1].count, axes[2].count)))
        slices, rows, columns = (axis.weights for axis in axes)
        if slices is not None:
            values_CDHW = np.stack([np.tensordot(slices, channel_DHW, axes=1) for channel_DHW in values_CDHW])
        if rows is not None:
            values_CDHW = np.matmul(rows, values_CDHW)
        if columns is not None:
            values_CDHW = np.matmul(values_CDHW, columns.T)
        return values_CDHW

    def _straight_coordinates(self) -> Coordinates:
        axes = np.ogrid[tuple(slice(0, n) for n in self.shape)]
        found: list[Float] = []
        for row in self.affine_mm[:3]:
            total = np.full((1, 1, 1), row[3])
            for step_mm, indices in zip(row[:3], axes, strict=True):
                if abs(step_mm) > 1e-9:  # a zero term would only widen the array
                    total = total + step_mm * indices
            found.append(total.astype(np.float32))
        return found[0], found[1], found[2]

    def box_around(self, centre_mm: Point, radius_mm: float) -> Box | None:
        """Index ranges that hold a ball, or None where the ball lies outside the grid."""
        inverse = np.linalg.inv(self.affine_mm[:3, :3])
        middle = inverse @ (np.asarray(centre_mm) - self.affine_mm[:3, 3])
        if self.bend is not None:
            radius_mm += self.bend.reach_mm
        half = radius_mm * np.linalg.norm(inverse, axis=1)
        return self._box(middle - half, middle + half)

    def box_of(self, low_mm: Point, high_mm: Point, margin_mm: float) -> Box | None:
        """Index ranges that hold a cuboid in mm and a margin around it, or None where it lies outside the grid."""
        if self.bend is not None:
            margin_mm += self.bend.reach_mm
        corners = np.array(list(itertools.product(*zip(low_mm, high_mm, strict=True))))
        corners += np.where(corners < np.mean(corners, axis=0), -margin_mm, margin_mm)
        found = (corners - self.affine_mm[:3, 3]) @ np.linalg.inv(self.affine_mm[:3, :3]).T
        return self._box(found.min(axis=0), found.max(axis=0))

    def _box(self, first: Float64, last: Float64) -> Box | None:
        low = np.maximum(np.floor(first).astype(int), 0)
        high = np.minimum(np.ceil(last).astype(int) + 1, self.shape)
        if np.any(low >= high):
            return None
        return slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2])

    def cut(self, box: Box) -> Grid:
        """The part of the grid inside `box`."""
        start = np.array([part.start for part in box])
        return Grid(self._moved(start), (_length(box[0]), _length(box[1]), _length(box[2])), self.bend)

    def shifted(self, slices: float) -> Grid:
        """The same grid moved along its slice axis by a fraction of the slice spacing."""
        return Grid(self._moved(np.array([slices, 0.0, 0.0])), self.shape, self.bend)

    def _moved(self, indices: NDArray[np.floating] | NDArray[np.integer]) -> Float64:
        affine = self.affine_mm.copy()
        affine[:3, 3] += affine[:3, :3] @ indices
        return affine


def _length(part: slice) -> int:
    return int(part.stop - part.start)


@dataclass(frozen=True, eq=False)
class _Nodes:
    """Equidistant nodes along an axis, in voxels, and the (voxels, nodes) weights; none where voxels are nodes."""

    first: float
    pitch: float
    count: int
    weights: Float | None


def _nodes(length: int, step: float) -> _Nodes:
    """Nodes at most `step` voxels apart, and one beyond either end, with the weights of the cubic convolution."""
    if step <= 1 or length < 3:
        return _Nodes(0.0, 1.0, length, None)
    inner = math.ceil((length - 1) / step) + 1
    pitch = (length - 1) / (inner - 1)
    apart = np.abs(np.arange(length)[:, None] / pitch - np.arange(-1, inner + 1))
    near = (1.5 * apart - 2.5) * apart**2 + 1
    far = ((-0.5 * apart + 2.5) * apart - 4) * apart + 2
    weights = np.where(apart < 1, near, np.where(apart < 2, far, 0)).astype(np.float32)
    return _Nodes(-pitch, pitch, inner + 2, weights)


@dataclass(frozen=True, eq=False)
class WaveField:
    """A smooth random field, Σₖ aₖ·cos(kₖ·p + φₖ): random Fourier features of a band-limited Gaussian field.

    On an affine grid each wave is a product of three one-dimensional ones, so a whole volume costs one matrix product.
    """

    k_K3: Float64
    amplitude_K: Float64
    phase_K: Float64

    @classmethod
    def sample(
        cls, rng: np.random.Generator, wavelengths_mm: tuple[float, float], rms: float, count: int = 24
    ) -> WaveField:
        """Isotropic directions, wavelengths log-uniform in the range, root mean square `rms` over space."""
        directions = rng.normal(size=(count, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        wavelengths = np.exp(rng.uniform(math.log(wavelengths_mm[0]), math.log(wavelengths_mm[1]), size=count))
        return cls(
            k_K3=directions * (2 * math.pi / wavelengths)[:, None],
            amplitude_K=np.full(count, rms * math.sqrt(2.0 / count)),
            phase_K=rng.uniform(0, 2 * math.pi, size=count),
        )

    @cached_property
    def finest_mm(self) -> float:
        """The shortest of the wavelengths."""
        return float(2 * math.pi / np.linalg.norm(self.k_K3, axis=1).max())

    def at(self, points_N3: Float64) -> Float64:
        """Values at points in mm."""
        return np.asarray(np.cos(points_N3 @ self.k_K3.T + self.phase_K) @ self.amplitude_K)

    def on(self, grid: Grid) -> Float:
        """Values on a grid, (D, H, W) float32."""
        if grid.bend is not None:
            return self._on_bent(grid, grid.bend)
        depth, height, width = grid.shape
        start = self.amplitude_K * np.exp(1j * (self.phase_K + self.k_K3 @ grid.affine_mm[:3, 3]))
        step = self.k_K3 @ grid.affine_mm[:3, :3]
        wave_DK, wave_HK, wave_WK = (
            np.exp(1j * np.arange(n)[:, None] * step[:, axis]) for axis, n in enumerate(grid.shape)
        )
        left = (start * wave_DK)[:, None, :] * wave_HK[None]
        left = np.concatenate([left.real, -left.imag], axis=-1).reshape(depth * height, -1).astype(np.float32)
        right = np.concatenate([wave_WK.real, wave_WK.imag], axis=-1).astype(np.float32)
        return np.asarray(left @ right.T).reshape(depth, height, width)

    def _on_bent(self, grid: Grid, bend: Bend) -> Float:
        def seen_on(nodes: Grid) -> Float:
            return self.scattered(replace(nodes, bend=bend).coordinates())[None]

        (seen_DHW,) = grid.upsampled(seen_on, min(self.finest_mm, bend.finest_mm))
        return np.asarray(seen_DHW)

    def scattered(self, coordinates: Coordinates) -> Float:
        """Values at coordinates of one shape, float32: faster than `at`, and a little less exact."""
        points_N3 = np.stack(np.broadcast_arrays(*coordinates), axis=-1).reshape(-1, 3)
        phase_NK = points_N3 @ self.k_K3.T.astype(np.float32) + self.phase_K.astype(np.float32)
        values_N = np.cos(phase_NK) @ self.amplitude_K.astype(np.float32)
        return np.asarray(values_N).reshape(np.broadcast_shapes(*(axis.shape for axis in coordinates)))


def warped_coordinates(grid: Grid, warp: tuple[WaveField, WaveField, WaveField]) -> Coordinates:
    """Where a grid looks, moved by three fields, each (D, H, W) in mm; a bend comes first."""
    bend = grid.bend
    if bend is None:
        x, y, z = (axis + wave.on(grid) for axis, wave in zip(grid.coordinates(), warp, strict=True))
        return x, y, z

    def moved_on(nodes: Grid) -> Float:
        shifts_CDHW = bend.on(nodes)
        x, y, z = (rest + shift for rest, shift in zip(nodes.coordinates(), shifts_CDHW, strict=True))
        return shifts_CDHW + np.stack([wave.scattered((x, y, z)) for wave in warp])

    finest_mm = min(bend.finest_mm, *(wave.finest_mm for wave in warp))
    moved = zip(grid.straight().coordinates(), grid.upsampled(moved_on, finest_mm), strict=True)
    x, y, z = (rest + shift for rest, shift in moved)
    return x, y, z


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid: centre and half axes in mm, and the rows of its rotation into its own axes."""

    centre_mm: Point
    radii_mm: Point
    axes: tuple[Point, Point, Point] = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))

    @property
    def reach_mm(self) -> float:
        """Radius of a ball around the centre that holds it."""
        return max(self.radii_mm)

    def radius_at(self, x: Float, y: Float, z: Float) -> Float:
        """Normalised radius: 0 at the centre, 1 on the surface."""
        p = (x - self.centre_mm[0], y - self.centre_mm[1], z - self.centre_mm[2])
        total: Float = np.zeros((), np.float32)
        for axis, radius_mm in zip(self.axes, self.radii_mm, strict=True):
            along = sum((c * q for c, q in zip(axis, p, strict=True) if abs(c) > 1e-9), np.float32(0))
            total = total + np.square(along / np.float32(radius_mm))
        return np.sqrt(total)

    def depth_mm(self, x: Float, y: Float, z: Float) -> Float:
        """About the distance to the surface (exact for a ball), positive inside."""
        return (1.0 - self.radius_at(x, y, z)) * np.float32(np.prod(self.radii_mm) ** (1 / 3))


@dataclass(frozen=True)
class Tube:
    """A segment of a vessel or a bowel loop: a capsule between two points."""

    start_mm: Point
    end_mm: Point
    radius_mm: float

    @property
    def centre_mm(self) -> Point:
        """The middle between both ends."""
        return point((a + b) / 2 for a, b in zip(self.start_mm, self.end_mm, strict=True))

    @property
    def reach_mm(self) -> float:
        """Radius of a ball around the centre that holds it."""
        return math.dist(self.start_mm, self.end_mm) / 2 + self.radius_mm

    def depth_mm(self, x: Float, y: Float, z: Float) -> Float:
        """Distance to the surface, positive inside."""
        line = np.subtract(self.end_mm, self.start_mm)
        p = (x - self.start_mm[0], y - self.start_mm[1], z - self.start_mm[2])
        along = sum(np.float32(c) * q for c, q in zip(line, p, strict=True)) / np.float32(max(line @ line, 1e-6))
        along = np.clip(along, 0, 1)
        square = sum(np.square(q - np.float32(c) * along) for c, q in zip(line, p, strict=True))
        return np.asarray(np.float32(self.radius_mm) - np.sqrt(square))


def chain(points_mm: list[Point], radius_mm: float) -> tuple[Tube, ...]:
    """Tubes through a list of points."""
    return tuple(Tube(a, b, radius_mm) for a, b in itertools.pairwise(points_mm))


def smooth_union(a: Float, b: Float, blend_mm: float) -> Float:
    """Union of two depths with a fillet of `blend_mm` (polynomial smooth maximum)."""
    mix = np.clip(0.5 + (a - b) / np.float32(2 * blend_mm), 0, 1)
    return np.asarray(b + (a - b) * mix + np.float32(blend_mm) * mix * (1 - mix))


def random_rotation(rng: np.random.Generator) -> tuple[Point, Point, Point]:
    """Three orthonormal axes, uniform over the rotations."""
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return point(q[0]), point(q[1]), point(q[2])


def point(values: Iterable[float]) -> Point:
    """Three numbers as plain floats."""
    x, y, z = (float(v) for v in values)
    return x, y, z
