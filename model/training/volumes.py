"""Volumes as a volumetric network will see them, made once from cases by all cores and kept as files that are mapped.

Turning, scaling, resampling and the crop to the liver are the lines that serve (`model.volumetric`). Where a network
looks inside the liver, it learns inside the true one, widened by its card's margin. A voxel's class is the one that
fills most of it, by the same filter that resampled the image, so that borders stay where the image has them.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from model.card import AnyInput, VolumeInput
from model.cases import CaseImage
from model.input_check import measure
from model.liver_mask import dilated
from model.pipeline import Placed
from model.problems import TrainingProblem
from model.samples import Sample, samples_of
from model.training.prepared import fingerprint, make_files
from model.training.sources import CaseSource
from model.training.weak_labels import tumour_share_of
from model.volumetric import resampled

Bytes = NDArray[np.uint8]
Places = NDArray[np.int64]

BACKGROUND, LIVER, LESION = 0, 1, 2
"""Values of a class map. Liver is the liver without its lesions; where nobody drew it, it is background."""

_CPU = torch.device("cpu")
_MOST_PLACES = 20_000
"""Of each class, evenly taken: where patches may be laid."""
_LINES = ("preprocess.py", "volumetric.py", "training/volumes.py")
_INDEX = "samples.json"


@dataclass(frozen=True)
class SeenVolume:
    """One sample on the network's grid: image as bytes (255 is 1) and class map, both (D, H, W) and mapped files."""

    case: str
    patient: str
    spec: VolumeInput
    spacing_mm: tuple[float, float, float]
    image_DHW: Bytes
    classes_DHW: Bytes
    places: Mapping[int, Places]
    """Class → voxels (N, 3) of it."""
    organ_voxels: int
    """Of the liver with its lesions."""
    tumour_share: float | None
    """Share of the liver, lesions included, that is lesion; None where nobody drew the liver."""
    measured: Mapping[str, float]
    """`model.input_check.measure`."""

    @property
    def code(self) -> int:
        """Modality of a conditioned network, -1 where it has none."""
        return -1 if self.spec.modality_code is None else self.spec.modality_code


@dataclass(frozen=True)
class VolumeSet:
    """All samples of some cases, in the order of the cases."""

    volumes: tuple[SeenVolume, ...]

    def __len__(self) -> int:
        return len(self.volumes)

    @property
    def measured(self) -> Mapping[str, Sequence[Mapping[str, float]]]:
        """Role → what its images were like."""
        return {self.volumes[0].spec.role: [volume.measured for volume in self.volumes]}

    def showing(self, wanted: int) -> Places:
        """Numbers of the volumes with at least one voxel of class `wanted`."""
        return np.flatnonzero([len(volume.places[wanted]) > 0 for volume in self.volumes])

    def tumour_shares(self) -> dict[str, float]:
        """Patient → mean share of tumour of the patient's volumes; patients without a drawn liver are left out."""
        found: dict[str, list[float]] = {}
        for volume in self.volumes:
            if volume.tumour_share is not None:
                found.setdefault(volume.patient, []).append(volume.tumour_share)
        return {patient: float(np.mean(shares)) for patient, shares in found.items()}


def volume_set(
    sources: Sequence[CaseSource],
    inputs: Sequence[AnyInput],
    cache: Path,
    *,
    workers: int,
    done: Callable[[], None] = lambda: None,
) -> VolumeSet:
    """All samples of the cases, from the cache where they are there. Raises TrainingProblem where none fits."""
    if len({spec.role for spec in inputs}) > 1:
        raise TrainingProblem("volumetric networks are trained on one image a study; the recipe has several roles")
    folder = cache / fingerprint(inputs, _LINES)
    make_files(draw, sources, inputs, folder, _folder_of, workers=workers, done=done)
    found = [volume for source in sources for volume in _read(_folder_of(folder, source), source, inputs)]
    if not found:
        kinds = ", ".join(f"{spec.modality} {spec.weighting} {spec.phase or ''}".strip() for spec in inputs)
        raise TrainingProblem(f"none of the {len(sources)} cases has the images that the recipe reads ({kinds})")
    return VolumeSet(tuple(found))


def draw(source: CaseSource, inputs: tuple[AnyInput, ...], folder: Path) -> None:
    """Keep the samples of one case in a folder of its own, whole or not at all. Raises TrainingProblem."""
    final = _folder_of(folder, source)
    draft = final.with_name(f"{final.name}.{os.getpid()}.part")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    entries = [_keep(draft, number, sample, inputs) for number, sample in enumerate(samples_of(source.read(), inputs))]
    (draft / _INDEX).write_text(json.dumps(entries), encoding="utf-8")
    draft.rename(final)


def _keep(folder: Path, number: int, sample: Sample, inputs: Sequence[AnyInput]) -> dict[str, Any]:
    """Write one sample's arrays; returns what is to be known of it."""
    spec, image = sample.primary
    if not isinstance(spec, VolumeInput):
        raise TrainingProblem(f"the input for {spec.role} is planar; volumes are made for volume inputs")
    seen = resampled([Placed(spec, image.volume, _inside(spec, image))], _CPU)
    picture_DHW = (seen.images[0][0, 0] * spec.std + spec.mean).clamp(0, 1)
    liver_DHW, lesion_DHW = _masks(image)
    shares = torch.stack([seen.share_of(mask) for mask in (liver_DHW & ~lesion_DHW, lesion_DHW)])
    classes_DHW = torch.cat([1 - shares.sum(0, keepdim=True), shares]).argmax(0).to(torch.uint8)
    np.save(folder / f"{number}.image.npy", (picture_DHW * 255).round().to(torch.uint8).numpy())
    np.save(folder / f"{number}.classes.npy", classes_DHW.numpy())
    extent_mm = [
        step * (part.stop - part.start)
        for step, part in zip(seen.turn.spacing_mm(image.volume.affine_lps_mm), seen.box, strict=True)
    ]
    return {
        "spec": inputs.index(spec),
        "spacing_mm": [mm / side for mm, side in zip(extent_mm, picture_DHW.shape, strict=True)],
        "tumour_share": _tumour_share(image, lesion_DHW),
        "measured": measure(image.volume, spec),
    }


def _masks(image: CaseImage) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Liver and lesions; empty where nobody drew them."""
    nothing = np.zeros(image.volume.array_DHW.shape, np.uint16)
    return image.labels.get("liver", nothing) > 0, image.labels.get("lesion", nothing) > 0


def _inside(spec: VolumeInput, image: CaseImage) -> NDArray[np.bool_] | None:
    """Where the network may look: the true liver with its lesions, widened by the margin."""
    if spec.within == "field":
        return None
    if "liver" not in image.labels:
        raise TrainingProblem("an image without a label `liver` cannot train a network that looks inside it")
    liver_DHW, lesion_DHW = _masks(image)
    return dilated(liver_DHW | lesion_DHW, spec.margin_mm, image.volume.spacing_mm)


def _tumour_share(image: CaseImage, lesion_DHW: NDArray[np.bool_]) -> float | None:
    if "liver" not in image.labels or not image.labels["liver"].any():
        return None
    vein = image.labels.get("portal-vein")
    return tumour_share_of(image.labels["liver"] > 0, lesion_DHW, None if vein is None else vein > 0)


def _read(folder: Path, source: CaseSource, inputs: Sequence[AnyInput]) -> list[SeenVolume]:
    entries = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
    return [_seen(folder, number, source, inputs, entry) for number, entry in enumerate(entries)]


def _seen(
    folder: Path, number: int, source: CaseSource, inputs: Sequence[AnyInput], entry: Mapping[str, Any]
) -> SeenVolume:
    spec = inputs[entry["spec"]]
    assert isinstance(spec, VolumeInput)  # `draw` keeps no others
    d, h, w = entry["spacing_mm"]
    classes_DHW = np.load(folder / f"{number}.classes.npy", mmap_mode="r")
    return SeenVolume(
        case=source.case,
        patient=source.patient,
        spec=spec,
        spacing_mm=(d, h, w),
        image_DHW=np.load(folder / f"{number}.image.npy", mmap_mode="r"),
        classes_DHW=classes_DHW,
        places={wanted: _places(classes_DHW == wanted) for wanted in (LIVER, LESION)},
        organ_voxels=int(np.count_nonzero(classes_DHW)),
        tumour_share=entry["tumour_share"],
        measured=entry["measured"],
    )


def _places(mask_DHW: NDArray[np.bool_]) -> Places:
    """Voxels (N, 3) of a mask, evenly thinned where they are many."""
    flat = np.flatnonzero(mask_DHW)
    thinned = flat[:: max(1, -(-len(flat) // _MOST_PLACES))]
    return np.stack(np.unravel_index(thinned, mask_DHW.shape), axis=1)


def _folder_of(folder: Path, source: CaseSource) -> Path:
    return folder / source.case
