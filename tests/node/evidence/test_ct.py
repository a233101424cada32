"""Contrast, phases, kernels and regions: what headers and words say, in several languages, and what they do not."""

from __future__ import annotations

from typing import Any

import pytest

from node.evidence_ct import kernel_kind
from node.evidence_phases import phases_in
from node.evidence_regions import regions_in, regions_of_body_part


@pytest.mark.parametrize(
    ("tags", "given"),
    [
        ({}, True),
        ({"ContrastBolusRoute": None}, True),
        ({"ContrastBolusAgent": "GASTRO & OMNI", "ContrastBolusRoute": "Oral & IV"}, True),
        ({"ContrastBolusAgent": "APPLIED", "ContrastBolusRoute": ""}, True),
        ({"ContrastBolusAgent": None, "ContrastBolusRoute": None, "ContrastBolusVolume": "100"}, True),
        ({"ContrastBolusAgent": "ORAL", "ContrastBolusRoute": None}, False),
        ({"ContrastBolusAgent": "ORAL", "ContrastBolusRoute": "PO"}, False),
        ({"ContrastBolusAgent": "TELEBRIX", "ContrastBolusRoute": "PO"}, None),
        ({"ContrastBolusAgent": "NONE", "ContrastBolusRoute": "IV"}, None),
        ({"ContrastBolusAgent": "NONE", "ContrastBolusRoute": None}, False),
        ({"ContrastBolusAgent": None, "ContrastBolusRoute": None}, None),
        ({"ContrastBolusAgent": "", "ContrastBolusRoute": "", "ContrastBolusVolume": "0"}, None),
    ],
)
def test_contrast_into_a_vein_is_told_from_contrast_by_mouth(bench: Any, tags: dict[str, Any], given: bool) -> None:
    assert bench.fact(bench.ct(**tags)).contrast_given is given


@pytest.mark.parametrize(
    ("words", "phase"),
    [
        ("ABD PORTAL VENOUS 5mm", "portal-venous"),
        ("Liver PV", "portal-venous"),
        ("Abdomen portalvenös 5.0 B30f", "portal-venous"),
        ("Leber venös", "portal-venous"),
        ("Foie temps portal", "portal-venous"),
        ("Fase venosa", "portal-venous"),
        ("porto-venous", "portal-venous"),
        ("肝臓 門脈相", "portal-venous"),
        ("Abd C+ 70 s", "portal-venous"),
        ("ABDOMEN_75sec", "portal-venous"),
        ("Liver art.", "arterial"),
        ("Leber arteriell", "arterial"),
        ("temps artériel", "arterial"),
        ("Abdomen 30s", "arterial"),
        ("Liver late", "delayed"),
        ("Leber spät", "delayed"),
        ("Foie tardif", "delayed"),
        ("PV 180 s", "delayed"),
        ("Abdomen nativ", "non-contrast"),
        ("CT abd w/o contrast", "non-contrast"),
        ("Foie sans injection", "non-contrast"),
    ],
)
def test_words_name_the_phase_and_stated_seconds_decide(words: str, phase: str) -> None:
    assert phases_in([words]) == (phase,)


@pytest.mark.parametrize(
    "words", ["PARTIAL BODY", "HEART", "lateral", "template", "CT CH/AB/PEL", "Volume 5.0", "120 s"]
)
def test_words_inside_words_name_no_phase(words: str) -> None:
    assert phases_in([words]) == ()


def test_the_series_own_description_goes_before_the_protocol(bench: Any) -> None:
    volume = bench.fact(bench.ct(SeriesDescription="ABD ART", ProtocolName="LIVER PV"))
    assert [vote.says for vote in volume.phase_signs if vote.by == "text"] == ["arterial"]


@pytest.mark.parametrize(
    ("start", "acquired", "phase"),
    [
        ("101000", "101110", "portal-venous"),
        ("101000.000", "101100.5", "portal-venous"),
        ("101000", "101030", "arterial"),
        ("101000", "101300", "delayed"),
        ("101000", "101050", None),
        ("101000", "101150", None),
        ("101000", "101000", None),
        ("101000", "101005", None),
        ("120000", "101110", None),
        ("", "101110", None),
        ("soon", "101110", None),
    ],
)
def test_the_time_since_the_injection_votes_only_inside_a_window(
    bench: Any, start: str, acquired: str, phase: str | None
) -> None:
    volume = bench.fact(bench.ct(ContrastBolusStartTime=start, AcquisitionTime=acquired))
    votes = [vote.says for vote in volume.phase_signs if vote.by == "timing"]
    assert votes == ([phase] if phase else [])


def test_the_injection_before_midnight_does_not_vote(bench: Any) -> None:
    volume = bench.fact(bench.ct(ContrastBolusStartTime="235930", AcquisitionTime="000040"))
    assert not [vote for vote in volume.phase_signs if vote.by == "timing"]


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        *[
            (name, "soft")
            for name in (
                "STANDARD",
                "HD STND",
                "SOFT",
                "CB",
                "B30f",
                "B31s",
                "Br38f\\3",
                "I30f",
                "FC08",
                "FC18",
                "B",
                "C",
            )
        ],
        *[
            (name, "sharp")
            for name in ("BONE", "LUNG", "B70f", "Bl57d", "Hr60f", "FC51", "FC30", "L", "YC", "YE", "CHST", "EDGE")
        ],
        *[(name, "unknown") for name in ("", "QQ", "XRES_7")],
    ],
)
def test_kernels_are_known_by_their_names(kernel: str, kind: str) -> None:
    assert kernel_kind(kernel) == kind


@pytest.mark.parametrize(
    ("words", "regions"),
    [
        ("Ax T2 LIVER", ("liver",)),
        ("MRT Leber mit KM", ("liver",)),
        ("IRM foie", ("liver",)),
        ("RM hígado", ("liver",)),
        ("肝臓造影", ("liver",)),
        ("CT CH/AB/PEL", ("abdomen", "pelvis", "chest")),
        ("CT CAP", ("abdomen",)),
        ("Oberbauch  *sSSH/FB/4mm", ("abdomen",)),
        ("t2_tse_abdomen_tra", ("abdomen",)),
        ("MR prostaat kanker", ("prostate",)),
        ("delivery of olives", ()),
        ("DTI_AP-ortho", ()),
        ("ep2d_diff_tra", ()),
    ],
)
def test_words_name_regions_in_several_languages(words: str, regions: tuple[str, ...]) -> None:
    assert regions_in(words) == regions


@pytest.mark.parametrize(
    ("told", "region"),
    [
        ("ABDOMEN", "abdomen"),
        ("UPPERABDOMEN", "abdomen"),
        ("CHESTABDPELVIS", "abdomen"),
        ("LIVER", "liver"),
        ("HEAD", "head"),
        ("BRAIN", "brain"),
        ("KIDNEY", "kidney"),
        ("CSPINE", "spine"),
        ("EXTREMITY", "extremity"),
    ],
)
def test_body_part_examined_is_read_with_its_parts_glued(told: str, region: str) -> None:
    assert regions_of_body_part(told)[0] == region


@pytest.mark.parametrize("told", ["PARTIALBODY", "WHOLEBODY", "", "UNKNOWN"])
def test_an_unspecific_body_part_is_no_region(told: str) -> None:
    assert regions_of_body_part(told) == ()
