"""The picture shows every lesion where it is, as radiologists hang it, in millimetres, and no patient."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage

from model.card import OutputSpec
from model.findings import Finding, find_lesions
from model.volume import Mask, Volume
from node.dicom.header import FrameHeader
from node.dicom.palette import lesion_rgb
from node.dicom.volume import SourceVolume, read_volume
from node.domain import InstanceRef, RoleInput
from node.overlay import draw_overlay
from node.overlay_view import (
    body_crop,
    crop_around,
    direction_letters,
    hanging,
    render,
    slice_label,
    slice_of,
    window_of,
)

SHAPE = (8, 60, 64)
AXIAL = np.array([[0, 0, 4.0, -128], [0, 4.0, 0, -120], [10.0, 0, 0, 50], [0, 0, 0, 1]])
LESION_LPS = np.array([-60.0, -30.0, 90.0])
"""In the patient's right and front."""


def flipped(axes: tuple[int, ...]) -> NDArray[np.float64]:
    """The affine of the same grid with some of its array axes running the other way."""
    turn = np.eye(4)
    for axis in axes:
        turn[axis, axis], turn[axis, 3] = -1, SHAPE[axis] - 1
    return AXIAL @ turn


def patient(affine: NDArray[np.float64], shape: tuple[int, int, int] = SHAPE) -> tuple[Volume, NDArray[np.bool_]]:
    """A body, bright on its left, and a lesion: the same in the patient for every affine."""
    indices = np.stack(np.indices(shape), axis=-1).reshape(-1, 3)
    x, y, z = (indices @ affine[:3, :3].T + affine[:3, 3]).T
    body = (x / 110) ** 2 + (y / 90) ** 2 < 1
    values = np.where(body, 60 + 0.4 * x - 0.2 * y + 0.3 * (z - 85), -1000.0)
    # turned in its slice, so that no two diameters are the longest
    along, across = (x - LESION_LPS[0]) + 0.4 * (y - LESION_LPS[1]), (y - LESION_LPS[1]) - 0.4 * (x - LESION_LPS[0])
    lesion = (along / 30) ** 2 + (across / 15) ** 2 + ((z - LESION_LPS[2]) / 14) ** 2 < 1
    return Volume(values.reshape(shape).astype(np.float32), affine), lesion.reshape(shape)


def scene(affine: NDArray[np.float64] = AXIAL) -> tuple[SourceVolume, Mask, tuple[Finding, ...]]:
    volume, lesion = patient(affine)
    mask, findings = find_lesions(lesion.astype(np.float32), volume, OutputSpec())
    header = Dataset()
    header.SOPClassUID, header.PatientName = CTImageStorage, "Secret^Name"
    return SourceVolume(volume, (), FrameHeader(header)), mask, findings


def picture(path: Path, affine: NDArray[np.float64] = AXIAL, **options: Any) -> NDArray[np.uint8]:
    source, mask, findings = scene(affine)
    draw_overlay(path, source, mask, findings, title="Portal-venous CT", **options)
    return pixels_of(path)


def pixels_of(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.array(image)


def close_to(pixels: NDArray[np.uint8], colour: tuple[int, int, int]) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = np.abs(pixels.astype(int) - colour).max(axis=2) < 40
    return found


@pytest.mark.parametrize(
    ("affine", "letters"),
    [
        (AXIAL, ("R", "L", "A", "P")),
        (flipped((0,)), ("R", "L", "A", "P")),
        (flipped((1,)), ("R", "L", "A", "P")),
        (flipped((2,)), ("R", "L", "A", "P")),
        (AXIAL[:, [0, 2, 1, 3]], ("R", "L", "A", "P")),
        (AXIAL[[0, 2, 1, 3]], ("R", "L", "H", "F")),
        (AXIAL[[2, 0, 1, 3]], ("A", "P", "H", "F")),
    ],
    ids=["axial", "from above", "rows reversed", "columns reversed", "transposed", "coronal", "sagittal"],
)
def test_every_plane_is_hung_as_radiologists_do(
    affine: NDArray[np.float64], letters: tuple[str, str, str, str]
) -> None:
    assert hanging(affine).letters == letters


@pytest.mark.parametrize(
    ("direction", "letters"),
    [
        ((1, 0, 0), "L"),
        ((-1, 0, 0), "R"),
        ((0, 1, 0), "P"),
        ((0, 0, -1), "F"),
        ((-0.8, -0.6, 0), "RA"),
        ((0.99, 0.1, 0), "L"),
    ],
)
def test_directions_are_lettered_main_one_first(direction: tuple[float, ...], letters: str) -> None:
    assert direction_letters(np.array(direction, float)) == letters


@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 1), (0, 1, 2)])
def test_the_same_patient_looks_the_same_however_the_array_runs(tmp_path: Path, axes: tuple[int, ...]) -> None:
    expected = picture(tmp_path / "expected.png").astype(int)
    found = picture(tmp_path / "found.png", flipped(axes)).astype(int)
    assert found.shape == expected.shape
    # all but the slice's number, which follows the array
    different = np.abs(found - expected).max(axis=2) > 40
    assert different.mean() < 0.002


def test_the_patients_right_is_on_the_left_of_the_picture(tmp_path: Path) -> None:
    source, _, findings = scene()
    pixels = picture(tmp_path / "overlay.png")[100:600, 20:850]
    rows, columns = np.nonzero(close_to(pixels, lesion_rgb(1)))
    assert LESION_LPS[0] < 0  # right
    assert np.median(columns) < pixels.shape[1] / 2
    assert LESION_LPS[1] < 0  # front
    assert np.median(rows) < pixels.shape[0] / 2
    assert findings[0].slice_index == 4
    assert source.modality == "CT"


def test_a_position_in_the_patient_is_drawn_where_the_tissue_is() -> None:
    for axes in ((), (1,), (2,), (0, 1, 2)):
        affine = flipped(axes)
        volume, lesion = patient(affine)
        view = hanging(affine)
        inverse = np.linalg.inv(affine)
        index = inverse[:3, :3] @ LESION_LPS + inverse[:3, 3]
        (x, y), *_ = view.to_display(index[None, 1:], volume.array_DHW.shape[1:])
        shown = view.turned(lesion[round(index[0])])
        rows, columns = np.nonzero(shown)
        assert (x, y) == pytest.approx((columns.mean() + 0.5, rows.mean() + 0.5), abs=0.6)


def test_pixels_that_are_not_square_are_drawn_in_millimetres() -> None:
    affine = AXIAL @ np.diag([1.0, 0.5, 1.0, 1.0])
    view = hanging(affine)
    assert view.pixel_mm == (2.0, 4.0)
    crop = crop_around(np.array([32.0, 60.0]), 80.0, view, (120, 64))
    assert (crop.right - crop.left, crop.bottom - crop.top) == (20.0, 40.0)
    assert crop.size_mm(view) == (80.0, 80.0)


def test_a_close_up_stays_inside_the_slice() -> None:
    crop = crop_around(np.array([1.0, 59.0]), 80.0, hanging(AXIAL), (60, 64))
    assert (crop.left, crop.top, crop.right, crop.bottom) == (0.0, 40.0, 20.0, 60.0)


def test_the_body_is_found_without_the_table() -> None:
    volume, _ = patient(AXIAL)
    volume.array_DHW[:, 57, :] = 300
    crop = body_crop(volume, 4, hanging(AXIAL), is_ct=True, margin_mm=0)
    # the body is 220 by 180 mm about the origin, in pixels of 4 mm
    assert (crop.left, crop.top, crop.right, crop.bottom) == pytest.approx((4.5, 7.5, 59.5, 52.5), abs=2)


def test_windows_follow_the_modality() -> None:
    volume, _ = patient(AXIAL)
    assert window_of(volume, is_ct=True) == (-140, 240)
    low, high = window_of(Volume(np.abs(volume.array_DHW), AXIAL), is_ct=False)
    assert 0 < low < high
    assert window_of(Volume(np.zeros(SHAPE, np.float32), AXIAL), is_ct=False) == (0, 1)


def test_outside_of_the_slice_it_is_black() -> None:
    volume, _ = patient(AXIAL)
    bright = Volume(np.full(SHAPE, 500, np.float32), AXIAL)
    wide = body_crop(bright, 0, hanging(AXIAL), is_ct=True, margin_mm=0)
    beyond = type(wide)(-64, 0, 64, 60)
    pixels = np.asarray(render(bright, 0, hanging(AXIAL), beyond, (-140, 240), (128, 60)))
    assert (pixels[:, :60] == 0).all()
    assert (pixels[:, 68:] == 255).all()
    assert volume.array_DHW.shape == SHAPE


def test_truth_on_another_grid_is_shown_at_its_place() -> None:
    volume, lesion = patient(AXIAL)
    _, other = patient(flipped((0, 2)))
    truth = Mask(other.astype(np.uint16), flipped((0, 2)))
    for index in range(SHAPE[0]):
        np.testing.assert_array_equal(slice_of(truth, volume, index) > 0, lesion[index])


def test_truth_is_drawn_only_where_it_is_given(tmp_path: Path) -> None:
    _, mask, _ = scene()
    without = picture(tmp_path / "without.png")
    shifted = Mask(np.roll(mask.labels_DHW, 4, axis=2), mask.affine_lps_mm)
    with_truth = picture(tmp_path / "with.png", truth=shifted)
    region = (slice(100, 600), slice(60, 800))
    assert close_to(with_truth[region], (255, 255, 255)).sum() > close_to(without[region], (255, 255, 255)).sum() + 50


def test_the_warning_stands_in_amber(tmp_path: Path) -> None:
    without = picture(tmp_path / "without.png")[:80]
    warned = picture(tmp_path / "with.png", warning="RESEARCH USE ONLY - DEMO WEIGHTS trained on phantoms")[:80]
    amber = (255, 193, 70)
    assert close_to(warned, amber).sum() > close_to(without, amber).sum() + 500


def test_without_a_lesion_the_middle_slice_is_shown(tmp_path: Path) -> None:
    source, mask, _ = scene()
    empty = Mask(np.zeros_like(mask.labels_DHW), mask.affine_lps_mm)
    draw_overlay(tmp_path / "none.png", source, empty, (), title="Portal-venous CT")
    pixels = pixels_of(tmp_path / "none.png")
    assert not close_to(pixels[90:], lesion_rgb(1)).any()
    assert slice_label(source.volume, 4) == "slice 5/8   z +90.0 mm"


def test_many_lesions_are_listed_and_the_rest_counted(tmp_path: Path) -> None:
    volume, _ = patient(AXIAL)
    probability = np.zeros(SHAPE, np.float32)
    for number in range(12):
        probability[4, 20 + 4 * (number // 4), 20 + 4 * (number % 4)] = 1
    mask, findings = find_lesions(probability, volume, OutputSpec())
    source, *_ = scene()
    draw_overlay(tmp_path / "many.png", source, mask, findings, title="Portal-venous CT")
    assert len(findings) == 12
    assert pixels_of(tmp_path / "many.png").shape[1] == 1280


def test_no_patient_is_in_the_file(tmp_path: Path) -> None:
    picture(tmp_path / "overlay.png")
    with Image.open(tmp_path / "overlay.png") as image:
        assert image.info == {}
    assert b"Secret" not in (tmp_path / "overlay.png").read_bytes()


def test_a_picture_of_a_real_ct_is_drawn(
    shared_data: Path, read_series: Callable[[Path], SourceVolume], tmp_path: Path
) -> None:
    source = read_series(shared_data / "ct-liver/crlm-ct-1004")
    probability = np.zeros(source.volume.array_DHW.shape, np.float32)
    probability[20, 220:250, 150:190] = 1
    mask, findings = find_lesions(probability, source.volume, OutputSpec())
    draw_overlay(tmp_path / "ct.png", source, mask, findings, title="Portal-venous CT")
    pixels = pixels_of(tmp_path / "ct.png")[100:700, 20:850]
    _, columns = np.nonzero(close_to(pixels, lesion_rgb(1)))
    assert np.median(columns) < pixels.shape[1] / 2


@pytest.fixture
def read_series() -> Callable[[Path], SourceVolume]:
    """All instances in a folder as one volume."""

    def read(folder: Path) -> SourceVolume:
        paths = sorted(folder.glob("*.dcm"))
        headers = [dcmread(path, stop_before_pixels=True) for path in paths]
        refs = (InstanceRef(h.SOPInstanceUID, h.SOPClassUID, p, "") for h, p in zip(headers, paths, strict=True))
        return read_volume(RoleInput(headers[0].SeriesInstanceUID, tuple(refs)))

    return read
