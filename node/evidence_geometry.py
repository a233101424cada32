"""Where the slices of a volume lie. Whether they form a volume at all is said by the one who will read it (grid.py)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from statistics import median

from node.dicom.grid import plan_grid
from node.errors import GeometryError
from node.evidence_facts import Geometry
from node.evidence_slices import SliceFacts
from node.evidence_split import SAME_POSITION_MM, normal_of

MIN_AXIAL_COSINE = 0.8
"""A slice counts as axial while its normal is within 37° of the body's long axis."""

Vector = tuple[float, float, float]


def geometry_of(slices: Sequence[SliceFacts]) -> Geometry:
    """Slices come sorted along their normal."""
    first = slices[0]
    normal = normal_of(first.orientation) if first.orientation else None
    placed = [item.position_lps_mm for item in slices if item.position_lps_mm] if normal else []
    along = sorted(_dot(position, normal) for position in placed) if normal else []
    steps = [after - before for before, after in itertools.pairwise(along) if after - before > SAME_POSITION_MM]
    spacing_mm = median(steps) if steps else None
    return Geometry(
        slices=len(slices),
        rows=first.matrix[0],
        columns=first.matrix[1],
        normal=normal,
        is_axial=normal is not None and abs(normal[2]) >= MIN_AXIAL_COSINE,
        spacing_mm=spacing_mm,
        extent_mm=along[-1] - along[0] + spacing_mm if spacing_mm else 0.0,
        first_mm=along[0] if along else None,
        tilt_degrees=_tilt(placed, normal),
        fault=_fault(slices),
        frame_of_reference_uid=str(first.header.get("FrameOfReferenceUID", "")),
    )


def _fault(slices: Sequence[SliceFacts]) -> str | None:
    try:
        plan_grid([item.header for item in slices])
    except GeometryError as error:
        return str(error)
    return None


def _tilt(placed: Sequence[tuple[float, ...]], normal: Vector | None) -> float:
    """Degrees between the stack's direction and the slices' normal: a gantry's tilt."""
    if normal is None or len(placed) < 2:
        return 0.0
    stack = tuple(b - a for a, b in zip(placed[0], placed[-1], strict=True))
    length = math.hypot(*stack)
    return math.degrees(math.acos(min(1.0, abs(_dot(stack, normal)) / length))) if length > SAME_POSITION_MM else 0.0


def _dot(one: tuple[float, ...], other: Vector) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))
