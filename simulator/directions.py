"""A trace taken apart: what a scanner stores that writes each diffusion direction and no mean of them.

Along direction g a slice shows S_0 exp(-b g·D g). Tissue here diffuses evenly along all axes but for a smooth
swirl of `ANISOTROPY_MM2_S`, which leaves the mean diffusivity, and so the geometric mean over evenly spread
directions, what it is in the phantom.
"""

from __future__ import annotations

import numpy as np

from model.volume import Float, Volume

Direction = tuple[float, float, float]

ORTHOGONAL: tuple[Direction, ...] = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
ANISOTROPY_MM2_S = 3e-4
_SWIRL_MM = 60.0


def along(trace: Volume, b_s_mm2: float, direction: Direction) -> Volume:
    """What the trace-weighted volume shows along one direction (a unit vector)."""
    excess_DHW = _excess(trace, direction)
    return trace.with_array((trace.array_DHW * np.exp(-b_s_mm2 * excess_DHW)).astype(np.float32))


def _excess(volume: Volume, direction: Direction) -> Float:
    """Diffusivity along `direction` over the mean of all, in mm²/s: of a tensor whose long axis turns in the plane."""
    d, h, w = volume.array_DHW.shape
    _, row_mm, column_mm = volume.spacing_mm
    phase_HW = 2 * np.pi * (np.arange(h)[:, None] * row_mm + np.arange(w)[None, :] * column_mm) / _SWIRL_MM
    x, y, z = direction
    along_HW = (np.cos(phase_HW) * x + np.sin(phase_HW) * y) ** 2 - (x * x + y * y + z * z) / 3
    excess_DHW: Float = np.broadcast_to((ANISOTROPY_MM2_S * along_HW).astype(np.float32), (d, h, w))
    return excess_DHW
