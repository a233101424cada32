"""The CHAOS challenge's layout → case folders: DICOM images beside one picture of labels for each slice.

`CT/<n>/DICOM_anon/*.dcm` with `CT/<n>/Ground/*.png`, and `MR/<n>/{T1DUAL,T2SPIR}/DICOM_anon` with `…/Ground`, T1DUAL
holding `InPhase` and `OutPhase`. The pictures name no instance: the n-th by name belongs to the n-th file by name.
Grey levels are organs, each a range around the level that the challenge gives. The livers are healthy, so no case has
a `lesion` label: absent means not annotated.

Source: Kavur et al., CHAOS Challenge, Med Image Anal 2021;69:101950; data doi:10.5281/zenodo.3362844.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from model.cases import Case, CaseImage, write_case
from model.volume import Labels
from node.dataset import Imported, Skipped, describe, named_apart
from node.dataset_conventions import LIVER, PORTAL_VENOUS
from node.dataset_index import read_headers
from node.dataset_pseudonyms import plain_name
from node.dataset_series import NamedImage
from node.dicom.volume import SourceVolume, read_volume
from node.errors import GeometryError, NodeError, UnreadableInstance
from node.evidence import read_series
from node.inputs import role_input
from node.survey import dicom_files

COLLECTION = "CHAOS"
LICENCE = "CC BY-NC-SA 4.0, doi:10.5281/zenodo.3362844"
GROUND, IMAGES = "Ground", "DICOM_anon"
LEVELS: Mapping[str, Mapping[str, tuple[int, int]]] = {
    "MR": {LIVER: (56, 69), "right-kidney": (111, 134), "left-kidney": (176, 199), "spleen": (241, 255)},
    "CT": {LIVER: (128, 255)},
}
"""Grey levels of each organ, both ends included; MR pictures have 63, 126, 189 and 252 in their middles."""
SHOWN: Mapping[str, tuple[str, str, str | None]] = {
    "InPhase": ("t1-in-phase", "t1", None),
    "OutPhase": ("t1-out-phase", "t1", None),
    "T2SPIR": ("t2-spir", "t2", None),
    "CT": ("portal-venous", "ct", PORTAL_VENOUS),
}
"""Folder → name of the image, its weighting, its phase."""


def import_chaos(
    sources: Sequence[Path],
    out: Path,
    heard: Callable[[str, int, int], None] = lambda phase, done, of: None,
) -> Iterator[Imported | Skipped]:
    """One answer for each patient, and one for each series that gave nothing."""
    patients: dict[str, list[Path]] = {}
    for ground in sorted({found for source in sources for found in source.rglob(GROUND) if found.is_dir()}):
        patients.setdefault(_case_name(ground), []).append(ground)
    if not patients:
        yield from (Skipped(str(source), f"no folder {GROUND} there: not laid out as CHAOS is") for source in sources)
    for done, (name, grounds) in enumerate(patients.items()):
        heard("writing cases", done, len(patients))
        images: list[NamedImage] = []
        for folder, labels in ((folder, each) for each in grounds for folder in _image_folders(each)):
            try:
                images.append(_image(folder, labels))
            except NodeError as error:
                yield Skipped(str(folder), str(error))
        if images:
            case = Case(name, name, COLLECTION, LICENCE, named_apart(images), ("healthy liver: lesions not annotated",))
            yield describe(case, write_case(out, case), str(grounds[0].parent))
    heard("writing cases", len(patients), len(patients))


def _case_name(ground: Path) -> str:
    """CHAOS numbers its CT and MR patients apart: CHAOS-MR-1 and CHAOS-CT-1 are two people."""
    is_mr = ground.parent.name in ("T1DUAL", "T2SPIR")
    return f"CHAOS-MR-{plain_name(ground.parts[-3])}" if is_mr else f"CHAOS-CT-{plain_name(ground.parts[-2])}"


def _image_folders(ground: Path) -> tuple[Path, ...]:
    folder = ground.parent / IMAGES
    parts = tuple(folder / name for name in ("InPhase", "OutPhase") if (folder / name).is_dir())
    return parts or (folder,)


def _image(folder: Path, ground: Path) -> NamedImage:
    """Raises NodeError where images and pictures do not belong together."""
    files = sorted(dicom_files([folder])) if folder.is_dir() else []
    pictures = sorted(ground.glob("*.png"))
    if not files or len(files) != len(pictures):
        raise GeometryError(f"{len(files)} images and {len(pictures)} pictures of labels, which must be as many")
    headers = read_headers(files)
    volumes = [item for item in read_series(headers).volumes if item.geometry.slices == len(files)]
    if len(volumes) != 1 or volumes[0].geometry.fault:
        raise GeometryError((volumes[0].geometry.fault if volumes else None) or "the images form several volumes")
    source = read_volume(role_input(volumes[0], headers))
    key = folder.name if folder.name in SHOWN else ground.parent.name
    name, weighting, phase = SHOWN[key if key in SHOWN else "CT"]
    image = CaseImage(source.volume, {}, source.modality, weighting, phase)
    return NamedImage(name, replace(image, labels=_labels(source, dict(zip(files, pictures, strict=True)))))


def _labels(source: SourceVolume, picture_of: Mapping[Path, Path]) -> dict[str, Labels]:
    levels = LEVELS[source.modality]
    labels: dict[str, Labels] = {role: np.zeros(source.volume.array_DHW.shape, np.uint16) for role in levels}
    for d, item in enumerate(source.slices):
        grey_HW = _grey(picture_of[item.path])
        if grey_HW.shape != source.volume.array_DHW.shape[1:]:
            raise GeometryError(f"{picture_of[item.path].name}: {grey_HW.shape}, its image has another size")
        for role, (low, high) in levels.items():
            labels[role][d] = (grey_HW >= low) & (grey_HW <= high)
    return labels


def _grey(path: Path) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("L"))
    except (UnidentifiedImageError, OSError) as error:
        raise UnreadableInstance(f"{path.name}: not a picture that can be read") from error
