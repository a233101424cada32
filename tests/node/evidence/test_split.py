"""One series, several volumes: told apart by what they are, then by when they were made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

CORONAL = [1, 0, 0, 0, 0, -1]


def test_b_values_become_volumes_with_their_own_instances(bench: Any) -> None:
    volumes = bench.facts(bench.dwi((50, 400, 1000)))
    assert [volume.geometry.slices for volume in volumes] == [20, 20, 20]
    paths = [{member.path for member in volume.members} for volume in volumes]
    assert not (paths[0] & paths[1])
    assert not (paths[1] & paths[2])


def test_members_stand_in_the_order_of_their_positions(bench: Any) -> None:
    headers = bench.mr()
    upside_down = dict(reversed(headers.items()))
    volume = bench.fact(upside_down)
    assert [member.path for member in volume.members] == sorted(headers)


def test_echoes_become_volumes(bench: Any) -> None:
    first = bench.mr(EchoTime="80")
    assert sorted(v.echo_time_ms for v in bench.facts({**first, **bench.again(first, EchoTime="160")})) == [80, 160]


def test_planes_become_volumes(bench: Any) -> None:
    axial = bench.mr()
    other = bench.again(axial, ImageOrientationPatient=CORONAL)
    for number, dataset in enumerate(other.values()):
        dataset.ImagePositionPatient = [-150.0, number * 7.0, 100.0]
    assert sorted(volume.geometry.is_axial for volume in bench.facts({**axial, **other})) == [False, True]


@pytest.mark.parametrize(
    "later",
    [
        {"TemporalPositionIdentifier": 2},
        {"AcquisitionNumber": 2},
        {"AcquisitionTime": "101145"},
    ],
)
def test_phases_at_the_same_positions_become_volumes(bench: Any, later: dict[str, Any]) -> None:
    first = bench.ct(TemporalPositionIdentifier=1, AcquisitionNumber=1)
    volumes = bench.facts({**first, **bench.again(first, **later)})
    assert [volume.geometry.slices for volume in volumes] == [40, 40]
    assert all(volume.geometry.fault is None for volume in volumes)


def test_the_acquisition_number_of_step_and_shoot_ct_divides_nothing(bench: Any) -> None:
    headers = bench.ct()
    for number, dataset in enumerate(headers.values()):
        dataset.AcquisitionNumber = number // 4
    assert bench.fact(headers).geometry.slices == 40


def test_ct_phases_whose_slices_interleave_become_volumes(bench: Any) -> None:
    first = bench.ct(AcquisitionNumber=1)
    second = bench.again(first, AcquisitionNumber=2)
    for dataset in second.values():
        dataset.ImagePositionPatient = [-150.0, -120.0, dataset.ImagePositionPatient[2] + 3.5]
    volumes = bench.facts({**first, **second})
    assert [(volume.geometry.slices, volume.geometry.spacing_mm) for volume in volumes] == [(40, 7.0), (40, 7.0)]


def test_concatenations_of_mr_that_interleave_stay_one_volume(bench: Any) -> None:
    headers = bench.mr()
    for number, dataset in enumerate(headers.values()):
        dataset.AcquisitionNumber = number % 2
    assert bench.fact(headers).geometry.slices == 20


def test_slices_that_nothing_tells_apart_stay_one_volume_with_its_fault(bench: Any) -> None:
    first = bench.ct()
    volume = bench.fact({**first, **bench.again(first)})
    assert volume.geometry.fault is not None
    assert "share their position" in volume.geometry.fault


def test_repeated_volumes_of_one_b_value_without_directions_are_single_directions(bench: Any) -> None:
    first = bench.dwi((1000,), DiffusionDirectionality=None, AcquisitionNumber=1)
    volumes = bench.facts({**first, **bench.again(first, AcquisitionNumber=2)})
    assert [volume.directionality for volume in volumes] == ["directional", "directional"]


def test_a_gap_is_told_with_its_size(bench: Any) -> None:
    headers = bench.mr()
    del headers[sorted(headers)[7]]
    fault = bench.fact(headers).geometry.fault
    assert fault is not None
    assert "gap of 14.00 mm" in fault


def test_two_files_of_one_instance_count_once(bench: Any) -> None:
    headers = bench.mr()
    copies = {Path(f"/series/copy-{path.name}"): dataset for path, dataset in headers.items()}
    volume = bench.fact({**headers, **copies})
    assert volume.geometry.slices == 20
    assert all("copy" not in member.path.name for member in volume.members)


def test_frames_of_a_multi_frame_object_become_volumes_with_their_frame_numbers(bench: Any) -> None:
    volumes = bench.facts({Path("/series/one.dcm"): enhanced((0, 1000), slices=12)})
    assert [(volume.b_s_mm2, volume.geometry.slices) for volume in volumes] == [(0, 12), (1000, 12)]
    (member,) = volumes[1].members
    assert member.frames == tuple(range(13, 25))
    assert [volume.directionality for volume in volumes] == ["none", "isotropic"]


def test_one_multi_frame_object_per_b_value_is_one_series_of_volumes(bench: Any) -> None:
    objects = {Path(f"/series/{b}.dcm"): enhanced((b,), slices=12, name=str(b)) for b in (50, 1000)}
    volumes = bench.facts(objects)
    assert [volume.b_s_mm2 for volume in volumes] == [50, 1000]
    assert [volume.members[0].path.name for volume in volumes] == ["50.dcm", "1000.dcm"]


def test_the_order_of_files_changes_no_fact(bench: Any, edit: Callable[..., Any]) -> None:
    headers = bench.dwi((0, 50, 1000))
    turned = dict(sorted(headers.items(), key=lambda item: hash(item[0].name) % 97))
    assert bench.facts(headers) == bench.facts(turned)


def enhanced(b_values: tuple[int, ...], slices: int, name: str = "1") -> Dataset:
    """An Enhanced MR object with one frame per b-value and slice."""
    root = Dataset()
    root.SOPClassUID, root.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.4.1", f"1.2.3.4.{name}"
    root.StudyInstanceUID, root.SeriesInstanceUID = "1.2.3", "1.2.3.4"
    root.FrameOfReferenceUID, root.Modality, root.Manufacturer = "1.2.3.9", "MR", "Siemens Healthineers"
    root.ImageType = ["ORIGINAL", "PRIMARY", "DIFFUSION", "NONE"]
    root.SeriesDescription, root.BodyPartExamined = "ep2d_diff_liver", "LIVER"
    root.Rows, root.Columns, root.NumberOfFrames = 128, 128, len(b_values) * slices
    root.SharedFunctionalGroupsSequence = Sequence([_shared()])
    frames = [_frame(b, number) for b in b_values for number in range(slices)]
    root.PerFrameFunctionalGroupsSequence = Sequence(frames)
    return root


def _shared() -> Dataset:
    shared = Dataset()
    shared.PlaneOrientationSequence = [_item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])]
    shared.PixelMeasuresSequence = [_item(PixelSpacing=[2, 2], SliceThickness=6)]
    shared.MRImageFrameTypeSequence = [_item(FrameType=["ORIGINAL", "PRIMARY", "DIFFUSION", "NONE"])]
    shared.MREchoSequence = [_item(EffectiveEchoTime=62.0)]
    return shared


def _frame(b: int, number: int) -> Dataset:
    frame = Dataset()
    frame.PlanePositionSequence = [_item(ImagePositionPatient=[-100, -100, number * 7.0])]
    told = "ISOTROPIC" if b else "NONE"
    frame.MRDiffusionSequence = [_item(DiffusionBValue=float(b), DiffusionDirectionality=told)]
    return frame


def _item(**tags: Any) -> Dataset:
    item = Dataset()
    for keyword, told in tags.items():
        setattr(item, keyword, told)
    return item
