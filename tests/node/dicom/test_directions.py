"""The geometric mean of diffusion directions, and what results say of the images that it was made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from node.dicom.check import check_objects
from node.dicom.seg import encode_seg
from node.dicom.sr import encode_sr
from node.dicom.volume import SourceVolume, read_volume
from node.domain import RoleInput
from node.errors import GeometryError, ObjectError

FACTORS = (1.0, 2.0, 0.5)
"""Their product is 1: the mean is the pattern itself."""


@pytest.fixture
def write_directions(write_stack: Callable[..., Any]) -> Callable[..., tuple[RoleInput, Any]]:
    """Three directions of one series, scaled by `FACTORS`; `edit` changes each slice of the last."""

    def write(edit: Callable[[Dataset, int], None] | None = None, **plan: Any) -> tuple[RoleInput, Any]:
        series_uid, frame_uid = generate_uid(), generate_uid()

        def direction(factor: float, *, is_last: bool) -> Any:
            def put(item: Dataset, d: int) -> None:
                item.SeriesInstanceUID, item.FrameOfReferenceUID = series_uid, frame_uid
                item.RescaleSlope, item.RescaleIntercept = factor, factor
                if is_last and edit is not None:
                    edit(item, d)

            return write_stack(modality="MR", edit=put, b_value_s_mm2=1000.0, **plan)

        stacks = [direction(factor, is_last=factor == FACTORS[-1]) for factor in FACTORS]
        others = tuple(stack.role_input.instances for stack in stacks[1:])
        return replace(stacks[0].role_input, other_directions=others), stacks[0]

    return write


@pytest.fixture
def write_enhanced_directions(write_enhanced: Callable[..., Any]) -> Callable[..., tuple[RoleInput, Any]]:
    """One multi-frame object whose three volumes stand for directions."""

    def write() -> tuple[RoleInput, Any]:
        stack = write_enhanced(b_values=(1000, 1000, 1000))
        (instance,) = stack.role_input.instances
        frames = [tuple(number - shift for number in instance.frames) for shift in (2, 1, 0)]
        first, *others = ((replace(instance, frames=numbers),) for numbers in frames)
        return replace(stack.role_input, instances=first, other_directions=tuple(others)), stack

    return write


def test_the_volume_is_the_geometric_mean_of_the_directions(write_directions: Callable[..., Any]) -> None:
    role_input, stack = write_directions()
    source = read_volume(role_input)
    np.testing.assert_allclose(source.volume.array_DHW, stack.array_DHW + 1, rtol=1e-5)
    np.testing.assert_allclose(source.volume.affine_lps_mm, stack.affine_lps_mm)
    assert source.b_value_s_mm2 == 1000


def test_a_value_of_zero_in_one_direction_makes_the_mean_zero_and_not_undefined(
    write_directions: Callable[..., Any],
) -> None:
    def blank(item: Dataset, d: int) -> None:
        item.RescaleSlope, item.RescaleIntercept = 1, 0
        item.PixelData = bytes(len(item.PixelData))

    array_DHW = read_volume(write_directions(blank)[0]).volume.array_DHW
    assert np.isfinite(array_DHW).all()
    assert array_DHW.max() < 1e-6


def test_the_order_of_a_directions_files_changes_no_voxel(write_directions: Callable[..., Any]) -> None:
    role_input, _ = write_directions()
    turned = replace(role_input, other_directions=tuple(tuple(reversed(part)) for part in role_input.other_directions))
    np.testing.assert_array_equal(read_volume(turned).volume.array_DHW, read_volume(role_input).volume.array_DHW)


def test_a_slice_is_told_with_what_it_was_made_of(write_directions: Callable[..., Any]) -> None:
    source = read_volume(write_directions()[0])
    refs = source.slices_at(3)
    assert len({ref.sop_instance_uid for ref in refs}) == 3
    assert len({ref.position_lps_mm for ref in refs}) == 1
    assert source.derivation == "geometric mean of 3 directions, derived in the node"


def test_an_image_as_acquired_is_derived_of_nothing(write_stack: Callable[..., Any]) -> None:
    source = read_volume(write_stack().role_input)
    assert (source.derivation, source.every_slice) == ("", source.slices)


@pytest.mark.parametrize(
    ("difference", "why"),
    [
        ({"ImagePositionPatient": 5.0}, "mm apart"),
        ({"SeriesInstanceUID": "1.2.3"}, "several series"),
        ({"FrameOfReferenceUID": "1.2.3"}, "frames of reference"),
    ],
)
def test_directions_on_different_grids_are_refused(
    write_directions: Callable[..., Any], difference: dict[str, Any], why: str
) -> None:
    def move(item: Dataset, d: int) -> None:
        for keyword, told in difference.items():
            if keyword == "ImagePositionPatient":
                item.ImagePositionPatient[0] += told
            else:
                setattr(item, keyword, told)

    with pytest.raises(GeometryError, match=why):
        read_volume(write_directions(move)[0])


def test_a_direction_with_a_slice_less_is_refused(write_directions: Callable[..., Any]) -> None:
    role_input, _ = write_directions()
    first, last = role_input.other_directions
    with pytest.raises(GeometryError, match="number of slices"):
        read_volume(replace(role_input, other_directions=(first, last[:-1])))


def encoded(
    source: SourceVolume, stack: Any, lesions_on: Callable[..., Any], context: Any, folder: Path
) -> tuple[Path, Path, Callable[[], None]]:
    """Segmentation, report, and their check."""
    lesions = lesions_on(stack)
    told = (context, source, lesions.mask, lesions.findings, lesions.tracking)
    seg = encode_seg(*told, folder / "seg.dcm")
    sr = encode_sr(*told, folder / "sr.dcm", seg=seg)
    return seg.path, sr.path, lambda: check_objects(seg.path, sr.path, *told)


def test_of_frames_of_one_object_each_direction_is_a_source_image_of_its_own(
    write_enhanced_directions: Callable[..., Any],
    lesions_on: Callable[..., Any],
    make_context: Callable[..., Any],
    tmp_path: Path,
) -> None:
    role_input, stack = write_enhanced_directions()
    source = read_volume(role_input)
    path, _, check = encoded(source, stack, lesions_on, make_context(weighting="dwi"), tmp_path)
    check()
    seg = dcmread(path)
    for groups in seg.PerFrameFunctionalGroupsSequence:
        frames = [item.ReferencedFrameNumber for item in groups.DerivationImageSequence[0].SourceImageSequence]
        assert frames == [frames[0], frames[0] + 1, frames[0] + 2]
    assert list(seg.SourceImageSequence[0].ReferencedFrameNumber) == list(range(1, 19))
    assert len(seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 1


def test_every_segment_and_group_says_of_what_image_its_lesion_is(
    write_directions: Callable[..., Any],
    lesions_on: Callable[..., Any],
    make_context: Callable[..., Any],
    tmp_path: Path,
) -> None:
    role_input, stack = write_directions()
    seg_path, sr_path, check = encoded(
        read_volume(role_input), stack, lesions_on, make_context(weighting="dwi"), tmp_path
    )
    check()
    for item in dcmread(seg_path).SegmentSequence:
        (algorithm,) = item.SegmentationAlgorithmIdentificationSequence
        assert "geometric mean of 3 directions" in algorithm.AlgorithmParameters
    named = [item for item in _parameters(dcmread(sr_path)) if "geometric mean of 3 directions" in item]
    assert len(named) == 3, "two lesions and the assessment"


@pytest.mark.parametrize("spoilt", ["source", "words", "parameter"])
def test_a_result_that_hides_how_its_image_was_made_is_refused(
    write_directions: Callable[..., Any],
    lesions_on: Callable[..., Any],
    make_context: Callable[..., Any],
    tmp_path: Path,
    spoilt: str,
) -> None:
    role_input, stack = write_directions()
    seg_path, sr_path, check = encoded(
        read_volume(role_input), stack, lesions_on, make_context(weighting="dwi"), tmp_path
    )
    path = sr_path if spoilt == "parameter" else seg_path
    dataset = dcmread(path)
    if spoilt == "parameter":
        for item in _parameter_items(dataset):
            item.TextValue = "weights"
    else:
        derivation = dataset.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0]
        if spoilt == "source":
            del derivation.SourceImageSequence[1]
        else:
            del derivation.DerivationDescription
    dataset.save_as(path)
    with pytest.raises(ObjectError):
        check()


def _parameters(report: Dataset) -> Sequence[str]:
    return [item.TextValue for item in _parameter_items(report)]


def _parameter_items(item: Dataset) -> Sequence[Dataset]:
    found = []
    for child in item.get("ContentSequence", ()):
        if child.ConceptNameCodeSequence[0].CodeValue == "111002":
            found.append(child)
        found += _parameter_items(child)
    return found
