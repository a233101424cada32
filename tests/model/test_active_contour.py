"""The active contour on phantoms (models.md §4.5, §11 test 9): no lesion explodes, vanishes or swallows another."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import morphological_chan_vese

from model.active_contour import ContourSettings, refine_lesions
from model.metrics import Overlap
from model.volume import Labels, Volume

Bools = NDArray[np.bool_]
SPACING_MM = (2.5, 1.5, 1.5)
SHAPE = (32, 68, 68)
LESIONS = (((0.0, 0.0, -20.0), 13.0), ((5.0, 8.0, 20.0), 9.0), ((-12.0, -18.0, 5.0), 8.0), ((10.0, 20.0, 0.0), 4.0))


def grid_mm() -> NDArray[np.float64]:
    axes = [(np.arange(n) - (n - 1) / 2) * spacing for n, spacing in zip(SHAPE, SPACING_MM, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"))


def phantom(contrast_hu: float = 40.0, noise_hu: float = 12.0) -> tuple[Volume, Labels, Bools]:
    """An ellipsoid liver of 100 HU in −50, four darker balls in it, σ = 12 HU as models.md has it."""
    at = grid_mm()
    liver = ((at / np.array([36, 44, 44])[:, None, None, None]) ** 2).sum(0) < 1
    labels = np.zeros(SHAPE, np.uint16)
    for label, (center, radius) in enumerate(LESIONS, start=1):
        labels[((at - np.array(center)[:, None, None, None]) ** 2).sum(0) < radius**2] = label
    image = np.where(liver, 100.0, -50.0)
    image[labels > 0] -= contrast_hu
    image += np.random.default_rng(0).normal(0, noise_hu, SHAPE)
    affine = np.diag([0.0, 0.0, 0.0, 1.0])
    affine[[2, 1, 0], [0, 1, 2]] = SPACING_MM
    return Volume(image.astype(np.float32), affine), labels, liver


def grown(labels: Labels, label: int, steps: int) -> Labels:
    """One lesion with so many rings of pixels more (or fewer) in each slice."""
    ring = np.ones((1, 3, 3), bool)
    change = ndimage.binary_dilation if steps > 0 else ndimage.binary_erosion
    new = labels.copy()
    new[labels == label] = 0
    new[change(labels == label, ring, iterations=abs(steps)) & (new == 0)] = label
    return new


@pytest.mark.parametrize("contrast_hu", [20.0, 40.0, 60.0])
def test_a_perfect_mask_keeps_its_volume_and_every_lesion_survives(contrast_hu: float) -> None:
    volume, labels, liver = phantom(contrast_hu)
    refined, changes = refine_lesions(volume, labels, liver)
    before, after = np.bincount(labels.ravel())[1:], np.bincount(refined.ravel())[1:]
    assert len(after) == len(LESIONS)
    assert (np.abs(after / before - 1) < 0.25).all()
    assert [change.outcome for change in changes] == ["refined", "refined", "refined", "too small"]
    assert all(Overlap.of(refined == label, labels == label).dice > 0.85 for label in range(1, 5))


def test_as_coded_by_system_d_the_same_perfect_mask_grows_by_half_and_more() -> None:
    """What the region is for: outside the liver all is zero, and so is the mean of the surroundings."""
    volume, labels, liver = phantom()
    windowed = np.where(liver, np.clip((volume.array_DHW + 200) / 450, 0, 1), 0)
    coded = morphological_chan_vese(windowed, 2, labels > 0, 1)
    assert coded.sum() / (labels > 0).sum() > 1.5


@pytest.mark.parametrize(("contrast_hu", "steps"), [(40.0, 1), (20.0, -1)])
def test_a_mask_that_is_a_ring_too_large_or_too_small_comes_nearer_to_the_lesion(
    contrast_hu: float, steps: int
) -> None:
    """Contrasts at which the way back is less than a quarter of the mask."""
    volume, labels, liver = phantom(contrast_hu, noise_hu=6.0)
    start = grown(labels, 1, steps)
    refined, changes = refine_lesions(volume, start, liver, ContourSettings(most_change=0.5))
    assert changes[0].outcome == "refined"
    before = Overlap.of(start == 1, labels == 1).dice
    assert before < 0.87
    assert Overlap.of(refined == 1, labels == 1).dice > before + 0.06


def test_a_change_of_more_than_a_quarter_is_thrown_away() -> None:
    volume, labels, liver = phantom(60.0)
    start = grown(labels, 2, 2)
    refined, changes = refine_lesions(volume, start, liver)
    assert changes[1].outcome == "changed too much"
    assert changes[1].proposed_ml < 0.75 * changes[1].before_ml == 0.75 * changes[1].after_ml
    assert np.array_equal(refined == 2, start == 2)


def test_no_lesion_takes_another_lesions_voxels() -> None:
    """Two balls that touch stay two: the other one is no part of the surroundings."""
    volume, labels, liver = phantom()
    halves = labels.copy()
    right_half = (labels == 1) & (grid_mm()[2] > -20)
    halves[right_half] = 5
    refined, _ = refine_lesions(volume, halves, liver)
    assert not ((refined == 1) & (halves == 5)).any()
    assert not ((refined == 5) & (halves == 1)).any()


def test_nothing_grows_out_of_the_liver() -> None:
    volume, labels, liver = phantom()
    inner = liver & (grid_mm()[2] < 24)
    cut = np.where(inner, labels, 0).astype(np.uint16)
    refined, _ = refine_lesions(volume, cut, inner)
    assert not (refined[~inner] > 0).any()


def test_a_lesion_without_liver_around_it_is_left_alone() -> None:
    volume, labels, _ = phantom()
    refined, changes = refine_lesions(volume, labels, np.zeros(SHAPE, bool))
    assert np.array_equal(refined, labels)
    assert {change.outcome for change in changes[:3]} == {"no liver around"}


def test_a_lesion_at_the_end_of_the_volume_is_refined_like_any_other() -> None:
    volume, labels, liver = phantom()
    top = slice(SHAPE[0] // 2, None)
    affine = volume.affine_lps_mm
    half = Volume(volume.array_DHW[top].copy(), affine)
    _, changes = refine_lesions(half, labels[top].copy(), liver[top])
    assert changes[0].outcome == "refined"
    assert changes[0].after_ml == pytest.approx(changes[0].before_ml, rel=0.1)


def test_the_same_twice_is_the_same() -> None:
    volume, labels, liver = phantom()
    assert np.array_equal(refine_lesions(volume, labels, liver)[0], refine_lesions(volume, labels, liver)[0])


def test_an_odd_number_of_smoothings_is_refused_for_the_next_run_would_differ() -> None:
    with pytest.raises(ValueError, match="must be even"):
        ContourSettings(iterations=3)


def test_volumes_before_and_after_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    volume, labels, liver = phantom()
    with caplog.at_level(logging.INFO, "model.active_contour"):
        _, changes = refine_lesions(volume, labels, liver)
    assert [record.getMessage() for record in caplog.records] == [str(change) for change in changes]
    assert f"lesion 1: {changes[0].before_ml:.2f} → {changes[0].after_ml:.2f} mL, refined" in caplog.text


def test_arrays_of_another_grid_are_refused() -> None:
    volume, labels, liver = phantom()
    with pytest.raises(ValueError, match="not on the volume's grid"):
        refine_lesions(volume, labels[1:], liver)
