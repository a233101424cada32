"""What seems to be missing from a series, on signs that a complete series does not give."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from node.assembly_completeness import missing_from
from node.dicom.header import read_header
from node.errors import UnreadableInstance
from tests.receiving import ct_slice


def headers(datasets: Iterable[Dataset]) -> Mapping[Path, Dataset]:
    return {Path(f"{number}.dcm"): dataset for number, dataset in enumerate(datasets)}


def axial(places_mm: Iterable[float], **attributes: Any) -> list[Dataset]:
    return [
        ct_slice("1.2", "1.3", number, **{"ImagePositionPatient": [0.0, 0.0, place], **attributes})
        for number, place in enumerate(places_mm, start=1)
    ]


def test_an_even_stack_misses_nothing() -> None:
    assert missing_from(headers(axial(range(-200, 0, 5)))) is None


@pytest.mark.parametrize(
    ("missing", "told"),
    [
        ((10,), "gap of 1 slice between −155 and −145 mm"),
        ((10, 11, 12), "gap of 3 slices between −155 and −135 mm"),
        ((1,), "gap of 1 slice between −200 and −190 mm"),
    ],
)
def test_a_hole_in_an_even_stack_is_a_gap(missing: tuple[int, ...], told: str) -> None:
    places = [place for index, place in enumerate(range(-200, 0, 5)) if index not in missing]
    assert missing_from(headers(axial(places))) == told


def test_the_order_of_files_does_not_matter() -> None:
    datasets = axial([0, 5, 10, 15, 20, 30, 35, 40])
    assert missing_from(headers(datasets)) == missing_from(headers(reversed(datasets))) is not None


def test_an_oblique_stack_is_measured_along_its_own_normal() -> None:
    slanted = [0.8, 0.0, -0.6, 0.0, 1.0, 0.0]  # its normal is (0.6, 0, 0.8)
    steps = [step for step in range(12) if step != 6]
    datasets = [
        ct_slice("1.2", "1.3", step, ImageOrientationPatient=slanted, ImagePositionPatient=[2.4 * step, 0, 3.2 * step])
        for step in steps
    ]
    assert missing_from(headers(datasets)) == "gap of 1 slice between 20 and 28 mm"


@pytest.mark.parametrize(
    "places",
    [
        [0, 50, 200],
        [0, 3, 10, 12, 20, 33, 34, 50],
        [0, 5, 10, 15, 20, 27, 32, 37, 42, 47],
    ],
    ids=["a localizer", "no usual step", "a step that is no multiple"],
)
def test_what_has_no_even_step_has_no_gap(places: list[float]) -> None:
    assert missing_from(headers(axial(places))) is None


def test_slices_without_a_position_tell_nothing() -> None:
    assert missing_from(headers(axial(range(8), ImagePositionPatient=None))) is None


def test_an_announced_count_is_believed() -> None:
    datasets = axial(range(0, 185, 5), NumberOfSeriesRelatedInstances=40)
    assert missing_from(headers(datasets)) == "3 of 40 announced instances missing"
    assert missing_from(headers(axial(range(0, 200, 5), NumberOfSeriesRelatedInstances=40))) is None


def test_the_count_of_an_acquisition_is_believed_with_a_hole_before_its_last_number() -> None:
    datasets = axial(range(8), ImagePositionPatient=None, ImagesInAcquisition=10)
    for dataset, number in zip(datasets, (1, 2, 3, 5, 6, 8, 9, 10), strict=True):
        dataset.InstanceNumber = number
    assert missing_from(headers(datasets)) == "2 of 10 numbered images missing"


def test_the_count_of_an_acquisition_alone_is_not() -> None:
    # a second reconstruction of fewer slices: complete, numbered from 1, and smaller than its acquisition
    assert missing_from(headers(axial(range(0, 40, 5), ImagesInAcquisition=200))) is None


def diffusion(counts: Mapping[float, int]) -> list[Dataset]:
    mr = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.4", "Modality": "MR"}
    return [
        dataset for b, count in counts.items() for dataset in axial(range(0, 5 * count, 5), DiffusionBValue=b, **mr)
    ]


def test_a_volume_shorter_than_its_siblings_at_other_b_values_misses_slices() -> None:
    assert missing_from(headers(diffusion({0: 30, 500: 30, 1000: 28}))) == "2 of 30 slices missing at b = 1000 s/mm²"


def test_volumes_of_one_length_miss_nothing() -> None:
    assert missing_from(headers(diffusion({0: 30, 500: 30, 1000: 30}))) is None


def test_a_much_shorter_volume_is_another_kind_of_volume() -> None:
    assert missing_from(headers(diffusion({0: 5, 1000: 30}))) is None


def test_the_real_series_with_a_slice_removed_is_suspected(shared_data: Path) -> None:
    folder = shared_data / "malformed" / "series-missing-slice"
    told = missing_from({path: read_header(path) for path in folder.iterdir()})
    assert told is not None
    assert told.startswith("gap of 1 slice between ")


def test_no_other_real_series_is_suspected(shared_data: Path) -> None:
    series: dict[str, dict[Path, Dataset]] = {}
    for folder in ("ct-liver", "mr-liver", "mr-body", "mr-vendor-dwi", "seg-sr", "negatives"):
        for path in sorted((shared_data / folder).rglob("*")):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    header = read_header(path) if path.is_file() else None
                except UnreadableInstance:
                    continue
            if header is not None:
                series.setdefault(str(header.SeriesInstanceUID), {})[path] = header
    assert len(series) > 40
    assert {uid: told for uid, found in series.items() if (told := missing_from(found))} == {}
