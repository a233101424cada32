"""Lesions are counted and measured as a radiologist would: in millimetres, whichever way the volume lies."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.distance import pdist

from model.card import OutputSpec
from model.findings import Finding, find_lesions, label_lesions, longest_axes, reaches
from model.volume import Volume


def affine_of(spacing_mm: tuple[float, float, float], degrees: float = 0.0) -> np.ndarray:
    """Axial, slices upward, turned about the body axis by `degrees` and tilted by half of that."""
    affine = np.zeros((4, 4))
    affine[[2, 1, 0], [0, 1, 2]] = spacing_mm
    affine[:, 3] = (-100.0, -80.0, 40.0, 1.0)
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    about_z = np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    c, s = np.cos(np.radians(degrees / 2)), np.sin(np.radians(degrees / 2))
    about_x = np.array([[1, 0, 0, 0], [0, c, -s, 0], [0, s, c, 0], [0, 0, 0, 1]])
    return about_x @ about_z @ affine


def measured(mask: np.ndarray, affine: np.ndarray | None = None, **limits: float) -> tuple[Finding, ...]:
    volume = Volume(np.arange(mask.size, dtype=np.float32).reshape(mask.shape), np.eye(4) if affine is None else affine)
    return find_lesions(mask.astype(np.float32), volume, OutputSpec(**limits))[1]


def ball(shape: tuple[int, int, int], spacing_mm: tuple[float, ...], centre: tuple[float, ...], r: float) -> np.ndarray:
    axes = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    return sum(((a - c) * s) ** 2 for a, s, c in zip(axes, spacing_mm, centre, strict=True)) <= r * r


def test_one_voxel_has_its_own_size_and_not_zero() -> None:
    mask = np.zeros((3, 8, 8))
    mask[1, 4, 5] = 1
    (one,) = measured(mask, affine_of((5.0, 2.0, 1.0)))
    assert (one.long_axis_mm, one.short_axis_mm) == (2.0, pytest.approx(1.0))
    assert (one.voxel_count, one.volume_ml, one.slice_index) == (1, pytest.approx(0.010), 1)
    assert one.center_lps_mm == (-95.0, -72.0, 45.0)


def test_a_bar_is_as_long_and_as_wide_as_its_voxels() -> None:
    mask = np.zeros((3, 20, 20))
    mask[2, 3, 4:14] = 1
    (bar,) = measured(mask, affine_of((5.0, 0.5, 1.5)))
    assert bar.long_axis_mm == pytest.approx(15.0)
    assert bar.short_axis_mm == pytest.approx(0.5)
    assert sorted(end[0] for end in bar.long_axis_ends_lps_mm) == pytest.approx([-100 + 3.5 * 1.5, -100 + 13.5 * 1.5])


def test_the_slice_with_the_longest_diameter_is_the_one_measured() -> None:
    mask = np.zeros((6, 40, 40))
    for d, length in ((1, 6), (2, 12), (3, 18), (4, 9)):
        mask[d, 20:24, 5 : 5 + length] = 1
    (lesion,) = measured(mask)
    assert lesion.slice_index == 3
    assert lesion.long_axis_mm == pytest.approx(np.hypot(18, 3))


def islands(*, bridge: slice = slice(0)) -> np.ndarray:
    """Slice 1 has an island of 8 × 3 pixels and, two pixels on, one of 14 × 3; slice 2 a bridge between them."""
    mask = np.zeros((4, 12, 30), bool)
    mask[1, 5:8, 2:10] = mask[1, 5:8, 12:26] = True
    mask[2, 5:8, bridge] = True
    return mask


def test_two_islands_in_one_slice_are_not_measured_across_the_gap() -> None:
    axes = longest_axes(islands(), np.eye(4))
    assert (axes.long_mm, axes.slice_index) == (pytest.approx(np.hypot(14, 2)), 1)
    assert axes.short_mm == pytest.approx(3, abs=0.5)
    ends = np.concatenate([axes.long_ends, axes.short_ends])
    assert (ends[:, 1] >= 11.5).all()  # all in the longer island


def test_a_bridge_in_another_slice_does_not_lengthen_an_island() -> None:
    """The longest bridge is a piece of its own, and then the longest."""
    alone, *_ = measured(islands())
    (bridged,) = measured(islands(bridge=slice(8, 14)))
    assert bridged.slice_index == 1
    assert bridged.long_axis_mm == pytest.approx(alone.long_axis_mm)
    assert bridged.short_axis_mm == pytest.approx(alone.short_axis_mm)
    assert np.allclose(bridged.long_axis_ends_lps_mm, alone.long_axis_ends_lps_mm)
    (by_far,) = measured(islands(bridge=slice(6, 24)))
    assert (by_far.slice_index, by_far.long_axis_mm) == (2, pytest.approx(np.hypot(18, 2)))


def test_islands_that_touch_by_a_corner_are_one_piece() -> None:
    mask = np.zeros((3, 12, 12), bool)
    mask[1, 1:4, 1:4] = mask[1, 4:7, 4:7] = True
    axes = longest_axes(mask, np.eye(4))
    assert axes.long_mm == pytest.approx(np.hypot(6, 5))


def test_of_equally_long_slices_the_first_is_measured() -> None:
    mask = np.zeros((5, 12, 12), bool)
    mask[1:4, 2:5, 2:9] = True
    mask[3, 5:8, 4] = True  # with more room for a long axis, which is no longer
    assert longest_axes(mask, np.eye(4)).slice_index == 1


@pytest.mark.parametrize("degrees", [0.0, 27.0, -40.0])
@pytest.mark.parametrize("radius_mm", [6.0, 12.0, 25.0])
def test_a_sphere_has_its_true_diameters_volume_and_centre(degrees: float, radius_mm: float) -> None:
    spacing, centre = (2.5, 0.8, 0.8), (16.3, 40.2, 45.6)
    mask = ball((32, 90, 90), spacing, centre, radius_mm)
    affine = affine_of(spacing, degrees)
    (sphere,) = measured(mask, affine)
    assert sphere.long_axis_mm == pytest.approx(2 * radius_mm, abs=0.8)
    assert sphere.short_axis_mm == pytest.approx(2 * radius_mm, abs=0.8)
    assert sphere.volume_ml == pytest.approx(4 / 3 * np.pi * radius_mm**3 / 1000, rel=0.08)
    true_centre = (affine @ [*centre, 1])[:3]
    assert np.linalg.norm(np.array(sphere.center_lps_mm) - true_centre) < 1.0


@pytest.mark.parametrize("seed", range(12))
def test_the_long_axis_is_the_longest_of_all_distances_between_edges(seed: int) -> None:
    """Against brute force over each piece's pairs of edge midpoints, on ragged shapes and uneven pixels."""
    rng = np.random.default_rng(seed)
    blob = ndimage.gaussian_filter(rng.normal(size=(5, 40, 40)), (0.7, 3, 3))
    labels, _ = ndimage.label(blob > 0.05, np.ones((3, 3, 3)))
    lesion = labels == np.argmax(np.bincount(labels.ravel())[1:]) + 1
    affine = affine_of((4.0, 1.3, 0.7), degrees=float(rng.uniform(-40, 40)))
    longest = 0.0
    for d in np.flatnonzero(lesion.any(axis=(1, 2))):
        pieces, count = ndimage.label(lesion[d], np.ones((3, 3)))
        for number in range(1, count + 1):
            pixels = np.argwhere(pieces == number)
            points = np.concatenate([pixels + o for o in ([-0.5, 0], [0.5, 0], [0, -0.5], [0, 0.5])])
            longest = max(longest, float(pdist(points * [1.3, 0.7]).max()))
    assert longest_axes(lesion, affine).long_mm == pytest.approx(longest)


@pytest.mark.parametrize("seed", range(12))
def test_the_short_axis_is_perpendicular_in_the_same_slice_and_crosses_the_long_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    blob = ndimage.gaussian_filter(rng.normal(size=(4, 50, 50)), (0.7, 4, 4))
    affine = affine_of((4.0, 1.3, 0.7), degrees=25.0)
    for lesion in measured(blob > 0.03, affine, minimum_lesion_voxels=30):
        long = np.subtract(*reversed(lesion.long_axis_ends_lps_mm))
        short = np.subtract(*reversed(lesion.short_axis_ends_lps_mm))
        assert np.linalg.norm(long) == pytest.approx(lesion.long_axis_mm)
        assert np.linalg.norm(short) == pytest.approx(lesion.short_axis_mm)
        assert lesion.short_axis_mm <= lesion.long_axis_mm + 1e-9
        assert abs(long @ short) < 1e-6 * lesion.long_axis_mm**2
        start = np.array(lesion.long_axis_ends_lps_mm[0])
        share, _ = np.linalg.lstsq(
            np.column_stack([long, -short]), np.array(lesion.short_axis_ends_lps_mm[0]) - start, rcond=None
        )[0]
        assert -1e-6 <= share <= 1 + 1e-6


def test_an_ellipse_has_its_own_short_axis() -> None:
    rows, columns = np.mgrid[:120, :120]
    turn = np.radians(33)
    u = (rows - 60) * np.cos(turn) + (columns - 60) * np.sin(turn)
    v = -(rows - 60) * np.sin(turn) + (columns - 60) * np.cos(turn)
    mask = np.zeros((3, 120, 120))
    mask[1] = (u / 40) ** 2 + (v / 15) ** 2 <= 1
    (ellipse,) = measured(mask)
    assert ellipse.long_axis_mm == pytest.approx(80, abs=1)
    assert ellipse.short_axis_mm == pytest.approx(30, abs=1.5)


def test_voxels_that_touch_by_a_corner_only_are_one_lesion() -> None:
    mask = np.zeros((3, 5, 5))
    mask[0, 1, 1] = mask[1, 2, 2] = 1
    assert [f.voxel_count for f in measured(mask)] == [2]


def test_lesions_are_numbered_by_volume_and_the_mask_agrees() -> None:
    mask = np.zeros((4, 30, 30))
    mask[1, 2:4, 2:4] = mask[1, 10:15, 10:15] = mask[2, 20:23, 20:23] = 1
    volume = Volume(np.zeros(mask.shape, np.float32), np.eye(4))
    labelled, findings = find_lesions(mask, volume, OutputSpec())
    assert [f.voxel_count for f in findings] == [25, 9, 4]
    assert [f.number for f in findings] == [1, 2, 3]
    assert labelled.count == 3
    assert (labelled.labels_DHW[1, 12, 12], labelled.labels_DHW[2, 21, 21], labelled.labels_DHW[1, 2, 2]) == (1, 2, 3)


@pytest.mark.parametrize(
    ("limits", "left"), [({"minimum_lesion_voxels": 5}, 2), ({"minimum_lesion_ml": 0.02}, 1), ({}, 3)]
)
def test_what_is_below_the_minimum_size_is_no_lesion(limits: dict[str, float], left: int) -> None:
    mask = np.zeros((4, 30, 30))
    mask[1, 2:4, 2:4] = mask[1, 10:15, 10:15] = mask[2, 20:23, 20:23] = 1
    assert len(measured(mask, **limits)) == left


def test_a_lesion_of_exactly_the_minimum_volume_is_kept() -> None:
    mask = np.zeros((3, 10, 10))
    mask[1, 2:5, 2:7] = 1
    assert len(measured(mask, affine_of((1.0, 1.0, 1.0)), minimum_lesion_ml=0.015)) == 1


def test_the_threshold_belongs_to_the_lesion() -> None:
    probability = np.zeros((3, 5, 5), np.float32)
    probability[1, 2, 2:4] = (0.5, 0.49)
    volume = Volume(np.zeros((3, 5, 5), np.float32), np.eye(4))
    (only,) = find_lesions(probability, volume, OutputSpec())[1]
    assert (only.voxel_count, only.mean_probability) == (1, 0.5)


@pytest.mark.parametrize("least", [1e-7, 0.1, 0.3, 0.4, 0.5, 0.6, 0.7, 0.95, 0.9999])
def test_halves_reach_a_threshold_exactly_as_their_values_do(least: float) -> None:
    every_half = np.arange(0x3C01, dtype=np.uint16).view(np.float16)  # from 0 to 1
    assert np.array_equal(reaches(every_half, least), every_half.astype(np.float64) >= least)


def test_what_the_network_is_sure_of_nowhere_is_no_lesion() -> None:
    probability = np.zeros((3, 9, 9), np.float32)
    probability[1, 1:3, 1:3] = 0.7
    probability[1, 6:8, 6:8] = 0.5
    probability[1, 7, 7] = 0.9
    volume = Volume(np.zeros((3, 9, 9), np.float32), np.eye(4))
    mask, (only,) = find_lesions(probability, volume, OutputSpec(minimum_peak_probability=0.9))
    # the sure one is kept to its threshold's border, and is number 1 although the other one would be as large
    assert (only.number, only.voxel_count) == (1, 4)
    assert mask.labels_DHW[1, 6, 6] == 1


def test_intensities_are_those_under_the_lesion() -> None:
    mask = np.zeros((3, 4, 4))
    mask[1, 1, 1:4] = 1
    values = np.full(mask.shape, 900, np.float32)
    values[1, 1, 1:4] = (10, 20, 60)
    (only,) = find_lesions(mask, Volume(values, np.eye(4)), OutputSpec())[1]
    assert (only.mean, only.median, only.minimum, only.maximum) == (30, 20, 10, 60)
    assert only.sd == pytest.approx(np.std([10, 20, 60]))


def test_nothing_is_found_in_nothing() -> None:
    volume = Volume(np.zeros((3, 4, 4), np.float32), np.eye(4))
    labelled, findings = find_lesions(np.zeros((3, 4, 4), np.float32), volume, OutputSpec())
    assert (labelled.count, findings) == (0, ())


def test_another_grid_is_refused() -> None:
    volume = Volume(np.zeros((3, 4, 4), np.float32), np.eye(4))
    with pytest.raises(ValueError, match="grid"):
        find_lesions(np.zeros((3, 4, 5), np.float32), volume, OutputSpec())


def test_more_components_than_labels_are_refused_as_noise() -> None:
    checkers = np.zeros((2, 520, 520), bool)
    checkers[0, ::2, ::2] = True
    assert checkers.sum() > 65535
    with pytest.raises(ValueError, match="noise"):
        label_lesions(checkers)


def test_every_lesion_of_a_large_ct_is_measured() -> None:
    shape, spacing = (100, 512, 512), (3.0, 0.75, 0.75)
    mask = np.zeros(shape, bool)
    for centre, r in (((30, 200, 150), 12), ((50, 260, 180), 40), ((52, 180, 240), 20), ((70, 230, 120), 6)):
        mask |= ball(shape, spacing, centre, r)
    volume = Volume(np.zeros(shape, np.float32), affine_of(spacing))
    _, findings = find_lesions(mask.astype(np.float32), volume, OutputSpec(minimum_lesion_ml=0.1))
    assert [round(finding.long_axis_mm / 2) for finding in findings] == [40, 20, 12, 6]
