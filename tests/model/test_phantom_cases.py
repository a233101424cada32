"""Phantoms as cases: what training and evaluation are given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model.cases import Case, read_case, write_case
from model.phantom import Geometry
from model.phantom_cases import phantom_case, phantom_patient
from model.phantom_catalogue import ALL_CONDITIONS, FAMILIES, PAIR, reduced, usual_geometry
from model.training.cases import training_geometry
from model.training.sources import PhantomRef

LABELS = {"lesion", "liver", "portal-vein", "aorta"}
SHOWN = {
    "pre-nact-dwi": ("dwi-trace-b1000", "MR", "dwi-trace", None, "pre"),
    "post-nact-dwi": ("dwi-trace-b1000", "MR", "dwi-trace", None, "post"),
    "pre-nact-t2wi": ("t2", "MR", "t2", None, "pre"),
    "post-nact-t2wi": ("t2", "MR", "t2", None, "post"),
    "ct-portal-venous": ("portal-venous", "CT", "ct", "portal-venous", None),
    "ct-arterial": ("arterial", "CT", "ct", "arterial", None),
    "t1-portal-venous": ("t1", "MR", "t1", "portal-venous", None),
}


def tiny(condition: str, family: int = 1) -> Geometry:
    usual = reduced(usual_geometry(condition, 5, family), 24)
    return replace(usual, slices=12, slice_thickness_mm=16.0, slice_gap_mm=0.0)


@pytest.fixture(scope="module")
def pair() -> Case:
    return phantom_case(PAIR, 5, geometry=tiny("ct-portal-venous"))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("condition", ALL_CONDITIONS)
def test_every_condition_of_either_family_is_a_case(condition: str, family: int) -> None:
    case = phantom_case(condition, 5, family=family, geometry=tiny(condition, family))
    ((name, image),) = case.images.items()
    expected = SHOWN[condition]
    assert (name.replace("b900", "b1000"), image.modality, image.weighting, image.phase, image.time_point) == expected
    assert image.b_value_s_mm2 == ({1: 1000, 2: 900}[family] if condition.endswith("dwi") else None)
    assert set(image.labels) == LABELS
    for label, mask_DHW in image.labels.items():
        assert (mask_DHW.dtype, mask_DHW.shape) == (np.uint16, image.volume.array_DHW.shape)
        assert label == "lesion" or mask_DHW.max() == 1, label
    assert ("family 2" in case.collection) == (family == 2)


def test_a_pair_is_one_case_of_two_images_with_grids_of_their_own(pair: Case) -> None:
    assert list(pair.images) == ["portal-venous", "arterial"]
    venous, arterial = pair.images.values()
    assert venous.volume.array_DHW.shape != arterial.volume.array_DHW.shape
    assert any("moved by up to" in remark for remark in pair.remarks)
    assert set(venous.labels) == set(arterial.labels) == LABELS


def test_a_case_comes_back_from_disk_as_it_was(pair: Case, tmp_path: Path) -> None:
    again = read_case(write_case(tmp_path, pair))
    assert (again.case, again.patient, again.remarks) == (pair.case, pair.patient, pair.remarks)
    for name, image in pair.images.items():
        assert np.array_equal(again.images[name].volume.array_DHW, image.volume.array_DHW)
        np.testing.assert_allclose(again.images[name].volume.affine_lps_mm, image.volume.affine_lps_mm, atol=1e-4)
        for label, mask_DHW in image.labels.items():
            assert np.array_equal(again.images[name].labels[label], mask_DHW)


def test_all_cases_of_a_seed_are_one_patient_and_families_are_not() -> None:
    cases = [
        phantom_case(name, 5, geometry=replace(tiny(name), slices=3)) for name in ("pre-nact-t2wi", "post-nact-t2wi")
    ]
    assert {case.patient for case in cases} == {phantom_patient(5)}
    assert len({case.case for case in cases}) == 2
    assert phantom_patient(5, 2) != phantom_patient(5, 1)


def test_what_there_is_no_phantom_of_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="pet"):
        phantom_case("pet", 5)


@pytest.mark.parametrize("condition", [PAIR, "ct-arterial", "t1-portal-venous", "pre-nact-dwi"])
def test_training_draws_every_condition_and_the_pair(condition: str) -> None:
    for seed in (6, 7):
        assert training_geometry(condition, seed).rows == 256
    ref = PhantomRef(condition, 5)
    case = phantom_case(condition, 5, geometry=tiny(condition))
    assert (case.case, case.patient, case.licence) == (ref.case, ref.patient, ref.licence)
    assert ref.collection in case.collection
