"""The manners of TCIA Colorectal-Liver-Metastases (models.md §6.1, acceptance test 13)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.cases import read_case
from model.phantom import Phantom
from tests.segmentations import Series, box, drawn, write_images, write_seg

ID = "CRLM-CT-1020"
SHAPE = (14, 48, 56)


@pytest.fixture
def series(phantom: Phantom, tmp_path: Path) -> Series:
    return write_images(tmp_path / "source" / "ct", phantom, patient_id=ID, order="shuffled")


def organ() -> np.ndarray:
    return box(SHAPE, (3, 11), (10, 40), (8, 44))


def segments(**tumors: np.ndarray) -> list:
    """As the collection has them: tumours in the liver, vessels, the remnant, in no order that means anything."""
    return [
        drawn("Hepatic", box(SHAPE, (4, 8), (20, 24), (30, 33))),
        *(drawn(label, mask_DHW) for label, mask_DHW in tumors.items()),
        drawn("Liver_Remnant", box(SHAPE, (3, 11), (10, 25), (8, 44))),
        drawn("Portal", box(SHAPE, (5, 9), (26, 30), (20, 24))),
        drawn("Liver", organ()),
    ]


def test_segments_are_known_by_their_labels_and_lie_where_they_were_drawn(
    series: Series, run_import: Callable[..., Any], tmp_path: Path
) -> None:
    one, two = box(SHAPE, (4, 6), (12, 17), (10, 16)), box(SHAPE, (7, 9), (30, 34), (30, 35))
    write_seg(tmp_path / "source/Segmentation-300/1-1.dcm", series, segments(TUMOR_2=two, Tumor_1=one))
    (found,), skipped = run_import(tmp_path / "source")
    case = read_case(found.folder)
    image = case.images["portal-venous"]
    assert not skipped
    assert (case.case, case.patient, case.collection) == (ID, ID, "Colorectal-Liver-Metastases")
    assert case.licence.startswith("CC BY 4.0")
    assert set(image.labels) == {"lesion", "liver", "liver-remnant", "portal-vein", "hepatic-vein"}
    np.testing.assert_array_equal(image.labels["lesion"], one * 1 + two * 2)
    np.testing.assert_array_equal(image.labels["liver"], organ())
    np.testing.assert_array_equal(image.volume.array_DHW, np.rint(series.volume.array_DHW))
    np.testing.assert_allclose(image.volume.affine_lps_mm, series.volume.affine_lps_mm, atol=1e-4)
    assert (image.modality, image.weighting, image.phase) == ("CT", "ct", "portal-venous")


def test_a_segmentation_with_fewer_slices_is_placed_by_position_and_the_rest_is_empty(
    series: Series, run_import: Callable[..., Any], tmp_path: Path
) -> None:
    tumor = box(SHAPE, (4, 6), (12, 17), (10, 16))
    path = tmp_path / "source/seg/1-1.dcm"
    write_seg(path, series, segments(Tumor_1=tumor), slices=slice(3, 11), omit_empty_frames=False)
    (found,), _ = run_import(tmp_path / "source")
    labels = read_case(found.folder).images["portal-venous"].labels
    np.testing.assert_array_equal(labels["lesion"], tumor)
    np.testing.assert_array_equal(labels["liver"], organ())


def test_of_overlapping_tumours_each_keeps_its_own_and_the_smaller_what_they_share(
    series: Series, run_import: Callable[..., Any], tmp_path: Path
) -> None:
    large, inside = box(SHAPE, (4, 8), (12, 24), (10, 24)), box(SHAPE, (5, 7), (14, 18), (12, 16))
    beside = box(SHAPE, (4, 8), (23, 30), (10, 14))
    masks = {"Tumor_1": inside, "Tumor_2": large, "Tumor_10": beside}
    write_seg(tmp_path / "source/seg/1-1.dcm", series, segments(**masks))
    (found,), _ = run_import(tmp_path / "source")
    lesion_DHW = read_case(found.folder).images["portal-venous"].labels["lesion"]
    np.testing.assert_array_equal(lesion_DHW == 1, inside)
    np.testing.assert_array_equal(lesion_DHW == 2, large & ~inside & ~beside)
    np.testing.assert_array_equal(lesion_DHW == 3, beside)
    shared = int((large & inside).sum() + (large & beside).sum())
    assert f"lesions overlap in {shared} voxels; each is counted to the smaller lesion" in found.remarks


def test_a_tumour_outside_the_drawn_liver_is_part_of_the_organ(
    series: Series, run_import: Callable[..., Any], tmp_path: Path
) -> None:
    tumor = box(SHAPE, (4, 6), (38, 44), (10, 16))
    write_seg(tmp_path / "source/seg/1-1.dcm", series, segments(Tumor_1=tumor))
    (found,), _ = run_import(tmp_path / "source")
    np.testing.assert_array_equal(read_case(found.folder).images["portal-venous"].labels["liver"], organ() | tumor)


def test_a_later_work_on_the_collection_is_not_taken_for_it(
    series: Series, run_import: Callable[..., Any], tmp_path: Path
) -> None:
    later = [drawn("Liver", organ(), by="AUTOMATIC"), drawn("Mass", box(SHAPE, (4, 6), (12, 17), (10, 16)))]
    write_seg(tmp_path / "source/seg/1-1.dcm", series, later)
    imported, (skipped,) = run_import(tmp_path / "source")
    assert not imported
    assert "no segment is the collection's lesion" in skipped.reason


def test_a_segmentation_of_other_images_at_another_place_is_refused(
    series: Series, run_import: Callable[..., Any], tmp_path: Path
) -> None:
    def lower(dataset: Any) -> None:
        for groups in dataset.PerFrameFunctionalGroupsSequence:
            x, y, z = groups.PlanePositionSequence[0].ImagePositionPatient
            groups.PlanePositionSequence[0].ImagePositionPatient = [x, y, float(z) - 60.0]

    tumor = box(SHAPE, (4, 6), (12, 17), (10, 16))
    write_seg(tmp_path / "source/seg/1-1.dcm", series, segments(Tumor_1=tumor), edit=lower)
    imported, (skipped,) = run_import(tmp_path / "source")
    assert not imported
    assert "of liver and lesions lie inside the images, 98% are asked for" in skipped.reason
