"""Where the patient is in a volume: for the scaling of MR, which has no units, and for whoever looks at a slice.

No torch here: the worker draws overlays without it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from model.volume import Float

_COARSE_SIDE = 96
_AIR_HU = -300.0


@dataclass(frozen=True)
class Body:
    """The patient, seen coarsely: voxel (d, i, j) stands for `step` × `step` pixels of slice d."""

    values_DHW: Float
    """CT: every `step`-th pixel in HU; MR: means over step × step pixels."""
    inside_DHW: NDArray[np.bool_]
    step: int

    def on_grid(self, shape_DHW: tuple[int, ...]) -> NDArray[np.bool_]:
        """The patient on the volume's own grid; the last rows and columns are as those beside them."""
        rows, columns = (
            np.minimum(np.arange(side) // self.step, coarse - 1)
            for side, coarse in zip(shape_DHW[1:], self.inside_DHW.shape[1:], strict=True)
        )
        fine: NDArray[np.bool_] = self.inside_DHW[:, rows[:, None], columns]
        return fine


def body_of(array_DHW: Float, *, is_ct: bool) -> Body:
    """The patient without the air around: the largest bright component; all of the volume where nobody stands out.

    Its holes are filled slice by slice, so that bowel gas and vessels without signal belong to it.
    """
    step = max(1, -(-max(array_DHW.shape[1:]) // _COARSE_SIDE))
    # MR as means, not picked pixels: at high b-values the air's noise is half as bright as fat and muscle
    values_DHW = array_DHW[:, ::step, ::step] if is_ct else _block_means(array_DHW, step)
    smooth_DHW = ndimage.median_filter(values_DHW, size=(1, 3, 3), mode="nearest")
    parts_DHW, count = ndimage.label(smooth_DHW > (_AIR_HU if is_ct else _mr_air(smooth_DHW)))
    if not count:
        return Body(values_DHW, np.ones(values_DHW.shape, bool), step)
    largest = 1 + int(np.bincount(parts_DHW.ravel())[1:].argmax())
    return Body(values_DHW, np.stack([ndimage.binary_fill_holes(part == largest) for part in parts_DHW]), step)


def _block_means(array_DHW: Float, step: int) -> Float:
    """Means over `step` × `step` pixels of each slice; what is left over at the far edges is not in them."""
    height, width = array_DHW.shape[1] // step, array_DHW.shape[2] // step
    blocks = array_DHW[:, : height * step, : width * step].reshape(-1, height, step, width, step)
    means: Float = blocks.mean(axis=(2, 4), dtype=np.float32)
    return means


def _mr_air(smooth_DHW: Float) -> float:
    """A value that little of the air is above and little of the body below.

    A fifth of the way from the lowest value to the mean of the brighter half is above the air, but where fat is
    suppressed it is above the body's wall too: then five standard deviations above the air's median (by the median
    deviation) is the lower and better bound. Air that an MR scanner has set to 0 has no deviation, hence the floor.
    Where the air's noise is a large part of all signal, as at high b-values, a fifth of the way is still air: three
    and a half deviations are the least.
    """
    lowest, mean = float(smooth_DHW.min()), float(smooth_DHW.mean())
    above_air = 0.2 * (float(smooth_DHW[smooth_DHW >= mean].mean()) - lowest)
    dark = smooth_DHW[smooth_DHW <= lowest + above_air] - lowest
    median = float(np.median(dark))
    deviation = 1.4826 * float(np.median(np.abs(dark - median)))
    level = float(np.clip(median + 5 * deviation, 0.4 * above_air, above_air))
    return lowest + max(level, min(median + 3.5 * deviation, 2 * above_air))
