"""Segmentations as other people's software writes them, made by highdicom on series of the simulator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid

from model.phantom import Geometry, Phantom, make_phantom
from model.volume import Volume
from simulator.modality import read_truth, study_of, write_series

Mask = NDArray[np.bool_]
SMALL = Geometry(48, 56, 14, (7.0, 6.0), 10.0)
"""The whole abdomen in a few thousand voxels: rows and columns of different length, thick slices."""


@dataclass(frozen=True)
class Series:
    """A written series: `paths[d]` holds `volume.array_DHW[d]`; of several b-values those that a network reads."""

    paths: tuple[Path, ...]
    volume: Volume
    phantom: Phantom

    @property
    def headers(self) -> list[Dataset]:
        return [dcmread(path) for path in self.paths]


def small_phantom(seed: int = 7, condition: str = "ct-portal-venous") -> Phantom:
    """Two metastases in a liver; of diffusion three b-values."""
    return make_phantom(condition, seed, geometry=SMALL, lesion_count=2, b_values=(0, 50, 1000))


def write_images(
    folder: Path,
    phantom: Phantom,
    *,
    patient_id: str = "SITE-0815",
    array_DHW: NDArray[np.float32] | None = None,
    **plan: Any,
) -> Series:
    """A series of the phantom, with other values where an array is given; keywords are those of `write_series`."""
    if array_DHW is not None:
        changed = phantom.image.with_array(array_DHW.astype(np.float32))
        phantom = replace(phantom, volumes=dict.fromkeys(phantom.volumes, changed))
    identity = study_of(phantom.condition, phantom.seed).with_(patient_id=patient_id)
    paths = write_series(phantom, folder, study=identity, **{"dialect": "siemens"} | plan)
    path_of = {dcmread(path, stop_before_pixels=True).SOPInstanceUID: path for path in paths}
    return Series(tuple(path_of[uid] for uid in read_truth(folder).sop_instance_uids), phantom.image, phantom)


def drawn(
    label: str,
    mask_DHW: Mask,
    kind: Code = codes.SCT.Tissue,
    *,
    by: str = "SEMIAUTOMATIC",
    region: Code | None = None,
) -> tuple[str, Mask, Code, str, Code | None]:
    """A segment for `write_seg`."""
    return label, mask_DHW, kind, by, region


def write_seg(
    path: Path,
    series: Series,
    segments: Sequence[tuple[str, Mask, Code, str, Code | None]],
    *,
    kind: str = "BINARY",
    slices: slice = slice(None),
    edit: Callable[[Dataset], None] | None = None,
    **arguments: Any,
) -> Path:
    """A segmentation of some slices of the series. FRACTIONAL is given 0.6 inside and 0.4 in the ring around."""
    images = [dcmread(item) for item in series.paths[slices]]
    masks_DHWS = np.stack([mask_DHW[slices] for _, mask_DHW, *_ in segments], axis=-1)
    dataset = hd.seg.Segmentation(
        source_images=images,
        pixel_array=_pixels(masks_DHWS, kind),
        segmentation_type=kind,
        segment_descriptions=[_description(number, *each) for number, each in enumerate(segments, start=1)],
        series_instance_uid=generate_uid(),
        series_number=300,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="Another maker",
        manufacturer_model_name="Drawing board",
        software_versions="1",
        device_serial_number="1",
        **{"omit_empty_frames": True} | arguments,
    )
    if edit is not None:
        edit(dataset)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path)
    return path


def _pixels(masks_DHWS: Mask, kind: str) -> NDArray[Any]:
    if kind == "LABELMAP":
        return (masks_DHWS * np.arange(1, masks_DHWS.shape[-1] + 1)).max(axis=-1).astype(np.uint8)
    if kind == "FRACTIONAL":
        return np.where(masks_DHWS, 0.6, 0.4).astype(np.float32)
    return masks_DHWS.astype(np.uint8)


def _description(
    number: int, label: str, mask_DHW: Mask, kind: Code, by: str, region: Code | None
) -> hd.seg.SegmentDescription:
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=label,
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=kind,
        algorithm_type=by,
        algorithm_identification=None
        if by == "MANUAL"
        else hd.AlgorithmIdentificationSequence("Board", codes.DCM.ArtificialIntelligence, "1"),
        anatomic_regions=[region] if region else None,
    )


def box(shape_DHW: tuple[int, ...], *ranges: tuple[int, int]) -> Mask:
    """True in a box given by its (first, behind last) along each axis."""
    mask_DHW = np.zeros(shape_DHW, bool)
    mask_DHW[tuple(slice(*each) for each in ranges)] = True
    return mask_DHW


def sources_from(dataset: Dataset, instead: Mapping[str, str]) -> None:
    """Let frames name other instances than those that the segmentation was made from."""
    for groups in dataset.PerFrameFunctionalGroupsSequence:
        for derivation in groups.DerivationImageSequence:
            for item in derivation.SourceImageSequence:
                uid = str(item.ReferencedSOPInstanceUID)
                item.ReferencedSOPInstanceUID = instead.get(uid, uid)
