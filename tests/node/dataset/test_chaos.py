"""The CHAOS layout: pictures of labels beside DICOM images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from model.cases import read_case
from model.phantom import Phantom
from node.dataset import Imported, Skipped
from node.dataset_chaos import import_chaos
from tests.segmentations import Series, box, small_phantom, write_images

SHAPE = (14, 48, 56)
LIVER, KIDNEY = box(SHAPE, (3, 11), (10, 40), (8, 30)), box(SHAPE, (2, 6), (30, 40), (40, 50))


def write_pictures(folder: Path, grey_DHW: NDArray[np.uint8], series: Series) -> None:
    """One picture a slice, numbered in the order of the images' file names."""
    folder.mkdir(parents=True)
    by_name = sorted(range(len(series.paths)), key=lambda d: series.paths[d].name)
    for number, d in enumerate(by_name):
        Image.fromarray(grey_DHW[d]).save(folder / f"IMG-0002-{number:05}.png")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "Train_Sets"


@pytest.fixture
def ct(phantom: Phantom, source: Path) -> Series:
    series = write_images(source / "CT/1/DICOM_anon", phantom, order="descending")
    write_pictures(source / "CT/1/Ground", LIVER.astype(np.uint8) * 255, series)
    return series


def run(source: Path, out: Path) -> tuple[list[Imported], list[Skipped]]:
    answers = list(import_chaos([source], out))
    imported = [answer for answer in answers if isinstance(answer, Imported)]
    return imported, [answer for answer in answers if isinstance(answer, Skipped)]


def test_the_nth_picture_belongs_to_the_nth_file(ct: Series, source: Path, tmp_path: Path) -> None:
    (found,), skipped = run(source, tmp_path / "cases")
    case = read_case(found.folder)
    assert not skipped
    assert (case.case, case.collection) == ("CHAOS-CT-1", "CHAOS")
    assert "NC-SA" in case.licence
    assert list(case.images["portal-venous"].labels) == ["liver"]
    np.testing.assert_array_equal(case.images["portal-venous"].labels["liver"], LIVER)


def test_the_series_of_an_mr_patient_are_images_of_one_case(source: Path, tmp_path: Path) -> None:
    grey_DHW = (LIVER * 63 + KIDNEY * 126).astype(np.uint8)
    phantom = small_phantom(condition="pre-nact-t2wi")
    for name, place in (("T2SPIR", ""), ("T1DUAL", "InPhase"), ("T1DUAL", "OutPhase")):
        series = write_images(source / f"MR/7/{name}/DICOM_anon/{place}", phantom, extra={"SeriesDescription": place})
        if place != "OutPhase":
            write_pictures(source / f"MR/7/{name}/Ground", grey_DHW, series)
    (found,), skipped = run(source, tmp_path / "cases")
    case = read_case(found.folder)
    assert not skipped
    assert case.case == "CHAOS-MR-7"
    assert {name: image.weighting for name, image in case.images.items()} == {
        "t1-in-phase": "t1",
        "t1-out-phase": "t1",
        "t2-spir": "t2",
    }
    for image in case.images.values():
        assert set(image.labels) == {"liver", "right-kidney", "left-kidney", "spleen"}
        np.testing.assert_array_equal(image.labels["liver"], LIVER)
        np.testing.assert_array_equal(image.labels["right-kidney"], KIDNEY)
        assert not image.labels["spleen"].any()


def test_images_without_as_many_pictures_are_skipped(ct: Series, source: Path, tmp_path: Path) -> None:
    next((source / "CT/1/Ground").glob("*.png")).unlink()
    imported, (skipped,) = run(source, tmp_path / "cases")
    assert not imported
    assert skipped.reason == "14 images and 13 pictures of labels, which must be as many"


def test_a_picture_of_another_size_or_none_at_all_is_told(ct: Series, source: Path, tmp_path: Path) -> None:
    picture = next((source / "CT/1/Ground").glob("*.png"))
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(picture)
    assert "its image has another size" in run(source, tmp_path / "cases")[1][0].reason
    picture.write_bytes(b"no picture")
    assert "not a picture that can be read" in run(source, tmp_path / "cases")[1][0].reason


def test_a_folder_that_is_laid_out_otherwise_is_told(tmp_path: Path) -> None:
    imported, (skipped,) = run(tmp_path, tmp_path / "cases")
    assert not imported
    assert "not laid out as CHAOS is" in skipped.reason
