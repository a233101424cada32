"""Which slices become a bundle's probe: those in which its network finds most."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from model.card import Card
from model.pipeline import Placed
from model.planar import PlanarPipeline
from model.runner import Runner

SLICES = 8


def planar_probe(runner: Runner, studies: Iterable[Sequence[Placed]]) -> dict[str, NDArray[np.uint8]]:
    """Of all studies (one image a role, on one grid) the run of slices in which most pixels reach the threshold.

    Raises ValueError without any study.
    """
    card, pipeline = runner.card, PlanarPipeline(runner)
    best: tuple[int, dict[str, NDArray[np.uint8]]] | None = None
    with torch.inference_mode():
        for placed in studies:
            seen = pipeline.prepare(placed)
            maps_D1HW = pipeline.forward(seen, placed[0].spec.modality_code)
            first, found = _fullest(maps_D1HW, card)
            if best is None or found > best[0]:
                pictures = (picture[first : first + SLICES, 0] for picture in seen.pictures_D1HW)
                best = found, dict(zip(card.roles, map(_as_bytes, pictures), strict=True))
    if best is None:
        raise ValueError("a probe needs a study")
    return best[1]


def _fullest(maps_D1HW: torch.Tensor, card: Card) -> tuple[int, int]:
    """First slice of the run that has most, and how many pixels that is."""
    per_slice = (maps_D1HW >= card.output.threshold).flatten(1).sum(1).cpu().numpy()
    runs = np.convolve(per_slice, np.ones(min(SLICES, len(per_slice)), int), mode="valid")
    return int(runs.argmax()), int(runs.max())


def _as_bytes(picture_DHW: torch.Tensor) -> NDArray[np.uint8]:
    return (picture_DHW * 255).round().to(torch.uint8).cpu().numpy()
