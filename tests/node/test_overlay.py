"""The picture shows every lesion where it is, as radiologists hang it, in millimetres, and no patient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, MRImageStorage

from model.body import body_of
from model.card import OutputSpec
from model.findings import Finding, find_lesions
from model.phantom import GEOMETRIES, Phantom, make_phantom
from model.phantom_paint import paint
from model.phantom_shapes import Grid
from model.volume import Mask, Volume
from node.dicom.header import FrameHeader
from node.dicom.palette import lesion_rgb
from node.dicom.volume import SliceRef, SourceVolume, read_volume
from node.domain import InstanceRef, RoleInput
from node.overlay import draw_overlay, instance_words
from node.overlay_view import (
    body_crop,
    crop_around,
    direction_letters,
    hanging,
    place_label,
    render,
    slice_label,
    slice_of,
    window_label,
    window_of,
)

SHAPE = (8, 60, 64)
AXIAL = np.array([[0, 0, 4.0, -128], [0, 4.0, 0, -120], [10.0, 0, 0, 50], [0, 0, 0, 1]])
LESION_LPS = np.array([-60.0, -30.0, 90.0])
"""In the patient's right and front."""
NOTHING = np.zeros(SHAPE, bool)
MR_CONDITIONS = ("pre-nact-dwi", "pre-nact-t2wi", "post-nact-dwi", "post-nact-t2wi")


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


@cache
def phantom(condition: str, seed: int = 900102, lesion_count: int | None = None) -> Phantom:
    """On half the matrix; the patient of the usual seed has a large metastasis with a rim and a necrosis."""
    geometry = GEOMETRIES[condition].resampled(128, 128)
    return make_phantom(condition, seed, geometry=geometry, b_values=(1000,), lesion_count=lesion_count)


def mr_window(made: Phantom) -> tuple[float, float]:
    return window_of(made.image, body_of(made.image.array_DHW, is_ct=False), made.labels_DHW > 0, is_ct=False)


def grey(values: NDArray[np.float32], window: tuple[float, float]) -> NDArray[np.float32]:
    low, high = window
    return np.clip((values - low) / (high - low), 0, 1)


def test_a_mean_of_directions_is_said_to_be_one(tmp_path: Path) -> None:
    """The words are drawn as details are, so the same details make the same picture."""
    source, mask, findings = scene()
    derived = replace(source, other_directions=((), ()))
    draw_overlay(tmp_path / "mean.png", derived, mask, findings, title="Portal-venous CT")
    told = picture(tmp_path / "told.png", details="geometric mean of 3 directions, derived in the node")
    np.testing.assert_array_equal(pixels_of(tmp_path / "mean.png"), told)


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
    crop = body_crop(volume, body_of(volume.array_DHW, is_ct=True), 4, hanging(AXIAL), margin_mm=0)
    # the body is 220 by 180 mm about the origin, in pixels of 4 mm
    assert (crop.left, crop.top, crop.right, crop.bottom) == pytest.approx((4.5, 7.5, 59.5, 52.5), abs=2)


@pytest.mark.parametrize("axes", [(1,), (2,), (1, 2)])
def test_the_body_is_cut_out_alike_however_the_array_runs(axes: tuple[int, ...]) -> None:
    crops = []
    for affine in (AXIAL, flipped(axes)):
        volume, _ = patient(affine)
        crops.append(body_crop(volume, body_of(volume.array_DHW, is_ct=True), 4, hanging(affine)))
    assert crops[0] == crops[1]


@pytest.mark.parametrize("condition", MR_CONDITIONS)
def test_the_crop_holds_the_body_and_little_else(condition: str) -> None:
    made = phantom(condition)
    affine = made.geometry.affine_mm
    painted = paint(made.parameters.patient, made.parameters.liver_vessels, Grid(affine, made.geometry.shape))
    view = hanging(made.image.affine_lps_mm)
    crop = body_crop(made.image, body_of(made.image.array_DHW, is_ct=False), 15, view, margin_mm=0)
    shown = view.turned(painted.tissue_DHW[15] > 0)
    rows, columns = np.flatnonzero(shown.any(axis=1)), np.flatnonzero(shown.any(axis=0))
    body = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    tolerance = 15 / view.pixel_mm[0]  # of a body of 250 by 350 mm
    assert (crop.left, crop.top, crop.right, crop.bottom) == pytest.approx(body, abs=tolerance)


@pytest.mark.parametrize("condition", MR_CONDITIONS)
def test_lesions_are_no_white_holes(condition: str) -> None:
    made = phantom(condition)
    shown = grey(made.image.array_DHW[made.labels_DHW > 0], mr_window(made))
    assert (shown >= 1).mean() < 0.05
    assert (shown <= 0).mean() < 0.05


def test_the_rim_stands_out_from_the_necrosis() -> None:
    made = phantom("pre-nact-dwi")
    shown = grey(made.image.array_DHW, mr_window(made))[made.labels_DHW == 1]
    necrosis, rim = np.percentile(shown, [5, 95])
    assert rim - necrosis > 0.3


@pytest.mark.parametrize("condition", MR_CONDITIONS)
@pytest.mark.parametrize(("lesion_count", "least"), [(None, 0.2), (0, 0.35)], ids=["with lesions", "without"])
def test_the_liver_is_mid_grey(condition: str, lesion_count: int | None, least: float) -> None:
    made = phantom(condition, lesion_count=lesion_count)
    liver = made.image.array_DHW[made.liver_DHW & (made.labels_DHW == 0)]
    assert least < np.median(grey(liver, mr_window(made))) < 0.5


def test_ct_has_the_soft_tissue_window() -> None:
    volume, lesion = patient(AXIAL)
    assert window_of(volume, body_of(volume.array_DHW, is_ct=True), lesion, is_ct=True) == (-140, 240)


def test_a_volume_of_one_value_has_a_window_too() -> None:
    volume = Volume(np.zeros(SHAPE, np.float32), AXIAL)
    assert window_of(volume, body_of(volume.array_DHW, is_ct=False), NOTHING, is_ct=False) == (0, 1)


@pytest.mark.parametrize(
    ("window", "is_ct", "words"),
    [
        ((-140.0, 240.0), True, "W 380  L 50 HU"),
        ((21.3, 288.1), False, "W 267  L 155"),
        ((0.0, 0.5), False, "W 0.50  L 0.25"),
    ],
)
def test_the_window_is_told_as_viewers_do(window: tuple[float, float], is_ct: bool, words: str) -> None:
    assert window_label(window, is_ct=is_ct) == words


@pytest.mark.parametrize(
    ("number", "frame", "words"),
    [("137", None, "image 137"), ("4", 12, "image 4 frame 12"), (None, None, ""), (None, 12, "frame 12")],
)
def test_the_source_image_is_named_by_its_instance_number(
    tmp_path: Path, number: str | None, frame: int | None, words: str
) -> None:
    refs = []
    for index, path in enumerate((tmp_path / "first.dcm", tmp_path / "second.dcm")):
        header = Dataset()
        header.SOPClassUID, header.SOPInstanceUID = MRImageStorage, f"2.25.{index + 1}"
        header.StudyInstanceUID, header.SeriesInstanceUID = "2.25.3", "2.25.4"
        header.InstanceNumber = number if index else "99"
        header.save_as(path, implicit_vr=False, little_endian=True)
        refs.append(SliceRef(header.SOPInstanceUID, MRImageStorage, path, frame, (0.0, 0.0, 10.0 * index)))
    volume = Volume(np.zeros((2, 8, 8), np.float32), AXIAL)
    source = SourceVolume(volume, tuple(refs), FrameHeader(dcmread(tmp_path / "first.dcm", force=True)))
    assert instance_words(source, 1) == words
    assert instance_words(source, 0).startswith("image 99")


def test_a_slice_is_named_by_its_number_and_its_place() -> None:
    volume, _ = patient(AXIAL)
    assert slice_label(volume, 4) == "slice 5/8"
    assert place_label(volume, 4) == "z +90.0 mm"


def test_outside_of_the_slice_it_is_black() -> None:
    volume, _ = patient(AXIAL)
    bright = Volume(np.full(SHAPE, 500, np.float32), AXIAL)
    wide = body_crop(bright, body_of(bright.array_DHW, is_ct=True), 0, hanging(AXIAL), margin_mm=0)
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
