"""What an MR volume is weighted for, and whether its fat is suppressed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.mark.parametrize(
    ("tags", "weighting"),
    [
        pytest.param({}, "t2", id="turbo spin echo"),
        pytest.param({"RepetitionTime": "588"}, "t2", id="a short TR lowers nothing"),
        pytest.param({"ScanningSequence": "IR", "InversionTime": "165"}, "t2", id="STIR"),
        pytest.param({"ScanningSequence": None, "SequenceName": "*h2d1_63"}, "t2", id="HASTE by its name"),
        pytest.param({"ScanningSequence": ["IR", "SE"], "InversionTime": "2200"}, "t2", id="FLAIR"),
        pytest.param({"EchoTime": "12", "RepetitionTime": "550"}, "t1", id="T1 spin echo"),
        pytest.param({"EchoTime": "12", "RepetitionTime": "3000"}, "other", id="proton density"),
        pytest.param(
            {"ScanningSequence": "GR", "EchoTime": "2.4", "RepetitionTime": "4.8", "SeriesDescription": "ax"},
            "t1",
            id="spoiled 3-D gradient echo",
        ),
        pytest.param(
            {
                "ScanningSequence": "GR",
                "EchoTime": "4.8",
                "RepetitionTime": "150",
                "FlipAngle": "70",
                "SeriesDescription": "in phase",
            },
            "t1",
            id="2-D gradient echo, in phase",
        ),
        pytest.param(
            {"ScanningSequence": "GR", "EchoTime": "1.5", "RepetitionTime": "800", "SeriesDescription": "tfl PD ref"},
            "other",
            id="proton density reference",
        ),
        pytest.param({"ScanningSequence": "GR", "EchoTime": "25", "RepetitionTime": "600"}, "other", id="T2*"),
        pytest.param({"ScanningSequence": "GR", "SequenceName": "*tfi2d1_130", "EchoTime": "80"}, "other", id="long"),
        pytest.param({"ScanningSequence": ["EP", "SE"]}, "other", id="echo-planar without diffusion"),
        pytest.param({"ScanningSequence": ["EP", "GR"], "EchoTime": "30"}, "other", id="BOLD"),
        pytest.param({"EchoTime": None}, "other", id="no echo time"),
        pytest.param({"ScanningSequence": None}, "other", id="no family"),
        pytest.param({"ImageType": ["DERIVED", "PRIMARY", "T2 MAP"]}, "other", id="parameter map"),
        pytest.param({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localizer", id="localizer"),
        pytest.param({"SeriesDescription": "Survey_BH"}, "localizer", id="localizer by name"),
    ],
)
def test_the_sequence_tells_the_weighting(bench: Any, tags: dict[str, Any], weighting: str) -> None:
    assert bench.fact(bench.mr(**tags)).weighting == weighting


@pytest.mark.parametrize(
    ("tags", "weighting"),
    [
        ({}, "dwi-trace"),
        ({"DiffusionDirectionality": "DIRECTIONAL"}, "dwi"),
        ({"DiffusionDirectionality": None}, "dwi"),
        ({"ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", "ADC"]}, "adc"),
        ({"ImageType": ["DERIVED", "SECONDARY", "PROCESSED"], "SeriesDescription": "dADC_map"}, "adc"),
        ({"ImageType": ["DERIVED", "SECONDARY"], "SeriesDescription": "Exponential Apparent Diffusion"}, "other"),
        ({"ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", "FA"]}, "fa"),
        ({"RescaleType": "10^-6 mm2/s", "DerivationDescription": "ADC map"}, "adc"),
        ({"RescaleType": "10^-6 mm2/s"}, "dwi-trace"),
        ({"ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", "CALC_BVALUE"]}, "dwi-computed"),
        ({"SeriesDescription": "ep2d_diff_DYNDISTCALC_BVAL"}, "dwi-computed"),
        ({"SeriesDescription": "cDWI liver"}, "dwi-computed"),
        ({"SequenceName": "*ep_b50_800", "DerivationDescription": "calculated"}, "dwi-computed"),
        ({"SequenceName": "*ep_b50_800"}, "dwi-trace"),
        ({"SeriesDescription": "Ax DWI/ADC liver"}, "dwi-trace"),
    ],
)
def test_what_was_weighted_is_told_from_what_was_calculated(bench: Any, tags: dict[str, Any], weighting: str) -> None:
    assert bench.fact(bench.dwi((1000,), **tags)).weighting == weighting


def test_b_zero_belongs_to_the_traces_it_was_acquired_with(bench: Any) -> None:
    assert {volume.weighting for volume in bench.facts(bench.dwi((0, 1000)))} == {"dwi-trace"}


def test_a_t1_series_is_named_for_its_kind(bench: Any) -> None:
    tags = {"ScanningSequence": "GR", "EchoTime": "2.4", "RepetitionTime": "4.8"}
    volume = bench.fact(bench.mr(**tags, SeriesDescription="t1_vibe_HBP 20min"))
    assert any("hepatobiliary" in sign.what for sign in volume.weighting_signs)


@pytest.mark.parametrize(
    "tags",
    [
        {"ScanOptions": "FS"},
        {"ScanOptions": ["PFP", "SFS"]},
        {"ScanOptions": ["FAST_GEMS", "FS"]},
        {"ScanOptions": None, "SpectrallySelectedSuppression": "FAT"},
        {"ScanOptions": "OTHER", "ScanningSequence": "IR", "InversionTime": "165"},
        {"ScanOptions": "PFP", "ImageType": ["DERIVED", "PRIMARY", "DIXON", "WATER"]},
    ],
)
def test_tags_tell_fat_suppression(bench: Any, tags: dict[str, Any]) -> None:
    volume = bench.fact(bench.mr(**{"SeriesDescription": "AX T2", **tags}))
    assert volume.fat_suppressed is True


def test_spir_of_philips_tells_fat_suppression(bench: Any, private: Callable[..., Any]) -> None:
    headers = private(
        bench.mr(ScanOptions="PFP", SeriesDescription="T2W"), "Philips Imaging DD 001", 0x2001, 0x21, "CS", "Y", 0x31
    )
    assert bench.fact(headers).fat_suppressed is True


@pytest.mark.parametrize(
    ("description", "told"),
    [
        ("AX T2 FS", True),
        ("t2_tse_fs_tra", True),
        ("T2 SPAIR", True),
        ("Ax T2 FRFSE RTr", None),
        ("t2 offset corrected", None),
        ("T2 no FS", False),
        ("T2 ohne FS", False),
        ("T2 non-fatsat", False),
        ("T2 nofs", False),
    ],
)
def test_words_tell_fat_suppression_only_as_whole_words(bench: Any, description: str, told: bool | None) -> None:
    assert bench.fact(bench.mr(ScanOptions=None, SeriesDescription=description)).fat_suppressed is told


def test_words_and_options_that_differ_leave_fat_suppression_untold(bench: Any) -> None:
    volume = bench.fact(bench.mr(ScanOptions="PFP", SeriesDescription="AX T2 FS"))
    assert volume.fat_suppressed is None
    assert {sign.says for sign in volume.fat_signs} == {"yes", "no"}


def test_nothing_told_is_not_no(bench: Any) -> None:
    assert bench.fact(bench.mr(ScanOptions=None, SeriesDescription="AX T2")).fat_suppressed is None


def test_empty_scan_options_say_that_no_option_was_used(bench: Any) -> None:
    assert bench.fact(bench.mr(ScanOptions="", SeriesDescription="AX T2")).fat_suppressed is False
