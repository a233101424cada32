"""One phase moved onto another: what breathing leaves between two images that already lie on one grid.

Affine, by Mattes' mutual information, which no two phases' different enhancement disturbs. It is looked for on a coarse
copy with a fixed seed and on one thread, so that the same images give the same transform; the image itself is moved
once, at full resolution. A transform that makes the mutual information no better is not used. Demons and B-splines
raised mutual information on phantoms while the livers came to overlap less: there is no deformable registration.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813 - as everybody calls it

from model.volume import Float, Volume

LEAST_GAIN = 0.01
"""Smallest gain of mutual information, in nats, for which an image is moved at all."""
_COARSE_MM = (4.0, 4.0, 4.0)
"""Least distance of voxels, slice, row, column, on which a transform is looked for."""
_BINS = 32
_SAMPLED = 0.05
_SEED = 1


@dataclass(frozen=True)
class Registration:
    """`to_moving`: the place in the fixed image's array, in mm along its axes, → the place in the moving image's."""

    to_moving: Any
    gain: float
    """By how much mutual information rose, in nats; 0 where the images stay as they are."""

    def moved(self, moving: Volume, *, is_mask: bool = False) -> Volume:
        """`moving`, which lies on the grid of both images, as it lies to the fixed one; masks keep their values."""
        how = sitk.sitkNearestNeighbor if is_mask else sitk.sitkLinear
        image = _image(moving.array_DHW, moving.spacing_mm)
        there = sitk.Resample(image, image, self.to_moving, how, float(moving.array_DHW.min()), sitk.sitkFloat32)
        return moving.with_array(np.asarray(sitk.GetArrayFromImage(there), dtype=np.float32))


def register(moving: Volume, fixed: Volume) -> Registration:
    """How `moving` lies to `fixed`; both are on one grid, whatever its orientation in the patient."""
    if moving.array_DHW.shape != fixed.array_DHW.shape:
        raise ValueError(f"shapes {moving.array_DHW.shape} and {fixed.array_DHW.shape}: bring them onto one grid first")
    pair = _coarse(fixed), _coarse(moving)
    identity = sitk.Transform(3, sitk.sitkIdentity)
    before = _mutual_information(*pair, identity)
    found = _affine(*pair)
    gain = _mutual_information(*pair, found) - before
    return Registration(found, gain) if gain > LEAST_GAIN else Registration(identity, 0.0)


def _coarse(volume: Volume) -> Any:
    """A smoothed copy on voxels of at least `_COARSE_MM`."""
    image = _image(volume.array_DHW, volume.spacing_mm)
    factors = [max(1, round(wanted / has)) for wanted, has in zip(_COARSE_MM, volume.spacing_mm, strict=True)]
    return sitk.BinShrink(image, factors[::-1]) if max(factors) > 1 else image


def _image(array_DHW: Float, spacing_mm: tuple[float, float, float]) -> Any:
    """An image of ITK whose axes are the array's: both images share a grid, and need no place in the patient."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(array_DHW, dtype=np.float32))
    image.SetSpacing(spacing_mm[::-1])
    return image


def _method() -> Any:
    method = sitk.ImageRegistrationMethod()
    method.SetGlobalDefaultNumberOfThreads(1)
    method.SetNumberOfThreads(1)
    method.SetMetricAsMattesMutualInformation(_BINS)
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentage(_SAMPLED, _SEED)
    method.SetInterpolator(sitk.sitkLinear)
    return method


def _affine(fixed: Any, moving: Any) -> Any:
    """A shift is looked for first: breathing is mostly one, and twelve parameters at once find it late."""
    shift = _found(fixed, moving, sitk.TranslationTransform(3), iterations=30)
    centred = sitk.AffineTransform(3)
    size, spacing = np.array(fixed.GetSize()), np.array(fixed.GetSpacing())
    centred.SetCenter(((size - 1) / 2 * spacing + fixed.GetOrigin()).tolist())
    centred.SetTranslation(shift.GetOffset())
    return _found(fixed, moving, centred, iterations=30)


def _found(fixed: Any, moving: Any, start: Any, iterations: int) -> Any:
    method = _method()
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=4.0,
        minStep=0.05,
        numberOfIterations=iterations,
        relaxationFactor=0.6,
        gradientMagnitudeTolerance=1e-6,
    )
    method.SetOptimizerScalesFromPhysicalShift()
    _levels(method, (2, 1))
    method.SetInitialTransform(start, inPlace=True)
    method.Execute(fixed, moving)
    return start


def _levels(method: Any, factors: tuple[int, ...]) -> None:
    """Coarse to fine; ITK smooths before it shrinks."""
    method.SetShrinkFactorsPerLevel(factors)
    method.SetSmoothingSigmasPerLevel([factor / 2 for factor in factors])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOff()


def _mutual_information(fixed: Any, moving: Any, transform: Any) -> float:
    """Of the fixed image and the moved one, moved beforehand: the metric would differentiate by every displacement."""
    method = _method()
    method.SetMetricSamplingStrategy(method.NONE)
    method.SetInitialTransform(sitk.TranslationTransform(3))
    return -float(method.MetricEvaluate(fixed, _resampled(moving, fixed, transform)))


def _resampled(moving: Any, fixed: Any, transform: Any) -> Any:
    lowest = float(sitk.GetArrayViewFromImage(moving).min())
    return sitk.Resample(moving, fixed, transform, sitk.sitkLinear, lowest)
