"""A volume through a 3-D network: turned, scaled, resampled, cropped, seen in windows, and the answer brought back.

Resampling is trilinear with half-voxel centres; on the way to a coarser grid the volume is smoothed first, so that
the noise of thin slices is averaged. Windows are blended with Gaussian weights by MONAI's sliding_window_inference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from monai.inferers.utils import sliding_window_inference
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from model.canonical import Turn, turn_to_axial
from model.card import InputSpec, VolumeInput
from model.findings import bounding_box
from model.pipeline import Placed
from model.preprocess import check_volume, scaling_range
from model.runner import Runner
from model.volume import Half

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Resampled:
    """What the network will see: per role a tensor (1, 1, D, H, W), and how to come back from its grid."""

    images: tuple[Tensor, ...]
    turn: Turn
    box: tuple[slice, slice, slice]
    """What of the canonical volume is in the images; all else is answered with 0."""
    spec: VolumeInput

    def share_of(self, mask_DHW: NDArray[np.bool_]) -> Tensor:
        """Share of each voxel of the network's grid (D, H, W) that a mask on the primary volume's grid fills."""
        native = torch.from_numpy(np.ascontiguousarray(self.turn.apply(mask_DHW)[self.box])).float()
        return _resized(native[None, None], self.images[0].shape[2:])[0, 0]


class VolumePipeline:
    """Prepare, forward and restore for a bundle of volume inputs."""

    def __init__(self, runner: Runner) -> None:
        self._run = runner

    def prepare(self, images: Sequence[Placed]) -> Resampled:
        """`images` one a role, in the network's order. Raises VolumeProblem."""
        return resampled(images, self._run.device)

    def forward(self, seen: Resampled, code: int | None) -> Tensor:
        """Probabilities (1, 1, D, H, W) on the network's grid."""
        roles = len(seen.images)

        def of_window(window_BRDHW: Tensor) -> Tensor:
            return self._run([window_BRDHW[:, i : i + 1] for i in range(roles)], code)

        return in_windows(torch.cat(seen.images, dim=1), of_window, seen.spec)

    def restore(self, maps_11DHW: Tensor, seen: Resampled, answer_DHW: Half) -> None:
        """Write the map into `answer_DHW`, which lies as the primary volume does; 0 outside the box."""
        canonical_DHW = seen.turn.apply(answer_DHW)
        canonical_DHW[...] = 0
        part_DHW = canonical_DHW[seen.box]
        part_DHW[...] = _resized(maps_11DHW, part_DHW.shape)[0, 0].clamp(0, 1).half().cpu().numpy()

    def probe(self, seen: Mapping[str, Tensor] | None) -> list[Tensor]:
        """A window, normalised, one tensor a role; `seen` are windows (D, H, W) in [0, 1]."""
        specs = [_volumetric(self._run.card.spec(role)) for role in self._run.card.roles]
        windows = [seen[spec.role][None, None] if seen else _pattern(spec.patch_DHW) for spec in specs]
        return [((w - s.mean) / s.std).to(self._run.device) for w, s in zip(windows, specs, strict=True)]


def resampled(images: Sequence[Placed], device: torch.device) -> Resampled:
    """`images` (one a role, the primary one first) as a volumetric network sees them. Raises VolumeProblem."""
    primary = images[0]
    turn = turn_to_axial(primary.volume.affine_lps_mm)
    box = _box(primary, turn)
    spacing_mm = turn.spacing_mm(primary.volume.affine_lps_mm)
    seen = tuple(_on_network_grid(image, turn, box, spacing_mm, device) for image in images)
    return Resampled(seen, turn, box, _volumetric(primary.spec))


def in_windows(images_1RDHW: Tensor, of_window: Callable[[Tensor], Tensor], spec: VolumeInput) -> Tensor:
    """What `of_window` answers to windows (1, R, *patch) of the normalised images, blended, (1, K, D, H, W)."""
    answer = sliding_window_inference(
        images_1RDHW,
        spec.patch_DHW,
        1,
        of_window,
        overlap=spec.overlap,
        mode="gaussian",
        # around a small volume lies what lies around the patient
        cval=-spec.mean / spec.std,
    )
    assert isinstance(answer, Tensor)  # of_window gives one tensor
    return answer


def _volumetric(spec: InputSpec) -> VolumeInput:
    assert isinstance(spec, VolumeInput)  # a card's inputs are of one kind, and chose this pipeline
    return spec


def _box(image: Placed, turn: Turn) -> tuple[slice, slice, slice]:
    whole = tuple(slice(0, side) for side in turn.apply(image.volume.array_DHW).shape)
    if image.inside_DHW is None:
        return whole[0], whole[1], whole[2]
    found = bounding_box(turn.apply(image.inside_DHW))
    return (found[0], found[1], found[2]) if found else (whole[0], whole[1], whole[2])


def _on_network_grid(
    image: Placed,
    turn: Turn,
    box: tuple[slice, slice, slice],
    spacing_mm: tuple[float, float, float],
    device: torch.device,
) -> Tensor:
    """Scaled to [0, 1], zero where the network may not look, resampled and normalised, (1, 1, D, H, W)."""
    spec = _volumetric(image.spec)
    check_volume(image.volume, spec.minimum_slices)
    canonical_DHW = turn.apply(image.volume.array_DHW)
    low, high = scaling_range(canonical_DHW, spec)
    native = torch.from_numpy(np.array(canonical_DHW[box], dtype=np.float32, order="C")).to(device)
    scaled = native.sub_(low).mul_(1.0 / (high - low)).clamp_(0.0, 1.0)
    if image.inside_DHW is not None:
        scaled *= torch.from_numpy(np.ascontiguousarray(turn.apply(image.inside_DHW)[box])).to(device)
    grid = network_shape((scaled.shape[0], scaled.shape[1], scaled.shape[2]), spacing_mm, spec)
    return (_resized(scaled[None, None], grid) - spec.mean) / spec.std


def network_shape(shape_DHW: Shape, spacing_mm: tuple[float, float, float], spec: VolumeInput) -> Shape:
    """Voxels of the network's grid over the same field."""
    d, h, w = (
        side if wanted is None else max(1, round(side * given / wanted))
        for side, given, wanted in zip(shape_DHW, spacing_mm, spec.spacing_mm, strict=True)
    )
    return d, h, w


def _resized(image_11DHW: Tensor, shape: Sequence[int]) -> Tensor:
    """Trilinear; along an axis that becomes coarser, means over what a new voxel covers come first."""
    if tuple(image_11DHW.shape[2:]) == tuple(shape):
        return image_11DHW
    factors = [max(1, side // wanted) for side, wanted in zip(image_11DHW.shape[2:], shape, strict=True)]
    if max(factors) > 1:
        d, h, w = (-(-side // factor) for side, factor in zip(image_11DHW.shape[2:], factors, strict=True))
        image_11DHW = functional.adaptive_avg_pool3d(image_11DHW, (d, h, w))
    return functional.interpolate(image_11DHW, tuple(shape), mode="trilinear", align_corners=False)


def _pattern(patch_DHW: Shape) -> Tensor:
    """Smooth bright and dark patches and noise, (1, 1, D, H, W) in [0, 1]."""
    generator = torch.Generator().manual_seed(0)
    patches = torch.rand((1, 1, 4, 4, 4), generator=generator)
    smooth = functional.interpolate(patches, patch_DHW, mode="trilinear", align_corners=False)
    return (smooth + 0.05 * torch.randn(smooth.shape, generator=generator)).clamp(0, 1)
