"""Slices as a planar network will see them, made once from cases by all cores and kept as files.

Pictures come from the very lines that serve (`model.preprocess`, `model.alignment`); a target is the share of each
network pixel that is lesion, so that borders keep their place when probabilities go back to the native matrix.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.alignment import onto_grid
from model.card import AnyInput, PlanarInput
from model.cases import CaseImage
from model.input_check import measure
from model.liver_mask import dilated
from model.preprocess import Intake, intake
from model.problems import TrainingProblem
from model.samples import Sample, samples_of
from model.training.prepared import fingerprint, make_files
from model.training.sources import CaseSource
from model.volume import Volume

Bytes = NDArray[np.uint8]

_CPU = torch.device("cpu")
_HALF = 128
"""Half of a pixel, in bytes."""
_KEPT = 0.5
_LINES = ("alignment.py", "preprocess.py", "training/slices.py")
"""Further files that make what a planar network is fed."""


@dataclass(frozen=True)
class PlanarSet:
    """All slices of some samples, as bytes (255 is 1): role → (N, S, S) pictures and lesion shares on one grid."""

    pictures: Mapping[str, Bytes]
    lesions: Mapping[str, Bytes]
    liver_N: NDArray[np.bool_]
    """The slice shows liver; all of them where nobody drew it."""
    sample_N: NDArray[np.int64]
    """Which sample each slice belongs to: neighbours are looked for within."""
    code_N: NDArray[np.int64]
    """Modality of a conditioned network, -1 where it has none."""
    measured: Mapping[str, Sequence[Mapping[str, float]]]
    """Role → `model.input_check.measure` of each sample."""

    def __len__(self) -> int:
        return len(self.sample_N)

    @property
    def primary(self) -> str:
        """The role on whose grid all lie."""
        return next(iter(self.pictures))

    def with_lesion(self) -> NDArray[np.int64]:
        """Slices of which at least one pixel is half lesion, in whatever role."""
        return np.flatnonzero(np.max([share.max(axis=(1, 2)) for share in self.lesions.values()], axis=0) >= _HALF)

    def without_lesion(self, *, liver_only: bool) -> NDArray[np.int64]:
        """Slices that hold no part of any lesion."""
        is_empty = np.max([share.max(axis=(1, 2)) for share in self.lesions.values()], axis=0) == 0
        return np.flatnonzero(is_empty & (self.liver_N | (not liver_only)))

    def channels(self, role: str, chosen_B: NDArray[np.int64], spec: PlanarInput) -> Tensor:
        """Pictures (B, channels, S, S) in [0, 1] as the engine makes them: replicated, or with neighbours."""
        pictures = self.pictures[role]
        if spec.context == 0:
            return (torch.from_numpy(pictures[chosen_B]).float()[:, None] / 255).expand(-1, spec.channels, -1, -1)
        first = np.searchsorted(self.sample_N, self.sample_N[chosen_B])[:, None]
        last = np.searchsorted(self.sample_N, self.sample_N[chosen_B], side="right")[:, None] - 1
        around = chosen_B[:, None] + np.arange(-spec.context, spec.context + 1)
        return torch.from_numpy(pictures[around.clip(first, last)]).float() / 255

    def targets(self, role: str, chosen_B: NDArray[np.int64]) -> Tensor:
        """Lesion shares (B, 1, S, S)."""
        return torch.from_numpy(self.lesions[role][chosen_B]).float()[:, None] / 255


def planar_set(
    sources: Sequence[CaseSource],
    inputs: Sequence[AnyInput],
    cache: Path,
    *,
    workers: int,
    done: Callable[[], None] = lambda: None,
) -> PlanarSet:
    """All slices of the cases that fit, from the cache where they are there. Raises TrainingProblem where none is."""
    folder = cache / fingerprint(inputs, _LINES)
    make_files(draw, sources, inputs, folder, _file_of, workers=workers, done=done)
    return _joined([_file_of(folder, source) for source in sources], inputs)


def draw(source: CaseSource, inputs: tuple[AnyInput, ...], folder: Path) -> None:
    """Keep the samples of one case as a file, whole or not at all."""
    arrays: dict[str, NDArray[Any]] = {}
    samples = list(samples_of(source.read(), inputs))
    for number, sample in enumerate(samples):
        arrays |= {f"{number}/{name}": array for name, array in _arrays(sample).items()}
    path = _file_of(folder, source)
    draft = path.with_name(f"{path.stem}.{os.getpid()}.part")
    with draft.open("wb") as file:
        np.savez(file, allow_pickle=False, samples=np.int64(len(samples)), **arrays)
    draft.replace(path)


def _arrays(sample: Sample) -> dict[str, NDArray[Any]]:
    """Everything of one sample by name; the primary image's canonical slices are the grid of all."""
    spec, primary = sample.primary
    code = spec.modality_code
    shown = _Framed.of(_planar(spec), primary, primary.volume).share("liver")
    arrays: dict[str, NDArray[Any]] = {"code": np.array(-1 if code is None else code)}
    for role, (spec, image) in sample.images.items():
        framed = _Framed.of(_planar(spec), image, primary.volume)
        picture, lesion = framed.picture(), framed.share("lesion")
        arrays[f"picture.{role}"] = _as_bytes(picture)
        arrays[f"lesion.{role}"] = _as_bytes(torch.zeros_like(picture) if lesion is None else lesion)
        arrays[f"measured.{role}"] = np.array(json.dumps(measure(image.volume, spec)))
    slices = len(arrays[f"picture.{role}"])
    arrays["liver"] = np.ones(slices, bool) if shown is None else (shown >= _KEPT).flatten(1).any(1).numpy()
    return arrays


def _planar(spec: AnyInput) -> PlanarInput:
    if not isinstance(spec, PlanarInput):
        raise TrainingProblem(f"the input for {spec.role} is a volume; slices are made for planar inputs")
    return spec


@dataclass(frozen=True)
class _Framed:
    """One image on the primary grid, as it is turned, scaled and framed for its role."""

    spec: PlanarInput
    image: CaseImage
    grid: Volume
    taken: Intake

    @classmethod
    def of(cls, spec: PlanarInput, image: CaseImage, grid: Volume) -> _Framed:
        return cls(spec, image, grid, intake(onto_grid(image.volume, grid), spec))

    def picture(self) -> Tensor:
        """(D, S, S) in [0, 1], zero where the network may not look. Raises TrainingProblem without a liver."""
        picture = self.taken.slices(0, len(self.taken.canonical_DHW), self.spec.size, _CPU)[:, 0]
        if self.spec.within == "field":
            return picture
        liver = self.share("liver", self.spec.margin_mm)
        if liver is None:
            raise TrainingProblem("an image without a label `liver` cannot train a network that looks inside it")
        return picture * (liver >= _KEPT)

    def share(self, name: str, margin_mm: float = 0.0) -> Tensor | None:
        """Share of each pixel (D, S, S) that bears the label; None where the image has no such label."""
        labels_DHW = self.image.labels.get(name)
        if labels_DHW is None:
            return None
        mask_DHW = dilated(_on_grid(labels_DHW > 0, self.image.volume, self.grid), margin_mm, self.grid.spacing_mm)
        native = torch.from_numpy(np.ascontiguousarray(self.taken.turn.apply(mask_DHW))).float()
        return self.taken.framing.into(native[:, None], self.spec.size)[:, 0]


def _on_grid(mask_DHW: NDArray[np.bool_], own: Volume, grid: Volume) -> NDArray[np.bool_]:
    if own is grid:
        return mask_DHW
    placed: NDArray[np.bool_] = onto_grid(own.with_array(mask_DHW.astype(np.float32)), grid).array_DHW >= _KEPT
    return placed


def _joined(files: Sequence[Path], inputs: Sequence[AnyInput]) -> PlanarSet:
    roles = tuple(dict.fromkeys(spec.role for spec in inputs))
    found = []
    for file in files:
        with np.load(file, allow_pickle=False) as stored:
            found += [
                {name.partition("/")[2]: stored[name] for name in stored.files if name.startswith(f"{number}/")}
                for number in range(int(stored["samples"]))
            ]
    if not found:
        kinds = ", ".join(f"{spec.modality} {spec.weighting} {spec.phase or ''}".strip() for spec in inputs)
        raise TrainingProblem(f"none of the {len(files)} cases has the images that the recipe reads ({kinds})")
    lengths = [len(sample["liver"]) for sample in found]
    return PlanarSet(
        pictures={role: np.concatenate([sample[f"picture.{role}"] for sample in found]) for role in roles},
        lesions={role: np.concatenate([sample[f"lesion.{role}"] for sample in found]) for role in roles},
        liver_N=np.concatenate([sample["liver"] for sample in found]),
        sample_N=np.repeat(np.arange(len(found)), lengths),
        code_N=np.repeat([int(sample["code"]) for sample in found], lengths),
        measured={role: [json.loads(str(sample[f"measured.{role}"])) for sample in found] for role in roles},
    )


def _file_of(folder: Path, source: CaseSource) -> Path:
    return folder / f"{source.case}.npz"


def _as_bytes(shares: Tensor) -> Bytes:
    return (shares * 255).round().to(torch.uint8).numpy()
