"""The decisions of the import by themselves: what a segment is, which lesion a voxel is, which phase shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from node.dataset_conventions import CONVENTIONS, LOCAL, convention_of
from node.dataset_labels import RoleSegment, inside_part, labels_of
from node.dataset_phases import VesselContrast, phases_of, vessel_contrast
from node.dataset_pseudonyms import Pseudonyms, load_key, plain_name
from node.dicom.seg_file import Segment
from node.dicom.seg_place import PlacedSegment
from node.errors import ConfigurationError

SHAPE = (3, 6, 8)


def segment(label: str, kind: Code | None = None, region: Code | None = None) -> Segment:
    return Segment(1, label, kind, region, is_automatic=False)


def placed(*voxels: tuple[int, int, int], outside: int = 0) -> PlacedSegment:
    made = PlacedSegment(SHAPE, outside=outside)
    for d, h, w in voxels:
        made.planes.setdefault(d, np.zeros(SHAPE[1:], bool))[h, w] = True
    return made


@pytest.mark.parametrize(
    ("collection", "label", "role"),
    [
        ("crlm-ct", "Tumor_12", "lesion"),
        ("crlm-ct", "TUMOR 3", "lesion"),
        ("crlm-ct", "Liver", "liver"),
        ("crlm-ct", "Liver_Remnant", "liver-remnant"),
        ("crlm-ct", "Hepatic", "hepatic-vein"),
        ("crlm-ct", "Portal", "portal-vein"),
        ("crlm-ct", "Mass", None),
        ("hcc-tace", "Mass", "lesion"),
        ("hcc-tace", "Portal vein", "portal-vein"),
        ("hcc-tace", "Abdominal aorta", "aorta"),
        ("hcc-tace", "Lung", None),
        ("auto", "Liver parenchyma without lesions", "liver"),
        ("auto", "Liver metastasis 2", "lesion"),
        ("auto", "liver_tumour", "lesion"),
        ("auto", "hepatic veins", "hepatic-vein"),
        ("auto", "Right kidney", "right-kidney"),
        ("auto", "Future liver remnant", "liver-remnant"),
        ("auto", "Stomach", None),
    ],
)
def test_a_label_says_what_a_segment_is(collection: str, label: str, role: str | None) -> None:
    assert CONVENTIONS[collection].role(segment(label)) == role


@pytest.mark.parametrize(
    ("kind", "role"),
    [
        (Code("T-62000", "SRT", "Liver"), "liver"),
        (Code("M-80006", "SRT", "Neoplasm, Secondary"), "lesion"),
        (Code("M-80003", "SRT", "Neoplasm, Primary"), "lesion"),
        (codes.SCT.Mass, "lesion"),
        (codes.SCT.PortalVein, "portal-vein"),
        (codes.SCT.Tissue, None),
        (None, None),
    ],
)
def test_a_code_says_it_where_the_label_does_not(kind: Code | None, role: str | None) -> None:
    assert LOCAL.role(segment("Segment_1", kind)) == role
    assert CONVENTIONS["crlm-ct"].role(segment("Segment_1", kind)) is None


def test_a_lesion_is_one_of_the_liver_or_of_nobody_says_where() -> None:
    part = Code("48521005", "SCT", "Left lobe of liver")
    elsewhere = Code("T-C5300", "SRT", "pharyngeal tonsil (adenoid)")
    assert [LOCAL.role(segment("tumor", region=region)) for region in (None, part, elsewhere)] == [
        "lesion",
        "lesion",
        None,
    ]


@pytest.mark.parametrize(
    ("wish", "patient", "name"),
    [
        ("auto", "CRLM-CT-1004", "crlm-ct"),
        ("auto", "HCC_012", "hcc-tace"),
        ("auto", "HCC_012 (copy)", "auto"),
        ("auto", "4711", "auto"),
        ("crlm-ct", "4711", "crlm-ct"),
    ],
)
def test_a_collection_is_known_by_its_patients_or_by_the_callers_word(wish: str, patient: str, name: str) -> None:
    assert convention_of(wish, patient).name == name


def test_a_lesion_without_a_voxel_of_its_own_leaves_no_gap_in_the_numbers() -> None:
    same = ((0, 1, 1), (0, 1, 2))
    lesions = [
        RoleSegment("lesion", "Tumor_1", placed(*same)),
        RoleSegment("lesion", "Tumor_2", placed(*same)),
        RoleSegment("lesion", "Tumor_3", placed((2, 4, 4))),
    ]
    found = labels_of(lesions, CONVENTIONS["crlm-ct"])
    assert found.lesion_count == 2
    assert [int(found.labels["lesion"][voxel]) for voxel in ((0, 1, 1), (0, 1, 2), (2, 4, 4))] == [1, 1, 2]
    assert "1 of 3 lesion segments have no voxel of their own and were left out" in found.remarks


def test_the_order_of_segments_does_not_change_the_lesions() -> None:
    lesions = [
        RoleSegment("lesion", "Tumor_10", placed((0, 1, 1), (0, 1, 2), (0, 1, 3))),
        RoleSegment("lesion", "Tumor_9", placed((0, 1, 3), (0, 1, 4))),
    ]
    one, other = (labels_of(order, CONVENTIONS["crlm-ct"]) for order in (lesions, lesions[::-1]))
    np.testing.assert_array_equal(one.labels["lesion"], other.labels["lesion"])
    assert one.labels["lesion"][0, 1, 1:5].tolist() == [2, 2, 1, 1]


def test_what_lies_outside_is_counted_for_liver_and_lesions_only() -> None:
    segments = [
        RoleSegment("liver", "Liver", placed((0, 1, 1), (0, 1, 2), (0, 1, 3), outside=1)),
        RoleSegment("aorta", "Aorta", placed(outside=1000)),
    ]
    assert inside_part(segments) == 0.75
    assert inside_part([]) == 1.0


@pytest.mark.parametrize(
    ("contrasts", "phases"),
    [
        ([(170, 150), (90, 320)], ("portal-venous", "arterial")),
        ([(45, 42), (160, 170)], ("non-contrast", "portal-venous")),
        ([(120, 125), (170, 150)], (None, "portal-venous")),
        ([(90, 320)], ("arterial",)),
        ([(90, 320), None], ("arterial", None)),
        ([(100, 179)], ("portal-venous",)),
        ([(100, 181)], ("arterial",)),
    ],
)
def test_the_vessels_tell_the_phase(contrasts: list, phases: tuple[str | None, ...]) -> None:
    assert phases_of([VesselContrast(*each) if each else None for each in contrasts]) == phases


def test_attenuation_is_the_median_so_that_chalk_in_a_wall_does_not_count() -> None:
    array_DHW = np.full(SHAPE, 100.0, np.float32)
    array_DHW[0, 1, 1] = 1300
    vessel = placed((0, 1, 1), (0, 1, 2), (0, 1, 3))
    assert vessel_contrast(array_DHW, vessel, vessel) == VesselContrast(100.0, 100.0)
    assert vessel_contrast(array_DHW, vessel, placed()) is None


def test_pseudonyms_tell_patients_and_issuers_apart(tmp_path: Path) -> None:
    pseudonyms = Pseudonyms(tmp_path / "key")
    given = {
        pseudonyms.patient(patient, issuer, study, is_pseudonym=False)
        for patient, issuer, study in (("1", "A", "9"), ("1", "B", "9"), ("2", "A", "9"), ("", "", "9"), ("", "", "8"))
    }
    assert len(given) == 5
    assert pseudonyms.patient("1", "A", "another study", is_pseudonym=False) in given


def test_a_public_collection_makes_no_key(tmp_path: Path) -> None:
    assert Pseudonyms(tmp_path / "key").patient("HCC_012", "", "9", is_pseudonym=True) == "HCC_012"
    assert not (tmp_path / "key").exists()


def test_a_file_that_is_no_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("secret")
    with pytest.raises(ConfigurationError, match="no key of 32 bytes; name another file by --key"):
        load_key(tmp_path / "key")


@pytest.mark.parametrize(("found", "name"), [("HCC_012", "HCC_012"), ("a/../b c", "a-..-b-c"), ("../", "unnamed")])
def test_an_id_becomes_a_name_that_stays_in_its_folder(found: str, name: str) -> None:
    assert plain_name(found) == name
