"""Removing evidence never turns a refusal into a confident acceptance: tried piece by piece, on whatever is refused.

The other way round it says: what is accepted is never refused for one more thing that its header need not tell. Such
a thing alone, against all that vouches for the image, asks a person.
"""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from node.dicom.header import frame_count
from node.domain import Decision
from tests.legacy_converted import converted
from tests.removal import (
    CONDITIONS,
    SHARED_DATA,
    accepted_without,
    best_decision,
    real_headers,
    real_series,
    twin_headers,
    twins,
)

Headers = dict[Path, Dataset]
ALL_TWINS = [(weighting, dialect, twin) for weighting in CONDITIONS for dialect, twin in twins(weighting)]
MOST_SLICES = 20
"""Of a real series that is tried here; `python -m tests.removal` tries all."""


def against(decision: Any) -> str:
    return "; ".join(reason.what for reason in decision.reasons if not reason.is_for)


# --- what is refused, piece by piece


@pytest.mark.parametrize(
    ("weighting", "dialect"), sorted({(weighting, dialect) for weighting, dialect, _ in ALL_TWINS})
)
def test_what_a_twin_resembles_is_accepted(bench: Any, weighting: str, dialect: str) -> None:
    assert best_decision(twin_headers(weighting, dialect, None), bench.routes) is Decision.ACCEPT


@pytest.mark.parametrize(("weighting", "dialect", "twin"), ALL_TWINS)
def test_a_twin_is_not_accepted_without_any_one_piece(bench: Any, weighting: str, dialect: str, twin: str) -> None:
    headers = twin_headers(weighting, dialect, twin)
    assert best_decision(headers, bench.routes) is Decision.REFUSE
    assert accepted_without(headers, bench.routes) == []


@pytest.mark.parametrize(("weighting", "dialect", "twin"), [row for row in ALL_TWINS if row[1] == "ge"])
def test_a_converted_twin_is_not_accepted_without_any_one_piece(
    bench: Any, weighting: str, dialect: str, twin: str
) -> None:
    headers = converted(twin_headers(weighting, dialect, twin))
    assert best_decision(headers, bench.routes) is Decision.REFUSE
    assert accepted_without(headers, bench.routes) == []


def put_everywhere(dataset: Dataset, keyword: str, told: Any) -> None:
    """Set the attribute wherever the data set or its functional groups have it."""
    for element in dataset:
        if element.keyword == keyword:
            element.value = told
        elif element.VR == "SQ":
            for item in element.value:
                put_everywhere(item, keyword, told)


ENHANCED_ADC = ["DERIVED", "PRIMARY", "DIFFUSION", "ADC"]
ENHANCED: dict[str, tuple[str, dict[str, Any]]] = {
    "b too high": ("dwi", {"DiffusionBValue": 1500.0}),
    "one direction": ("dwi", {"DiffusionDirectionality": "DIRECTIONAL"}),
    "adc map": ("dwi", {"ImageType": ENHANCED_ADC, "FrameType": ENHANCED_ADC}),
    "adc map among others": ("dwi", {"ImageType": ["DERIVED", "PRIMARY", "MIXED", "MIXED"], "FrameType": ENHANCED_ADC}),
    "echo-planar": ("t2", {"EchoPlanarPulseSequence": "YES", "PulseSequenceName": "epse2d"}),
    "balanced": ("t2", {"EchoPulseSequence": "GRADIENT", "SteadyStatePulseSequence": "FREE_PRECESSION"}),
    "cholangiogram": ("t2", {"EffectiveEchoTime": 650.0}),
    "fluid suppressed": ("t2", {"InversionRecovery": "YES"}),
    "without fat suppression": ("t2", {"SpectrallySelectedSuppression": "NONE", "SeriesDescription": "Ax T2 FRFSE"}),
    "projection": ("t2", {"VolumeBasedCalculationTechnique": "MAX_IP", "SeriesDescription": "Ax T2 fs MIP"}),
}


@pytest.mark.parametrize("name", ENHANCED)
def test_an_enhanced_image_is_not_accepted_without_any_one_piece(bench: Any, name: str) -> None:
    weighting, told = ENHANCED[name]
    headers = twin_headers(weighting, "ge", None, is_multiframe=True)
    (dataset,) = headers.values()
    for keyword, value in told.items():
        put_everywhere(dataset, keyword, value)
    if name == "fluid suppressed":
        (timing,) = dataset.SharedFunctionalGroupsSequence[0].MRModifierSequence
        timing.InversionTimes = [2200.0]
    assert best_decision(headers, bench.routes) is Decision.REFUSE
    assert accepted_without(headers, bench.routes) == []


@pytest.mark.parametrize(("folder", "series_uid"), real_series(), ids=lambda told: str(told)[-30:])
def test_a_real_series_is_not_accepted_without_any_one_piece(bench: Any, folder: str, series_uid: str) -> None:
    headers = real_headers(SHARED_DATA / folder, series_uid)
    if (slices := sum(map(frame_count, headers.values()))) > MOST_SLICES:
        pytest.skip(f"{slices} slices: left to python -m tests.removal")
    assert accepted_without(headers, bench.routes) == []


# --- what is accepted, and one more thing that its header need not tell


@cache
def accepted() -> dict[str, Headers]:
    """A series of each kind that is taken unattended, classic, converted and enhanced."""
    classic = {weighting: twin_headers(weighting, "ge", None) for weighting in CONDITIONS}
    others = {f"{weighting}, converted": converted(headers) for weighting, headers in classic.items()}
    for weighting in ("dwi", "t2"):
        others[f"{weighting}, enhanced"] = twin_headers(weighting, "uih", None, is_multiframe=True)
    return classic | others


ONE_MORE: list[tuple[str, Any]] = [
    *(("RescaleType", told) for told in ("MGML", "HU_MOD", "Z_EFF", "10^-6 mm2/s", "US")),
    *(("SequenceName", told) for told in ("*ep_b50_800", "*ep_b1500t", "*ep_b1000#3", "*epfid2d1_64", "*tfi2d1_99")),
    *(("PulseSequenceName", told) for told in ("*epse2d1_64", "*epfid2d1_64", "fiesta")),
    *(("DerivationDescription", told) for told in ("computed b-value", "MIP of 5 slices")),
    *(("ProtocolName", told) for told in ("localizer", "t1 vibe", "ADC", "nofs")),
    *(("AcquisitionProtocolName", told) for told in ("localizer", "late arterial")),
    *(("ImageComments", told) for told in ("MIP", "arterial", "without fat sat", "b=1500(0,0,1)", "trufi")),
    *(("InversionTime", told) for told in ("2200", "800", "160")),
    *(("SteadyStatePulseSequence", told) for told in ("TRANSVERSE", "FREE_PRECESSION")),
    *(("EffectiveEchoTime", told) for told in (10.0, 650.0)),
    *(("EchoTime", told) for told in ("10", "650")),
    *(("ScanningSequence", told) for told in ("GR", "EP", "IR")),
    *(("SpectrallySelectedSuppression", told) for told in ("NONE", "WATER")),
    *(("DiffusionBValue", told) for told in (500.0, 1000.0, 1500.0)),
    *(("DiffusionDirectionality", told) for told in ("DIRECTIONAL", "NONE")),
    *(("DiffusionGradientOrientation", told) for told in ([1.0, 0.0, 0.0], [0.0, 0.0, 0.0])),
    *(("AcquisitionContrast", told) for told in ("DIFFUSION", "PERFUSION")),
    *(("ComplexImageComponent", told) for told in ("PHASE", "REAL")),
    *(("Laterality", told) for told in ("L", "U")),
    ("BodyPartExamined", "PROSTATE"),
    ("BurnedInAnnotation", "YES"),
    ("ConvolutionKernel", "B70f"),
    ("ContrastBolusAgent", "NONE"),
    ("ContrastBolusAgentAdministered", "NO"),
    ("ContrastBolusAgentPhase", "ARTERIAL"),
    ("ContrastBolusRoute", "ORAL"),
    ("EchoPlanarPulseSequence", "YES"),
    ("EchoPulseSequence", "GRADIENT"),
    ("FrameType", ["DERIVED", "PRIMARY", "DIFFUSION", "ADC"]),
    ("InversionRecovery", "YES"),
    ("InversionTimes", [2200.0]),
    ("MultienergyCTAcquisition", "YES"),
    ("NumberOfFrames", 9),
    ("RescaleIntercept", "0"),
    ("SamplesPerPixel", 3),
    ("ScanOptions", "PFP"),
    ("TemporalPositionIdentifier", 2),
    ("VolumeBasedCalculationTechnique", "MAX_IP"),
]


@pytest.mark.parametrize(("keyword", "told"), ONE_MORE, ids=str)
def test_one_more_attribute_never_refuses_what_is_accepted_without_it(bench: Any, keyword: str, told: Any) -> None:
    for name, headers in accepted().items():
        if all(keyword not in dataset for dataset in headers.values()):
            more = {path: copy.deepcopy(dataset) for path, dataset in headers.items()}
            for dataset in more.values():
                setattr(dataset, keyword, told)
            assert best_decision(more, bench.routes) is not Decision.REFUSE, name


GE = ("GEMS_PARM_01", 0x0043)
ONE_MORE_PRIVATE = [
    ("SIEMENS MR SDI 02", 0x0021, 0x75, "CS", ["DERIVED", "PRIMARY", "DIFFUSION", "ADC"]),
    ("SIEMENS MR HEADER", 0x0019, 0x0C, "IS", "1500"),
    ("SIEMENS MR HEADER", 0x0019, 0x0D, "CS", "DIRECTIONAL"),
    ("SIEMENS MR HEADER", 0x0019, 0x0E, "FD", [1.0, 0.0, 0.0]),
    ("GEMS_PARM_01", 0x0043, 0x30, "SS", 18),
    ("GEMS_PARM_01", 0x0043, 0x39, "IS", [1500, 8, 0, 0]),
    ("GEMS_ACQU_01", 0x0019, 0x9C, "LO", "epi"),
    ("GEMS_ACQU_01", 0x0019, 0x9C, "LO", "fiesta"),
    ("Philips Imaging DD 001", 0x2001, 0x03, "FL", 1500.0),
    ("Philips Imaging DD 001", 0x2001, 0x04, "CS", "O"),
    ("Philips Imaging DD 001", 0x2001, 0x13, "SL", 31),
    ("Philips Imaging DD 001", 0x2001, 0x20, "LO", "B-FFE"),
    ("Image Private Header", 0x0065, 0x0A, "FD", 1500.0),
    ("Image Private Header", 0x0065, 0x37, "FD", [1.0, 0.0, 0.0]),
]


@pytest.mark.parametrize("told", ONE_MORE_PRIVATE, ids=str)
def test_one_more_private_element_never_refuses_what_is_accepted_without_it(bench: Any, told: Any) -> None:
    creator, group, offset, vr, value = told
    for weighting in ("dwi", "t2"):
        headers = twin_headers(weighting, "canon", None)  # no private element of it is read
        for dataset in headers.values():
            dataset.private_block(group, creator, create=True).add_new(offset, vr, value)
        assert best_decision(headers, bench.routes) is not Decision.REFUSE, weighting


# --- alone it asks, beside another sign it refuses

MATERIAL = {"RescaleType": "MGML"}
ADC = {"RescaleType": "10^-6 mm2/s"}
COMPUTED = {"SequenceName": "*ep_b50_1400"}


def in_real_world_units(code: str) -> dict[str, Any]:
    """A mapping of stored values to real ones, as multi-frame maps have it in place of a Rescale Type."""
    units, mapping = Dataset(), Dataset()
    units.CodeValue, units.CodingSchemeDesignator = code, "UCUM"
    mapping.MeasurementUnitsCodeSequence = [units]
    return {"RealWorldValueMappingSequence": [mapping]}


ALONE = [
    pytest.param("ct", MATERIAL, "MGML, which nothing else says", id="material"),
    pytest.param("ct", {"RescaleType": "100ug/cm3"}, "100ug/cm3, which nothing else says", id="material of a vendor"),
    pytest.param("ct", {"RescaleType": "HU_MOD"}, "HU_MOD, which nothing else says", id="modified"),
    pytest.param(
        "ct",
        {"RescaleSlope": "0.1", "RescaleIntercept": "0", "BitsStored": 12, "PixelRepresentation": 0},
        "those of air lie at -1000",
        id="no room for air",
    ),
    pytest.param("ct", {"MultienergyCTAcquisition": "YES"}, "mixed image of all energies", id="multi-energy"),
    pytest.param("ct", {"ImageType": ["DERIVED", "PRIMARY", "AXIAL"]}, "not told how", id="derived"),
    pytest.param("mr", {"ImageType": ["DERIVED", "SECONDARY", "OTHER"]}, "not told how", id="derived MR"),
    pytest.param("dwi", ADC, "diffusion coefficients, mm²/s, which nothing else says", id="adc"),
    pytest.param("dwi", {"RescaleType": "um2/s"}, "mm²/s, which nothing else says", id="adc in µm²/s"),
    pytest.param("dwi", {"RescaleType": "10^-3 mm^2/s"}, "mm²/s, which nothing else says", id="adc in mm^2/s"),
    pytest.param("dwi", in_real_world_units("um2/s"), "mm²/s, which nothing else says", id="adc by its mapping"),
    pytest.param("dwi", COMPUTED, "several b-values, which nothing else says", id="computed"),
    pytest.param("mr", {"BurnedInAnnotation": "YES"}, "burned into the pixels, which nothing", id="annotation"),
    pytest.param("mr", {"SamplesPerPixel": 3}, "3 samples per pixel, which nothing else says", id="colour"),
    pytest.param("mr", {"DiffusionBValue": 1500.0}, "nothing else of diffusion in a turbo spin echo", id="a b-value"),
    pytest.param("mr", {"SequenceName": "*epse2d1_64"}, "one of echo-planar, which nothing else says", id="EPI"),
    pytest.param("mr", {"ProtocolName": "ep2d_diff"}, "diffusion is told, and no b-value", id="diffusion"),
    pytest.param("mr", {"EffectiveEchoTime": 650.0}, "two echo times", id="two echo times"),
    pytest.param("dwi", {"EchoPulseSequence": "GRADIENT"}, "a gradient echo, as for functional", id="functional"),
]


@pytest.mark.parametrize(("builder", "tags", "why"), ALONE)
def test_what_one_place_alone_says_is_asked_about(bench: Any, builder: str, tags: dict[str, Any], why: str) -> None:
    best = bench.best(getattr(bench, builder)(**(tags if builder != "dwi" else {"b_values": (1000,), **tags})))
    assert best.decision is Decision.CONFIRM
    assert why in against(best)


TOGETHER = [
    pytest.param("ct", {**MATERIAL, "ImageType": ["DERIVED", "PRIMARY", "AXIAL"]}, "MGML", id="material"),
    pytest.param("ct", {**MATERIAL, "SeriesDescription": None}, "MGML", id="material without a description"),
    pytest.param("dwi", {**ADC, "SeriesDescription": "dADC map"}, "mm²/s", id="adc"),
    pytest.param("dwi", {**ADC, "DerivationDescription": "computed"}, "mm²/s", id="adc, computed"),
    pytest.param("dwi", {**COMPUTED, "SeriesDescription": "b berechnet"}, "several b-values", id="computed"),
    pytest.param("mr", {"BurnedInAnnotation": "YES", "SeriesDescription": "Screen save"}, "burned", id="annotation"),
    pytest.param("mr", {"SequenceName": "*epse2d1", "EchoPlanarPulseSequence": "YES"}, "echo-planar", id="EPI"),
    pytest.param(
        "mr", {"DiffusionBValue": 1500.0, "ProtocolName": "ep2d_diff"}, "no b-value between 800", id="b too high"
    ),
]


@pytest.mark.parametrize(("builder", "tags", "why"), TOGETHER)
def test_what_two_places_say_is_refused(bench: Any, builder: str, tags: dict[str, Any], why: str) -> None:
    best = bench.best(getattr(bench, builder)(**(tags if builder != "dwi" else {"b_values": (1000,), **tags})))
    assert best.decision is Decision.REFUSE
    assert why in against(best)
