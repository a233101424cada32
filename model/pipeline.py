"""What planar and volumetric networks have in common: images of one study on one grid → probabilities on that grid."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.card import AnyInput
from model.volume import Half, Volume

SeenT = TypeVar("SeenT")


@dataclass(frozen=True)
class Placed:
    """One role's image on the primary grid. `inside_DHW`: where the network may look; None is everywhere.

    `gain`: by how much registration raised its mutual information with the primary image; None where there was none.
    """

    spec: AnyInput
    volume: Volume
    inside_DHW: NDArray[np.bool_] | None = None
    gain: float | None = None


class Pipeline(Protocol[SeenT]):
    """Three steps; what one hands to the next is its own affair."""

    def prepare(self, images: Sequence[Placed]) -> SeenT:
        """What the network will see of the images, one a role in its order. Raises VolumeProblem."""

    def forward(self, seen: SeenT, code: int | None) -> Tensor:
        """Probabilities on the network's grid; `code` is the label for a conditioned network."""

    def restore(self, maps: Tensor, seen: SeenT, answer_DHW: Half) -> None:
        """Write the probabilities into `answer_DHW`, which lies as the primary volume does."""

    def probe(self, seen: Mapping[str, Tensor] | None) -> list[Tensor]:
        """The network's input for the bundle's probe, or where that is None for a fixed pattern; one tensor a role."""


class Stopwatch:
    """Wall time of steps on a device."""

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[str, float] = {}
        self._device = device

    @contextmanager
    def of(self, step: str) -> Iterator[None]:
        """Times what stands inside."""
        started = time.perf_counter()
        yield
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self.seconds[step] = time.perf_counter() - started


def answer(
    pipeline: Pipeline[SeenT],
    images: Sequence[Placed],
    codes: Sequence[int | None],
    answer_DHW: Half,
    watch: Stopwatch,
) -> float:
    """The mean over the labels asked for, written into `answer_DHW`; returns by how much they differ at most."""
    with watch.of("prepare"):
        seen = pipeline.prepare(images)
    with watch.of("forward"):
        maps = [pipeline.forward(seen, code) for code in codes]
    mean = maps[0] if len(maps) == 1 else torch.stack(maps).mean(0)
    with watch.of("restore"):
        pipeline.restore(mean, seen, answer_DHW)
    return max(float((one - mean).abs().max()) for one in maps) if len(maps) > 1 else 0.0
