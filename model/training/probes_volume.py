"""Which window becomes the probe of a volumetric bundle: the one in which its network finds most."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from model.card import VolumeInput
from model.pipeline import Placed
from model.runner import Runner
from model.volumetric import Resampled, VolumePipeline

Window = tuple[slice, slice, slice]


def volume_probe(runner: Runner, studies: Iterable[Sequence[Placed]]) -> dict[str, NDArray[np.uint8]]:
    """Role → window (D, H, W) of the card's patch, of all studies the one with most voxels at the threshold or above.

    Raises ValueError without any study.
    """
    pipeline = VolumePipeline(runner)
    best: tuple[int, dict[str, NDArray[np.uint8]]] | None = None
    with torch.inference_mode():
        for placed in studies:
            seen = pipeline.prepare(placed)
            found_DHW = pipeline.forward(seen, placed[0].spec.modality_code)[0, 0] >= runner.card.output.threshold
            window, found = fullest_window(found_DHW, seen.spec.patch_DHW)
            if best is None or found > best[0]:
                best = found, _as_bytes(seen, placed, window)
    if best is None:
        raise ValueError("a probe needs a study")
    return best[1]


def fullest_window(found_DHW: Tensor, patch_DHW: tuple[int, int, int]) -> tuple[Window, int]:
    """Where a patch, or as much of it as the volume has, holds most voxels, and how many those are.

    Windows are tried at every quarter of a patch, and at the far ends.
    """
    sides = [min(side, patch) for side, patch in zip(found_DHW.shape, patch_DHW, strict=True)]
    starts = [_starts(whole, side) for whole, side in zip(found_DHW.shape, sides, strict=True)]
    # voxels in the box from the origin to each corner
    total = functional.pad(found_DHW.to(torch.int64), (1, 0, 1, 0, 1, 0)).cumsum(0).cumsum(1).cumsum(2)
    best: tuple[Window, int] | None = None
    for d, h, w in ((d, h, w) for d in starts[0] for h in starts[1] for w in starts[2]):
        ends = ((d, d + sides[0]), (h, h + sides[1]), (w, w + sides[2]))
        corner = [total[a, b, c] for a in ends[0] for b in ends[1] for c in ends[2]]
        signs = (-1, 1, 1, -1, 1, -1, -1, 1)
        count = int(sum(sign * value for sign, value in zip(signs, corner, strict=True)))
        if best is None or count > best[1]:
            best = (slice(*ends[0]), slice(*ends[1]), slice(*ends[2])), count
    assert best is not None  # each axis has a start
    return best


def _starts(whole: int, side: int) -> list[int]:
    return [*range(0, whole - side, max(1, side // 4)), whole - side]


def _as_bytes(seen: Resampled, placed: Sequence[Placed], window: Window) -> dict[str, NDArray[np.uint8]]:
    return {
        each.spec.role: _window(image[0, 0], _volumetric(each), window)
        for each, image in zip(placed, seen.images, strict=True)
    }


def _window(image_DHW: Tensor, spec: VolumeInput, window: Window) -> NDArray[np.uint8]:
    """The part in [0, 1] as bytes; what the volume lacks of a patch is 0, as around the patient."""
    part = (image_DHW[window] * spec.std + spec.mean).clamp(0, 1)
    missing = [side - there for side, there in zip(spec.patch_DHW, part.shape, strict=True)]
    whole = functional.pad(part, (0, missing[2], 0, missing[1], 0, missing[0]))
    return (whole * 255).round().to(torch.uint8).cpu().numpy()


def _volumetric(placed: Placed) -> VolumeInput:
    assert isinstance(placed.spec, VolumeInput)  # the pipeline takes no others
    return placed.spec
