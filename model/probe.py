"""A bundle's probe: a few slices with lesions, by which an engine sees when it loads whether a quicker way of
computing gives the same lesions on this machine.

`probe.npz` holds one array a role: what the network sees in [0, 1], as bytes, slices in order: (D, S, S) for planar
inputs, one window (D, H, W) for volumes. Made from unseen training-side images; no evaluation case is in it.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.card import BundleProblem, Card

PROBE_NAME = "probe.npz"
MEAN_TOLERANCE = 0.005
"""Largest mean difference of probabilities to fp32."""
LEAST_DICE = 0.999
"""Least Dice with the mask of fp32."""
FEWEST_PIXELS = 400
"""Of a smaller mask one pixel is so much that its Dice says nothing."""

Bytes = NDArray[np.uint8]


def pack(seen: Mapping[str, Bytes]) -> bytes:
    """The file's content."""
    file = io.BytesIO()
    np.savez_compressed(file, allow_pickle=False, **seen)
    return file.getvalue()


def read_probe(folder: Path, card: Card) -> Mapping[str, Tensor] | None:
    """Role → what the network sees, in [0, 1]; None where the bundle has no probe. Raises BundleProblem."""
    if card.probe_sha256 is None:
        return None
    path = folder / PROBE_NAME
    try:
        content = path.read_bytes()
        if (found := hashlib.sha256(content).hexdigest()) != card.probe_sha256:
            raise BundleProblem(f"{path}: sha256 expected {card.probe_sha256}, found {found}; restore the bundle")
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            return {role: torch.from_numpy(stored[role]).float() / 255 for role in card.roles}
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise BundleProblem(f"{path}: cannot be read as a probe ({error}); restore the bundle") from error


def difference(exact: Tensor, quick: Tensor, threshold: float) -> str | None:
    """In what two probability maps of one probe differ too much to be the same answer; None where they are the same."""
    mean = float((exact - quick).abs().mean())
    if not mean <= MEAN_TOLERANCE:  # so that NaN differs
        return f"mean difference of probabilities {mean:.4f}, at most {MEAN_TOLERANCE:g} is allowed"
    first, second = exact >= threshold, quick >= threshold
    total = int(first.sum()) + int(second.sum())
    if total < 2 * FEWEST_PIXELS:
        return None
    dice = 2 * int((first & second).sum()) / total
    return None if dice >= LEAST_DICE else f"Dice {dice:.4f} on the probe, at least {LEAST_DICE:g} is asked"
