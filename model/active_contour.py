"""Active contour on lesions, the post-processing of system (d), made safe. Off unless a card asks for it.

Morphological Chan–Vese (P. Márquez-Neila et al., IEEE TPAMI 2014;36:2; scikit-image's) moves a lesion's edge voxels to
whichever mean they are nearer to, the lesion's or its surroundings', and smooths the outline. System (d) lets it run
over a volume whose background is zero: the surroundings' mean is then near zero, and a perfect mask grows to 1.8 times
its volume (models.md §4.5). Here each lesion has its own region, the liver around it; the surroundings are liver
without tumour; small lesions are left alone, for the smoothing eats them; and a result that is much larger or smaller
than the lesion was is thrown away.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import morphological_chan_vese

from model.volume import Float, Float64, Labels, Volume

log = logging.getLogger("model.active_contour")

Bools = NDArray[np.bool_]
Outcome = Literal["refined", "too small", "no liver around", "changed too much"]


@dataclass(frozen=True)
class ContourSettings:
    """Defaults are system (d)'s for the contour itself, and for its limits models.md §4.5's but for one."""

    iterations: int = 2
    smoothing: int = 1
    inside_weight: float = 1.0
    outside_weight: float = 1.0
    region_mm: float = 10.0
    """How far from the lesion its surroundings reach."""
    least_ml: float = 1.0
    most_change: float = 0.25
    """As a share of the lesion's volume, up or down."""
    planar_ratio: float = 1.0
    """A volume whose coarsest spacing is this many times its finest, or more, is refined slice by slice: all are.

    models.md would have 3-D up to a ratio of 2; there the smoothing eats a third of a ball of 9 mm radius, slice by
    slice a tenth (docs/LOG.md).
    """

    def __post_init__(self) -> None:
        if self.iterations * self.smoothing % 2:
            # scikit-image alternates two smoothing operators for the life of the process: only after an even number
            # does the next lesion begin with the same one
            raise ValueError(f"iterations × smoothing is {self.iterations * self.smoothing}: it must be even")


@dataclass(frozen=True)
class ContourChange:
    """What became of lesion `label`. `proposed_ml` is the contour's, `after_ml` what the lesion has now."""

    label: int
    before_ml: float
    proposed_ml: float
    after_ml: float
    outcome: Outcome

    def __str__(self) -> str:
        return (
            f"lesion {self.label}: {self.before_ml:.2f} → {self.after_ml:.2f} mL, {self.outcome} "
            f"(contour: {self.proposed_ml:.2f} mL)"
        )


def refine_lesions(
    volume: Volume, lesions_DHW: Labels, liver_DHW: Bools, settings: ContourSettings | None = None
) -> tuple[Labels, tuple[ContourChange, ...]]:
    """Every lesion with its outline on the image's edges, and what was done; also logged, without any identity.

    `lesions_DHW` holds labels 1..N; none vanishes, joins another or takes another's voxels. Raises ValueError where
    the arrays are not on the volume's grid.
    """
    settings = settings or ContourSettings()
    shape = volume.array_DHW.shape
    if lesions_DHW.shape != shape or liver_DHW.shape != shape:
        raise ValueError(
            f"lesions {lesions_DHW.shape} and liver {liver_DHW.shape} are not on the volume's grid {shape}"
        )
    refined_DHW = lesions_DHW.copy()
    changes = []
    for label, box in enumerate(ndimage.find_objects(lesions_DHW), start=1):
        if box is None:
            continue
        around = _widened(box, shape, volume.spacing_mm, settings.region_mm)
        change, new_DHW = _refined(label, volume, refined_DHW[around], liver_DHW[around], around, settings)
        here = refined_DHW[around]
        here[here == label] = 0
        here[new_DHW] = label
        log.info("%s", change)
        changes.append(change)
    return refined_DHW, tuple(changes)


def _refined(
    label: int,
    volume: Volume,
    labels_DHW: Labels,
    liver_DHW: Bools,
    around: tuple[slice, ...],
    settings: ContourSettings,
) -> tuple[ContourChange, Bools]:
    """The lesion in its box `around`, as it was or as the contour has it."""
    lesion_DHW = labels_DHW == label
    before_ml = float(np.count_nonzero(lesion_DHW)) * volume.voxel_ml

    def kept(outcome: Outcome, proposed_ml: float) -> tuple[ContourChange, Bools]:
        return ContourChange(label, before_ml, proposed_ml, before_ml, outcome), lesion_DHW

    if before_ml < settings.least_ml:
        return kept("too small", before_ml)
    distance_mm = ndimage.distance_transform_edt(~lesion_DHW, sampling=volume.spacing_mm)
    healthy_DHW = liver_DHW & (labels_DHW == 0) & (distance_mm <= settings.region_mm)
    if not healthy_DHW.any():
        return kept("no liver around", before_ml)
    new_DHW = _contour(volume.array_DHW[around], lesion_DHW, healthy_DHW, volume.spacing_mm, settings)
    proposed_ml = float(np.count_nonzero(new_DHW)) * volume.voxel_ml
    if abs(proposed_ml - before_ml) > settings.most_change * before_ml:
        return kept("changed too much", proposed_ml)
    return ContourChange(label, before_ml, proposed_ml, proposed_ml, "refined"), new_DHW


def _contour(
    image_DHW: Float,
    lesion_DHW: Bools,
    healthy_DHW: Bools,
    spacing_mm: tuple[float, float, float],
    settings: ContourSettings,
) -> Bools:
    """The contour within lesion ∪ healthy, in 3-D or slice by slice.

    Whatever is neither takes the mean of the healthy liver: then that is the mean outside the contour, and no voxel
    out there is nearer to the lesion's.
    """
    region_DHW = lesion_DHW | healthy_DHW
    outside = image_DHW[healthy_DHW].mean(dtype=np.float64)
    # a border of surroundings: the gradient needs two voxels along each axis, and a volume may end at the lesion
    seen = np.pad(np.where(region_DHW, image_DHW, outside), 1, constant_values=outside)
    start = np.pad(lesion_DHW, 1)
    if max(spacing_mm) / min(spacing_mm) < settings.planar_ratio:
        new = _evolved(seen, start, settings)
    else:
        # across the coarsest axis, which may be any of the three
        coarse = int(np.argmax(spacing_mm))
        planes = zip(np.moveaxis(seen, coarse, 0), np.moveaxis(start, coarse, 0), strict=True)
        stack = [_evolved(image, level, settings) if level.any() else level for image, level in planes]
        new = np.moveaxis(np.stack(stack), 0, coarse)
    return new[1:-1, 1:-1, 1:-1] & region_DHW


def _evolved(image: Float64, start: Bools, settings: ContourSettings) -> Bools:
    """One run of Chan–Vese on a volume or a plane."""
    level: NDArray[np.int8] = morphological_chan_vese(  # type: ignore[no-untyped-call]  # scikit-image leaves it untyped
        image,
        num_iter=settings.iterations,
        init_level_set=start,
        smoothing=settings.smoothing,
        lambda1=settings.inside_weight,
        lambda2=settings.outside_weight,
    )
    return level > 0


def _widened(
    box: tuple[slice, ...], shape: tuple[int, ...], spacing_mm: tuple[float, ...], margin_mm: float
) -> tuple[slice, ...]:
    """The box with `margin_mm` more on each side, within the volume."""
    margins = [int(np.ceil(margin_mm / spacing)) for spacing in spacing_mm]
    return tuple(
        slice(max(0, side.start - margin), min(length, side.stop + margin))
        for side, margin, length in zip(box, margins, shape, strict=True)
    )
