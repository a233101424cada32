"""A series becomes a volume in its place, or is refused with a sentence that says why."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless, SecondaryCaptureImageStorage, generate_uid

from node.dicom.header import read_header
from node.dicom.volume import read_volume
from node.domain import InstanceRef, RoleInput
from node.errors import GeometryError, NodeError, UnreadableInstance

OBLIQUE = (0.9961947, 0.0, -0.08715574, 0.02255, 0.96592583, 0.25783)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)


def orthonormal(orientation: tuple[float, ...]) -> tuple[float, ...]:
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    row = row / np.linalg.norm(row)
    column = column - row * (row @ column)
    return tuple(round(float(part), 12) for part in (*row, *(column / np.linalg.norm(column))))


ORDERS = {
    "ascending": list(range(7)),
    "descending": list(reversed(range(7))),
    "shuffled": random.Random(4).sample(range(7), 7),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("orientation", [(1, 0, 0, 0, 1, 0), CORONAL, orthonormal(OBLIQUE)])
def test_slices_lie_along_the_normal_whatever_the_order_of_the_files(
    write_stack: Callable[..., Any], order: str, orientation: tuple[float, ...]
) -> None:
    stack = write_stack(orientation=orientation, file_order=ORDERS[order])
    source = read_volume(stack.role_input)
    np.testing.assert_array_equal(source.volume.array_DHW, stack.array_DHW)
    np.testing.assert_allclose(source.volume.affine_lps_mm, stack.affine_lps_mm, atol=1e-6)


def test_each_slice_names_the_instance_that_holds_it(write_stack: Callable[..., Any]) -> None:
    stack = write_stack(file_order=ORDERS["shuffled"])
    source = read_volume(stack.role_input)
    for reference, values_HW in zip(source.slices, source.volume.array_DHW, strict=True):
        dataset = dcmread(reference.path)
        assert dataset.SOPInstanceUID == reference.sop_instance_uid
        assert reference.frame is None
        np.testing.assert_array_equal(dataset.pixel_array - 1024, values_HW)


def with_frames(role_input: RoleInput, frames: tuple[int, ...]) -> RoleInput:
    """The same only instance, other frames of it."""
    (instance,) = role_input.instances
    return replace(role_input, instances=(replace(instance, frames=frames),))


def test_of_an_enhanced_instance_only_the_chosen_frames_are_read(write_enhanced: Callable[..., Any]) -> None:
    stack = write_enhanced()
    source = read_volume(stack.role_input)
    np.testing.assert_array_equal(source.volume.array_DHW, stack.array_DHW)
    np.testing.assert_allclose(source.volume.affine_lps_mm, stack.affine_lps_mm, atol=1e-9)
    assert [item.frame for item in source.slices] == list(stack.role_input.instances[0].frames)


def test_an_enhanced_instance_whose_b_values_were_not_told_apart_is_refused(write_enhanced: Callable[..., Any]) -> None:
    role_input = with_frames(write_enhanced().role_input, ())
    with pytest.raises(GeometryError, match="12 slices share their position with another"):
        read_volume(role_input)


def test_a_volume_may_lie_in_two_enhanced_instances_with_other_frames_of_each(
    write_enhanced: Callable[..., Any], tmp_path: Path
) -> None:
    stack = write_enhanced()
    (whole,) = stack.role_input.instances
    copy = dcmread(whole.path)
    copy.SOPInstanceUID = copy.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    copy.save_as(tmp_path / "second.dcm")
    second = replace(whole, sop_instance_uid=str(copy.SOPInstanceUID), path=tmp_path / "second.dcm")
    halves = (replace(whole, frames=whole.frames[:2]), replace(second, frames=whole.frames[2:]))
    source = read_volume(replace(stack.role_input, instances=halves))
    np.testing.assert_array_equal(source.volume.array_DHW, stack.array_DHW)
    assert [item.sop_instance_uid for item in source.slices[1:3]] == [whole.sop_instance_uid, second.sop_instance_uid]


def test_a_frame_that_does_not_exist_is_refused(write_enhanced: Callable[..., Any]) -> None:
    with pytest.raises(GeometryError, match="frame 99 was chosen of an instance with 18"):
        read_volume(with_frames(write_enhanced().role_input, (1, 2, 99)))


def test_rescaling_is_applied_slice_by_slice(write_stack: Callable[..., Any]) -> None:
    def edit(dataset: Dataset, d: int) -> None:
        dataset.RescaleSlope, dataset.RescaleIntercept = d + 1, -d

    stack = write_stack(modality="MR", edit=edit)
    d_DHW = np.arange(7, dtype=np.float32)[:, None, None]
    np.testing.assert_allclose(read_volume(stack.role_input).volume.array_DHW, stack.array_DHW * (d_DHW + 1) - d_DHW)


def test_unsigned_values_above_the_signed_range_stay_positive(write_stack: Callable[..., Any]) -> None:
    def edit(dataset: Dataset, _: int) -> None:
        dataset.PixelRepresentation = 0
        dataset.PixelData = np.full((20, 24), 60000, np.uint16).tobytes()

    stack = write_stack(modality="MR", edit=edit)
    assert (read_volume(stack.role_input).volume.array_DHW == 60000).all()


def test_unused_high_bits_are_cleared(write_stack: Callable[..., Any]) -> None:
    def edit(dataset: Dataset, _: int) -> None:
        dataset.PixelRepresentation, dataset.BitsStored, dataset.HighBit = 0, 12, 11
        dataset.PixelData = np.full((20, 24), 0xF00A, np.uint16).tobytes()

    stack = write_stack(modality="MR", edit=edit)
    assert (read_volume(stack.role_input).volume.array_DHW == 10).all()


@pytest.mark.parametrize(("padding", "vr"), [(-2000, "SS"), (63536, "US")])
def test_padding_becomes_the_lowest_real_value(write_stack: Callable[..., Any], padding: int, vr: str) -> None:
    def edit(dataset: Dataset, _: int) -> None:
        dataset.add_new("PixelPaddingValue", vr, padding)
        stored = np.frombuffer(dataset.PixelData, np.int16).reshape(20, 24).copy()
        stored[:, :3] = -2000
        dataset.PixelData = stored.tobytes()

    array_DHW = read_volume(write_stack(edit=edit).role_input).volume.array_DHW
    assert (array_DHW[:, :, :3] == array_DHW[:, :, 3:].min()).all()


def test_a_padding_range_is_padding_as_a_whole(write_stack: Callable[..., Any]) -> None:
    def edit(dataset: Dataset, _: int) -> None:
        dataset.add_new("PixelPaddingValue", "SS", -2000)
        dataset.add_new("PixelPaddingRangeLimit", "SS", -1500)
        stored = np.frombuffer(dataset.PixelData, np.int16).reshape(20, 24).copy()
        stored[0, :2] = (-2000, -1600)
        dataset.PixelData = stored.tobytes()

    assert read_volume(write_stack(edit=edit).role_input).volume.array_DHW.min() >= -1024


def test_inverted_mr_is_turned_so_that_bright_is_high(write_stack: Callable[..., Any]) -> None:
    def edit(dataset: Dataset, _: int) -> None:
        dataset.PhotometricInterpretation = "MONOCHROME1"

    stack = write_stack(modality="MR", edit=edit)
    turned = stack.array_DHW.max() + stack.array_DHW.min() - stack.array_DHW
    np.testing.assert_array_equal(read_volume(stack.role_input).volume.array_DHW, turned)


def test_hounsfield_units_stay_what_they_are_under_an_inverted_display(write_stack: Callable[..., Any]) -> None:
    def edit(dataset: Dataset, _: int) -> None:
        dataset.PhotometricInterpretation = "MONOCHROME1"

    stack = write_stack(edit=edit)
    np.testing.assert_array_equal(read_volume(stack.role_input).volume.array_DHW, stack.array_DHW)


def test_a_compressed_series_gives_the_same_volume(write_stack: Callable[..., Any]) -> None:
    def edit(dataset: Dataset, d: int) -> None:
        if d % 2:
            dataset.compress(RLELossless, generate_instance_uid=False)

    stack = write_stack(edit=edit)
    np.testing.assert_array_equal(read_volume(stack.role_input).volume.array_DHW, stack.array_DHW)


def test_a_tilted_gantry_is_a_sheared_affine(write_stack: Callable[..., Any]) -> None:
    stack = write_stack(shear_mm=(0.0, 1.8, 0.0))
    source = read_volume(stack.role_input)
    np.testing.assert_allclose(source.volume.affine_lps_mm, stack.affine_lps_mm, atol=1e-6)
    assert source.volume.voxel_ml == pytest.approx(5.0 * 1.5 * 1.25 / 1000)


def test_table_positions_rounded_to_a_tenth_of_a_millimetre_are_accepted(write_stack: Callable[..., Any]) -> None:
    def edit(dataset: Dataset, d: int) -> None:
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x, y, round(float(z) + (0.04, -0.04)[d % 2], 1)]

    stack = write_stack(spacing_mm=(1.25, 1, 1), edit=edit)
    assert read_volume(stack.role_input).volume.spacing_mm[0] == pytest.approx(1.25, abs=0.02)


def _shift(mm: float, at: int, axis: int = 2) -> Callable[[Dataset, int], None]:
    def edit(dataset: Dataset, d: int) -> None:
        if d >= at:
            position = [float(part) for part in dataset.ImagePositionPatient]
            position[axis] += mm
            dataset.ImagePositionPatient = position

    return edit


def _only(d_changed: int, **values: Any) -> Callable[[Dataset, int], None]:
    def edit(dataset: Dataset, d: int) -> None:
        if d == d_changed:
            for keyword, value in values.items():
                setattr(dataset, keyword, value)

    return edit


def _without(keyword: str) -> Callable[[Dataset, int], None]:
    def edit(dataset: Dataset, d: int) -> None:
        if d == 2:
            delattr(dataset, keyword)

    return edit


BAD_GEOMETRY = {
    "gap": (_shift(5.0, at=4), "a gap of 10.00 mm after slice 4 where slices are 5.00 mm apart: 1 missing"),
    "long gap": (_shift(15.0, at=4), "a gap of 20.00 mm after slice 4 where slices are 5.00 mm apart: 3 missing"),
    "uneven": (_shift(1.0, at=4), "the spacing of slices is uneven: 5.00 to 6.00 mm"),
    "bent stack": (_shift(2.0, at=4, axis=0), "the slices do not lie on one straight line"),
    "repeated": (_shift(-5.0, at=4), "1 slices share their position with another"),
    "two orientations": (_only(3, ImageOrientationPatient=list(CORONAL)), "not parallel: 2 orientations in one series"),
    "slightly turned": (
        _only(3, ImageOrientationPatient=[0.9998, 0.02, 0, -0.02, 0.9998, 0]),
        "the slices are not parallel",
    ),
    "no unit vectors": (
        lambda dataset, d: setattr(dataset, "ImageOrientationPatient", [1, 0, 0, 0.2, 1, 0]),
        "not a pair of perpendicular unit vectors",
    ),
    "other spacing": (_only(3, PixelSpacing=[1.6, 1.25]), "Pixel Spacing varies between 1.250 and 1.600 mm"),
    "zero spacing": (_only(3, PixelSpacing=[0, 1.25]), "1 of 7 slices lack a valid Pixel Spacing"),
    "other frame of reference": (_only(3, FrameOfReferenceUID="1.2.3"), "2 frames of reference"),
    "other series": (_only(3, SeriesInstanceUID="1.2.3"), "the slices come from 2 series"),
    "other study": (_only(3, StudyInstanceUID="1.2.3"), "the slices come from 2 studies"),
    "no position": (_without("ImagePositionPatient"), r"1 of 7 slices lack a valid Image Position \(Patient\)"),
    "no orientation": (_without("ImageOrientationPatient"), "1 of 7 slices lack a valid Image Orientation"),
    "no spacing": (_without("PixelSpacing"), "1 of 7 slices lack a valid Pixel Spacing"),
    "position of two numbers": (_only(3, ImagePositionPatient=[1, 2]), "1 of 7 slices lack a valid Image Position"),
    "no frame of reference": (
        lambda dataset, d: delattr(dataset, "FrameOfReferenceUID"),
        "7 of 7 slices lack a valid Frame of Reference UID",
    ),
}


@pytest.mark.parametrize("case", BAD_GEOMETRY)
def test_slices_that_form_no_volume_are_refused_with_one_sentence(write_stack: Callable[..., Any], case: str) -> None:
    edit, reason = BAD_GEOMETRY[case]
    with pytest.raises(GeometryError, match=reason) as caught:
        read_volume(write_stack(edit=edit).role_input)
    assert "\n" not in str(caught.value)
    assert "Phantom" not in str(caught.value)


def test_a_stack_that_leans_more_than_any_gantry_is_refused(write_stack: Callable[..., Any]) -> None:
    with pytest.raises(GeometryError, match="leans by 50°"):
        read_volume(write_stack(shear_mm=(0.0, 6.0, 0.0)).role_input)


def test_two_slices_are_too_few(write_stack: Callable[..., Any]) -> None:
    with pytest.raises(GeometryError, match="2 slices are too few"):
        read_volume(write_stack(shape=(2, 20, 24)).role_input)


def test_frames_without_a_place_are_refused(write_stack: Callable[..., Any]) -> None:
    def edit(dataset: Dataset, _: int) -> None:
        dataset.NumberOfFrames, dataset.PixelData = 2, dataset.PixelData * 2

    with pytest.raises(GeometryError, match="does not say where its frames lie"):
        read_volume(write_stack(edit=edit).role_input)


def test_slices_of_another_size_are_refused(write_stack: Callable[..., Any]) -> None:
    def edit(dataset: Dataset, d: int) -> None:
        if d == 3:
            dataset.Rows, dataset.PixelData = 10, dataset.PixelData[: 10 * 24 * 2]

    with pytest.raises(GeometryError, match="differ in size: 10×24, 20×24"):
        read_volume(write_stack(edit=edit).role_input)


UNREADABLE = {
    "truncated": (_only(3, PixelData=b"\0" * 100), "truncated, damaged or not supported"),
    "colour": (
        _only(3, SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0, BitsAllocated=8),
        "a colour image",
    ),
    "without pixels": (_without("PixelData"), "it has no pixel data"),
    "no HU": (_without("RescaleIntercept"), "without rescale slope and intercept"),
    "zero slope": (_only(3, RescaleSlope=0), "Rescale Slope is 0"),
    "mixed display": (_only(3, PhotometricInterpretation="MONOCHROME1"), "Photometric Interpretation"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_a_slice_without_usable_values_is_named_with_the_reason(write_stack: Callable[..., Any], case: str) -> None:
    edit, reason = UNREADABLE[case]
    with pytest.raises(UnreadableInstance, match=reason):
        read_volume(write_stack(edit=edit).role_input)


def test_what_is_no_ct_or_mr_is_refused(write_stack: Callable[..., Any]) -> None:
    def edit(dataset: Dataset, _: int) -> None:
        dataset.SOPClassUID = SecondaryCaptureImageStorage

    with pytest.raises(UnreadableInstance, match="no CT or MR image, Secondary Capture"):
        read_volume(write_stack(edit=edit).role_input)


def test_a_file_that_holds_another_instance_is_refused(write_stack: Callable[..., Any]) -> None:
    first, *others = (stack := write_stack()).role_input.instances
    wrong = replace(stack.role_input, instances=(replace(first, sop_instance_uid=generate_uid()), *others))
    with pytest.raises(UnreadableInstance, match="it holds another instance"):
        read_volume(wrong)


def test_every_real_series_is_read_or_refused_with_a_reason(shared_data: Path) -> None:
    series: dict[tuple[Path, str], list[InstanceRef]] = defaultdict(list)
    for path in sorted(shared_data.rglob("*")):
        if path.is_file():
            try:
                header = read_header(path)
            except UnreadableInstance:
                continue
            series[path.parent, str(header.SeriesInstanceUID)].append(
                InstanceRef(str(header.SOPInstanceUID), str(header.SOPClassUID), path, "")
            )
    readable = set()
    for (folder, uid), instances in series.items():
        try:
            source = read_volume(RoleInput(uid, tuple(instances)))
        except NodeError:
            continue
        assert len(source.slices) == source.volume.array_DHW.shape[0]
        assert np.isfinite(source.volume.array_DHW).all()
        readable.add(folder.name)
    assert {"crlm-ct-1004", "cmbcrc-toshiba-scan1-t2", "cmbcrc-toshiba-scan1-adc", "t2-tra"} <= readable
    assert not {"series-missing-slice", "siemens-localizer", "dwi-b50-400-800"} & readable


def test_a_real_ct_is_read_in_hounsfield_units(shared_data: Path) -> None:
    paths = sorted((shared_data / "ct-liver/crlm-ct-1004").glob("*.dcm"))
    headers = [read_header(path) for path in paths]
    refs = [InstanceRef(str(h.SOPInstanceUID), str(h.SOPClassUID), p, "") for h, p in zip(headers, paths, strict=True)]
    source = read_volume(RoleInput(str(headers[0].SeriesInstanceUID), tuple(refs)))
    assert source.volume.array_DHW.shape == (41, 512, 512)
    assert source.volume.spacing_mm == pytest.approx((5.0, 0.796875, 0.796875))
    # padded corners are air, soft tissue in the middle of the body
    assert source.volume.array_DHW[20, 0, 0] == -1024
    assert 0 < np.median(source.volume.array_DHW[20, 200:300, 150:250]) < 150
