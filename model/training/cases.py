"""Training cases: phantom slices as the network will see them, drawn once by all cores and kept as files.

Pictures come from the very lines that serve (`model.preprocess`); the target is the share of each network pixel that
is lesion, so that the borders keep their place when the probabilities go back to the native matrix.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model import phantom as phantom_module
from model.card import PlanarInput
from model.phantom import NETWORK_B_VALUE, Geometry, make_phantom
from model.phantom_catalogue import usual_geometry
from model.preprocess import intake

LAST_TRAINING_SEED = 99_999
FIRST_VALIDATION_SEED = 90_000
"""Training draws below, choices such as the operating point are made from here to LAST_TRAINING_SEED."""

_CPU = torch.device("cpu")
_CT_MATRIX = 256
_FEEDS = ("body.py", "canonical.py", "preprocess.py")
"""What a network is fed is made here."""


@dataclass(frozen=True)
class Slices:
    """All slices of some cases: pictures in [0, 1] and lesion shares, as bytes (255 is 1), axes slice, row, column."""

    pictures_NHW: NDArray[np.uint8]
    shares_NHW: NDArray[np.uint8]
    case_N: NDArray[np.int64]
    """Which case (index into the seeds) each slice belongs to."""

    def with_lesion(self) -> NDArray[np.int64]:
        """Indices of the slices where at least one pixel is half lesion."""
        return np.flatnonzero(self.shares_NHW.max(axis=(1, 2)) >= 128)

    def without_lesion(self) -> NDArray[np.int64]:
        """Indices of the slices that hold no part of any lesion."""
        return np.flatnonzero(self.shares_NHW.max(axis=(1, 2)) == 0)

    def channels(self, chosen_B: NDArray[np.int64], spec: PlanarInput) -> Tensor:
        """Pictures (B, channels, S, S) as the engine makes them: replicated, or with neighbours of the same case."""
        if spec.context == 0:
            pictures = torch.from_numpy(self.pictures_NHW[chosen_B]).float()[:, None] / 255
            return pictures.expand(-1, spec.channels, -1, -1)
        first = np.searchsorted(self.case_N, self.case_N[chosen_B])[:, None]
        last = np.searchsorted(self.case_N, self.case_N[chosen_B], side="right")[:, None] - 1
        around = chosen_B[:, None] + np.arange(-spec.context, spec.context + 1)
        return torch.from_numpy(self.pictures_NHW[around.clip(first, last)]).float() / 255

    def targets(self, chosen_B: NDArray[np.int64]) -> Tensor:
        """Lesion shares (B, 1, S, S)."""
        return torch.from_numpy(self.shares_NHW[chosen_B]).float()[:, None] / 255


def training_slices(
    condition: str,
    spec: PlanarInput,
    seeds: Sequence[int],
    cache: Path,
    *,
    workers: int,
    done: Callable[[], None] = lambda: None,
) -> Slices:
    """Slices of phantoms `seeds`, from the cache where they are there. Raises ValueError for an evaluation seed."""
    if max(seeds) > LAST_TRAINING_SEED:
        raise ValueError(f"seed {max(seeds)} is evaluation's; training ends at {LAST_TRAINING_SEED}")
    folder = cache / f"{condition}-{fingerprint(spec)}"
    folder.mkdir(parents=True, exist_ok=True)
    missing = [seed for seed in seeds if not (folder / f"{seed}.npz").exists()]
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        for future in as_completed([pool.submit(draw_case, condition, seed, spec, folder) for seed in missing]):
            future.result()
            done()
    return _load([folder / f"{seed}.npz" for seed in seeds])


def draw_case(condition: str, seed: int, spec: PlanarInput, folder: Path) -> None:
    """Draw phantom `seed` and keep its slices as `<seed>.npz`, whole or not at all."""
    torch.set_num_threads(1)
    b_values = (NETWORK_B_VALUE,) if condition.endswith("dwi") else None
    phantom = make_phantom(condition, seed, geometry=training_geometry(condition, seed), b_values=b_values)
    taken = intake(phantom.image, spec)
    slices = len(taken.canonical_DHW)
    pictures = taken.slices(0, slices, spec.size, _CPU)[:, 0]
    truth_DHW = np.ascontiguousarray(taken.turn.apply(phantom.labels_DHW > 0)).astype(np.float32)
    shares = taken.framing.into(torch.from_numpy(truth_DHW)[:, None], spec.size)[:, 0]
    draft = folder / f"{seed}.{os.getpid()}.part"
    with draft.open("wb") as file:
        np.savez(file, pictures=_as_bytes(pictures), shares=_as_bytes(shares))
    draft.replace(folder / f"{seed}.npz")


def training_geometry(condition: str, seed: int) -> Geometry:
    """The condition's geometry for even seeds; for odd ones another field of view, position and a slight tilt.

    Of a pair of phases it is that of the portal-venous one.

    CT is drawn on a 256² matrix, whose noise is that of 512² after averaging, in a quarter of the time.
    """
    usual = usual_geometry(condition, seed)
    if condition.startswith("ct"):
        usual = usual.resampled(_CT_MATRIX, _CT_MATRIX)
    if seed % 2 == 0:
        return usual
    rng = np.random.default_rng(seed)
    zoom, aspect = np.exp(rng.uniform(-0.12, 0.12)), np.exp(rng.uniform(-0.06, 0.06))
    dy, dx = usual.pixel_spacing_mm
    x, y, z = usual.centre_mm
    right, back, up = (float(mm) for mm in rng.uniform(-15, 15, 3))
    about_x, about_y, about_z = (float(deg) for deg in rng.uniform(-12, 12, 3))
    return replace(
        usual,
        pixel_spacing_mm=(float(dy * zoom * aspect), float(dx * zoom / aspect)),
        slice_thickness_mm=float(usual.slice_thickness_mm * rng.uniform(0.6, 1.2)),
        tilt_deg=(about_x, about_y, about_z),
        centre_mm=(x + right, y + back, z + up),
    )


def fingerprint(spec: PlanarInput) -> str:
    """Changes with the phantoms' source and with what the network is fed: an old cache is never mistaken for new."""
    digest = hashlib.sha256(spec.model_dump_json().encode())
    here = Path(phantom_module.__file__).parent
    for source in (*sorted(here.glob("phantom*.py")), *(here / name for name in _FEEDS), Path(__file__)):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:12]


def _as_bytes(shares: Tensor) -> NDArray[np.uint8]:
    return (shares * 255).round().to(torch.uint8).numpy()


def _load(files: Sequence[Path]) -> Slices:
    loaded = [np.load(file) for file in files]
    pictures = [case["pictures"] for case in loaded]
    return Slices(
        np.concatenate(pictures),
        np.concatenate([case["shares"] for case in loaded]),
        np.repeat(np.arange(len(files)), [len(p) for p in pictures]),
    )
