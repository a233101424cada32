"""A case folder is whole or absent, gives back what was written, and refuses what a trainer could not use."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model.cases import (
    Case,
    CaseImage,
    CaseProblem,
    list_cases,
    read_case,
    split_patients,
    write_case,
)
from model.nifti import read_nifti, write_nifti
from model.volume import Volume

SHAPE = (4, 9, 11)


@pytest.fixture
def case() -> Case:
    """A CT of two phases, the portal-venous one labelled, on a leaning grid."""
    affine = np.array([[0.0, 0.1, 0.8, -120], [1.2, 0.8, 0.0, -90], [-4.9, 0.0, 0.0, 300], [0, 0, 0, 1]])
    array_DHW = (np.arange(np.prod(SHAPE)).reshape(SHAPE) - 200).astype(np.float32)
    lesion_DHW = np.zeros(SHAPE, np.uint16)
    lesion_DHW[1, 2:4, 3:5], lesion_DHW[2, 6, 7] = 1, 2
    liver_DHW = np.zeros(SHAPE, np.uint16)
    liver_DHW[:3, 1:8, 2:9] = 1
    portal = CaseImage(
        Volume(array_DHW, affine), {"lesion": lesion_DHW, "liver": liver_DHW}, "CT", "ct", "portal-venous"
    )
    arterial = CaseImage(Volume(array_DHW + np.float32(0.25), affine), {}, "CT", "ct", "arterial")
    return Case(
        "P1", "P1", "phantoms", "CC0-1.0", {"portal-venous": portal, "arterial": arterial}, ("made for a test",)
    )


def test_a_case_comes_back_as_it_was(tmp_path: Path, case: Case) -> None:
    folder = write_case(tmp_path / "cases", case)
    back = read_case(folder)
    assert folder == tmp_path / "cases" / "P1"
    assert (back.case, back.patient, back.collection, back.licence) == ("P1", "P1", "phantoms", "CC0-1.0")
    assert back.remarks == ("made for a test",)
    assert list(back.images) == ["portal-venous", "arterial"]
    for name, image in case.images.items():
        found = back.images[name]
        np.testing.assert_array_equal(found.volume.array_DHW, image.volume.array_DHW)
        np.testing.assert_allclose(found.volume.affine_lps_mm, image.volume.affine_lps_mm, atol=1e-5)
        assert (found.modality, found.weighting, found.phase) == (image.modality, image.weighting, image.phase)
        assert set(found.labels) == set(image.labels)
        for label, labels_DHW in image.labels.items():
            assert found.labels[label].dtype == np.uint16
            np.testing.assert_array_equal(found.labels[label], labels_DHW)


def test_whole_numbers_are_kept_small_and_others_whole(tmp_path: Path, case: Case) -> None:
    folder = write_case(tmp_path, case)
    stored = {path.name: read_nifti(path).array_DHW.dtype for path in folder.glob("*.nii.gz")}
    assert stored == {
        "portal-venous.nii.gz": np.int16,
        "portal-venous.lesion.nii.gz": np.uint16,
        "portal-venous.liver.nii.gz": np.uint8,
        "arterial.nii.gz": np.float32,
    }


def test_b_value_and_time_point_come_back(tmp_path: Path, case: Case) -> None:
    dwi = replace(
        case.images["arterial"],
        modality="MR",
        weighting="dwi-trace",
        phase=None,
        b_value_s_mm2=1000.0,
        time_point="pre",
    )
    back = read_case(write_case(tmp_path, replace(case, images={"dwi": dwi}))).images["dwi"]
    assert (back.weighting, back.phase, back.b_value_s_mm2, back.time_point) == ("dwi-trace", None, 1000.0, "pre")


def test_a_case_of_the_same_name_is_replaced_and_nothing_else_left(tmp_path: Path, case: Case) -> None:
    write_case(tmp_path, case)
    (tmp_path / ".P1.part").mkdir()
    (tmp_path / ".P1.part" / "left-by-a-crash").touch()
    write_case(tmp_path, replace(case, images={"arterial": case.images["arterial"]}))
    assert [path.name for path in tmp_path.iterdir()] == ["P1"]
    assert sorted(path.name for path in (tmp_path / "P1").iterdir()) == ["arterial.nii.gz", "case.json"]


def test_listing_reads_no_voxels_and_skips_what_is_unfinished(tmp_path: Path, case: Case) -> None:
    for name in ("B", "A"):
        for path in write_case(tmp_path, replace(case, case=name, patient=f"patient-{name}")).glob("*.nii.gz"):
            path.write_bytes(b"no image")
    (tmp_path / ".C.part").mkdir()
    (tmp_path / ".C.part" / "case.json").write_text("{")
    found = list_cases(tmp_path)
    assert [(ref.case, ref.patient) for ref in found] == [("A", "patient-A"), ("B", "patient-B")]
    assert found[0].images["portal-venous"].phase == "portal-venous"
    with pytest.raises(CaseProblem, match="not a NIfTI-1 image"):
        found[0].read()


def test_one_image_is_read_with_the_labels_that_are_wanted(tmp_path: Path, case: Case) -> None:
    write_case(tmp_path, case)
    (ref,) = list_cases(tmp_path)
    assert list(ref.read_image("portal-venous", ["liver"]).labels) == ["liver"]
    with pytest.raises(CaseProblem, match=r"images has no 'delayed'; it has: portal-venous, arterial"):
        ref.read_image("delayed")
    with pytest.raises(CaseProblem, match=r"no images\.arterial\.labels\.lesion; it has: none"):
        ref.read_image("arterial", ["lesion"])


@pytest.mark.parametrize(
    ("edit", "wrong"),
    [
        (lambda told: told.update(format=2), "format: Input should be 1"),
        (lambda told: told.update(name="somebody"), "name: Extra inputs are not permitted"),
        (lambda told: told.pop("licence"), "licence: Field required"),
        (lambda told: told.update(images={}), "images: Dictionary should have at least 1 item"),
        (lambda told: told["images"]["arterial"].update(modality="PET"), r"images\.arterial\.modality"),
        (lambda told: told["images"]["arterial"].update(file="../../etc/x.nii"), r"images\.arterial\.file"),
    ],
)
def test_a_wrong_key_is_named(tmp_path: Path, case: Case, edit: Callable[[dict], object], wrong: str) -> None:
    path = write_case(tmp_path, case) / "case.json"
    told = json.loads(path.read_text())
    edit(told)
    path.write_text(json.dumps(told))
    with pytest.raises(CaseProblem, match=rf"P1/case\.json: not a valid case: .*{wrong}"):
        list_cases(tmp_path)


@pytest.mark.parametrize(
    ("label", "array_DHW", "wrong"),
    [
        ("lesion", np.full(SHAPE, 2, np.uint16), "numbered to 2, but 1 does not occur"),
        ("lesion", np.full(SHAPE, 0.5, np.float32), "not whole numbers"),
        ("liver", np.full(SHAPE, 3, np.uint8), "a label other than 'lesion' is 0 or 1, it has 3"),
        ("liver", np.zeros((4, 9, 12), np.uint8), r"has shape \(4, 9, 12\), its image \(4, 9, 11\)"),
    ],
)
def test_a_label_that_is_none_is_refused(
    tmp_path: Path, case: Case, label: str, array_DHW: np.ndarray, wrong: str
) -> None:
    folder = write_case(tmp_path, case)
    affine = case.images["portal-venous"].volume.affine_lps_mm
    write_nifti(folder / f"portal-venous.{label}.nii.gz", array_DHW, affine)
    with pytest.raises(CaseProblem, match=rf"images\.portal-venous\.labels\.{label}.*{wrong}"):
        read_case(folder)


def test_a_label_that_lies_elsewhere_is_refused(tmp_path: Path, case: Case) -> None:
    folder = write_case(tmp_path, case)
    moved = case.images["portal-venous"].volume.affine_lps_mm + np.eye(4)[:, [3, 0, 1, 2]] * 0.01
    write_nifti(folder / "portal-venous.liver.nii.gz", np.zeros(SHAPE, np.uint8), moved)
    with pytest.raises(CaseProblem, match="lies elsewhere than its image"):
        read_case(folder)


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        (lambda image: replace(image, labels={"lesion": np.full(SHAPE, 2, np.uint16)}), "1 does not occur"),
        (lambda image: replace(image, labels={"liver": np.full(SHAPE, 1, np.uint8)}), "not uint16 of its image"),
        (lambda image: replace(image, volume=image.volume.with_array(image.volume.array_DHW * np.nan)), "no number"),
        (lambda image: replace(image, weighting="Not A Name"), r"images\.portal-venous\.weighting|weighting: String"),
    ],
)
def test_what_could_not_be_read_is_not_written(
    tmp_path: Path, case: Case, change: Callable[[CaseImage], CaseImage], wrong: str
) -> None:
    images = {"portal-venous": change(case.images["portal-venous"])}
    with pytest.raises(CaseProblem, match=wrong):
        write_case(tmp_path, replace(case, images=images))
    assert not list(tmp_path.iterdir())


def test_a_name_that_leaves_the_folder_is_refused(tmp_path: Path, case: Case) -> None:
    with pytest.raises(CaseProblem, match="case: String should match pattern"):
        write_case(tmp_path / "cases", replace(case, case="../P1"))
    assert not list(tmp_path.iterdir())


def test_a_folder_without_cases_is_empty_and_an_absent_one_a_problem(tmp_path: Path) -> None:
    assert list_cases(tmp_path) == ()
    with pytest.raises(CaseProblem, match="absent: cannot be read"):
        list_cases(tmp_path / "absent")


SHARES = {"train": 0.7, "validation": 0.15, "test": 0.15}
PATIENTS = [f"P{number:03}" for number in range(40)]


def test_a_split_holds_each_patient_once_in_the_shares_asked_for() -> None:
    split = split_patients(PATIENTS, 1, SHARES)
    assert sorted(patient for part in split.values() for patient in part) == PATIENTS
    assert [len(part) for part in split.values()] == [28, 6, 6]


def test_a_split_depends_on_who_the_patients_are_and_on_the_seed_alone() -> None:
    split = split_patients(PATIENTS, 1, SHARES)
    assert split_patients([*reversed(PATIENTS), *PATIENTS], 1, SHARES) == split
    assert split_patients(PATIENTS, 2, SHARES) != split
    # for ever: a trained network's test patients must not change under it
    assert split["test"] == ("P007", "P010", "P013", "P019", "P027", "P028")


def test_small_sets_are_split_to_the_patient() -> None:
    sizes = [len(part) for part in split_patients(PATIENTS[:5], 3, SHARES).values()]
    assert sizes == [3, 1, 1]
    assert sum(map(len, split_patients(PATIENTS[:1], 3, SHARES).values())) == 1


@pytest.mark.parametrize("shares", [{}, {"train": 0.5}, {"train": 1.2, "test": -0.2}])
def test_shares_that_are_none_are_refused(shares: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="sum to 1"):
        split_patients(PATIENTS, 1, shares)
