"""The instances of one series → one volume with its place in the patient, and back-references slice by slice.

Of several diffusion directions at the same positions the volume is the geometric mean, voxel by voxel.

Values are the modality's: Rescale Slope and Intercept are applied per slice (per frame in enhanced instances,
where vendors change them from frame to frame). Padding outside the field of view becomes the lowest real value.
MONOCHROME1 changes nothing in CT, whose values are HU whatever the display; in MR, whose values have no meaning
but their display, it is turned so that bright is high.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    MRImageStorage,
)

from model.volume import Buffer, Float, Volume
from node.dicom.grid import SPACING_TOLERANCE_MM, plan_grid
from node.dicom.header import FrameHeader, as_numbers, frames, read_instance, text, value
from node.dicom.pixels import Stored, encoded_frame_count, stored_frames
from node.domain import InstanceRef, RoleInput
from node.errors import GeometryError, UnreadableInstance

_MODALITY: dict[str, Literal["CT", "MR"]] = {
    CTImageStorage: "CT",
    EnhancedCTImageStorage: "CT",
    LegacyConvertedEnhancedCTImageStorage: "CT",
    MRImageStorage: "MR",
    EnhancedMRImageStorage: "MR",
    LegacyConvertedEnhancedMRImageStorage: "MR",
}


def modality_of(sop_class_uid: str) -> Literal["CT", "MR"] | None:
    """What instances of a SOP class are, None for all that are no source of a volume."""
    return _MODALITY.get(sop_class_uid)


@dataclass(frozen=True)
class SliceRef:
    """Which instance, and which 1-based frame of it (None in a classic instance), fills one slice of the array."""

    sop_instance_uid: str
    sop_class_uid: str
    path: Path
    frame: int | None
    position_lps_mm: tuple[float, float, float]


@dataclass(frozen=True)
class SourceVolume:
    """A volume and what it was read from; `slices[d]` belongs to `volume.array_DHW[d]`.

    `header` is that of the first slice, without pixel data. Of a mean over directions `slices` are those of the
    first, and `other_directions` hold the rest, each on the same grid.
    """

    volume: Volume
    slices: tuple[SliceRef, ...]
    header: FrameHeader
    b_value_s_mm2: float | None = None
    other_directions: tuple[tuple[SliceRef, ...], ...] = ()

    @property
    def derivation(self) -> str:
        """How the image came to be that a reader of results will not find in the study; empty for one as acquired."""
        count = 1 + len(self.other_directions)
        return f"geometric mean of {count} directions, derived in the node" if self.other_directions else ""

    @property
    def every_slice(self) -> tuple[SliceRef, ...]:
        """All that was read: direction after direction, the first first, by which viewers place a result."""
        return tuple(item for direction in (self.slices, *self.other_directions) for item in direction)

    def slices_at(self, index: int) -> tuple[SliceRef, ...]:
        """What slice `index` of the array was made of."""
        return tuple(direction[index] for direction in (self.slices, *self.other_directions))

    @property
    def study_uid(self) -> str:
        """Study Instance UID."""
        return text(self.header.root, "StudyInstanceUID")

    @property
    def series_uid(self) -> str:
        """Series Instance UID."""
        return text(self.header.root, "SeriesInstanceUID")

    @property
    def modality(self) -> Literal["CT", "MR"]:
        """By the SOP class, whatever the header says."""
        return _MODALITY[text(self.header.root, "SOPClassUID")]

    @property
    def frame_of_reference_uid(self) -> str:
        """Frame of Reference UID; empty where the source has none."""
        return str(self.header.get("FrameOfReferenceUID", ""))


@dataclass(frozen=True)
class _Slice:
    instance: InstanceRef
    header: FrameHeader


def read_volume(role_input: RoleInput, buffer: Buffer | None = None) -> SourceVolume:
    """Read the chosen instances (and, of enhanced ones, the chosen frames) as one volume, in `buffer` if given.

    Raises GeometryError where the slices form none (one sentence says why) and UnreadableInstance where a file is
    no image that can be decoded.
    """
    source = replace(_read(role_input.instances, buffer), b_value_s_mm2=role_input.b_value_s_mm2)
    return _averaged(source, role_input.other_directions) if role_input.other_directions else source


def _averaged(source: SourceVolume, others: Sequence[Sequence[InstanceRef]]) -> SourceVolume:
    """The geometric mean, in the memory of its first direction; of the others one is held at a time.

    A scale that a vendor changes from direction to direction scales this mean and bends no contrast.
    """
    sum_DHW, scratch = _logarithm(source.volume.array_DHW), Buffer(np.float32)
    read: list[tuple[SliceRef, ...]] = []
    for instances in others:
        direction = _read(instances, scratch)
        _refuse_other_place(source, direction)
        sum_DHW += _logarithm(direction.volume.array_DHW)
        read.append(direction.slices)
    sum_DHW /= 1 + len(others)
    np.exp(sum_DHW, out=sum_DHW)
    return replace(source, other_directions=tuple(read))


def _logarithm(array_DHW: Float) -> Float:
    """In place. A value of 0 makes a mean of almost 0, as it should, and never one that is no number."""
    np.maximum(array_DHW, np.finfo(np.float32).tiny, out=array_DHW)
    return np.log(array_DHW, out=array_DHW)


def _refuse_other_place(source: SourceVolume, direction: SourceVolume) -> None:
    """Voxels are averaged by their index, so two grids are one or there is no mean."""
    one, other = source.volume, direction.volume
    if (source.series_uid, source.frame_of_reference_uid) != (direction.series_uid, direction.frame_of_reference_uid):
        raise GeometryError("the directions come from several series or frames of reference, so no mean is made")
    if one.array_DHW.shape != other.array_DHW.shape:
        raise GeometryError("the directions differ in size or number of slices, so no mean is made")
    corners = np.array(list(itertools.product(*((0.0, size - 1.0) for size in one.array_DHW.shape))))
    off_mm = float(np.linalg.norm(one.to_lps_mm(corners) - other.to_lps_mm(corners), axis=1).max())
    if off_mm > SPACING_TOLERANCE_MM:
        raise GeometryError(f"the directions lie up to {off_mm:.2f} mm apart, so no mean is made")


def _read(instances: Sequence[InstanceRef], buffer: Buffer | None) -> SourceVolume:
    slices = _slices(instances)
    grid = plan_grid([item.header for item in slices])
    ordered = [slices[index] for index in grid.order]
    array_DHW = (buffer or Buffer(np.float32)).take((len(ordered), grid.rows, grid.columns))
    _read_values(ordered, array_DHW)
    return SourceVolume(
        volume=Volume(array_DHW, grid.affine_lps_mm),
        slices=tuple(_reference(item) for item in ordered),
        header=ordered[0].header,
    )


def _slices(instances: Sequence[InstanceRef]) -> list[_Slice]:
    found: list[_Slice] = []
    for instance in instances:
        dataset = read_instance(instance.path)
        if modality_of(text(dataset, "SOPClassUID")) is None:
            raise UnreadableInstance(f"{instance.path.name}: no CT or MR image, {dataset.SOPClassUID.name}")
        if dataset.SOPInstanceUID != instance.sop_instance_uid:
            raise UnreadableInstance(f"{instance.path.name}: it holds another instance than the one that was chosen")
        headers = frames(dataset)
        if headers[0].number is None and encoded_frame_count(dataset) > 1:
            raise GeometryError("a multi-frame instance that does not say where its frames lie")
        if instance.frames and headers[0].number is not None:
            if max(instance.frames) > len(headers):
                raise GeometryError(f"frame {max(instance.frames)} was chosen of an instance with {len(headers)}")
            headers = tuple(headers[number - 1] for number in instance.frames)
        found += [_Slice(instance, header) for header in headers]
    return found


def _reference(item: _Slice) -> SliceRef:
    x, y, z = item.header.position_lps_mm
    instance = item.instance
    return SliceRef(instance.sop_instance_uid, instance.sop_class_uid, instance.path, item.header.number, (x, y, z))


def _read_values(ordered: list[_Slice], array_DHW: Float) -> None:
    """Fill in rescaled values; pixel data are dropped from the data sets as they are decoded."""
    lowest, padded = np.inf, False
    by_instance: dict[str, list[int]] = defaultdict(list)
    for index, item in enumerate(ordered):
        by_instance[item.instance.sop_instance_uid].append(index)
    for indices in by_instance.values():
        root, name = ordered[indices[0]].header.root, ordered[indices[0]].instance.path.name
        numbers = [ordered[index].header.number or 1 for index in indices]
        for index, stored_HW in zip(indices, stored_frames(root, numbers, name=name), strict=True):
            in_slice, has_padding = _fill(array_DHW[index], stored_HW, ordered[index])
            lowest, padded = min(lowest, in_slice), padded or has_padding
        del root.PixelData
    if not np.isfinite(lowest):
        raise UnreadableInstance("the series holds nothing but padding")
    if padded:
        array_DHW[np.isnan(array_DHW)] = lowest
    _turn_to_bright(array_DHW, ordered)


def _fill(target_HW: Float, stored_HW: Stored, item: _Slice) -> tuple[float, bool]:
    """Write one slice's rescaled values, NaN where it is padded.

    Returns the lowest real one (inf where none is), and whether there is padding.
    """
    name = item.instance.path.name
    if stored_HW.shape != target_HW.shape:
        raise UnreadableInstance(f"{name}: its pixels are {stored_HW.shape}, its header says {target_HW.shape}")
    slope, intercept = _rescale(item.header, name)
    np.multiply(stored_HW, slope, out=target_HW, casting="unsafe")
    target_HW += intercept
    padded_HW = _padded(stored_HW, item.header)
    if padded_HW is None:
        return float(target_HW.min()), False
    real = target_HW[~padded_HW]
    target_HW[padded_HW] = np.nan
    return float(real.min(initial=np.inf)), True


def _rescale(header: FrameHeader, name: str) -> tuple[float, float]:
    if value(header.root, "ModalityLUTSequence"):
        raise UnreadableInstance(f"{name}: its values are defined by a lookup table, which is not supported")
    slope, intercept = header.numbers("RescaleSlope"), header.numbers("RescaleIntercept")
    if modality_of(text(header.root, "SOPClassUID")) == "CT" and not (slope and intercept):
        raise UnreadableInstance(f"{name}: a CT without rescale slope and intercept, its values are not HU")
    if slope and slope[0] == 0:
        raise UnreadableInstance(f"{name}: Rescale Slope is 0")
    return (slope or (1.0,))[0], (intercept or (0.0,))[0]


def _padded(stored_HW: Stored, header: FrameHeader) -> NDArray[np.bool_] | None:
    """Where Pixel Padding Value, or the range up to Pixel Padding Range Limit, stands (PS3.3 C.7.5.1.1.2)."""
    padding = _as_stored(value(header.root, "PixelPaddingValue"), stored_HW.dtype)
    if padding is None:
        return None
    limit = _as_stored(value(header.root, "PixelPaddingRangeLimit"), stored_HW.dtype)
    low, high = sorted((padding, padding if limit is None else limit))
    padded_HW = (stored_HW >= low) & (stored_HW <= high) if high > low else stored_HW == low
    return padded_HW if padded_HW.any() else None


def _as_stored(found: object, dtype: np.dtype[Any]) -> int | None:
    """A value "US or SS" as the pixels are signed: implicit VR leaves it as bytes, some senders write it unsigned."""
    if isinstance(found, bytes):
        return int(np.frombuffer(found[:2], "<i2" if dtype.kind == "i" else "<u2")[0]) if len(found) >= 2 else None
    numbers = as_numbers(found) if found is not None else ()
    if not numbers:
        return None
    is_wrapped = dtype.kind == "i" and 1 << 15 <= numbers[0] < 1 << 16
    return int(numbers[0]) - (1 << 16 if is_wrapped else 0)


def _turn_to_bright(array_DHW: Float, ordered: list[_Slice]) -> None:
    photometric = {text(item.header.root, "PhotometricInterpretation") for item in ordered}
    if not photometric <= {"MONOCHROME1", "MONOCHROME2"} or len(photometric) > 1:
        raise UnreadableInstance(f"{ordered[0].instance.path.name}: Photometric Interpretation {sorted(photometric)}")
    is_ct = modality_of(text(ordered[0].header.root, "SOPClassUID")) == "CT"
    if photometric == {"MONOCHROME1"} and not is_ct:
        np.subtract(array_DHW.max() + array_DHW.min(), array_DHW, out=array_DHW)
