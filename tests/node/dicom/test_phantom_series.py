"""Phantoms in the vendors' dialects: what is segmented is where the truth says, in every order and plane."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread

from model.card import OutputSpec
from model.findings import find_lesions
from model.phantom import Geometry, Phantom, make_phantom
from model.volume import Volume
from node.dicom.check import check_objects
from node.dicom.context import Tracking
from node.dicom.header import frames, read_header
from node.dicom.seg import encode_seg
from node.dicom.sr import encode_sr
from node.dicom.uids import mint_tracking_uid
from node.dicom.volume import SourceVolume, read_volume
from node.domain import InstanceRef, RoleInput
from simulator.modality import read_truth, write_series

STRAIGHT = Geometry(96, 112, 14, (3.2, 3.0), 6.0, 1.0)
OBLIQUE = Geometry(96, 112, 14, (3.2, 3.0), 6.0, 1.0, tilt_deg=(9.0, -6.0, 4.0), upwards=False)


@cache
def phantom(condition: str, geometry: Geometry) -> Phantom:
    return make_phantom(condition, 3, lesion_count=3, geometry=geometry, b_values=(50, 1000))


def chosen(paths: list[Path], folder: Path, *, is_multiframe: bool) -> RoleInput:
    """The instances, or of an enhanced one the frames, that the phantom's truth belongs to."""
    headers = [read_header(path) for path in paths]
    refs = [InstanceRef(str(h.SOPInstanceUID), str(h.SOPClassUID), p, "") for h, p in zip(headers, paths, strict=True)]
    if is_multiframe:
        numbers = tuple(f.number for f in frames(headers[0]) if f.get("DiffusionBValue", 1000) == 1000 and f.number)
        refs = [replace(ref, frames=numbers) for ref in refs]
        return RoleInput(str(headers[0].SeriesInstanceUID), tuple(refs))
    wanted = set(read_truth(folder).sop_instance_uids)
    return RoleInput(str(headers[0].SeriesInstanceUID), tuple(r for r in refs if r.sop_instance_uid in wanted))


def on_grid_of(source: Volume, labels_DHW: NDArray[Any], affine: NDArray[np.float64]) -> NDArray[Any]:
    """Labels of the truth's grid at the voxels of `source`, by position in the patient."""
    indices = np.stack(np.indices(source.array_DHW.shape), axis=-1).reshape(-1, 3)
    to_truth = np.linalg.inv(affine) @ source.affine_lps_mm
    found = np.rint(indices @ to_truth[:3, :3].T + to_truth[:3, 3]).astype(int)
    assert (found >= 0).all()
    assert (found < labels_DHW.shape).all()
    return labels_DHW[tuple(found.T)].reshape(source.array_DHW.shape)


CASES = {
    "ge ct descending": ("ct-portal-venous", STRAIGHT, {"dialect": "ge", "order": "descending"}),
    "siemens ct shuffled": ("ct-portal-venous", OBLIQUE, {"dialect": "siemens", "order": "shuffled"}),
    "philips ct": ("ct-portal-venous", STRAIGHT, {"dialect": "philips", "order": "ascending"}),
    "canon ct": ("ct-portal-venous", STRAIGHT, {"dialect": "canon", "order": "shuffled"}),
    "ge t2": ("post-nact-t2wi", OBLIQUE, {"dialect": "ge", "order": "shuffled"}),
    "siemens dwi": ("pre-nact-dwi", OBLIQUE, {"dialect": "siemens", "order": "descending"}),
    "philips dwi": ("pre-nact-dwi", STRAIGHT, {"dialect": "philips", "order": "shuffled"}),
    "canon t2": ("post-nact-t2wi", STRAIGHT, {"dialect": "canon", "order": "ascending"}),
    "uih dwi": ("pre-nact-dwi", OBLIQUE, {"dialect": "uih", "order": "shuffled"}),
    "enhanced dwi": ("pre-nact-dwi", OBLIQUE, {"dialect": "philips", "order": "shuffled", "is_multiframe": True}),
    "enhanced t2": ("post-nact-t2wi", STRAIGHT, {"dialect": "siemens", "order": "shuffled", "is_multiframe": True}),
}


@pytest.mark.parametrize("case", CASES)
def test_lesions_of_a_phantom_are_encoded_where_its_truth_says(
    tmp_path: Path, make_context: Callable[..., Any], case: str
) -> None:
    condition, geometry, plan = CASES[case]
    subject = phantom(condition, geometry)
    paths = write_series(subject, tmp_path / "series", **plan)
    is_multiframe = plan.get("is_multiframe", False)
    source = read_volume(chosen(paths, tmp_path / "series", is_multiframe=is_multiframe))
    truth = read_truth(tmp_path / "series")
    _require_same_image(source, subject)

    labels = on_grid_of(source.volume, truth.labels_DHW, truth.affine_lps_mm)
    mask, findings = find_lesions((labels > 0).astype(np.float32), source.volume, OutputSpec())
    tracking = [Tracking(f"Lesion {finding.number}", mint_tracking_uid()) for finding in findings]
    context = make_context(condition=condition, weighting={"ct": "ct", "t2wi": "t2", "dwi": "dwi"}[_kind(condition)])
    seg = encode_seg(context, source, mask, findings, tracking, tmp_path / "seg.dcm")
    encode_sr(context, source, mask, findings, tracking, tmp_path / "sr.dcm", seg=seg)
    check_objects(tmp_path / "seg.dcm", tmp_path / "sr.dcm", context, source, mask, findings, tracking)

    diagonal_mm = float(np.linalg.norm(source.volume.spacing_mm))
    centers = _segment_centers(tmp_path / "seg.dcm")
    assert len(truth.lesions) == len(centers) >= 2
    for lesion in truth.lesions:
        nearest = min(float(np.linalg.norm(center - lesion.center_lps_mm)) for center in centers)
        assert nearest < diagonal_mm


def _kind(condition: str) -> str:
    return "ct" if condition.startswith("ct") else condition.rsplit("-", 1)[1]


def _require_same_image(source: SourceVolume, subject: Phantom) -> None:
    """The volume that was read is the phantom's own, voxel by voxel in the patient, up to its stored precision."""
    image = subject.image
    expected = on_grid_of(source.volume, image.array_DHW, image.affine_lps_mm)
    if source.modality == "CT":
        # some dialects pad what is outside of the reconstruction circle: air, even where the body sticks out
        inside = (expected > -900) & (source.volume.array_DHW > -1024)
        assert inside.sum() > 0.99 * (expected > -900).sum()
        np.testing.assert_allclose(source.volume.array_DHW[inside], expected[inside], atol=1.0)
    else:
        assert np.corrcoef(source.volume.array_DHW.ravel(), expected.ravel())[0, 1] > 0.9999


def _segment_centers(path: Path) -> list[NDArray[np.float64]]:
    """Centre of mass of each segment in the patient, from the written file alone."""
    seg = dcmread(path)
    shared = seg.SharedFunctionalGroupsSequence[0]
    directions = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    row_mm, column_mm = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    points: dict[int, list[NDArray[np.float64]]] = {}
    pixels = seg.pixel_array.reshape(-1, seg.Rows, seg.Columns)
    for frame_HW, groups in zip(pixels, seg.PerFrameFunctionalGroupsSequence, strict=True):
        position = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float)
        rows, columns = np.nonzero(frame_HW)
        found = position + np.outer(columns * column_mm, directions[:3]) + np.outer(rows * row_mm, directions[3:])
        number = groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        points.setdefault(number, []).append(found)
    return [np.concatenate(parts).mean(axis=0) for parts in points.values()]
