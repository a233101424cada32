"""A lesion keeps its place from the scanner's grid through a case and back into a segmentation (models.md §11, 12)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread

from model.card import OutputSpec
from model.cases import read_case
from model.findings import find_lesions
from node.dataset import Imported, ImportWish, import_dataset
from node.dataset_pseudonyms import Pseudonyms
from node.dicom.context import Tracking
from node.dicom.seg import encode_seg
from node.dicom.seg_file import read_segmentation
from node.dicom.seg_place import place
from node.dicom.volume import SourceVolume, read_volume

OBLIQUE = (0.9961946980917455, 0.0, -0.08715574274765817, 0.02255001, 0.965925826, 0.25774786)
GRIDS: dict[str, dict[str, Any]] = {
    "anisotropic": {"spacing_mm": (5.0, 0.8, 1.1)},
    "thin slices": {"spacing_mm": (0.8, 1.5, 1.5)},
    "oblique": {"orientation": OBLIQUE, "spacing_mm": (3.0, 1.2, 0.9)},
    "flipped rows and columns": {"orientation": (-1, 0, 0, 0, -1, 0), "spacing_mm": (4.0, 1.0, 1.3)},
    "head first from below": {"orientation": (-1, 0, 0, 0, 1, 0), "spacing_mm": (4.0, 1.0, 1.3)},
    "coronal": {"orientation": (1, 0, 0, 0, 0, -1), "spacing_mm": (2.0, 1.0, 1.3)},
    "leaning gantry": {"spacing_mm": (4.0, 1.0, 1.3), "shear_mm": (0.0, 1.1, 0.0)},
}
DIAMETER_MM = 5.0


def sphere(source: SourceVolume, middle: Sequence[float]) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Voxels whose centres lie within the sphere around the place of index `middle`, and that place in mm."""
    affine = source.volume.affine_lps_mm
    centre = (affine @ (*middle, 1))[:3]
    indices = np.indices(source.volume.array_DHW.shape).reshape(3, -1).T.astype(float)
    apart_mm = np.linalg.norm(source.volume.to_lps_mm(indices) - centre, axis=1)
    return (apart_mm <= DIAMETER_MM / 2).reshape(source.volume.array_DHW.shape), centre


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("order", ["ascending", "shuffled"])
def test_a_sphere_of_5_mm_keeps_its_place(
    write_stack: Callable[..., Any],
    make_context: Callable[..., Any],
    tmp_path: Path,
    grid: str,
    order: str,
) -> None:
    shuffled = [5, 0, 3, 8, 1, 7, 2, 6, 4]
    stack = write_stack((9, 20, 24), file_order=shuffled if order == "shuffled" else None, **GRIDS[grid])
    source = read_volume(stack.role_input)
    sphere_DHW, centre = sphere(source, (3, 7, 14))
    first = encode(source, sphere_DHW, make_context, tmp_path / "first.dcm")
    (found,) = import_dataset([*stack.paths, first], tmp_path / "cases", ImportWish(Pseudonyms(None)))
    assert isinstance(found, Imported)
    (image,) = read_case(found.folder).images.values()

    indices = np.argwhere(image.labels["lesion"]).astype(float)
    places_mm = image.volume.to_lps_mm(indices)
    assert len(indices) == sphere_DHW.sum()
    assert np.linalg.norm(places_mm - centre, axis=1).max() <= DIAMETER_MM / 2 + 1e-3
    assert (np.abs(places_mm.mean(axis=0) - centre) <= max(image.volume.spacing_mm)).all()

    again = encode(source, image.labels["lesion"] > 0, make_context, tmp_path / "second.dcm")
    placed = place(read_segmentation(again), source, [1])
    np.testing.assert_array_equal(placed[1].whole(), sphere_DHW)


def encode(source: SourceVolume, mask_DHW: NDArray[np.bool_], make_context: Callable[..., Any], path: Path) -> Path:
    """Our own segmentation, as a radiologist would have looked it over."""
    mask, findings = find_lesions(mask_DHW.astype(np.float32), source.volume, OutputSpec())
    tracking = [Tracking(f"Lesion {item.number}", f"2.25.{item.number}") for item in findings]
    encode_seg(make_context(), source, mask, findings, tracking, path)
    dataset = dcmread(path)
    for segment in dataset.SegmentSequence:
        segment.SegmentAlgorithmType = "SEMIAUTOMATIC"
    dataset.save_as(path)
    return path


def test_of_an_enhanced_instance_the_frames_that_were_segmented_become_the_image(
    write_enhanced: Callable[..., Any], make_context: Callable[..., Any], tmp_path: Path
) -> None:
    stack = write_enhanced((9, 20, 24))
    source = read_volume(stack.role_input)
    sphere_DHW, _ = sphere(source, (3, 7, 14))
    seg = encode(source, sphere_DHW, make_context, tmp_path / "seg.dcm")
    (found,) = import_dataset([*stack.paths, seg], tmp_path / "cases", ImportWish(Pseudonyms(None)))
    assert isinstance(found, Imported)
    (image,) = read_case(found.folder).images.values()
    assert image.b_value_s_mm2 == 1000
    np.testing.assert_array_equal(image.volume.array_DHW, stack.array_DHW)
    np.testing.assert_array_equal(image.labels["lesion"], sphere_DHW)
