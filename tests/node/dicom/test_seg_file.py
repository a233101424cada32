"""A segmentation of any writer is read as its writer meant it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from node.dicom.seg_file import read_segmentation
from node.errors import UnreadableInstance
from tests.segmentations import Series, box, drawn, small_phantom, write_images, write_seg


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Series:
    return write_images(tmp_path_factory.mktemp("images"), small_phantom())


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_planes_of_every_kind_are_those_that_were_drawn(series: Series, tmp_path: Path, kind: str) -> None:
    shape = series.volume.array_DHW.shape
    one, two = box(shape, (2, 5), (3, 9), (4, 11)), box(shape, (4, 8), (20, 31), (7, 8))
    path = write_seg(tmp_path / "seg.dcm", series, [drawn("one", one), drawn("two", two)], kind=kind)
    seg = read_segmentation(path)
    found = {1: np.zeros(shape, bool), 2: np.zeros(shape, bool)}
    heights = [image.ImagePositionPatient[2] for image in series.headers]
    for frame, number, plane_HW in seg.planes([1, 2]):
        found[number][heights.index(frame.position_lps_mm[2])] = plane_HW
    np.testing.assert_array_equal(found[1], one)
    np.testing.assert_array_equal(found[2], two)
    assert seg.kind == kind
    assert [segment.label for segment in seg.segments] == ["one", "two"]


def test_only_wanted_segments_are_decoded(series: Series, tmp_path: Path) -> None:
    mask_DHW = box(series.volume.array_DHW.shape, (2, 5), (3, 9), (4, 11))
    path = write_seg(tmp_path / "seg.dcm", series, [drawn("one", mask_DHW), drawn("two", mask_DHW)])
    assert {number for _, number, _ in read_segmentation(path).planes([2])} == {2}
    assert not list(read_segmentation(path).planes([]))


def test_a_segment_says_what_it_is_where_and_who_made_it(series: Series, tmp_path: Path) -> None:
    mask_DHW = box(series.volume.array_DHW.shape, (2, 5), (3, 9), (4, 11))
    segments = [
        drawn("Tumor_1", mask_DHW, codes.SCT.Mass, by="AUTOMATIC", region=codes.SCT.Liver),
        drawn("Liver", mask_DHW, codes.SCT.Liver, by="MANUAL"),
    ]
    seg = read_segmentation(write_seg(tmp_path / "seg.dcm", series, segments))
    assert seg.segments[0].kind == codes.SCT.Mass
    assert seg.segments[0].region == codes.SCT.Liver
    assert [segment.is_automatic for segment in seg.segments] == [True, False]
    assert seg.series_uids == (series.headers[0].SeriesInstanceUID,)
    assert seg.sources == {(image.SOPInstanceUID, None) for image in series.headers[2:5]}


def test_older_codes_mean_what_they_mean_today(shared_data: Path) -> None:
    (liver,) = read_segmentation(shared_data / "seg-sr/dcmqi-liver/liver.dcm").segments
    assert liver.kind is not None
    assert liver.kind.scheme_designator == "SRT"
    assert liver.kind == codes.SCT.Liver


@pytest.mark.parametrize(
    ("name", "truth", "numbers"),
    [
        ("dcmqi-liver/liver.dcm", "dcmqi-liver/liver_seg.nrrd", [1]),
        ("dcmqi-phantoms/label.seg", "dcmqi-phantoms/label.nrrd", [1]),
        ("dcmqi-phantoms/seg__label.seg", "dcmqi-phantoms/nrrd__label.nrrd", [1]),
        ("dcmqi-phantoms/sparse-labelmap-noppv.dcm", None, [1]),
        ("dcmqi-phantoms/sparse-labelmap-ppv5.dcm", None, [1]),
        ("highdicom/seg_image_ct_binary_overlap.dcm", None, [1, 2]),
        ("highdicom/seg_image_ct_true_fractional.dcm", None, [1]),
        ("dcmjs/tumor_User1_Manual_Trial1.dcm", None, [1, 2]),
    ],
)
def test_files_of_other_writers_are_read(shared_data: Path, name: str, truth: str | None, numbers: list[int]) -> None:
    seg = read_segmentation(shared_data / "seg-sr" / name)
    planes = list(seg.planes(numbers))
    assert [segment.number for segment in seg.segments] == numbers
    assert {number for _, number, _ in planes} == set(numbers)
    if truth is not None:
        told = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(shared_data / "seg-sr" / truth))
        assert sum(int(plane_HW.sum()) for *_, plane_HW in planes) == int((told > 0).sum())


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda ds: ds.pop("SegmentationType"), "no segmentation of type BINARY, FRACTIONAL, LABELMAP"),
        (lambda ds: ds.pop("PerFrameFunctionalGroupsSequence"), "not a segmentation that can be read"),
        (lambda ds: ds.PerFrameFunctionalGroupsSequence[0].pop("PlanePositionSequence"), "ValueError"),
        (lambda ds: ds.SegmentSequence[0].pop("SegmentNumber"), "AttributeError"),
    ],
)
def test_what_is_no_segmentation_is_refused(series: Series, tmp_path: Path, edit: object, reason: str) -> None:
    mask_DHW = box(series.volume.array_DHW.shape, (2, 5), (3, 9), (4, 11))
    path = write_seg(tmp_path / "seg.dcm", series, [drawn("one", mask_DHW)], edit=edit)  # type: ignore[arg-type]  # parametrized
    with pytest.raises(UnreadableInstance, match=rf"seg\.dcm: .*{reason}"):
        read_segmentation(path)


def test_an_image_is_no_segmentation(series: Series) -> None:
    with pytest.raises(UnreadableInstance, match="no segmentation of type"):
        read_segmentation(series.paths[0])


def test_truncated_pixels_are_told(series: Series, tmp_path: Path) -> None:
    def cut(dataset: Dataset) -> None:
        dataset.PixelData = dataset.PixelData[:8]

    mask_DHW = box(series.volume.array_DHW.shape, (2, 5), (3, 9), (4, 11))
    seg = read_segmentation(write_seg(tmp_path / "seg.dcm", series, [drawn("one", mask_DHW)], edit=cut))
    with pytest.raises(UnreadableInstance, match="cannot be decoded"):
        list(seg.planes([1]))


def test_the_frame_order_of_the_file_does_not_matter(series: Series, tmp_path: Path) -> None:
    mask_DHW = box(series.volume.array_DHW.shape, (2, 5), (3, 9), (4, 11))
    path = write_seg(tmp_path / "seg.dcm", series, [drawn("one", mask_DHW)])
    positions = [
        groups.PlanePositionSequence[0].ImagePositionPatient
        for groups in dcmread(path).PerFrameFunctionalGroupsSequence
    ]
    seg = read_segmentation(path)
    assert [frame.position_lps_mm for frame in seg.frames] == [tuple(map(float, xyz)) for xyz in positions]
