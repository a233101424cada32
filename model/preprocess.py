"""From a volume to the network's pictures and back: turn, scale, fit. Training and serving share these lines.

Resizing is bilinear with half-pixel centres (`align_corners=False`); on the way down the filter is widened by the
scale (antialiased), so that the noise of a 512² matrix is averaged, not picked at random.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from model.body import body_of
from model.canonical import Turn, VolumeProblem, turn_to_axial
from model.card import HuWindow, InputSpec, PlanarInput
from model.volume import Float, Volume

_MINIMUM_SIDE = 16


@dataclass(frozen=True)
class Framing:
    """How the canonical slices (rows, columns) sit in a square: pixels added before and after, then resized."""

    rows: int
    columns: int
    top: int
    bottom: int
    left: int
    right: int

    @classmethod
    def of(cls, shape_HW: tuple[int, int], spacing_mm: tuple[float, float], fit: str) -> Framing:
        """`stretch` adds nothing; `pad` makes the field of view a square in mm."""
        rows, columns = shape_HW
        if fit == "stretch":
            return cls(rows, columns, 0, 0, 0, 0)
        side_mm = max(rows * spacing_mm[0], columns * spacing_mm[1])
        more_rows = round(side_mm / spacing_mm[0]) - rows
        more_columns = round(side_mm / spacing_mm[1]) - columns
        top, left = more_rows // 2, more_columns // 2
        return cls(rows, columns, top, more_rows - top, left, more_columns - left)

    def into(self, images_BCHW: Tensor, size: int) -> Tensor:
        """Native slices → (B, C, size, size); outside the field of view is 0."""
        padded = functional.pad(images_BCHW, (self.left, self.right, self.top, self.bottom))
        return functional.interpolate(padded, (size, size), mode="bilinear", align_corners=False, antialias=True)

    def back(self, maps_BCHW: Tensor) -> Tensor:
        """Maps of the network's size → the native matrix, by bilinear interpolation."""
        height = self.top + self.rows + self.bottom
        width = self.left + self.columns + self.right
        full = functional.interpolate(maps_BCHW, (height, width), mode="bilinear", align_corners=False)
        return full[..., self.top : self.top + self.rows, self.left : self.left + self.columns]


@dataclass(frozen=True)
class Intake:
    """A volume seen by a network: canonical view of its array, and what was decided to scale and frame it."""

    canonical_DHW: Float
    turn: Turn
    framing: Framing
    low: float
    high: float

    def slices(self, first: int, last: int, size: int, device: torch.device) -> Tensor:
        """Slices first..last−1 scaled to [0, 1] and fitted, (B, 1, size, size) float32 on `device`."""
        # a copy, always: the lines below work in place, and the volume is not ours (it may be a read-only map)
        native = torch.from_numpy(np.array(self.canonical_DHW[first:last], dtype=np.float32, order="C")).to(device)
        scaled = native.sub_(self.low).mul_(1.0 / (self.high - self.low)).clamp_(0.0, 1.0)
        return self.framing.into(scaled[:, None], size)


def intake(volume: Volume, spec: PlanarInput) -> Intake:
    """Decide how `volume` is turned, scaled and framed. Raises VolumeProblem for what cannot be analysed."""
    check_volume(volume, spec.minimum_slices)
    turn = turn_to_axial(volume.affine_lps_mm)
    canonical_DHW = turn.apply(volume.array_DHW)
    low, high = scaling_range(canonical_DHW, spec)
    _, rows_mm, columns_mm = turn.spacing_mm(volume.affine_lps_mm)
    shape_HW = (canonical_DHW.shape[1], canonical_DHW.shape[2])
    return Intake(canonical_DHW, turn, Framing.of(shape_HW, (rows_mm, columns_mm), spec.fit), low, high)


def check_volume(volume: Volume, minimum_slices: int) -> None:
    """Raise VolumeProblem for too few or too small slices, values that are no numbers, or nothing but one value."""
    slices, rows, columns = volume.array_DHW.shape
    if slices < minimum_slices:
        raise VolumeProblem(f"the series has {slices} slices; at least {minimum_slices} are needed")
    if min(rows, columns) < _MINIMUM_SIDE:
        raise VolumeProblem(f"the slices are {rows}×{columns} pixels; at least {_MINIMUM_SIDE} a side are needed")
    if not np.isfinite(volume.affine_lps_mm).all():
        raise VolumeProblem("the series' geometry contains values that are no numbers")
    low, high = float(volume.array_DHW.min()), float(volume.array_DHW.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise VolumeProblem("the series contains pixel values that are no numbers (NaN or infinite)")
    if low == high:
        raise VolumeProblem(f"all pixels of the series have the same value ({low:g})")


def scaling_range(canonical_DHW: Float, spec: InputSpec) -> tuple[float, float]:
    """The values that become 0 and 1: the card's HU window, or percentiles of the body region of this series."""
    scaling = spec.scaling
    if isinstance(scaling, HuWindow):
        return scaling.low_hu, scaling.high_hu
    body = body_of(canonical_DHW, is_ct=spec.modality == "CT")
    low, high = np.percentile(body.values_DHW[body.inside_DHW], [scaling.low, scaling.high])
    if not high > low:
        raise VolumeProblem("the body region of the series has no contrast: its percentiles are the same value")
    return float(low), float(high)
