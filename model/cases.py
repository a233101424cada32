"""The neutral case folder: the one thing that training and evaluation read from disk, whatever wrote it.

```
<folder>/<case>/case.json          what it is: patient, collection, images, their labels
<folder>/<case>/portal-venous.nii.gz, portal-venous.lesion.nii.gz, …
```

Each image keeps its own grid, and its labels lie on it. `lesion` numbers the lesions 1..N without a gap; every other
label is 0 or 1. A case folder is whole or absent: it is written under a hidden name, made durable, and then renamed.
It holds no name, no date and no UID; `patient` is a pseudonym.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from model.card import Name, Strict
from model.nifti import Nifti, NiftiProblem, read_nifti, write_nifti
from model.volume import Float, Float64, Labels, Volume

CASE_NAME = "case.json"
LESION = "lesion"
SAME_PLACE_MM = 1e-3
"""A label lies on its image's grid where the corners agree to this."""

Modality = Literal["CT", "MR"]
TimePoint = Literal["pre", "post"]
CaseName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,126}\.nii(\.gz)?$")]


class CaseProblem(Exception):
    """A case cannot be read or written; the message names the file, the key or value, and what is expected."""


class ImageEntry(Strict):
    """One image as `case.json` tells of it. `weighting` is ct, t1, t2, dwi-trace, …; `phase` portal-venous, …"""

    file: FileName
    modality: Modality
    weighting: Name
    phase: Name | None = None
    b_value_s_mm2: Annotated[float, Field(ge=0)] | None = None
    time_point: TimePoint | None = None
    labels: dict[Name, FileName] = Field(default_factory=dict)


class CaseEntry(Strict):
    """`case.json`. `collection` and `licence` say where the data come from and what may be done with them."""

    format: Literal[1] = 1
    case: CaseName
    patient: CaseName
    collection: str
    licence: str
    images: Annotated[dict[Name, ImageEntry], Field(min_length=1)]
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class CaseImage:
    """An image in memory, and its labels (uint16, the volume's shape) by name."""

    volume: Volume
    labels: Mapping[str, Labels]
    modality: Modality
    weighting: str
    phase: str | None = None
    b_value_s_mm2: float | None = None
    time_point: TimePoint | None = None


@dataclass(frozen=True)
class Case:
    """A patient's images that belong together. `remarks` say what was decided when it was made."""

    case: str
    patient: str
    collection: str
    licence: str
    images: Mapping[str, CaseImage]
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class CaseRef:
    """A case on disk by its `case.json` alone; `read` brings the voxels."""

    folder: Path
    entry: CaseEntry

    @property
    def case(self) -> str:
        return self.entry.case

    @property
    def patient(self) -> str:
        return self.entry.patient

    @property
    def collection(self) -> str:
        return self.entry.collection

    @property
    def licence(self) -> str:
        return self.entry.licence

    @property
    def images(self) -> Mapping[str, ImageEntry]:
        return self.entry.images

    def read(self) -> Case:
        """Raises CaseProblem."""
        return read_case(self.folder)

    def read_image(self, name: str, labels: Iterable[str] | None = None) -> CaseImage:
        """One image of the case with these of its labels, all where none is named. Raises CaseProblem."""
        if name not in self.images:
            raise CaseProblem(f"{self.folder / CASE_NAME}: images has no {name!r}; it has: {', '.join(self.images)}")
        return _read_image(self.folder, name, self.images[name], labels)


def list_cases(folder: Path) -> tuple[CaseRef, ...]:
    """The cases that lie in `folder`, by name, without their voxels. Raises CaseProblem for one that is not right."""
    try:
        found = sorted(item for item in folder.iterdir() if item.is_dir() and not item.name.startswith("."))
    except OSError as error:
        raise CaseProblem(f"{folder}: cannot be read ({error.strerror}); name a folder of case folders") from error
    return tuple(CaseRef(item, _read_entry(item)) for item in found if (item / CASE_NAME).exists())


def read_case(folder: Path) -> Case:
    """The case in `folder`, which holds `case.json`. Raises CaseProblem."""
    entry = _read_entry(folder)
    images = {name: _read_image(folder, name, image, None) for name, image in entry.images.items()}
    return Case(entry.case, entry.patient, entry.collection, entry.licence, images, entry.remarks)


def write_case(folder: Path, case: Case) -> Path:
    """Write `case` into its own folder under `folder`, which is made; a case of that name is replaced.

    Returns the case's folder. Raises CaseProblem where the case is not as this file describes, before anything is
    written.
    """
    entry = _entry_of(folder, case)
    final, draft, old = folder / case.case, folder / f".{case.case}.part", folder / f".{case.case}.old"
    folder.mkdir(parents=True, exist_ok=True)
    for left in (draft, old):
        shutil.rmtree(left, ignore_errors=True)
    draft.mkdir()
    for name, image in case.images.items():
        written = entry.images[name]
        write_nifti(draft / written.file, _small(image.volume.array_DHW), image.volume.affine_lps_mm)
        for label, file in written.labels.items():
            dtype = np.uint16 if label == LESION else np.uint8
            write_nifti(draft / file, image.labels[label].astype(dtype), image.volume.affine_lps_mm)
    _write_durably(draft / CASE_NAME, entry.model_dump_json(indent=1) + "\n")
    _fsync_folder(draft)
    if final.exists():
        final.rename(old)
    draft.rename(final)
    _fsync_folder(folder)
    shutil.rmtree(old, ignore_errors=True)
    return final


def split_patients(patients: Iterable[str], seed: int, shares: Mapping[str, float]) -> dict[str, tuple[str, ...]]:
    """Parts (`{"train": 0.7, "validation": 0.15, "test": 0.15}`) → the patients in each, sorted; each patient once.

    Patients are ranked by a hash of `seed` and name, so neither their order nor anything but who they are decides.
    Counts follow the shares to the patient (largest remainders). Raises ValueError for shares that are none.
    """
    if not shares or min(shares.values()) < 0 or abs(sum(shares.values()) - 1) > 1e-6:
        raise ValueError(f"shares must be 0 or more and sum to 1, got {dict(shares)}")
    ranked = sorted(set(patients), key=lambda name: hashlib.sha256(f"split:{seed}:{name}".encode()).digest())
    exact = {part: share * len(ranked) for part, share in shares.items()}
    counts = {part: int(number + 1e-9) for part, number in exact.items()}
    by_remainder = sorted(shares, key=lambda part: (counts[part] - exact[part], list(shares).index(part)))
    for part in by_remainder[: len(ranked) - sum(counts.values())]:
        counts[part] += 1
    split: dict[str, tuple[str, ...]] = {}
    start = 0
    for part, count in counts.items():
        split[part] = tuple(sorted(ranked[start : start + count]))
        start += count
    return split


def _read_entry(folder: Path) -> CaseEntry:
    path = folder / CASE_NAME
    try:
        return CaseEntry.model_validate_json(path.read_bytes())
    except OSError as error:
        raise CaseProblem(f"{path}: cannot be read ({error.strerror})") from error
    except ValidationError as error:
        raise CaseProblem(f"{path}: not a valid case: {_wrong_keys(error)}") from error


def _wrong_keys(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, e['loc'])) or 'case'}: {e['msg']}" for e in error.errors())


def _read_image(folder: Path, name: str, entry: ImageEntry, wanted: Iterable[str] | None) -> CaseImage:
    image = _read_nifti(folder, f"images.{name}.file", entry.file)
    volume = Volume(image.array_DHW.astype(np.float32), image.affine_lps_mm)
    if not np.isfinite(volume.array_DHW).all():
        raise CaseProblem(f"{folder / entry.file}: images.{name} has voxels that are no number")
    labels: dict[str, Labels] = {}
    for label in entry.labels if wanted is None else wanted:
        key = f"images.{name}.labels.{label}"
        if label not in entry.labels:
            raise CaseProblem(f"{folder / CASE_NAME}: there is no {key}; it has: {', '.join(entry.labels) or 'none'}")
        labels[label] = _read_label(folder, key, entry.labels[label], label, volume)
    return CaseImage(
        volume, labels, entry.modality, entry.weighting, entry.phase, entry.b_value_s_mm2, entry.time_point
    )


def _read_nifti(folder: Path, key: str, file: str) -> Nifti:
    try:
        return read_nifti(folder / file)
    except NiftiProblem as problem:
        raise CaseProblem(f"{folder / CASE_NAME}: {key}: {problem}") from problem


def _read_label(folder: Path, key: str, file: str, label: str, volume: Volume) -> Labels:
    stored = _read_nifti(folder, key, file)
    where = f"{folder / file}: {key}"
    if stored.array_DHW.shape != volume.array_DHW.shape:
        raise CaseProblem(f"{where} has shape {stored.array_DHW.shape}, its image {volume.array_DHW.shape}")
    if not lies_alike(stored.affine_lps_mm, volume.affine_lps_mm, volume.array_DHW.shape):
        raise CaseProblem(f"{where} lies elsewhere than its image")
    labels_DHW = as_labels(stored.array_DHW)
    if labels_DHW is None or (reason := _label_fault(label, labels_DHW)):
        raise CaseProblem(f"{where}: {reason if labels_DHW is not None else 'its values are not whole numbers from 0'}")
    return labels_DHW


def as_labels(array_DHW: NDArray[Any]) -> Labels | None:
    """The values as uint16; None where they are not whole numbers from 0 to 65535."""
    if array_DHW.dtype == np.uint16:
        return array_DHW.astype(np.uint16)
    if not np.isfinite(array_DHW).all() or array_DHW.min(initial=0) < 0 or array_DHW.max(initial=0) > 65535:
        return None
    labels_DHW: Labels = array_DHW.astype(np.uint16)
    return labels_DHW if np.array_equal(labels_DHW, array_DHW) else None


def lies_alike(one: Float64, other: Float64, shape_DHW: tuple[int, ...], within_mm: float = SAME_PLACE_MM) -> bool:
    """Whether grids of one shape coincide: no corner of theirs is further apart than `within_mm`."""
    corners = np.array(np.meshgrid(*((0.0, size - 1.0) for size in shape_DHW))).reshape(3, -1)
    apart_mm = np.linalg.norm((one - other)[:3, :3] @ corners + (one - other)[:3, 3:], axis=0)
    return bool(apart_mm.max() <= within_mm)


def _label_fault(label: str, labels_DHW: Labels) -> str | None:
    highest = int(labels_DHW.max(initial=0))
    if label != LESION:
        return f"a label other than {LESION!r} is 0 or 1, it has {highest}" if highest > 1 else None
    missing = np.flatnonzero(np.bincount(labels_DHW.ravel(), minlength=highest + 1)[1:] == 0) + 1
    return f"its lesions are numbered to {highest}, but {missing[0]} does not occur" if len(missing) else None


def _entry_of(folder: Path, case: Case) -> CaseEntry:
    """What `case.json` will say. Raises CaseProblem for whatever of the case a reader would refuse."""
    path = folder / case.case / CASE_NAME
    for name, image in case.images.items():
        if not np.isfinite(image.volume.array_DHW).all():
            raise CaseProblem(f"{path}: images.{name} has voxels that are no number")
        for label, labels_DHW in image.labels.items():
            key = f"images.{name}.labels.{label}"
            if labels_DHW.shape != image.volume.array_DHW.shape or labels_DHW.dtype != np.uint16:
                raise CaseProblem(f"{path}: {key} is {labels_DHW.dtype} {labels_DHW.shape}, not uint16 of its image")
            if fault := _label_fault(label, labels_DHW):
                raise CaseProblem(f"{path}: {key}: {fault}")
    try:
        return CaseEntry(
            case=case.case,
            patient=case.patient,
            collection=case.collection,
            licence=case.licence,
            images={name: _image_entry(name, image) for name, image in case.images.items()},
            remarks=case.remarks,
        )
    except ValidationError as error:
        raise CaseProblem(f"{path}: {_wrong_keys(error)}") from error


def _image_entry(name: str, image: CaseImage) -> ImageEntry:
    return ImageEntry(
        file=f"{name}.nii.gz",
        modality=image.modality,
        weighting=image.weighting,
        phase=image.phase,
        b_value_s_mm2=image.b_value_s_mm2,
        time_point=image.time_point,
        labels={label: f"{name}.{label}.nii.gz" for label in image.labels},
    )


def _small(array_DHW: Float) -> NDArray[np.int16] | Float:
    """As int16 where that loses nothing: CT, and MR without a scale."""
    if array_DHW.min() >= -32768 and array_DHW.max() <= 32767:
        whole_DHW = array_DHW.astype(np.int16)
        if np.array_equal(whole_DHW, array_DHW):
            return whole_DHW
    return array_DHW.astype(np.float32, copy=False)


def _write_durably(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
