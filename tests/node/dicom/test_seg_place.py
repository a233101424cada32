"""Segments land on the voxels that were drawn, however their frames are stored, or on none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from node.dicom.seg_file import Plane, SegFrame, SegmentationFile, read_segmentation
from node.dicom.seg_place import place
from node.dicom.volume import SourceVolume, read_volume
from node.errors import GeometryError

OBLIQUE = (0.9961946980917455, 0.0, -0.08715574274765817, 0.02255001, 0.965925826, 0.25774786)
SHAPE = (7, 20, 24)


class Drawing(SegmentationFile):
    """A segmentation whose planes are at hand, to be placed without a file."""

    drawn: tuple[tuple[SegFrame, Plane], ...]

    def planes(self, wanted: Any) -> Any:
        yield from ((frame, 1, plane_HW) for frame, plane_HW in self.drawn)


def drawing(frames: list[tuple[SegFrame, Plane]]) -> Drawing:
    made = Drawing(Path("seg.dcm"), "BINARY", "", (), "", "", (), tuple(frame for frame, _ in frames))
    object.__setattr__(made, "drawn", tuple(frames))
    return made


def mask() -> NDArray[np.bool_]:
    """An F that no flip or transposition maps onto itself, growing from slice to slice."""
    mask_DHW = np.zeros(SHAPE, bool)
    mask_DHW[1, 3:10, 4] = mask_DHW[2, 3:11, 4] = mask_DHW[3, 3:12, 4] = True
    mask_DHW[1:4, 3, 4:9] = mask_DHW[1:4, 6, 4:7] = True
    return mask_DHW


def frames_of(
    source: SourceVolume, mask_DHW: NDArray[np.bool_], step: tuple[int, int] = (1, 1), transposed: bool = False
) -> list[tuple[SegFrame, Plane]]:
    """The slices as frames whose rows or columns run the other way, or are exchanged."""
    affine = source.volume.affine_lps_mm
    _, height, width = mask_DHW.shape
    corner = (0, 0 if step[0] > 0 else height - 1, 0 if step[1] > 0 else width - 1)
    down, right = affine[:3, 1] * step[0], affine[:3, 2] * step[1]
    if transposed:
        down, right = right, down
    spacing = float(np.linalg.norm(down)), float(np.linalg.norm(right))
    orientation = tuple(map(float, (*(right / spacing[1]), *(down / spacing[0]))))
    found = []
    for d in np.flatnonzero(mask_DHW.any(axis=(1, 2))):
        position = (affine @ (d, *corner[1:], 1))[:3]
        plane_HW = mask_DHW[d, :: step[0], :: step[1]]
        frame = SegFrame(len(found) + 1, 1, tuple(map(float, position)), orientation, spacing, ())
        found.append((frame, plane_HW.T if transposed else plane_HW))
    return found


@pytest.fixture(scope="module")
def source(write_stack: Callable[..., Any]) -> SourceVolume:
    return read_volume(write_stack(SHAPE, orientation=OBLIQUE).role_input)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("step", [(1, 1), (-1, 1), (1, -1), (-1, -1)])
def test_all_eight_ways_round_come_to_the_same(source: SourceVolume, step: tuple[int, int], transposed: bool) -> None:
    placed = place(drawing(frames_of(source, mask(), step, transposed)), source, [1])
    np.testing.assert_array_equal(placed[1].whole(), mask())
    assert placed[1].outside == 0


def moved(frame: SegFrame, source: SourceVolume, by: tuple[float, float, float]) -> SegFrame:
    shift = source.volume.affine_lps_mm[:3, :3] @ by
    return replace(frame, position_lps_mm=tuple(map(float, np.array(frame.position_lps_mm) + shift)))


def test_a_smaller_matrix_is_put_where_it_lies(source: SourceVolume) -> None:
    cut = [(moved(frame, source, (0, 3, 4)), plane_HW[3:12, 4:9]) for frame, plane_HW in frames_of(source, mask())]
    placed = place(drawing(cut), source, [1])
    np.testing.assert_array_equal(placed[1].whole(), mask())


def test_what_lies_beyond_the_images_is_counted(source: SourceVolume) -> None:
    higher = [(moved(frame, source, (5, -4, 0)), plane_HW) for frame, plane_HW in frames_of(source, mask())]
    placed = place(drawing(higher), source, [1])
    kept = np.zeros(SHAPE, bool)
    kept[6, :8] = mask()[1, 4:12]
    np.testing.assert_array_equal(placed[1].whole(), kept)
    assert placed[1].outside == mask().sum() - kept.sum()


@pytest.mark.parametrize(
    ("by", "reason"),
    [
        ((0.5, 0.0, 0.0), "2.50 mm beside the nearest slice"),
        ((0.0, 0.5, 0.0), "between the pixels"),
        ((0.0, 0.0, -0.3), "between the pixels"),
    ],
)
def test_another_grid_is_refused(source: SourceVolume, by: tuple[float, float, float], reason: str) -> None:
    frames = [(moved(frame, source, by), plane_HW) for frame, plane_HW in frames_of(source, mask())]
    with pytest.raises(GeometryError, match=reason):
        place(drawing(frames), source, [1])


@pytest.mark.parametrize(
    "change",
    [
        {"pixel_spacing_mm": (1.52, 1.25)},
        {"pixel_spacing_mm": (3.0, 2.5)},
        {"orientation": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)},
    ],
)
def test_other_pixels_are_refused(source: SourceVolume, change: dict[str, Any]) -> None:
    frames = [(replace(frame, **change), plane_HW) for frame, plane_HW in frames_of(source, mask())]
    with pytest.raises(GeometryError, match="other pixels than the slices"):
        place(drawing(frames), source, [1])


def test_table_positions_that_are_rounded_move_nothing(write_stack: Callable[..., Any]) -> None:
    def rounded(dataset: Any, d: int) -> None:
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x, y, round(float(z) + (0.04 if d % 2 else -0.04), 2)]

    source = read_volume(write_stack(SHAPE, spacing_mm=(0.8, 1.5, 1.25), edit=rounded).role_input)
    frames = frames_of(source, mask())
    real = [
        (replace(frame, position_lps_mm=source.slices[d].position_lps_mm), plane_HW)
        for d, (frame, plane_HW) in zip((1, 2, 3), frames, strict=True)
    ]
    np.testing.assert_array_equal(place(drawing(real), source, [1])[1].whole(), mask())


def test_a_segment_without_a_voxel_is_there_and_empty(source: SourceVolume) -> None:
    placed = place(drawing(frames_of(source, mask())), source, [1, 2])
    assert placed[2].voxels == 0
    assert not placed[2].whole().any()


def test_frames_of_one_place_add_up(source: SourceVolume) -> None:
    left, right = mask(), mask()
    left[:, :, 5:], right[:, :, :5] = False, False
    placed = place(drawing([*frames_of(source, left), *frames_of(source, right)]), source, [1])
    np.testing.assert_array_equal(placed[1].whole(), mask())


def test_our_own_segmentation_comes_back(
    write_stack: Callable[..., Any], make_context: Callable[..., Any], lesions_on: Callable[..., Any], tmp_path: Path
) -> None:
    from node.dicom.seg import encode_seg

    stack = write_stack(SHAPE, orientation=OBLIQUE, file_order=[3, 1, 6, 0, 5, 2, 4])
    source, lesions = read_volume(stack.role_input), lesions_on(stack)
    encode_seg(make_context(), source, lesions.mask, lesions.findings, lesions.tracking, tmp_path / "seg.dcm")
    seg = read_segmentation(tmp_path / "seg.dcm")
    placed = place(seg, source, [1, 2])
    for number in (1, 2):
        np.testing.assert_array_equal(placed[number].whole(), lesions.mask.labels_DHW == number)
    assert all(segment.is_automatic for segment in seg.segments)
