"""NIfTI and picture layouts of public data → case folders (`model/cases.py`).

DICOM comes by `crlm-node dataset import`, for nothing here knows it.
`lits` and `msd` are the same 131 CTs in two layouts: never train on one and test on the other. `png` is the layout of
the cross-modal guidance code (models.md §2.1): a file a slice, float arrays in spite of their name. Arrays are read
without pickle; what cannot be said from a file, its spacing for one, must be said by who imports it.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from model.cases import LESION, Case, CaseImage, CaseProblem, as_labels, lies_alike, write_case
from model.findings import label_lesions
from model.nifti import NiftiProblem, read_nifti
from model.volume import Float, Float64, Labels, Volume

SAME_GRID_MM = 0.1
"""Image and labels of one case may differ by the rounding of their headers, not by more."""
PNG_PHASES = {"pv": "portal-venous", "art": "arterial"}

_NPY, _PNG, _PICKLE = b"\x93NUMPY", b"\x89PNG", b"\x80"
_LITS = re.compile(r"volume-(\d+)\.nii(\.gz)?$")


@dataclass(frozen=True)
class Written:
    """A case that was written."""

    case: str
    folder: Path
    images: tuple[str, ...]
    lesions: int


@dataclass(frozen=True)
class NotWritten:
    """What gave no case, and why."""

    source: Path
    reason: str


@dataclass(frozen=True)
class PictureScale:
    """What the `png` layout does not say: spacing of slices, rows and columns, and the HU of grey levels 0 and 255."""

    spacing_mm: tuple[float, float, float]
    window_hu: tuple[float, float] | None = None


@dataclass(frozen=True)
class _Pair:
    """A NIfTI image and its labels."""

    case: str
    image: Path
    labels: Path


Heard = Callable[[int, int], None]


def import_layout(
    layout: str, source: Path, out: Path, scale: PictureScale | None = None, heard: Heard = lambda done, of: None
) -> Iterator[Written | NotWritten]:
    """One answer for each case of `layout` (a key of `LAYOUTS`) in `source`. `heard(done, of)` is told how far it is.

    Raises CaseProblem where the layout is not there, or the scale is missing that it needs.
    """
    cases = LAYOUTS[layout](source, scale)
    if not cases:
        raise CaseProblem(f"{source}: nothing is laid out there as {layout} is; see docs/datasets.md")
    for done, (name, make) in enumerate(cases):
        heard(done, len(cases))
        try:
            case = make()
            folder = write_case(out, case)
        except CaseProblem as problem:
            yield NotWritten(source / name, str(problem))
            continue
        yield Written(case.case, folder, tuple(case.images), _lesion_count(case))
    heard(len(cases), len(cases))


Makers = Sequence[tuple[str, Callable[[], Case]]]


def _lits(source: Path, scale: PictureScale | None) -> Makers:
    found = sorted((int(match[1]), path) for path in source.rglob("volume-*") if (match := _LITS.match(path.name)))
    labels = {path.name: path for path in source.rglob("segmentation-*")}
    pairs = []
    for number, path in found:
        names = (f"segmentation-{number}.nii", f"segmentation-{number}.nii.gz")
        mate = next((labels[name] for name in names if name in labels), path.with_name(names[0]))
        pairs.append(_Pair(f"LITS-{number:03}", path, mate))
    return [_maker(pair, "LiTS", "CC BY-NC-ND 4.0") for pair in pairs]


def _msd(source: Path, scale: PictureScale | None) -> Makers:
    images = sorted(path for path in (source / "imagesTr").glob("*.nii*") if not path.name.startswith("."))
    pairs = [_Pair(f"MSD-{path.name.split('.')[0]}", path, source / "labelsTr" / path.name) for path in images]
    return [_maker(pair, "MSD Task03 Liver", "CC BY-SA 4.0") for pair in pairs]


def _png(source: Path, scale: PictureScale | None) -> Makers:
    root = source / "train_img"
    patients = sorted({folder.name for phase in PNG_PHASES for folder in root.glob(f"{phase}/*") if folder.is_dir()})
    if patients and scale is None:
        raise CaseProblem(f"{source}: the pictures do not say their spacing; name it by --spacing-mm SLICE ROW COLUMN")
    return [(name, partial(_picture_case, source, name, scale)) for name in patients]


LAYOUTS: Mapping[str, Callable[[Path, PictureScale | None], Makers]] = {"lits": _lits, "msd": _msd, "png": _png}


def _maker(pair: _Pair, collection: str, licence: str) -> tuple[str, Callable[[], Case]]:
    return pair.image.name, partial(_nifti_case, pair, collection, licence)


def _nifti_case(pair: _Pair, collection: str, licence: str) -> Case:
    """Labels 0, 1 and 2 are background, liver and lesion. Raises CaseProblem."""
    try:
        image, stored = read_nifti(pair.image), read_nifti(pair.labels)
    except NiftiProblem as problem:
        raise CaseProblem(str(problem)) from problem
    organs_DHW = as_labels(stored.array_DHW)
    if organs_DHW is None or organs_DHW.max(initial=0) > 2:
        raise CaseProblem(f"{pair.labels.name}: labels are 0, 1 and 2 (background, liver, lesion), it has others")
    if image.array_DHW.shape != organs_DHW.shape:
        raise CaseProblem(
            f"{pair.labels.name}: its shape {organs_DHW.shape} is not the image's {image.array_DHW.shape}"
        )
    if not lies_alike(image.affine_lps_mm, stored.affine_lps_mm, organs_DHW.shape, SAME_GRID_MM):
        raise CaseProblem(f"{pair.labels.name}: it lies elsewhere than its image, by the header of one of them")
    volume = Volume(image.array_DHW.astype(np.float32), image.affine_lps_mm)
    labels = _liver_and_lesions(organs_DHW > 0, organs_DHW == 2)
    shown = CaseImage(volume, labels, "CT", "ct", "portal-venous")
    remarks = ("portal-venous as the collection says of itself, not case by case",)
    return Case(pair.case, pair.case, collection, licence, {"portal-venous": shown}, remarks)


def _liver_and_lesions(liver_DHW: NDArray[np.bool_], lesion_DHW: NDArray[np.bool_]) -> dict[str, Labels]:
    return {"liver": (liver_DHW | lesion_DHW).astype(np.uint16), LESION: label_lesions(lesion_DHW)}


def _lesion_count(case: Case) -> int:
    counts = [int(image.labels[LESION].max(initial=0)) for image in case.images.values() if LESION in image.labels]
    return max(counts, default=0)


def _picture_case(source: Path, patient: str, scale: PictureScale | None) -> Case:
    """The phases of one patient. Raises CaseProblem."""
    assert scale is not None  # checked before any case is made
    images: dict[str, CaseImage] = {}
    for folder, phase in PNG_PHASES.items():
        if (source / "train_img" / folder / patient).is_dir():
            images[phase] = _picture_image(source, folder, patient, phase, scale)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", patient).strip("-._")[:40] or "unnamed"
    remarks = ("slices are taken to be axial, from the feet up, rows to the back, columns to the left",)
    return Case(f"PNG-{name}", f"PNG-{name}", "pictures", "not stated", images, remarks)


def _picture_image(source: Path, folder: str, patient: str, phase: str, scale: PictureScale) -> CaseImage:
    paths = sorted((source / "train_img" / folder / patient).glob("*.png"), key=_natural_order)
    stack = [_values(path, scale.window_hu) for path in paths]
    masks = [
        [_slice(source / kind / folder / patient / path.name) > 0 for path in paths]
        for kind in ("liver_mask", "tumor_mask")
    ]
    if len({array_HW.shape for array_HW in (*stack, *masks[0], *masks[1])}) != 1:
        raise CaseProblem(
            f"{source / 'train_img' / folder / patient}: slices and masks differ in size, or none is there"
        )
    volume = Volume(np.stack(stack).astype(np.float32), _axial_affine(scale.spacing_mm))
    return CaseImage(volume, _liver_and_lesions(np.stack(masks[0]), np.stack(masks[1])), "CT", "ct", phase)


def _values(path: Path, window_hu: tuple[float, float] | None) -> Float:
    """A slice in HU: arrays and deep pictures as they are, 8-bit grey by the window. Raises CaseProblem."""
    array_HW = _slice(path)
    if array_HW.dtype != np.uint8:
        return array_HW.astype(np.float32)
    if window_hu is None:
        raise CaseProblem(f"{path.name}: grey levels of 8 bits are no HU; name by --window what 0 and 255 stand for")
    low, high = window_hu
    return (low + array_HW.astype(np.float32) * ((high - low) / 255)).astype(np.float32)


def _slice(path: Path) -> NDArray[Any]:
    """One slice (H, W) of a picture, or of an array that bears a picture's name. Raises CaseProblem."""
    try:
        raw = path.read_bytes()
        if raw.startswith(_NPY):
            array = np.load(io.BytesIO(raw), allow_pickle=False)
        elif raw.startswith(_PNG):
            array = _grey(raw)
        else:
            is_pickle = raw.startswith(_PICKLE)
            why = "a pickle, which is never read: save it as .npy" if is_pickle else "neither a PNG nor a NumPy array"
            raise CaseProblem(f"{path.name}: {why}")
    except OSError as error:
        raise CaseProblem(f"{path}: cannot be read ({error.strerror or 'damaged'})") from error
    except ValueError as error:
        raise CaseProblem(f"{path.name}: no plain array of numbers ({error})") from error
    plane: NDArray[Any] = np.squeeze(array)
    if plane.ndim != 2 or plane.dtype.kind not in "biuf":
        raise CaseProblem(f"{path.name}: one plane of numbers is needed, it has {array.dtype} {array.shape}")
    return plane


def _grey(raw: bytes) -> NDArray[Any]:
    try:
        with Image.open(io.BytesIO(raw)) as picture:
            return np.asarray(picture if picture.mode in ("1", "I", "I;16", "L") else picture.convert("L"))
    except UnidentifiedImageError as error:
        raise ValueError("a damaged picture") from error


def _axial_affine(spacing_mm: tuple[float, float, float]) -> Float64:
    affine = np.zeros((4, 4))
    affine[[2, 1, 0], [0, 1, 2]] = spacing_mm
    affine[3, 3] = 1.0
    return affine


def _natural_order(path: Path) -> tuple[tuple[int, str], ...]:
    """2.png before 10.png."""
    parts = re.findall(r"\d+|\D+", path.stem)
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in parts)
