"""From probabilities to measured lesions. The report and the evaluation count lesions with these very lines.

A lesion is a 26-connected component of probabilities as the card's `OutputSpec` says. Its diameters are measured as
RECIST 1.1 asks (Eisenhauer et al., Eur J Cancer 2009;45:228): the long axis is the longest in-slice distance over all
slices, the short axis the longest chord perpendicular to it. Both lie in one piece of one slice: pixels that touch by
an edge or a corner are one piece, and what hangs together only through other slices is not measured across the gap.
Distances are taken between the midpoints of the outline pixels' outer edges, in mm by the affine: on digitised
ellipses of 4 to 40 pixels this differs from the true diameter by +0.2 to +0.5 pixel, centres by −0.7 to −0.4 and
corners by +0.6 to +0.95, and one voxel has its own size, not zero. A piece is measured by its convex hull, so the short
axis always crosses the long one, and both may cross the hollow of a concave piece (a horseshoe).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull

from model.card import OutputSpec
from model.volume import Float, Float64, Half, Labels, Mask, Volume

Point = tuple[float, float, float]

_NEIGHBOURS_26 = np.ones((3, 3, 3), bool)
_NEIGHBOURS_8_IN_SLICE = np.pad(np.ones((1, 3, 3), bool), ((1, 1), (0, 0), (0, 0)))
_EDGE_MIDPOINTS = np.array([(-0.5, 0.0), (0.5, 0.0), (0.0, -0.5), (0.0, 0.5)])


@dataclass(frozen=True)
class Finding:
    """One measured lesion. Intensities are in the volume's units (HU for CT, arbitrary for MR)."""

    number: int
    voxel_count: int
    volume_ml: float
    long_axis_mm: float
    short_axis_mm: float
    slice_index: int
    """Array index (axis 0) of the slice in which both axes lie."""
    long_axis_ends_lps_mm: tuple[Point, Point]
    short_axis_ends_lps_mm: tuple[Point, Point]
    center_lps_mm: Point
    mean: float
    sd: float
    minimum: float
    maximum: float
    median: float
    mean_probability: float


class Axes(NamedTuple):
    """Long and short axis of one slice of a lesion: lengths in mm, ends as (row, column), fractions allowed."""

    long_mm: float
    short_mm: float
    slice_index: int
    long_ends: Float64
    short_ends: Float64


class _LongAxis(NamedTuple):
    """The longest distance found so far: between corners `a` and `b` of the convex outline of a slice's piece."""

    long_mm: float
    slice_index: int
    a: int
    b: int
    outline: Float64
    outline_mm: Float64


def find_lesions(probability_DHW: Float | Half, volume: Volume, output: OutputSpec) -> tuple[Mask, tuple[Finding, ...]]:
    """Lesions as the card's `output` defines them, largest first, and their mask: label n is finding n.

    Raises ValueError when probability and volume are not on one grid.
    """
    if probability_DHW.shape != volume.array_DHW.shape:
        raise ValueError(f"probability {probability_DHW.shape} is not on the volume's grid {volume.array_DHW.shape}")
    labels_DHW = label_lesions(
        reaches(probability_DHW, output.threshold),
        max(output.minimum_lesion_voxels, int(np.ceil(output.minimum_lesion_ml / volume.voxel_ml - 1e-9))),
        reaches(probability_DHW, peak) if (peak := output.minimum_peak_probability) > output.threshold else None,
    )
    findings = tuple(
        _measure(number, box, labels_DHW, probability_DHW, volume)
        for number, box in enumerate(lesion_boxes(labels_DHW), start=1)
    )
    return Mask(labels_DHW, volume.affine_lps_mm), findings


def reaches(probability_DHW: Float | Half, least: float) -> NDArray[np.bool_]:
    """`probability_DHW >= least`; none of the values may be negative or no number."""
    if probability_DHW.dtype != np.float16:
        return probability_DHW >= least
    half = np.float16(least)
    if float(half) < least:
        half = np.nextafter(half, np.float16(np.inf))
    # halves are ordered as their bits are, which compares far faster than halves do
    return probability_DHW.view(np.uint16) >= half.view(np.uint16)


def lesion_boxes(labels_DHW: Labels) -> list[tuple[slice, ...]]:
    """The box of each lesion 1, 2, … of a mask in which every number up to the highest occurs."""
    outer = bounding_box(labels_DHW > 0)
    if outer is None:
        return []
    return [
        tuple(slice(part.start + axis.start, part.stop + axis.start) for part, axis in zip(box, outer, strict=True))
        for box in ndimage.find_objects(labels_DHW[outer])
    ]


def label_lesions(
    foreground_DHW: NDArray[np.bool_], minimum_voxels: int = 1, peaks_DHW: NDArray[np.bool_] | None = None
) -> Labels:
    """26-connected components of at least `minimum_voxels`, numbered 1..N by size, largest first.

    Where `peaks_DHW` is given, only components that hold one of its voxels. Equal sizes keep the array's order.
    Raises ValueError for more than 65535 components, which are no lesions.
    """
    labels_DHW = np.zeros(foreground_DHW.shape, np.uint16)
    box = bounding_box(foreground_DHW)
    if box is None:
        return labels_DHW
    components, count = ndimage.label(foreground_DHW[box], structure=_NEIGHBOURS_26)
    sizes = np.bincount(components.ravel(), minlength=count + 1)
    sizes[0] = 0
    if peaks_DHW is not None:
        sizes[np.bincount(components[peaks_DHW[box]], minlength=count + 1) == 0] = 0
    by_size = np.argsort(-sizes, kind="stable")
    kept = by_size[: int((sizes >= max(1, minimum_voxels)).sum())]
    if len(kept) > np.iinfo(np.uint16).max:
        raise ValueError(f"{len(kept)} separate components: this is noise, not lesions")
    number_of = np.zeros(count + 1, np.uint16)
    number_of[kept] = np.arange(1, len(kept) + 1)
    labels_DHW[box] = number_of[components]
    return labels_DHW


def longest_axes(lesion_DHW: NDArray[np.bool_], affine_lps_mm: Float64) -> Axes:
    """RECIST axes of one component, the indices being those of the given array. It must not be empty.

    Of pieces that are equally long, the one in the first slice is taken.
    """
    plane_mm = _plane(affine_lps_mm)
    pieces_DHW, _ = ndimage.label(lesion_DHW, structure=_NEIGHBOURS_8_IN_SLICE)
    boxes = ndimage.find_objects(pieces_DHW)
    sides = np.array([(rows.stop - rows.start, columns.stop - columns.start) for _, rows, columns in boxes])
    longest: _LongAxis | None = None
    bounds_mm = _diagonals_mm(sides.reshape(-1, 2), plane_mm)
    # from the largest bound down: few pieces are measured before no other can be longer
    for place in np.argsort(-bounds_mm, kind="stable"):
        if longest is not None and bounds_mm[place] < longest.long_mm:
            break
        d, rows, columns = boxes[place]
        outline = _outline(pieces_DHW[d.start, rows, columns] == place + 1) + np.array([rows.start, columns.start])
        outline_mm = outline @ plane_mm.T
        between_mm = np.linalg.norm(outline_mm[:, None] - outline_mm[None], axis=2)
        a, b = (int(i) for i in np.unravel_index(int(between_mm.argmax()), between_mm.shape))
        found = _LongAxis(float(between_mm[a, b]), d.start, a, b, outline, outline_mm)
        if longest is None or (found.long_mm, -found.slice_index) > (longest.long_mm, -longest.slice_index):
            longest = found
    if longest is None:
        raise ValueError("an empty component has no axes")
    return _with_short_axis(longest)


def _diagonals_mm(sides: NDArray[np.intp], plane_mm: Float64) -> Float64:
    """The longest distance within each box of so many (rows, columns) of pixels (N, 2), right-angled in mm or not."""
    both = [np.linalg.norm(sides * (1, sign) @ plane_mm.T, axis=1) for sign in (1, -1)]
    longer: Float64 = np.maximum(*both)
    return longer


def _measure(number: int, box: tuple[slice, ...], labels: Labels, probability: Float | Half, volume: Volume) -> Finding:
    lesion = labels[box] == number
    values = volume.array_DHW[box][lesion].astype(np.float64)
    start = np.array([axis.start for axis in box], float)
    axes = longest_axes(lesion, volume.affine_lps_mm)
    center = np.argwhere(lesion).mean(axis=0) + start
    return Finding(
        number=number,
        voxel_count=len(values),
        volume_ml=len(values) * volume.voxel_ml,
        long_axis_mm=axes.long_mm,
        short_axis_mm=axes.short_mm,
        slice_index=axes.slice_index + box[0].start,
        long_axis_ends_lps_mm=_ends_lps(axes.slice_index, axes.long_ends, start, volume),
        short_axis_ends_lps_mm=_ends_lps(axes.slice_index, axes.short_ends, start, volume),
        center_lps_mm=_point(volume.to_lps_mm(center[None])[0]),
        mean=float(values.mean()),
        sd=float(values.std()),
        minimum=float(values.min()),
        maximum=float(values.max()),
        median=float(np.median(values)),
        mean_probability=float(probability[box][lesion].mean(dtype=np.float64)),
    )


def bounding_box(foreground_DHW: NDArray[np.bool_]) -> tuple[slice, ...] | None:
    """The smallest box around all that is true, a slice per axis; None where nothing is."""
    in_slice = foreground_DHW.any(axis=(1, 2))
    if not in_slice.any():
        return None
    ends = [np.flatnonzero(in_slice)[[0, -1]]]
    flat_HW: NDArray[np.bool_] = np.logical_or.reduce(foreground_DHW[ends[0][0] : ends[0][1] + 1], axis=0)
    ends += [np.flatnonzero(flat_HW.any(axis=axis))[[0, -1]] for axis in (1, 0)]
    return tuple(slice(int(first), int(last) + 1) for first, last in ends)


def _plane(affine_lps_mm: Float64) -> Float64:
    """2×2 matrix from (row, column) steps to mm in an orthonormal frame of the slice's plane."""
    plane: Float64 = np.linalg.qr(affine_lps_mm[:3, 1:3])[1]
    return plane


def _outline(piece_HW: NDArray[np.bool_]) -> Float64:
    """Corners (row, column) of the convex hull around the pixels' edge midpoints, in order around it."""
    rows = np.flatnonzero(piece_HW.any(axis=1))
    # only the outermost pixels of a row can be corners of the hull
    left = piece_HW[rows].argmax(axis=1)
    right = piece_HW.shape[1] - 1 - piece_HW[rows, ::-1].argmax(axis=1)
    pixels = np.concatenate([np.stack([rows, left], 1), np.stack([rows, right], 1)]).astype(float)
    points = (pixels[:, None] + _EDGE_MIDPOINTS).reshape(-1, 2)
    corners: Float64 = points[ConvexHull(points).vertices]
    return corners


def _with_short_axis(long: _LongAxis) -> Axes:
    x, y = (long.outline_mm[long.b] - long.outline_mm[long.a]) / long.long_mm
    short_mm, ends = _longest_chord(long.outline_mm, np.array([-y, x]), long.outline)
    return Axes(long.long_mm, short_mm, long.slice_index, long.outline[[long.a, long.b]], ends)


def _longest_chord(hull_mm: Float64, direction: Float64, outline: Float64) -> tuple[float, Float64]:
    """Longest chord of a convex polygon in `direction` (unit vector): one of its ends is a corner.

    Returns its length in mm and its ends in the coordinates of `outline`, whose corners are those of `hull_mm`.
    """
    across = np.array([direction[1], -direction[0]])
    offset = hull_mm @ across
    following = np.roll(np.arange(len(hull_mm)), -1)
    length_mm, ends = 0.0, np.stack([outline[0], outline[0]])
    for corner in range(len(hull_mm)):
        # where the line through the corner cuts each edge: edge start + share · (edge end − edge start)
        rise = offset[following] - offset
        with np.errstate(divide="ignore", invalid="ignore"):
            share = (offset[corner] - offset) / rise
        cut = np.flatnonzero((share >= 0) & (share <= 1) & (rise != 0))
        points_mm = hull_mm[cut] + share[cut, None] * (hull_mm[following[cut]] - hull_mm[cut])
        reach = np.abs((points_mm - hull_mm[corner]) @ direction)
        if len(cut) and reach.max() > length_mm:
            far = int(cut[reach.argmax()])
            length_mm = float(reach.max())
            ends = np.stack([outline[corner], outline[far] + share[far] * (outline[following[far]] - outline[far])])
    return length_mm, ends


def _ends_lps(slice_index: int, ends: Float64, start: Float64, volume: Volume) -> tuple[Point, Point]:
    indices = np.column_stack([np.full(2, slice_index), ends]) + start
    first, second = volume.to_lps_mm(indices)
    return _point(first), _point(second)


def _point(xyz: Float64) -> Point:
    return float(xyz[0]), float(xyz[1]), float(xyz[2])
