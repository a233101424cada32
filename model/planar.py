"""Slices through a 2-D or 2.5-D network: pictures, channels, maps, and the maps back on the native matrix."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from model.card import InputSpec, PlanarInput
from model.pipeline import Placed
from model.preprocess import Intake, intake
from model.runner import Runner
from model.volume import Half

_PROBE_BATCH = 2
_KEPT_SHARE = 0.5
"""A pixel of a picture belongs to the liver where half of it does."""


@dataclass(frozen=True)
class Pictures:
    """What the network will see: per role all slices (D, 1, S, S) in [0, 1], and how the primary one was taken in."""

    specs: tuple[PlanarInput, ...]
    pictures_D1HW: tuple[Tensor, ...]
    taken: Intake


class PlanarPipeline:
    """Prepare, forward and restore for a bundle of planar inputs."""

    def __init__(self, runner: Runner) -> None:
        self._run = runner
        self._batch = runner.card.inference.batch

    def prepare(self, images: Sequence[Placed]) -> Pictures:
        """`images` one a role, in the network's order. Raises VolumeProblem."""
        specs = tuple(_planar(image.spec) for image in images)
        takens = [intake(image.volume, spec) for image, spec in zip(images, specs, strict=True)]
        pictures = [self._pictures(*each) for each in zip(images, specs, takens, strict=True)]
        return Pictures(specs, tuple(pictures), takens[0])

    def forward(self, seen: Pictures, code: int | None) -> Tensor:
        """Probabilities (D, 1, S, S) of every slice."""
        channels = [with_context(p, spec) for p, spec in zip(seen.pictures_D1HW, seen.specs, strict=True)]
        parts = []
        for first, last in self._batches(len(channels[0])):
            images = [normalise(c[first:last], spec) for c, spec in zip(channels, seen.specs, strict=True)]
            parts.append(self._run(images, code))
        return torch.cat(parts)

    def restore(self, maps_D1HW: Tensor, seen: Pictures, answer_DHW: Half) -> None:
        """Write the maps into `answer_DHW`, which lies as the primary volume does."""
        canonical_DHW = seen.taken.turn.apply(answer_DHW)
        for first, last in self._batches(len(maps_D1HW)):
            canonical_DHW[first:last] = seen.taken.framing.back(maps_D1HW[first:last]).half()[:, 0].cpu().numpy()

    def probe(self, seen: Mapping[str, Tensor] | None) -> list[Tensor]:
        """A batch, normalised, one tensor a role; `seen` are slices (D, S, S) in [0, 1]."""
        specs = [_planar(self._run.card.spec(role)) for role in self._run.card.roles]
        images = [with_context(seen[s.role][:, None], s) if seen else probe_images(s) for s in specs]
        return [normalise(image.to(self._run.device), spec) for image, spec in zip(images, specs, strict=True)]

    def _pictures(self, image: Placed, spec: PlanarInput, taken: Intake) -> Tensor:
        size, device = spec.size, self._run.device
        pictures = torch.cat([taken.slices(*part, size, device) for part in self._batches(len(taken.canonical_DHW))])
        if image.inside_DHW is None:
            return pictures
        canonical_DHW = np.ascontiguousarray(taken.turn.apply(image.inside_DHW))
        for first, last in self._batches(len(pictures)):
            native = torch.from_numpy(canonical_DHW[first:last]).to(device).float()[:, None]
            pictures[first:last] *= taken.framing.into(native, size) >= _KEPT_SHARE
        return pictures

    def _batches(self, count: int) -> Iterator[tuple[int, int]]:
        return ((first, min(first + self._batch, count)) for first in range(0, count, self._batch))


def _planar(spec: InputSpec) -> PlanarInput:
    assert isinstance(spec, PlanarInput)  # a card's inputs are of one kind, and chose this pipeline
    return spec


def normalise(images_BCHW: Tensor, spec: PlanarInput) -> Tensor:
    """Images in [0, 1] by the spec's mean and deviation, in the memory format of convolutions."""
    mean, std = (torch.tensor(v, device=images_BCHW.device).view(1, -1, 1, 1) for v in (spec.mean, spec.std))
    return ((images_BCHW - mean) / std).contiguous(memory_format=torch.channels_last)


def with_context(pictures_D1HW: Tensor, spec: PlanarInput) -> Tensor:
    """Channels of each slice: the slice replicated, or with its neighbours (the outermost repeated at the ends)."""
    if spec.context == 0:
        return pictures_D1HW.expand(-1, spec.channels, -1, -1)
    last = len(pictures_D1HW) - 1
    neighbours = torch.arange(-spec.context, spec.context + 1)
    rows = (torch.arange(last + 1)[:, None] + neighbours).clamp(0, last).to(pictures_D1HW.device)
    return pictures_D1HW[rows, 0]


def probe_images(spec: PlanarInput) -> Tensor:
    """A fixed picture with smooth bright and dark patches and noise, (2, channels, size, size) in [0, 1]."""
    generator = torch.Generator().manual_seed(0)
    patches = torch.rand((_PROBE_BATCH, 1, 8, 8), generator=generator)
    smooth = nn.functional.interpolate(patches, (spec.size, spec.size), mode="bicubic", align_corners=False)
    noise = 0.05 * torch.randn(smooth.shape, generator=generator)
    return (smooth + noise).clamp(0, 1).expand(-1, spec.channels, -1, -1)
