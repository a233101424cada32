"""MR headers as the vendors' scanners write them: what a radiographer would say of each, and for what reason.

Written from conformance statements and headers of real scanners; each is told apart by what its scanner did.
"""

from __future__ import annotations

from typing import Any

import pytest

from node.domain import Decision

ORIGINAL, DERIVED = ("ORIGINAL", "PRIMARY"), ("DERIVED", "PRIMARY")
PHILIPS_DD = "Philips Imaging DD 001"
SIEMENS: dict[str, Any] = {"Manufacturer": "SIEMENS", "ImageType": [*ORIGINAL, "M", "NORM", "DIS2D"]}
GE: dict[str, Any] = {"Manufacturer": "GE MEDICAL SYSTEMS", "ImageType": [*ORIGINAL, "OTHER"]}
PHILIPS: dict[str, Any] = {
    "Manufacturer": "Philips",
    "ImageType": [*ORIGINAL, "M_SE", "M", "SE"],
    "ScanOptions": "OTHER",
}
CANON: dict[str, Any] = {"Manufacturer": "CANON_MEC", "ImageType": [*ORIGINAL, "OTHER"]}
UIH: dict[str, Any] = {"Manufacturer": "UIH", "ImageType": [*ORIGINAL, "M", "NONE"]}
FUJIFILM: dict[str, Any] = {"Manufacturer": "FUJIFILM Healthcare Corporation", "ImageType": [*ORIGINAL, "MR"]}
BLANK = {"DiffusionBValue": None, "DiffusionDirectionality": None}
Private = tuple[str, int, int, str, Any]


def told(name: str, tags: dict[str, Any], *private: Private, why: str = "") -> Any:
    """One row: the header, its private elements, and what must stand in the explanation."""
    return pytest.param(tags, private, why, id=name)


def put_private(headers: Any, private: tuple[Private, ...]) -> Any:
    for dataset in headers.values():
        for creator, group, offset, vr, value in private:
            dataset.private_block(group, creator, create=True).add_new(offset, vr, value)
    return headers


def against(item: Any) -> str:
    return "; ".join(reason.what for reason in item.reasons if not reason.is_for)


FAT_SUPPRESSED_T2 = [
    told("siemens-tse", {**SIEMENS, "SequenceName": "*tseR2d1_21", "ScanOptions": ["PFP", "FS"]}),
    told("siemens-haste", {**SIEMENS, "SequenceName": "*h2d1_137", "ScanOptions": ["PFP", "FS"]}),
    told("siemens-blade", {**SIEMENS, "SequenceName": "*tseB2d1_25", "SeriesDescription": "t2_blade_fs_tra"}),
    told("siemens-water-excitation", {**SIEMENS, "ScanOptions": ["PFP", "WE"], "SeriesDescription": "t2_tse_we"}),
    told(
        "siemens-tirm",
        {
            **SIEMENS,
            "ScanningSequence": ["SE", "IR"],
            "InversionTime": "160",
            "ScanOptions": ["IR", "PFP"],
            "EchoTime": "62",
            "SeriesDescription": "t2_tirm_tra",
        },
    ),
    told(
        "siemens-dixon-water",
        {**SIEMENS, "ImageType": [*DERIVED, "DIXON", "WATER"], "ScanOptions": "PFP", "SeriesDescription": "t2_dixon_W"},
    ),
    told("siemens-xa-dixon-water", {**SIEMENS, "ImageType": [*ORIGINAL, "M", "WATER", "M_SB"], "ScanOptions": "PFP"}),
    told("ge-frfse", {**GE, "ScanOptions": ["FAST_GEMS", "SAT_GEMS", "ACC_GEMS", "RESP_TRIG_GEMS", "FS"]}),
    told("ge-ssfse", {**GE, "ScanOptions": ["SS_GEMS", "FS"], "EchoTime": "90", "SeriesDescription": "Ax SSFSE FS BH"}),
    told(
        "ge-propeller",
        {**GE, "ScanningSequence": "RM", "ScanOptions": ["FAST_GEMS", "FS"], "SeriesDescription": "Ax T2 PROPELLER"},
        ("GEMS_ACQU_01", 0x0019, 0x9C, "LO", "PROPELLER"),
    ),
    told("ge-ideal-water", {**GE, "ImageType": [*DERIVED, "DIXON", "WATER"], "ScanOptions": "FAST_GEMS"}),
    told("philips-spair", {**PHILIPS, "ScanOptions": "FS", "SeriesDescription": "T2W_SPAIR_RT"}),
    told("philips-spir-private", PHILIPS, (PHILIPS_DD, 0x2001, 0x21, "CS", "Y")),
    told("philips-multivane", {**PHILIPS, "ScanOptions": ["FS", "OTHER"], "SeriesDescription": "T2W_MV_SPAIR"}),
    told("philips-mdixon-water", {**PHILIPS, "ImageType": [*ORIGINAL, "W", "W", "DERIVED"]}),
    told(
        "philips-stir", {**PHILIPS, "ScanningSequence": "IR", "InversionTime": "165", "SeriesDescription": "STIR_TRA"}
    ),
    told("canon-fatsat", {**CANON, "ScanOptions": "FATSAT", "SequenceName": "FSE2D5_qd"}),
    told("canon-fase", {**CANON, "ScanOptions": "FS", "SequenceName": "FASE2D+25_slt"}),
    told("uih-arms", {**UIH, "SequenceName": "fse_arms", "SeriesDescription": "t2_arms_fse_tra_fs"}),
    told("fujifilm-fse", {**FUJIFILM, "SeriesDescription": "T2 FSE FatSat Tra"}),
    told("fujifilm-stir", {**FUJIFILM, "ScanningSequence": ["SE", "IR"], "InversionTime": "130", "ScanOptions": ""}),
]


@pytest.mark.parametrize(("tags", "private", "why"), FAT_SUPPRESSED_T2)
def test_every_vendors_way_of_suppressing_fat_is_known(
    bench: Any, tags: dict[str, Any], private: tuple[Private, ...], why: str
) -> None:
    best = bench.best(put_private(bench.mr(**tags), private))
    assert best.decision is Decision.ACCEPT, against(best)
    assert best.condition == "pre-nact-t2wi"


ASKED_T2 = [
    told("philips-spair-in-words", {**PHILIPS, "SeriesDescription": "T2W_SPAIR_RT"}, why="no fat suppression"),
    told(
        "ge-ideal-water-in-words",
        {**GE, "ScanOptions": "FAST_GEMS", "SeriesDescription": "WATER: Ax T2 FSE IDEAL"},
        why="no fat suppression",
    ),
]


@pytest.mark.parametrize(("tags", "private", "why"), ASKED_T2)
def test_fat_suppression_that_only_words_tell_is_asked_about(
    bench: Any, tags: dict[str, Any], private: tuple[Private, ...], why: str
) -> None:
    best = bench.best(put_private(bench.mr(**tags), private))
    assert best.decision is Decision.CONFIRM
    assert why in against(best)


GRADIENT_ECHO = {"ScanningSequence": "GR", "EchoTime": "1.3", "RepetitionTime": "3.9", "FlipAngle": "9"}
BALANCED = {"ScanningSequence": "GR", "EchoTime": "1.7", "RepetitionTime": "3.9", "FlipAngle": "60"}
FUNCTIONAL = {"ScanningSequence": ["EP", "GR"], "EchoTime": "30"}
NO_T2 = [
    told(
        "ge-spatial-saturation", {**GE, "ScanOptions": "SAT_GEMS", "SeriesDescription": "T2 FRFSE"}, why="not fat-supp"
    ),
    told("ge-ideal-fat", {**GE, "SeriesDescription": "FAT: Ax T2 FSE FS IDEAL"}, why="fat image of a Dixon pair"),
    told("siemens-dixon-fat", {**SIEMENS, "ImageType": [*DERIVED, "DIXON", "FAT"]}, why="fat image of a Dixon pair"),
    told("siemens-dixon-fat-word", {**SIEMENS, "SeriesDescription": "t2_tse_dixon_tra_F"}, why="fat image of a Dixon"),
    told(
        "siemens-dixon-in-phase",
        {**SIEMENS, "ImageType": [*DERIVED, "DIXON", "IN_PHASE"], "ScanOptions": "PFP", "SeriesDescription": "t2 in"},
        why="in-phase or opposed-phase image of a Dixon set",
    ),
    told(
        "philips-mdixon-opposed",
        {**PHILIPS, "ImageType": [*ORIGINAL, "OP", "OP", "DERIVED"], "SeriesDescription": "T2W mDIXON"},
        why="in-phase or opposed-phase image of a Dixon set",
    ),
    told("vibe", {**SIEMENS, **GRADIENT_ECHO, "SeriesDescription": "t1_vibe_fs_tra_bh"}, why="T1-weighted"),
    told(
        "vibe-hepatobiliary",
        {**SIEMENS, **GRADIENT_ECHO, "SeriesDescription": "t1_vibe_fs_tra_hépatobiliaire"},
        why="a hepatobiliary phase",
    ),
    told(
        "lava-arterial", {**GE, **GRADIENT_ECHO, "SeriesDescription": "Ax LAVA-Flex ART"}, why="dynamic contrast phase"
    ),
    told("thrive", {**PHILIPS, **GRADIENT_ECHO, "SeriesDescription": "eTHRIVE PV"}, why="dynamic contrast phase"),
    told("trufi", {**SIEMENS, **BALANCED, "SequenceName": "*tfi2d1_130"}, why="balanced steady state"),
    told("fiesta", {**GE, **BALANCED, "SeriesDescription": "Ax FIESTA FS"}, why="balanced steady state"),
    told("btfe", {**PHILIPS, **BALANCED, "SeriesDescription": "BTFE_BH"}, why="balanced steady state"),
    told("b-ffe", {**PHILIPS, **BALANCED}, (PHILIPS_DD, 0x2001, 0x20, "LO", "B-FFE"), why="balanced steady state"),
    told("mrcp-3d", {**SIEMENS, "EchoTime": "701", "SeriesDescription": "t2_spc_tra"}, why="only fluid shows"),
    told("mrcp-thin", {**SIEMENS, "EchoTime": "95", "SeriesDescription": "t2_haste_mrcp_fs"}, why="cholangiogram"),
    told("screen-save", {"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, why="screenshot"),
    told(
        "bold-siemens",
        {**SIEMENS, "ScanningSequence": "EP", "SequenceName": "*epfid2d1_64", "SeriesDescription": "ep2d_task"},
        ("SIEMENS MR HEADER", 0x0019, 0x0C, "IS", "1000"),
        ("SIEMENS MR HEADER", 0x0019, 0x0D, "CS", "ISOTROPIC"),
        why="as for functional and perfusion imaging",
    ),
    told(
        "bold-ge",
        {**GE, **FUNCTIONAL, "SeriesDescription": "Ax task"},
        ("GEMS_PARM_01", 0x0043, 0x39, "IS", [1000, 0, 0, 0]),
        ("GEMS_PARM_01", 0x0043, 0x30, "SS", 15),
        ("GEMS_RELA_01", 0x0021, 0x5A, "SL", 7),
        why="as for functional and perfusion imaging",
    ),
    told(
        "bold-philips",
        {**PHILIPS, **FUNCTIONAL, "ScanningSequence": "GR", "SeriesDescription": "FE_EPI"},
        (PHILIPS_DD, 0x2001, 0x03, "FL", 1000.0),
        (PHILIPS_DD, 0x2001, 0x04, "CS", "I"),
        why="gradient echo",
    ),
]


@pytest.mark.parametrize(("tags", "private", "why"), NO_T2)
def test_what_is_no_fat_suppressed_t2_and_no_diffusion_is_refused_for_what_it_is(
    bench: Any, tags: dict[str, Any], private: tuple[Private, ...], why: str
) -> None:
    best = bench.best(put_private(bench.mr(**tags), private))
    assert best.decision is Decision.REFUSE
    assert why in against(best)


SIEMENS_TRACE = {
    **SIEMENS,
    "ImageType": [*DERIVED, "DIFFUSION", "TRACEW", "ND"],
    "SeriesDescription": "ep2d_diff_TRACEW",
}
GE_EPI = {**GE, "ScanningSequence": ["EP", "RM"], "SeriesDescription": "Ax DWI b50/1000"}
GE_BIASED_B: Private = ("GEMS_PARM_01", 0x0043, 0x39, "IS", [1000001000, 8, 0, 0])
GE_EPI2: Private = ("GEMS_ACQU_01", 0x0019, 0x9C, "LO", "epi2")
PHILIPS_EPI = {**PHILIPS, "ScanningSequence": "SE", "SeriesDescription": "DWI_3b_RT"}
PHILIPS_B: Private = (PHILIPS_DD, 0x2001, 0x03, "FL", 1000.0)
TRACES = [
    told(
        "siemens-vb", {**SIEMENS_TRACE, "SequenceName": "*ep_b1000t"}, ("SIEMENS MR HEADER", 0x19, 0x0C, "IS", "1000")
    ),
    told("siemens-without-private-elements", {**SIEMENS_TRACE, "SequenceName": "*ep_b1000t"}),
    told("siemens-resolve", {**SIEMENS_TRACE, "SequenceName": "*re_b1000t", "SeriesDescription": "resolve_TRACEW"}),
    told("siemens-zoomed", {**SIEMENS_TRACE, "SequenceName": "*ez_b1000t", "SeriesDescription": "zoomit_TRACEW"}),
    told(
        "siemens-xa-interoperability",
        {
            **SIEMENS,
            "ImageType": [*ORIGINAL, "DIFFUSION", "NONE"],
            "DiffusionBValue": 1000.0,
            "SeriesDescription": "diff",
        },
        ("SIEMENS MR SDI 02", 0x0021, 0x75, "CS", ["ORIGINAL", "PRIMARY", "DIFFUSION", "TRACEW", "NORM"]),
    ),
    told("ge-combined", GE_EPI, GE_BIASED_B, GE_EPI2, ("GEMS_PARM_01", 0x0043, 0x30, "SS", 15)),
    told("ge-public", {**GE_EPI, "DiffusionBValue": 1000.0, "DiffusionDirectionality": "ISOTROPIC"}),
    told("philips-classic", PHILIPS_EPI, PHILIPS_B, (PHILIPS_DD, 0x2001, 0x04, "CS", "I")),
    told(
        "canon",
        {**CANON, "SequenceName": "SEEPI2D", "SeriesDescription": "DWI", "ImageComments": "b=1000(0.0,0.0,0.0)"},
        why="may be wrong",
    ),
    told("uih", {**UIH, "SequenceName": "epi_dwi", "DiffusionBValue": 1000.0, "DiffusionDirectionality": "ISOTROPIC"}),
]


@pytest.mark.parametrize(("tags", "private", "why"), TRACES)
def test_every_vendors_trace_is_taken(bench: Any, tags: dict[str, Any], private: tuple[Private, ...], why: str) -> None:
    best = bench.best(put_private(bench.dwi((1000,), **{**BLANK, **tags}), private))
    assert best.decision is (Decision.CONFIRM if why else Decision.ACCEPT), against(best)
    assert best.condition == "pre-nact-dwi"
    assert why in against(best)


PUBLIC_TRACE = {"DiffusionBValue": 1000.0, "DiffusionDirectionality": "ISOTROPIC"}
SECONDARY = ["DERIVED", "SECONDARY", "COMBINED"]
NO_TRACES = [
    told(
        "siemens-direction",
        {
            **SIEMENS,
            "ImageType": [*ORIGINAL, "DIFFUSION", "NONE"],
            "SequenceName": "*ep_b1000#3",
            "SeriesDescription": "x",
        },
        why="single gradient direction",
    ),
    told(
        "siemens-computed",
        {
            **SIEMENS_TRACE,
            **PUBLIC_TRACE,
            "SequenceName": "*ep_b50_1400",
            "SeriesDescription": "ep2d_diff_CALC_BVAL",
        },
        why="calculated from",
    ),
    told(
        "siemens-computed-in-words",
        {**SIEMENS_TRACE, **PUBLIC_TRACE, "SeriesDescription": "b berechnet"},
        why="computed",
    ),
    told("ge-one-axis", GE_EPI, GE_BIASED_B, GE_EPI2, ("GEMS_PARM_01", 0x0043, 0x30, "SS", 3), why="single gradient"),
    told(
        "ge-adc",
        {**GE, **PUBLIC_TRACE, "ImageType": SECONDARY, "SeriesDescription": "Apparent Diffusion Coefficient (mm2/s)"},
        why="apparent diffusion coefficient",
    ),
    told(
        "ge-exponential",
        {
            **GE,
            **PUBLIC_TRACE,
            "ImageType": SECONDARY,
            "SeriesDescription": "Exponential Apparent Diffusion Coefficient",
        },
        why="exponential ADC",
    ),
    told("ge-synthetic", {**GE, **PUBLIC_TRACE, "ImageType": SECONDARY, "SeriesDescription": "SynDWI"}, why="computed"),
    told("philips-direction", PHILIPS_EPI, PHILIPS_B, (PHILIPS_DD, 0x2001, 0x04, "CS", "M"), why="single gradient"),
    told(
        "philips-adc",
        {**PHILIPS_EPI, "ImageType": [*ORIGINAL, "ADC_UNSPECIFIED", "ADC", "UNSPECIFIED"], "SeriesDescription": "map"},
        PHILIPS_B,
        (PHILIPS_DD, 0x2001, 0x04, "CS", "I"),
        why="apparent diffusion coefficient",
    ),
    told(
        "superscript-units",
        {**UIH, **PUBLIC_TRACE, "RescaleType": "mm²/s", "SeriesDescription": "dADC"},
        why="diffusion coefficients",
    ),
    told(
        "ge-anisotropy",
        {**GE, **PUBLIC_TRACE, "ImageType": ["DERIVED", "SECONDARY", "PROCESSED"], "SeriesDescription": "DTI FA"},
        ("GEMS_PARM_01", 0x0043, 0x30, "SS", 18),
        why="fractional anisotropy",
    ),
]


@pytest.mark.parametrize(("tags", "private", "why"), NO_TRACES)
def test_directions_maps_and_computed_images_are_refused_for_what_they_are(
    bench: Any, tags: dict[str, Any], private: tuple[Private, ...], why: str
) -> None:
    best = bench.best(put_private(bench.dwi((1000,), **{**BLANK, **tags}), private))
    assert best.decision is Decision.REFUSE
    assert why in against(best)


def test_edwi_is_asked_about_for_ge_acquires_what_others_compute(bench: Any) -> None:
    best = bench.best(bench.dwi((1000,), **GE_EPI | {"SeriesDescription": "Ax eDWI b50,1000"}))
    assert best.decision is Decision.CONFIRM
    assert "eDWI" in against(best)


def test_a_b_value_without_any_other_sign_of_diffusion_is_asked_about(bench: Any) -> None:
    best = bench.best(bench.dwi((1000,), SeriesDescription="Leber tra"))
    assert best.decision is Decision.CONFIRM
    assert "functional or perfusion series cannot be ruled out" in against(best)


def test_xa_calls_the_read_out_of_its_diffusion_a_gradient_echo_and_means_no_functional_series(bench: Any) -> None:
    tags = {"ScanningSequence": None, "EchoPulseSequence": "GRADIENT", "PulseSequenceName": "*epse2d1_128"}
    image_type = [*DERIVED, "DIFFUSION", "TRACEW"]
    assert bench.best(bench.dwi((1000,), **tags, ImageType=image_type)).decision is Decision.ACCEPT
    bold = {**tags, "PulseSequenceName": "*epfid2d1_64", "ImageType": [*ORIGINAL, "FMRI", "NONE"]}
    assert bench.best(bench.dwi((1000,), **bold)).decision is Decision.REFUSE


@pytest.mark.parametrize("keyword", ["Laterality", "ImageLaterality"])
def test_a_told_side_speaks_against_the_liver(bench: Any, keyword: str) -> None:
    assert bench.best(bench.mr(**{keyword: "L"})).decision is Decision.CONFIRM
    alone = bench.best(bench.mr(**{keyword: "L", "BodyPartExamined": None}))
    assert alone.decision is Decision.REFUSE
    assert "a paired part of the body" in against(alone)
    assert bench.best(bench.mr(**{keyword: "U"})).decision is Decision.ACCEPT


def test_diffusion_of_inverted_greys_is_asked_about(bench: Any) -> None:
    told = {"SeriesDescription": "DWIBS inverted", "ImageType": ["DERIVED", "SECONDARY", "OTHER"]}
    best = bench.best(bench.dwi((50, 1000), **told))
    assert best.decision is Decision.CONFIRM
    assert "inverted greys" in against(best)
