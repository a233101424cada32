"""The arterial phase: another enhancement and another breath-hold of the same patient."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from model.phantom import GEOMETRIES, Phantom, sample_parameters
from model.phantom_arterial import sample_arterial
from model.phantom_catalogue import PhantomPair, beside, draw_pair, draw_phantom
from model.phantom_motion import AMPLITUDE_MM
from model.phantom_paint import paint
from model.phantom_shapes import Grid
from model.phantom_tissues import Tissue

SMALL = GEOMETRIES["ct-portal-venous"].resampled(72, 72)
COARSE = replace(GEOMETRIES["ct-portal-venous"].resampled(64, 64), slices=24, slice_thickness_mm=8.0)
SEED = 4  # four metastases and a cyst


@pytest.fixture(scope="module")
def pair() -> PhantomPair:
    return draw_pair(SEED, geometry=COARSE)


@pytest.fixture(scope="module")
def carcinoma() -> PhantomPair:
    return draw_pair(SEED, geometry=SMALL, disease="hepatocellular")


@pytest.fixture(scope="module")
def moved() -> PhantomPair:
    """The patient of the first eight who moved most."""
    return draw_pair(max(range(8), key=lambda seed: sample_arterial(seed).motion.amplitude_mm), geometry=SMALL)


def hu(phantom: Phantom, mask: np.ndarray, shrunk: int = 0) -> float:
    inner = ndimage.binary_erosion(mask, np.ones((1, 3, 3)), iterations=shrunk) if shrunk else mask
    return float(np.median(phantom.image.array_DHW[inner]))


def liver(phantom: Phantom) -> np.ndarray:
    return phantom.liver_DHW & (phantom.labels_DHW == 0) & ~phantom.vessels["portal-vein"]


def test_arteries_are_bright_and_the_liver_is_hardly_enhanced(pair: PhantomPair) -> None:
    arterial, venous = pair.arterial, pair.portal_venous
    assert 250 < hu(arterial, arterial.vessels["aorta"], 1) < 350
    assert 130 < hu(venous, venous.vessels["aorta"], 1) < 180
    assert 60 < hu(arterial, liver(arterial), 2) < 85
    assert 95 < hu(venous, liver(venous), 2) < 120
    assert 80 < hu(arterial, arterial.vessels["portal-vein"]) < 130


def test_the_spleen_is_striped_in_the_arterial_phase_only(pair: PhantomPair) -> None:
    def spread_hu(phantom: Phantom) -> float:
        drawn = sample_parameters("ct-portal-venous", SEED)
        grid = Grid(phantom.geometry.affine_mm, phantom.geometry.shape, phantom.motion)
        spleen = paint(drawn.patient, drawn.liver_vessels, grid).tissue_DHW == Tissue.SPLEEN
        return float(phantom.image.array_DHW[ndimage.binary_erosion(spleen, np.ones((3, 3, 3)))].std())

    assert spread_hu(pair.portal_venous) < 8
    assert spread_hu(pair.arterial) > 15


def test_a_pair_is_one_patient_on_one_table(pair: PhantomPair) -> None:
    assert pair.arterial.parameters.origin_lps_mm == pair.portal_venous.parameters.origin_lps_mm
    assert [round(lesion.nominal_mm, 6) for lesion in pair.arterial.lesions] == [
        round(lesion.nominal_mm, 6) for lesion in pair.portal_venous.lesions
    ]


def test_the_phases_have_stacks_of_their_own(pair: PhantomPair) -> None:
    spacing_mm = pair.portal_venous.image.spacing_mm[0]
    apart_mm = (pair.arterial.image.affine_lps_mm - pair.portal_venous.image.affine_lps_mm)[2, 3]
    assert 0.1 < (apart_mm / spacing_mm) % 1 < 0.9
    assert pair.arterial.image.array_DHW.shape != pair.portal_venous.image.array_DHW.shape


def test_the_recorded_movement_leads_from_each_lesion_to_the_same_one(moved: PhantomPair) -> None:
    there = {lesion.nominal_mm: lesion.center_lps_mm for lesion in moved.portal_venous.lesions}
    large = [lesion for lesion in moved.arterial.lesions if lesion.volume_ml > 5]  # many voxels
    here_N3 = np.array([lesion.center_lps_mm for lesion in large])
    there_N3 = np.array([there[lesion.nominal_mm] for lesion in large])
    apart_mm = np.linalg.norm(here_N3 - there_N3, axis=1).mean()
    assert apart_mm > 3.0
    assert np.linalg.norm(moved.arterial.to_rest_lps_mm(here_N3) - there_N3, axis=1).mean() < 0.35 * apart_mm


def test_the_liver_is_seen_where_the_movement_says(moved: PhantomPair) -> None:
    arterial = moved.arterial
    patient, origin = arterial.parameters.patient, np.asarray(arterial.parameters.origin_lps_mm)
    indices = np.random.default_rng(2).uniform((4, 9, 8), (38, 60, 45), size=(6000, 3)).round()
    seen = arterial.liver_DHW[tuple(indices.astype(int).T)]
    points = arterial.image.to_lps_mm(indices)

    def overlap(at_rest_N3: np.ndarray) -> float:
        is_liver = patient.liver_depth_at(at_rest_N3 - origin) > 0
        return 2 * np.count_nonzero(seen & is_liver) / (np.count_nonzero(seen) + np.count_nonzero(is_liver))

    assert overlap(arterial.to_rest_lps_mm(points)) > 0.985
    assert overlap(points) < overlap(arterial.to_rest_lps_mm(points)) - 0.015


def test_the_movement_peaks_in_the_liver_between_three_and_ten_millimetres() -> None:
    drawn = [sample_arterial(seed).motion.amplitude_mm for seed in range(14)]
    assert min(drawn) >= AMPLITUDE_MM[0] == 3.0
    assert max(drawn) <= AMPLITUDE_MM[1] == 10.0
    assert np.ptp(drawn) > 4
    phase = sample_arterial(3)
    points = np.random.default_rng(1).uniform((-150, -100, -90), (100, 80, 90), size=(4000, 3))
    lengths_mm = np.linalg.norm(phase.motion.displacement_mm(points), axis=1)
    inside = phase.parameters.patient.liver_depth_at(points) > 0
    assert 0.8 * phase.motion.amplitude_mm < lengths_mm[inside].max() < 1.05 * phase.motion.amplitude_mm
    assert lengths_mm.max() <= phase.motion.reach_mm


def test_spine_and_skin_stay_where_they_are() -> None:
    phase = sample_arterial(3)
    patient = phase.parameters.patient
    spine = [(0.0, patient.spine_y_mm, z) for z in (-80.0, 0.0, 80.0)]
    skin = [(patient.body.half_width_mm, 0.0, z) for z in (-80.0, 0.0, 80.0)]
    assert np.abs(phase.motion.displacement_mm(np.array(spine + skin))).max() < 0.2


@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_folded_and_the_movement_can_be_undone(seed: int) -> None:
    motion = sample_arterial(seed).motion
    points = np.random.default_rng(seed).uniform((-170, -110, -110), (170, 110, 110), size=(3000, 3))
    step = 0.5 * np.eye(3)
    gradient = np.stack(
        [motion.displacement_mm(points + e) - motion.displacement_mm(points - e) for e in step], axis=-1
    )
    assert np.linalg.det(np.eye(3) + gradient).min() > 0.3
    np.testing.assert_allclose(motion.from_rest_mm(motion.to_rest_mm(points)), points, atol=1e-6)


def test_metastases_show_a_rim_around_a_darker_middle(pair: PhantomPair) -> None:
    phases = [sample_arterial(seed) for seed in range(16)]
    drawn = [lesion for phase in phases for lesion in phase.parameters.metastases]
    bright = [lesion.rim.ct_hu > 80 for lesion in drawn]
    assert 0.35 < np.mean(bright) < 0.8
    assert all(
        lesion.core.ct_hu < lesion.rim.ct_hu for lesion, is_bright in zip(drawn, bright, strict=True) if is_bright
    )


def test_a_carcinoma_is_bright_first_and_washes_out(carcinoma: PhantomPair) -> None:
    arterial, venous = carcinoma.arterial, carcinoma.portal_venous
    assert hu(arterial, arterial.labels_DHW > 0) > hu(arterial, liver(arterial)) + 25
    assert hu(venous, venous.labels_DHW > 0) < hu(venous, liver(venous)) - 10


def test_metastases_are_the_default_and_leave_the_frozen_phantom_alone(pair: PhantomPair) -> None:
    plain = draw_phantom("ct-portal-venous", SEED, geometry=COARSE)
    assert plain.image.array_DHW.tobytes() == pair.portal_venous.image.array_DHW.tobytes()


def test_a_tilted_stack_shows_the_same_moved_patient() -> None:
    plain = draw_phantom("ct-arterial", 5, geometry=COARSE)
    turned = draw_phantom("ct-arterial", 5, geometry=replace(COARSE, tilt_deg=(9.0, -6.0, 4.0)))
    expected = {lesion.nominal_mm: lesion.center_lps_mm for lesion in plain.lesions}
    for lesion in turned.lesions:
        if lesion.nominal_mm > 14:
            assert np.linalg.norm(np.subtract(lesion.center_lps_mm, expected[lesion.nominal_mm])) < 6.0


def test_truth_masks_lie_where_their_tissue_is(pair: PhantomPair) -> None:
    for phantom in (pair.arterial, pair.portal_venous):
        assert phantom.liver_DHW[phantom.labels_DHW > 0].all()
        assert not np.any(phantom.vessels["aorta"] & phantom.liver_DHW)
        share = np.mean(phantom.liver_DHW[phantom.vessels["portal-vein"]])
        assert 0.5 < share < 1.0  # the trunk lies outside
        assert not np.any(phantom.vessels["portal-vein"] & (phantom.labels_DHW > 0))


@pytest.mark.parametrize(
    ("condition", "disease", "why"),
    [
        ("ct-arterial", "cirrhosis", "cirrhosis"),
        ("pre-nact-dwi", "hepatocellular", "pre-nact-dwi"),
        ("t1-portal-venous", "hepatocellular", "t1-portal-venous"),
        ("arterial", "metastases", "arterial"),
    ],
)
def test_what_is_not_known_is_refused_by_name(condition: str, disease: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        draw_phantom(condition, 1, disease=disease, geometry=SMALL)


def test_the_arterial_stack_follows_a_given_one() -> None:
    assert beside(SMALL).slices == SMALL.slices + 2
    assert beside(SMALL).centre_mm[2] < SMALL.centre_mm[2]
