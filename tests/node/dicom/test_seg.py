"""Segmentations lie where the lesions are, refer to what was segmented, and pass the checks of others."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import generate_uid

from model.card import OutputSpec
from model.findings import find_lesions
from model.volume import Mask
from node.config import Term
from node.dicom.check import check_objects
from node.dicom.context import Tracking
from node.dicom.seg import encode_seg
from node.dicom.volume import read_volume
from node.errors import ObjectError

OBLIQUE = (0.9961946980917455, 0.0, -0.08715574274765817, 0.02255001, 0.965925826, 0.25774786)
ORIENTATIONS = {
    "axial": (1, 0, 0, 0, 1, 0),
    "head first from below": (-1, 0, 0, 0, 1, 0),
    "coronal": (1, 0, 0, 0, 0, -1),
    "sagittal": (0, 1, 0, 0, 0, -1),
    "oblique": OBLIQUE,
}
ORDERS = {
    "ascending": list(range(7)),
    "descending": list(reversed(range(7))),
    "shuffled": random.Random(5).sample(range(7), 7),
}


def points_of(seg: Dataset) -> dict[int, NDArray[np.float64]]:
    """Patient positions of each segment's voxels by PS3.3 C.7.6.2.1.1, from the written file alone."""
    shared = seg.SharedFunctionalGroupsSequence[0]
    directions = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    row_spacing, column_spacing = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    found: dict[int, list[NDArray[np.float64]]] = {}
    frames = seg.pixel_array.reshape(-1, seg.Rows, seg.Columns)
    for frame_HW, groups in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
        holder = groups if "SegmentIdentificationSequence" in groups else shared
        number = holder.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        position = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float)
        for row, column in np.argwhere(frame_HW):
            point = position + directions[:3] * column * column_spacing + directions[3:] * row * row_spacing
            found.setdefault(number, []).append(point)
    return {number: ordered(np.array(points)) for number, points in found.items()}


def ordered(points_N3: NDArray[np.float64]) -> NDArray[np.float64]:
    return points_N3[np.lexsort(np.round(points_N3, 2).T)]


def true_points(stack: Any, lesions: Any) -> dict[int, NDArray[np.float64]]:
    affine = stack.affine_lps_mm
    return {
        f.number: ordered(np.argwhere(lesions.mask.labels_DHW == f.number) @ affine[:3, :3].T + affine[:3, 3])
        for f in lesions.findings
    }


@pytest.fixture
def encode(
    make_context: Callable[..., Any], lesions_on: Callable[..., Any], tmp_path: Path
) -> Callable[..., tuple[Dataset, Any]]:
    """Encodes the asymmetric lesions of a stack; the written data set, and the lesions."""

    def run(stack: Any, **fields: Any) -> tuple[Dataset, Any]:
        lesions, path = lesions_on(stack), tmp_path / "seg.dcm"
        source, context = read_volume(stack.role_input), make_context(**fields)
        given = (context, source, lesions.mask, lesions.findings, lesions.tracking)
        encode_seg(*given, path)
        check_objects(path, None, *given)
        return dcmread(path), lesions

    return run


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_nothing_is_mirrored(
    write_stack: Callable[..., Any], encode: Callable[..., Any], order: str, orientation: str
) -> None:
    stack = write_stack(orientation=ORIENTATIONS[orientation], file_order=ORDERS[order])
    seg, lesions = encode(stack)
    found, expected = points_of(seg), true_points(stack, lesions)
    assert found.keys() == expected.keys() == {1, 2}
    for number in expected:
        np.testing.assert_allclose(found[number], expected[number], atol=0.01)


@pytest.mark.parametrize("shear_mm", [(0.0, 0.0, 0.0), (0.0, 1.5, 0.0)])
def test_a_matrix_not_divisible_by_eight_and_a_tilted_gantry_keep_their_voxels(
    write_stack: Callable[..., Any], encode: Callable[..., Any], shear_mm: tuple[float, ...]
) -> None:
    stack = write_stack((7, 91, 101), shear_mm=shear_mm)
    seg, lesions = encode(stack)
    expected = true_points(stack, lesions)
    for number, points in points_of(seg).items():
        np.testing.assert_allclose(points, expected[number], atol=0.01)


@pytest.mark.parametrize("orientation", ["axial", "oblique"])
def test_the_library_reads_back_the_same_volume(
    write_stack: Callable[..., Any], encode: Callable[..., Any], tmp_path: Path, orientation: str
) -> None:
    stack = write_stack(orientation=ORIENTATIONS[orientation], file_order=ORDERS["shuffled"])
    _, lesions = encode(stack)
    volume = hd.seg.segread(tmp_path / "seg.dcm").get_volume(combine_segments=True)
    for number, points in true_points(stack, lesions).items():
        indices = np.argwhere(volume.array == number)
        found = ordered(volume.map_indices_to_reference(indices))
        np.testing.assert_allclose(found, points, atol=0.01)


def test_lesion_centres_are_within_one_voxel_diagonal_of_the_truth(
    write_stack: Callable[..., Any], encode: Callable[..., Any]
) -> None:
    stack = write_stack(orientation=OBLIQUE)
    seg, lesions = encode(stack)
    diagonal_mm = np.linalg.norm(stack.affine_lps_mm[:3, :3].sum(axis=1))
    for finding in lesions.findings:
        center = points_of(seg)[finding.number].mean(axis=0)
        assert np.linalg.norm(center - finding.center_lps_mm) < diagonal_mm / 100


def test_of_a_multi_b_instance_only_the_chosen_frames_are_referred_to(
    write_enhanced: Callable[..., Any], encode: Callable[..., Any]
) -> None:
    stack = write_enhanced()
    seg, lesions = encode(stack, weighting="dwi")
    referred = set()
    for groups in seg.PerFrameFunctionalGroupsSequence:
        (item,) = groups.DerivationImageSequence[0].SourceImageSequence
        assert item.ReferencedSOPInstanceUID == stack.role_input.instances[0].sop_instance_uid
        referred.add(item.ReferencedFrameNumber)
    assert referred <= set(stack.role_input.instances[0].frames)
    assert len(referred) == 4
    assert list(seg.SourceImageSequence[0].ReferencedFrameNumber) == list(stack.role_input.instances[0].frames)
    np.testing.assert_allclose(points_of(seg)[1], true_points(stack, lesions)[1], atol=0.01)


def test_each_frame_refers_to_the_slice_at_its_position(
    write_stack: Callable[..., Any], encode: Callable[..., Any]
) -> None:
    stack = write_stack(file_order=ORDERS["shuffled"])
    seg, _ = encode(stack)
    positions = {}
    for path in stack.paths:
        header = dcmread(path)
        positions[header.SOPInstanceUID] = list(header.ImagePositionPatient)
    for groups in seg.PerFrameFunctionalGroupsSequence:
        (item,) = groups.DerivationImageSequence[0].SourceImageSequence
        assert positions[item.ReferencedSOPInstanceUID] == list(groups.PlanePositionSequence[0].ImagePositionPatient)
    (series,) = seg.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == stack.role_input.series_uid
    assert {item.ReferencedSOPInstanceUID for item in series.ReferencedInstanceSequence} == positions.keys()


def test_lesions_on_one_slice_each_refer_to_it(
    write_stack: Callable[..., Any], make_context: Callable[..., Any], tmp_path: Path
) -> None:
    stack, path = write_stack(), tmp_path / "seg.dcm"
    source = read_volume(stack.role_input)
    probability = np.zeros(stack.array_DHW.shape, np.float32)
    probability[2:4, 3:6, 3:6] = probability[2:4, -6:-3, -6:-3] = 0.9
    mask, findings = find_lesions(probability, source.volume, OutputSpec())
    tracking = tuple(Tracking(f"Lesion {f.number}", generate_uid()) for f in findings)
    given = (make_context(), source, mask, findings, tracking)
    encode_seg(*given, path)
    check_objects(path, None, *given)

    referred = [
        groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        for groups in dcmread(path).PerFrameFunctionalGroupsSequence
    ]
    assert len(referred) == 4
    assert set(referred) == {source.slices[2].sop_instance_uid, source.slices[3].sop_instance_uid}


def test_only_slices_with_a_lesion_have_frames(write_stack: Callable[..., Any], encode: Callable[..., Any]) -> None:
    seg, _ = encode(write_stack())
    assert seg.NumberOfFrames == 4
    assert (seg.SegmentationType, seg.SegmentsOverlap, seg.file_meta.TransferSyntaxUID.name) == (
        "BINARY",
        "NO",
        "Explicit VR Little Endian",
    )


def test_a_segment_says_what_it_is_and_who_found_it(
    write_stack: Callable[..., Any], encode: Callable[..., Any]
) -> None:
    seg, lesions = encode(write_stack())
    first = seg.SegmentSequence[0]
    assert (first.SegmentNumber, first.SegmentLabel, first.SegmentAlgorithmType) == (1, "Lesion 1", "AUTOMATIC")
    assert (first.TrackingID, first.TrackingUID) == (lesions.tracking[0].identifier, lesions.tracking[0].uid)
    assert first.SegmentedPropertyTypeCodeSequence[0].CodeValue == "52988006"
    assert "AnatomicRegionSequence" not in first
    colours = {tuple(item.RecommendedDisplayCIELabValue) for item in seg.SegmentSequence}
    assert len(colours) == len(seg.SegmentSequence)
    (algorithm,) = first.SegmentationAlgorithmIdentificationSequence
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("demo-ct-portal-venous", "0.1.0")
    assert "ab" * 32 in algorithm.AlgorithmParameters
    processing = seg.ContributingEquipmentSequence[1]
    assert processing.DeviceUID.startswith("2.25.")
    assert list(processing.SoftwareVersions) == ["0.1.0", "ab" * 32]


def test_demo_weights_are_named_wherever_a_reader_looks(
    write_stack: Callable[..., Any], encode: Callable[..., Any]
) -> None:
    seg, _ = encode(write_stack())
    assert seg.SeriesDescription == "AI SEG ct-portal-venous (RESEARCH, DEMO WEIGHTS)"
    assert seg.ContentDescription == "RESEARCH USE ONLY - DEMO WEIGHTS trained on phantoms"
    assert seg.ContentQualification == "RESEARCH"
    assert (seg.SeriesNumber, seg.InstanceNumber, seg.Modality) == (90001, 1, "SEG")


def test_encoding_a_job_again_gives_the_same_bytes(
    write_stack: Callable[..., Any], make_context: Callable[..., Any], lesions_on: Callable[..., Any], tmp_path: Path
) -> None:
    stack = write_stack()
    lesions, source = lesions_on(stack), read_volume(stack.role_input)
    results = [
        encode_seg(make_context(), source, lesions.mask, lesions.findings, lesions.tracking, tmp_path / name)
        for name in ("first.dcm", "second.dcm")
    ]
    assert results[0].sha256 == results[1].sha256
    assert results[0].sop_instance_uid == results[1].sop_instance_uid
    assert (tmp_path / "first.dcm").read_bytes() == (tmp_path / "second.dcm").read_bytes()
    assert not list(tmp_path.glob("*.part"))


def test_another_run_has_other_uids_and_says_what_it_replaces(
    write_stack: Callable[..., Any], encode: Callable[..., Any]
) -> None:
    stack = write_stack()
    first, _ = encode(stack)
    second, _ = encode(stack, job_id="0123456789abcdef-2", run=2)
    assert first.SOPInstanceUID != second.SOPInstanceUID
    assert first.SeriesInstanceUID != second.SeriesInstanceUID
    assert second.SeriesDescription.endswith("v2 replaces v1")


def test_without_a_lesion_no_segmentation_is_written(
    write_stack: Callable[..., Any], make_context: Callable[..., Any], tmp_path: Path
) -> None:
    source = read_volume(write_stack().role_input)
    empty = Mask(np.zeros(source.volume.array_DHW.shape, np.uint16), source.volume.affine_lps_mm)
    with pytest.raises(ObjectError, match="there is no lesion"):
        encode_seg(make_context(), source, empty, (), (), tmp_path / "seg.dcm")
    assert not (tmp_path / "seg.dcm").exists()


def test_a_mask_of_another_grid_or_with_other_findings_is_refused(
    write_stack: Callable[..., Any], make_context: Callable[..., Any], lesions_on: Callable[..., Any], tmp_path: Path
) -> None:
    stack = write_stack()
    lesions, source = lesions_on(stack), read_volume(stack.role_input)
    moved = replace(lesions.mask, affine_lps_mm=lesions.mask.affine_lps_mm + np.eye(4)[:, [3, 0, 1, 2]] * 0.1)
    with pytest.raises(ObjectError, match="does not lie on the source's grid"):
        encode_seg(make_context(), source, moved, lesions.findings, lesions.tracking, tmp_path / "seg.dcm")
    with pytest.raises(ObjectError, match="2 labels, 1 findings"):
        encode_seg(make_context(), source, lesions.mask, lesions.findings[:1], lesions.tracking, tmp_path / "seg.dcm")


def test_a_private_coding_scheme_is_declared(
    write_stack: Callable[..., Any], encode: Callable[..., Any], terms: dict[str, Term]
) -> None:
    own = terms | {"site-lesion": Term("L1", "99SITE", "Liver lesion, as we call it")}
    seg, _ = encode(write_stack(), terms=own, finding="site-lesion")
    assert [item.CodingSchemeDesignator for item in seg.CodingSchemeIdentificationSequence] == ["99SITE"]
    assert seg.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0].CodeValue == "L1"


def test_lossy_sources_are_named_as_such(write_stack: Callable[..., Any], encode: Callable[..., Any]) -> None:
    def edit(dataset: Dataset, _: int) -> None:
        dataset.LossyImageCompression, dataset.LossyImageCompressionRatio = "01", 8.5
        dataset.LossyImageCompressionMethod = "ISO_15444_1"

    seg, _ = encode(write_stack(edit=edit))
    assert (seg.LossyImageCompression, seg.LossyImageCompressionRatio) == ("01", 8.5)
    plain, _ = encode(write_stack())
    assert plain.LossyImageCompression == "00"


def test_times_are_on_the_clock_that_the_source_states(
    write_stack: Callable[..., Any], encode: Callable[..., Any]
) -> None:
    def edit(dataset: Dataset, _: int) -> None:
        dataset.TimezoneOffsetFromUTC = "+0530"

    seg, _ = encode(write_stack(edit=edit))
    assert (seg.TimezoneOffsetFromUTC, seg.ContentDate, seg.ContentTime) == ("+0530", "20260304", "103607")
    plain, _ = encode(write_stack())
    assert "TimezoneOffsetFromUTC" not in plain
    assert plain.ContentTime == "050607"


@pytest.mark.peers
@pytest.mark.parametrize("modality", ["CT", "MR", "enhanced"])
def test_others_validators_find_no_error(
    write_stack: Callable[..., Any],
    write_enhanced: Callable[..., Any],
    encode: Callable[..., Any],
    require_peer: Callable[[str], Path],
    tmp_path: Path,
    modality: str,
) -> None:
    dciodvfy, dcmftest = require_peer("/usr/bin/dciodvfy"), require_peer("/usr/bin/dcmftest")
    stack = write_enhanced() if modality == "enhanced" else write_stack(modality=modality)
    encode(stack, weighting="ct" if modality == "CT" else "dwi")
    verified = subprocess.run([dciodvfy, "-new", tmp_path / "seg.dcm"], capture_output=True, text=True, check=False)
    assert verified.returncode == 0, verified.stderr
    warnings = [line for line in verified.stderr.splitlines() if line.startswith("Warning")]
    # this edition (2022) does not know that contributing equipment may have a Device UID
    assert all("DeviceUID" in line for line in warnings), warnings
    assert subprocess.run([dcmftest, tmp_path / "seg.dcm"], capture_output=True, check=False).returncode == 0


def test_a_real_ct_is_encoded(
    shared_data: Path, make_context: Callable[..., Any], real_ct: Callable[..., Any], tmp_path: Path
) -> None:
    source, mask, findings, tracking = real_ct()
    given = (make_context(), source, mask, findings, tracking)
    encode_seg(*given, tmp_path / "seg.dcm")
    check_objects(tmp_path / "seg.dcm", None, *given)
    seg = dcmread(tmp_path / "seg.dcm")
    assert seg.PatientID == "CRLM-CT-1004"
    assert isinstance(seg.ProcedureCodeSequence, Sequence)
    assert (seg.Rows, seg.Columns) == (512, 512)
