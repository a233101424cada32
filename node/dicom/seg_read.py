"""A segmentation of any writer → labels on a given grid, placed by what it says of positions in the patient."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset

from model.volume import Float64, Labels
from node.dicom.header import PARSE_FAULTS
from node.errors import ObjectError

_TOLERANCE_VOXELS = 0.05


def read_seg_labels(path: Path, shape_DHW: tuple[int, int, int], affine_lps_mm: Float64) -> Labels:
    """Segment numbers on the grid; 0 where none. Where segments overlap the higher number stands.

    Raises ObjectError where the file is no binary segmentation, or lies on another grid.
    """
    try:
        seg = dcmread(path)
        frames = np.atleast_3d(seg.pixel_array) if int(seg.NumberOfFrames) > 1 else seg.pixel_array[None]
        labels_DHW: Labels = np.zeros(shape_DHW, np.uint16)
        for groups, frame_HW in zip(seg.PerFrameFunctionalGroupsSequence, frames, strict=True):
            index = _slice_index(seg, groups, affine_lps_mm, shape_DHW[0], path)
            plane_HW = labels_DHW[index]
            np.maximum(plane_HW, frame_HW.astype(np.uint16) * _segment(seg, groups), out=plane_HW)
    except PARSE_FAULTS as error:
        raise ObjectError(f"{path.name}: not a segmentation that can be read ({type(error).__name__})") from error
    return labels_DHW


def _slice_index(seg: Dataset, groups: Dataset, affine_lps_mm: Float64, slices: int, path: Path) -> int:
    """Which slice of the grid a frame covers: its first voxel must be that slice's first voxel."""
    position = [*map(float, groups.PlanePositionSequence[0].ImagePositionPatient), 1.0]
    d, h, w, _ = np.linalg.solve(affine_lps_mm, position)
    if max(abs(d - round(d)), abs(h), abs(w)) > _TOLERANCE_VOXELS or not 0 <= round(d) < slices:
        raise ObjectError(f"{path.name}: a frame lies at voxel ({d:.2f}, {h:.2f}, {w:.2f}), not on this grid")
    nearest: int = round(d)
    return nearest


def _segment(seg: Dataset, groups: Dataset) -> int:
    for place in (groups, *seg.SharedFunctionalGroupsSequence):
        if "SegmentIdentificationSequence" in place:
            return int(place.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
    raise ObjectError("a frame of the segmentation names no segment")
