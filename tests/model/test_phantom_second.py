"""The second family: another anatomy, other lesions, another scanner, the same kind of truth."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from model.findings import label_lesions
from model.phantom import Phantom, sample_parameters
from model.phantom_catalogue import ALL_CONDITIONS, draw_pair, draw_phantom, reduced, usual_geometry
from model.phantom_second import (
    SECOND_CONDITIONS,
    SecondParameters,
    geometry_of_seed,
    render_second,
    sample_second_parameters,
)
from model.phantom_second_lesions import EMPTY_SHARE, SecondLesion, second_coverage
from model.phantom_second_physics import SECOND_B_VALUES, SECOND_DWI, SECOND_T2WI, measured_k_space
from model.phantom_second_shapes import Balls, Section, star_shape, string_of_balls
from model.phantom_shapes import Grid

SEED = 5  # four lesions of 6 to 57 mm
SIDE = 64


def small(condition: str, seed: int = SEED) -> Phantom:
    return draw_phantom(condition, seed, family=2, geometry=reduced(usual_geometry(condition, seed, 2), SIDE))


@pytest.fixture(scope="module")
def ct() -> Phantom:
    return small("ct-portal-venous")


@pytest.fixture(scope="module")
def t2() -> Phantom:
    return small("pre-nact-t2wi")


@pytest.fixture(scope="module")
def drawn() -> list[SecondParameters]:
    return [sample_second_parameters("ct-portal-venous", seed) for seed in range(24)]


def test_it_knows_every_condition_of_the_first_family() -> None:
    assert set(SECOND_CONDITIONS) == set(ALL_CONDITIONS)


def test_a_seed_gives_the_same_bytes_again(ct: Phantom) -> None:
    again = small("ct-portal-venous")
    assert again.image.array_DHW.tobytes() == ct.image.array_DHW.tobytes()
    assert again.labels_DHW.tobytes() == ct.labels_DHW.tobytes()


def test_truth_is_in_the_liver_and_each_lesion_is_one_piece(ct: Phantom) -> None:
    assert ct.liver_DHW[ct.labels_DHW > 0].all()
    assert len(ct.lesions) == ct.labels_DHW.max() == label_lesions(ct.labels_DHW > 0).max() > 2
    assert not np.any(ct.vessels["aorta"] & ct.liver_DHW)
    assert ct.vessels["portal-vein"].any()


def test_livers_have_the_volumes_of_adults_and_lie_on_the_right(ct: Phantom, drawn: list[SecondParameters]) -> None:
    axes = [np.arange(low + 6, high, 12.0) for low, high in ((-160, 112), (-112, 92), (-116, 108))]
    lattice = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    litres = [np.count_nonzero(p.patient.liver_depth_at(lattice) > 0) * 12**3 / 1e6 for p in drawn[:8]]
    assert 0.9 < min(litres) < max(litres) < 2.4
    x_mm = ct.image.to_lps_mm(np.argwhere(ct.liver_DHW).astype(float))[:, 0]
    assert x_mm.mean() < ct.parameters.origin_lps_mm[0] - 25  # L is positive in LPS


def test_it_is_another_patient_than_the_first_familys_of_that_seed(ct: Phantom) -> None:
    first = sample_parameters("ct-portal-venous", SEED)
    assert [m.nominal_long_axis_mm for m in first.metastases] != [lesion.nominal_mm for lesion in ct.lesions]


def test_the_examinations_of_a_seed_are_of_one_patient(ct: Phantom, t2: Phantom) -> None:
    expected = {round(lesion.nominal_mm, 6): lesion.volume_ml for lesion in ct.lesions}
    for lesion in t2.lesions:
        if lesion.volume_ml > 3:
            assert lesion.volume_ml == pytest.approx(expected[round(lesion.nominal_mm, 6)], rel=0.15)


def test_how_many_lesions_there_are_and_how_large(drawn: list[SecondParameters]) -> None:
    counts = [len(p.metastases) for p in drawn]
    sizes = [size for p in drawn for size in p.nominal_mm]
    assert abs(np.mean([count == 0 for count in counts]) - EMPTY_SHARE) < 0.18
    assert max(counts) <= 7
    assert min(sizes) >= 4.99
    assert max(sizes) <= 85.1
    assert 0.1 < np.mean(np.array(sizes) < 10) < 0.35


def test_lesions_are_not_round(drawn: list[SecondParameters]) -> None:
    """Their volume is well below that of a ball of their diameter, most of it in several balls."""
    balls = [len(lesion.balls.radii_N) for p in drawn for lesion in p.metastases if lesion.nominal_long_axis_mm > 20]
    assert np.median(balls) >= 3


def test_most_lesions_shrink_under_chemotherapy_and_some_do_not() -> None:
    ratios: list[float] = []
    for seed in range(5):
        before, after, same = (
            {tuple(np.round(m.centre_mm, 6)): m.nominal_long_axis_mm for m in drawn.metastases}
            for drawn in (
                sample_second_parameters(f"{name}", seed)
                for name in ("pre-nact-t2wi", "post-nact-t2wi", "post-nact-dwi")
            )
        )
        assert after == same
        ratios += [after[centre] / before[centre] for centre in after]
    assert 0.6 < np.median(ratios) < 0.9
    assert max(ratios) > 1.0


def test_dwi_has_its_own_b_values_and_shows_the_one_near_a_thousand() -> None:
    dwi = small("pre-nact-dwi")
    assert tuple(dwi.volumes) == SECOND_B_VALUES
    assert dwi.image is dwi.volumes[900.0]
    assert (dwi.protocol, dwi.family) == (SECOND_DWI, 2)
    bright = dwi.image.array_DHW
    assert np.median(bright[dwi.labels_DHW > 0]) > 1.3 * np.median(bright[dwi.liver_DHW & (dwi.labels_DHW == 0)])


def test_echo_planar_images_are_distorted_along_the_phase_direction(t2: Phantom) -> None:
    drawn = sample_second_parameters("pre-nact-dwi", SEED)
    straight = replace(drawn, acquisition=replace(drawn.acquisition, distortion=no_distortion(drawn)))
    geometry = reduced(geometry_of_seed("pre-nact-dwi", SEED), SIDE)
    bent, plain = (render_second(p, geometry, (900.0,)) for p in (drawn, straight))
    moved = np.mean(bent.liver_DHW != plain.liver_DHW) / np.mean(plain.liver_DHW)
    assert 0.01 < moved < 0.2


def no_distortion(drawn: SecondParameters) -> object:
    return replace(drawn.acquisition.distortion, amplitude_mm=1e-6)


def test_mr_noise_grows_towards_the_middle_as_a_g_factor() -> None:
    drawn = sample_second_parameters("pre-nact-t2wi", SEED)
    geometry = replace(reduced(geometry_of_seed("pre-nact-t2wi", SEED), SIDE), slices=6)
    loud = replace(drawn, acquisition=replace(drawn.acquisition, g_peak=2.4, g_centre_mm=(0.0, 0.0)))
    images = [
        render_second(replace(loud, acquisition=replace(loud.acquisition, noise_seed=n)), geometry).image.array_DHW
        for n in range(5)
    ]
    spread_DHW = np.std(images, axis=0)
    rows, columns = spread_DHW.shape[1:]
    middle = np.median(spread_DHW[:, rows // 2 - 5 : rows // 2 + 5, columns // 2 - 5 : columns // 2 + 5])
    # along the left edge there is air: the magnitude of noise alone spreads 0.655 times as far (Rayleigh)
    edge = np.median(spread_DHW[:, rows // 2 - 5 : rows // 2 + 5, :5]) / 0.655
    assert middle > 1.5 * edge


def test_edges_ring_because_k_space_is_cut_off_and_not_tapered() -> None:
    drawn = sample_second_parameters("pre-nact-t2wi", SEED)
    geometry = geometry_of_seed("pre-nact-t2wi", SEED)
    shape_HW, grid = geometry.shape[1:], Grid(geometry.affine_mm, geometry.shape)
    window_HW, noise_HW = measured_k_space(shape_HW, grid, drawn.acquisition, SECOND_T2WI)
    assert set(np.unique(window_HW)) == {0.0, 1.0}
    assert np.array_equal(noise_HW > 0, window_HW > 0)
    lines, columns = np.flatnonzero(window_HW.any(axis=1)), np.flatnonzero(window_HW.any(axis=0))
    resolution_mm = SECOND_T2WI.fov_mm / SECOND_T2WI.matrix[1]
    assert len(columns) * resolution_mm == pytest.approx(shape_HW[1] * geometry.pixel_spacing_mm[1], rel=0.01)
    both_sides = np.flatnonzero(window_HW[(-lines) % shape_HW[0]].any(axis=1))
    assert len(both_sides) / len(lines) == pytest.approx(2 / 3, abs=0.02)  # partial Fourier: a quarter has no partner


def test_ct_noise_is_stronger_in_the_middle_and_correlated() -> None:
    drawn = sample_second_parameters("ct-portal-venous", SEED, lesion_count=0)
    geometry = replace(reduced(geometry_of_seed("ct-portal-venous", SEED), 128), slices=8)
    one, other = (
        render_second(replace(drawn, acquisition=replace(drawn.acquisition, noise_seed=n)), geometry).image.array_DHW
        for n in (1, 2)
    )
    noise_DHW = (one - other) / np.sqrt(2)
    assert noise_DHW[:, 58:70, 58:70].std() > 1.3 * noise_DHW[:, 5:17, 58:70].std()
    beside = np.corrcoef(noise_DHW[:, :, 1:].ravel(), noise_DHW[:, :, :-1].ravel())[0, 1]
    below = np.corrcoef(noise_DHW[:, 1:].ravel(), noise_DHW[:, :-1].ravel())[0, 1]
    assert beside > below + 0.02


def test_a_fatty_liver_is_darker_on_ct() -> None:
    drawn = sample_second_parameters("ct-portal-venous", SEED, lesion_count=0)
    geometry = replace(reduced(geometry_of_seed("ct-portal-venous", SEED), 48), slices=16)

    def liver_hu(fat_fraction: float) -> float:
        phantom = render_second(
            replace(drawn, acquisition=replace(drawn.acquisition, fat_fraction=fat_fraction)), geometry
        )
        return float(np.median(phantom.image.array_DHW[phantom.liver_DHW]))

    assert 0.5 < (liver_hu(0.0) - liver_hu(0.3)) / (0.3 * 115) < 1.5  # unevenly, but as much on the whole


def test_patients_roll_on_the_table_and_stacks_lie_differently() -> None:
    turns = [sample_second_parameters("ct-portal-venous", seed).turn for seed in range(8)]
    angles_deg = [np.degrees(np.arccos((np.trace(turn) - 1) / 2)) for turn in turns]
    assert 0.2 < min(angles_deg) < max(angles_deg) < 9
    stacks = [geometry_of_seed("ct-portal-venous", seed) for seed in range(12)]
    assert all(stack.tilt_deg == (0.0, 0.0, 0.0) for stack in stacks)  # a CT's slices are axial
    assert np.ptp([stack.pixel_spacing_mm[0] for stack in stacks]) > 0.04
    assert any(geometry_of_seed("pre-nact-dwi", seed).tilt_deg != (0.0, 0.0, 0.0) for seed in range(3))


def test_a_pair_shows_one_patient_who_moved() -> None:
    geometry = reduced(usual_geometry("ct-portal-venous", SEED, 2), SIDE)
    pair = draw_pair(SEED, family=2, geometry=geometry)
    arterial, venous = pair.arterial, pair.portal_venous
    there = {lesion.nominal_mm: lesion.center_lps_mm for lesion in venous.lesions}
    here = max(arterial.lesions, key=lambda lesion: lesion.volume_ml)
    led = arterial.to_rest_lps_mm(np.array([here.center_lps_mm]))
    assert np.linalg.norm(led[0] - there[here.nominal_mm]) < 1.5
    np.testing.assert_allclose(arterial.from_rest_lps_mm(led)[0], here.center_lps_mm, atol=1e-6)
    aorta, vein = (np.median(arterial.image.array_DHW[arterial.vessels[name]]) for name in ("aorta", "portal-vein"))
    assert aorta > 250 > 200 > vein


def test_no_single_threshold_finds_the_lesions(ct: Phantom, t2: Phantom) -> None:
    for phantom in (ct, t2):
        image, truth = phantom.image.array_DHW, phantom.labels_DHW > 0
        levels = np.percentile(image, np.linspace(20, 100, 60))
        dice = [
            2
            * np.count_nonzero((s * image > s * level) & truth)
            / (np.count_nonzero(s * image > s * level) + truth.sum())
            for s, level in itertools.product((1, -1), levels)
        ]
        assert max(dice) < 0.5


def test_balls_are_spheres_where_they_stand_alone() -> None:
    alone = Balls(np.array([[3.0, -2.0, 1.0]]), np.array([8.0]), 1.0)
    x, y, z = (np.array([p], np.float32) for p in (3.0, 3.5, 1.0))
    assert alone.depth_mm(x, y, z)[0] == pytest.approx(2.5, abs=1e-3)


def test_a_string_of_balls_follows_its_points() -> None:
    string = string_of_balls([(0, 0, 0), (30, 0, 0), (30, 40, 0)], (6, 5, 4), 4, 1.5)
    x, y, z = (np.array(p, np.float32) for p in ((0.0, 30.0, 30.0), (0.0, 0.0, 40.0), (0.0, 0.0, 0.0)))
    assert (string.depth_mm(x, y, z) > 3).all()


def test_an_organ_without_variation_is_the_drawn_one() -> None:
    sections = [Section(z, (5.0, -3.0), (20.0,) * 12) for z in (-30.0, 0.0, 30.0)]
    organ = star_shape(np.random.default_rng(0), sections, variation=0.0)
    angles = np.linspace(0, 2 * np.pi, 9).astype(np.float32)
    x, y, z = 5 + 14 * np.cos(angles), -3 + 14 * np.sin(angles), np.zeros(9, np.float32)
    np.testing.assert_allclose(organ.depth_mm(x, y, z), 6.0, atol=0.05)
    assert (organ.depth_mm(x, y, z + 31) < 0).all()


def test_a_lesions_coverage_sums_to_its_volume(drawn: list[SecondParameters]) -> None:
    def lesion_volume_ml(lesion: SecondLesion, spacing_mm: float) -> float:
        steps = np.diag([spacing_mm, spacing_mm, spacing_mm])[:, ::-1]
        affine = np.eye(4)
        affine[:3, :3] = steps
        affine[:3, 3] = np.asarray(lesion.centre_mm) - steps @ (np.full(3, 40 / spacing_mm))
        cover = second_coverage(lesion, Grid(affine, (int(80 / spacing_mm),) * 3))
        assert cover is not None
        return float((cover.rim_DHW + cover.core_DHW).sum()) * spacing_mm**3 / 1000

    lesion = next(m for p in drawn for m in p.metastases if 20 < m.nominal_long_axis_mm < 40)
    assert lesion_volume_ml(lesion, 1.0) == pytest.approx(lesion_volume_ml(lesion, 2.0), rel=0.05)


def test_lesions_look_other_than_the_liver(t2: Phantom) -> None:
    image, lesion = t2.image.array_DHW, t2.labels_DHW > 0
    liver = t2.liver_DHW & ~ndimage.binary_dilation(lesion, iterations=3)
    assert np.median(image[lesion]) > 1.4 * np.median(image[liver])


def test_an_unknown_condition_or_family_is_refused() -> None:
    with pytest.raises(ValueError, match="t3-delayed"):
        sample_second_parameters("t3-delayed", 1)
    with pytest.raises(ValueError, match="family 3"):
        draw_phantom("ct-arterial", 1, family=3)
    with pytest.raises(ValueError, match="hepatocellular"):
        sample_second_parameters("pre-nact-dwi", 1, disease="hepatocellular")
