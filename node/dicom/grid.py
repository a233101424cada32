"""Do these slices form one volume, in which order, and where does it lie? Pure: headers in, a `Grid` or a reason out.

Slices are ordered by their position along the normal row × column, never by Instance Number, so that the first
array axis always runs along +normal whatever the order of the files. A gantry tilt is accepted: each slice is
shifted within its plane by the same amount, which a sheared affine says exactly; networks here work slice by
slice, and lengths in a slice and volumes (a determinant) stay true. What no affine can say is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model.volume import Float64
from node.dicom.header import FrameHeader, slice_normal, text
from node.errors import GeometryError

MIN_SLICES = 3
SPACING_TOLERANCE_MM = 0.1
SPACING_TOLERANCE_PART = 0.01
"""Positions may be off the even grid by the larger of the two. Series of six vendors in the test data are even to
1e-4 mm; table positions rounded to a tenth of a millimetre are common in older CT and do no harm."""
DIRECTION_TOLERANCE = 1e-3
"""Direction cosines of slices of one volume agree to this, as viewers demand of a segmentation."""
ORTHOGONALITY_TOLERANCE = 5e-3
PIXEL_SPACING_TOLERANCE_PART = 1e-3
SAME_POSITION_MM = 1e-2
MAX_TILT_DEGREES = 45.0


@dataclass(frozen=True)
class Grid:
    """`order[d]` is the index of the header whose slice stands at array index d; the affine is of model/volume.py."""

    order: tuple[int, ...]
    affine_lps_mm: Float64
    rows: int
    columns: int


def plan_grid(headers: Sequence[FrameHeader]) -> Grid:
    """The grid that these slices fill. Raises GeometryError with one sentence that says what is wrong."""
    if len(headers) < MIN_SLICES:
        raise GeometryError(f"{len(headers)} slices are too few for a volume, at least {MIN_SLICES} are needed")
    _refuse_missing(headers)
    _refuse_mixed(headers)
    orientation = np.array(headers[0].orientation)
    _refuse_bent(orientation)
    normal = slice_normal(headers[0].orientation)
    positions_N3 = np.array([header.position_lps_mm for header in headers])
    order = np.argsort(positions_N3 @ normal, kind="stable")
    step_3 = _even_step(positions_N3[order], normal)
    row_spacing, column_spacing = headers[0].pixel_spacing_mm
    affine = np.eye(4)
    affine[:3, 0] = step_3
    affine[:3, 1] = orientation[3:] * row_spacing
    affine[:3, 2] = orientation[:3] * column_spacing
    affine[:3, 3] = positions_N3[order[0]]
    rows, columns = _matrix(headers[0])
    return Grid(tuple(int(index) for index in order), affine, rows, columns)


def _matrix(header: FrameHeader) -> tuple[int, int]:
    rows, columns = header.numbers("Rows"), header.numbers("Columns")
    return int(rows[0]) if rows else 0, int(columns[0]) if columns else 0


def _refuse_missing(headers: Sequence[FrameHeader]) -> None:
    needed = {
        "Image Position (Patient)": sum(not header.position_lps_mm for header in headers),
        "Image Orientation (Patient)": sum(not header.orientation for header in headers),
        "Pixel Spacing": sum(not all(mm > 0 for mm in header.pixel_spacing_mm or (0.0,)) for header in headers),
        "Rows and Columns": sum(min(_matrix(header)) < 1 for header in headers),
        "Frame of Reference UID": sum(not header.get("FrameOfReferenceUID") for header in headers),
    }
    for name, count in needed.items():
        if count:
            raise GeometryError(f"{count} of {len(headers)} slices lack a valid {name}")


def _refuse_mixed(headers: Sequence[FrameHeader]) -> None:
    for what, keyword in (("studies", "StudyInstanceUID"), ("series", "SeriesInstanceUID")):
        if (count := len({text(header.root, keyword) for header in headers})) > 1:
            raise GeometryError(f"the slices come from {count} {what}")
    if (count := len({str(header.get("FrameOfReferenceUID")) for header in headers})) > 1:
        raise GeometryError(f"the slices have {count} frames of reference, so their positions cannot be compared")
    matrices = sorted({_matrix(header) for header in headers})
    if len(matrices) > 1:
        sizes = ", ".join(f"{rows}×{columns}" for rows, columns in matrices)
        raise GeometryError(f"the slices differ in size: {sizes}")
    first = headers[0]
    if any(not np.allclose(h.orientation, first.orientation, atol=DIRECTION_TOLERANCE, rtol=0) for h in headers):
        count = len({tuple(np.round(header.orientation, 2)) for header in headers})
        raise GeometryError(f"the slices are not parallel: {max(count, 2)} orientations in one series")
    spacings = np.array([header.pixel_spacing_mm for header in headers])
    if not np.allclose(spacings, spacings[0], rtol=PIXEL_SPACING_TOLERANCE_PART, atol=0):
        raise GeometryError(f"Pixel Spacing varies between {spacings.min():.3f} and {spacings.max():.3f} mm")


def _refuse_bent(orientation: Float64) -> None:
    row, column = orientation[:3], orientation[3:]
    off = max(abs(float(part)) for part in (np.linalg.norm(row) - 1, np.linalg.norm(column) - 1, row @ column))
    if off > ORTHOGONALITY_TOLERANCE:
        raise GeometryError("Image Orientation (Patient) is not a pair of perpendicular unit vectors")


def _even_step(positions_N3: Float64, normal: Float64) -> Float64:
    """The one vector from slice to slice, in mm; positions come sorted along the normal."""
    along = positions_N3 @ normal
    steps = np.diff(along)
    _refuse_repeated(steps)
    typical = float(np.median(steps))
    tolerance_mm = max(SPACING_TOLERANCE_MM, SPACING_TOLERANCE_PART * typical)
    _refuse_gaps(steps, typical, tolerance_mm)
    count = len(positions_N3) - 1
    step_3 = (positions_N3[-1] - positions_N3[0]) / count
    ideal_N3 = positions_N3[0] + np.arange(count + 1)[:, None] * step_3
    off_mm = float(np.linalg.norm(positions_N3 - ideal_N3, axis=1).max())
    if off_mm > tolerance_mm:
        raise GeometryError(f"the slices do not lie on one straight line: up to {off_mm:.2f} mm off")
    tilt = float(np.degrees(np.arccos(np.clip(step_3 @ normal / np.linalg.norm(step_3), -1, 1))))
    if tilt > MAX_TILT_DEGREES:
        raise GeometryError(f"the stack of slices leans by {tilt:.0f}°, more than any gantry does")
    return np.asarray(step_3, dtype=np.float64)


def _refuse_repeated(steps: Float64) -> None:
    repeated = int((steps < SAME_POSITION_MM).sum())
    if repeated:
        raise GeometryError(
            f"{repeated} slices share their position with another: several acquisitions, echoes or b-values in one"
        )


def _refuse_gaps(steps: Float64, typical: float, tolerance_mm: float) -> None:
    if steps.max() > 1.5 * typical:
        at = int(steps.argmax())
        missing = round(float(steps[at]) / typical) - 1
        raise GeometryError(
            f"a gap of {steps[at]:.2f} mm after slice {at + 1} where slices are {typical:.2f} mm apart: "
            f"{max(missing, 1)} missing"
        )
    if np.abs(steps - typical).max() > tolerance_mm:
        raise GeometryError(f"the spacing of slices is uneven: {steps.min():.2f} to {steps.max():.2f} mm")
