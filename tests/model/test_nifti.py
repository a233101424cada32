"""Every grid survives NIfTI, and SimpleITK, which is not ours, reads and writes the same."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model.nifti import NiftiProblem, read_nifti, write_nifti

SHAPE = (3, 5, 7)
LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def numbers(dtype: str = "i2") -> NDArray[np.integer]:
    """No flip or transposition of these equals them."""
    return np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(dtype)


def oblique_affine(spacing_mm: tuple[float, float, float] = (5.25, 0.7, 0.9), *, upwards: bool = True) -> NDArray:
    """Right angles, turned about two axes of the patient."""
    a, b = 0.3, -0.2
    rx = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    rz = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = (rx @ rz)[:, [2, 1, 0]] * np.array(spacing_mm) * (1 if upwards else -1, 1, 1)
    affine[:3, 3] = (-231.4375, -188.125, 912.3)
    return affine


def sheared_affine() -> NDArray:
    """A CT whose gantry leans by 17°: slices shift within their plane."""
    affine = oblique_affine()
    affine[:3, 0] += 1.6 * affine[:3, 1]
    return affine


def furthest_mm(one: NDArray, other: NDArray, shape: tuple[int, ...] = (200, 512, 512)) -> float:
    """How far apart a corner of a whole CT lies."""
    corners = np.array(np.meshgrid(*((0, size - 1) for size in shape), [1])).reshape(4, -1)
    return float(np.linalg.norm(((one - other) @ corners)[:3], axis=0).max())


@pytest.mark.parametrize("name", ["image.nii", "image.nii.gz"])
@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "f4", "f8"])
def test_voxels_come_back_as_they_were(tmp_path: Path, name: str, dtype: str) -> None:
    write_nifti(tmp_path / name, numbers(dtype), oblique_affine())
    back = read_nifti(tmp_path / name)
    assert back.array_DHW.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(back.array_DHW, numbers(dtype))


@pytest.mark.parametrize(
    "affine", [oblique_affine(), oblique_affine(upwards=False), sheared_affine()], ids=["oblique", "flipped", "leaning"]
)
def test_the_place_of_a_whole_ct_comes_back_within_a_micrometre(tmp_path: Path, affine: NDArray) -> None:
    write_nifti(tmp_path / "image.nii.gz", numbers(), affine)
    assert furthest_mm(read_nifti(tmp_path / "image.nii.gz").affine_lps_mm, affine) < 1e-3


@settings(max_examples=40, deadline=None)
@given(
    steps=st.lists(st.floats(0.3, 8.0), min_size=3, max_size=3),
    angles=st.lists(st.floats(-3.0, 3.0), min_size=3, max_size=3),
    origin=st.lists(st.floats(-900.0, 900.0), min_size=3, max_size=3),
    flips=st.lists(st.sampled_from((1.0, -1.0)), min_size=3, max_size=3),
)
def test_any_grid_comes_back_within_a_micrometre(
    tmp_path_factory: pytest.TempPathFactory, steps: list, angles: list, origin: list, flips: list
) -> None:
    turn = SimpleITK.Euler3DTransform()
    turn.SetRotation(*angles)
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(turn.GetMatrix(), (3, 3)) * steps * flips
    affine[:3, 3] = origin
    path = tmp_path_factory.mktemp("any") / "image.nii"
    write_nifti(path, numbers(), affine)
    assert furthest_mm(read_nifti(path).affine_lps_mm, affine, SHAPE) < 1e-3


@pytest.mark.parametrize("upwards", [True, False])
def test_simpleitk_reads_what_we_write(tmp_path: Path, upwards: bool) -> None:
    affine = oblique_affine(upwards=upwards)
    write_nifti(tmp_path / "image.nii.gz", numbers(), affine)
    image = SimpleITK.ReadImage(tmp_path / "image.nii.gz")
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(image), numbers())
    for d, h, w in ((0, 0, 0), (2, 0, 0), (1, 4, 6)):
        place = image.TransformIndexToPhysicalPoint((w, h, d))
        np.testing.assert_allclose(place, (affine @ (d, h, w, 1))[:3], atol=1e-3)


def test_we_read_what_simpleitk_writes(tmp_path: Path) -> None:
    affine = oblique_affine()
    image = SimpleITK.GetImageFromArray(numbers())
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetSpacing(np.linalg.norm(affine[:3, [2, 1, 0]], axis=0).tolist())
    image.SetDirection((affine[:3, [2, 1, 0]] / image.GetSpacing()).ravel().tolist())
    SimpleITK.WriteImage(image, tmp_path / "image.nii.gz")
    back = read_nifti(tmp_path / "image.nii.gz")
    np.testing.assert_array_equal(back.array_DHW, numbers())
    assert furthest_mm(back.affine_lps_mm, affine, SHAPE) < 1e-3


def test_a_quaternion_without_an_sform_is_understood(tmp_path: Path) -> None:
    affine = oblique_affine(upwards=False)
    image = SimpleITK.GetImageFromArray(numbers())
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetSpacing(np.linalg.norm(affine[:3, [2, 1, 0]], axis=0).tolist())
    image.SetDirection((affine[:3, [2, 1, 0]] / image.GetSpacing()).ravel().tolist())
    SimpleITK.WriteImage(image, tmp_path / "both.nii")
    edit(tmp_path / "both.nii", 254, "<h", 0)
    assert furthest_mm(read_nifti(tmp_path / "both.nii").affine_lps_mm, affine, SHAPE) < 1e-3


def edit(path: Path, offset: int, layout: str, *values: float) -> None:
    raw = bytearray(path.read_bytes())
    struct.pack_into(layout, raw, offset, *values)
    path.write_bytes(raw)


def test_scaled_voxels_are_scaled(tmp_path: Path) -> None:
    write_nifti(tmp_path / "image.nii", numbers(), oblique_affine())
    edit(tmp_path / "image.nii", 112, "<2f", 0.5, -1024)
    np.testing.assert_allclose(read_nifti(tmp_path / "image.nii").array_DHW, numbers() * 0.5 - 1024)


def test_big_endian_files_are_read(tmp_path: Path) -> None:
    write_nifti(tmp_path / "image.nii", numbers(), oblique_affine())
    raw = (tmp_path / "image.nii").read_bytes()
    swapped = bytearray(raw)
    for layout, offset in (("i", 0), ("8h", 40), ("2h", 70), ("8f", 76), ("3f", 108), ("2h", 252), ("18f", 256)):
        struct.pack_into(f">{layout}", swapped, offset, *struct.unpack_from(f"<{layout}", raw, offset))
    swapped[352:] = numbers().astype(">i2").tobytes()
    (tmp_path / "image.nii").write_bytes(swapped)
    back = read_nifti(tmp_path / "image.nii")
    np.testing.assert_array_equal(back.array_DHW, numbers())
    assert furthest_mm(back.affine_lps_mm, oblique_affine(), SHAPE) < 1e-3


def test_the_same_array_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.nii.gz", "b.nii.gz"):
        write_nifti(tmp_path / name, numbers(), oblique_affine())
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


@pytest.mark.parametrize(
    ("offset", "layout", "values", "reason"),
    [
        (344, "4s", (b"nii\0",), "not a NIfTI-1 image in a single file"),
        (40, "<8h", (4, 7, 5, 3, 2, 1, 1, 1), "one volume of three axes"),
        (70, "<h", (128,), "data type 128 are not supported"),
        (254, "<h", (0,), "does not say how it lies in the patient"),
        (280, "<4f", (0, 0, 0, 0), "its affine is singular"),
        (40, "<8h", (3, 7, 5, 99, 1, 1, 1, 1), "cut short"),
    ],
)
def test_what_is_no_volume_is_refused_with_the_reason(
    tmp_path: Path, offset: int, layout: str, values: tuple, reason: str
) -> None:
    write_nifti(tmp_path / "image.nii", numbers(), oblique_affine())
    edit(tmp_path / "image.nii", offset, layout, *values)
    with pytest.raises(NiftiProblem, match=rf"image\.nii: .*{reason}"):
        read_nifti(tmp_path / "image.nii")


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "image.nii.gz"
    path.write_bytes(gzip.compress(b"x" * 5000)[:-9])
    with pytest.raises(NiftiProblem, match=r"image\.nii\.gz: the compressed file is damaged"):
        read_nifti(path)
    with pytest.raises(NiftiProblem, match="cannot be read"):
        read_nifti(tmp_path / "absent.nii")
