"""What must hold for every header: orders, block numbers and irrelevant tags decide nothing; missing evidence accepts
nothing."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from node.domain import Decision, TimePoint
from node.evidence_facts import DERIVED_MEAN, DIRECTIONAL, ISOTROPIC, SOUND, UNSURE, Sign
from node.routing import as_json
from node.routing_criteria import judge

Headers = dict[Path, Dataset]
REASONABLE = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)

SMALL: dict[str, tuple[Any, ...]] = {"mr": (9,), "ct": (9,), "dwi": ((50, 1000), 9)}

EPI = {"ScanningSequence": "EP", "SeriesDescription": "ep2d_diff_tra_TRACEW", "DiffusionDirectionality": "ISOTROPIC"}
B1000 = {**EPI, "DiffusionBValue": 1000.0, "ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", "TRACEW"]}
# what looks like a condition's series and is none: (builder, header); what disqualifies is told in several places, as
# scanners tell it
REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "t2 without fat suppression": ("mr", {"ScanOptions": "PFP", "SeriesDescription": "t2_tse_tra"}),
    "t2 that denies it in words": ("mr", {"ScanOptions": "PFP", "SeriesDescription": "t2_tse_nofs"}),
    "another organ": ("mr", {"BodyPartExamined": "PROSTATE", "ProtocolName": "prostate t2"}),
    "coronal": ("mr", {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}),
    "cholangiogram": ("mr", {"EchoTime": "650", "SeriesDescription": "MRCP fs"}),
    "in phase": (
        "mr",
        {"ScanningSequence": "GR", "EchoTime": "4.7", "RepetitionTime": "140", "SeriesDescription": "t1 in phase"},
    ),
    "adc map": (
        "mr",
        {**B1000, "ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", "ADC"], "SeriesDescription": "ep2d_diff_ADC"},
    ),
    "computed": ("mr", {**B1000, "SeriesDescription": "ep2d_CALC_BVAL", "SequenceName": "*ep_b50_800"}),
    "one direction": ("mr", {**B1000, "ImageType": ["ORIGINAL", "PRIMARY"], "DiffusionDirectionality": "DIRECTIONAL"}),
    "b too high": ("mr", {**B1000, "DiffusionBValue": 1500.0}),
    "functional": ("mr", {"ScanningSequence": ["EP", "GR"], "EchoTime": "30", "SeriesDescription": "ep2d_bold_liver"}),
    "localizer": ("mr", {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "SeriesDescription": "localizer"}),
    "projection": (
        "ct",
        {"ImageType": ["DERIVED", "SECONDARY", "PROJECTION IMAGE", "MIP"], "SeriesDescription": "Liver PV MIP"},
    ),
    "arterial": ("ct", {"SeriesDescription": "Liver art", "ContrastBolusStartTime": "101040"}),
    "delayed": ("ct", {"SeriesDescription": "Liver late", "ContrastBolusStartTime": "100810"}),
    "functional with a b-value": (
        "mr",
        {**B1000, "ScanningSequence": ["EP", "GR"], "ImageType": ["ORIGINAL", "PRIMARY"], "SeriesDescription": "bold"},
    ),
    "screen save": (
        "mr",
        {"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"], "SeriesDescription": "screen save"},
    ),
    "without its contrast": (
        "ct",
        {"ImageType": ["DERIVED", "PRIMARY", "VNC"], "SeriesDescription": "PV VNC", "RescaleType": "HU_MOD"},
    ),
    "iodine map": (
        "ct",
        {"ImageType": ["DERIVED", "PRIMARY", "MAT_SPECIFIC"], "SeriesDescription": "PV Iodine", "RescaleType": "MGML"},
    ),
    "in-phase Dixon": (
        "mr",
        {
            "ImageType": ["DERIVED", "PRIMARY", "DIXON", "IN_PHASE"],
            "ScanOptions": "PFP",
            "SeriesDescription": "t2_tse_dixon_in",
        },
    ),
    "by mouth only": ("ct", {"ContrastBolusAgent": "ORAL", "ContrastBolusRoute": "PO"}),
    "colour diffusion": (
        "mr",
        {
            **B1000,
            "SamplesPerPixel": 3,
            "PhotometricInterpretation": "RGB",
            "SeriesDescription": "DWI fused colour",
        },
    ),
    "colour ct": (
        "ct",
        {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "SeriesDescription": "Liver PV colour"},
    ),
    "lung kernel": ("ct", {"ConvolutionKernel": "LUNG"}),
    "chest": ("ct", {"BodyPartExamined": "CHEST", "SeriesDescription": "Thorax PV"}),
}
REMOVABLE = sorted(
    {
        "AcquisitionDate",
        "AcquisitionTime",
        "BodyPartExamined",
        "ContrastBolusAgent",
        "ContrastBolusRoute",
        "ContrastBolusStartTime",
        "ConvolutionKernel",
        "DiffusionBValue",
        "DiffusionDirectionality",
        "EchoTime",
        "FrameOfReferenceUID",
        "ImageOrientationPatient",
        "ImagePositionPatient",
        "ImageType",
        "Manufacturer",
        "Modality",
        "PhotometricInterpretation",
        "PixelSpacing",
        "ProtocolName",
        "RepetitionTime",
        "RescaleType",
        "SamplesPerPixel",
        "ScanOptions",
        "ScanningSequence",
        "SequenceName",
        "SeriesDescription",
        "StudyDate",
    }
)
IRRELEVANT: dict[str, st.SearchStrategy[Any]] = {
    "PatientName": st.sampled_from(["Liver^Portal", "Doe^Jane", "B1000^ADC"]),
    "PatientID": st.sampled_from(["LIVER", "1"]),
    "InstitutionName": st.sampled_from(["Liver Centre", "Prostate Clinic"]),
    "OperatorsName": st.sampled_from(["MIP", "Localizer"]),
    "StationName": st.sampled_from(["ADC1", "CT2"]),
    "WindowCenter": st.sampled_from(["40", "400"]),
    "InstanceNumber": st.integers(1, 999),
    "SliceLocation": st.sampled_from(["0", "17.5"]),
    "StudyDescription": st.sampled_from(["MRI LIVER", "MR PROSTATE", "CT art PV"]),
    "PerformedProcedureStepDescription": st.sampled_from(["LIVER", "KNEE"]),
    "PatientPosition": st.sampled_from(["HFS", "FFS"]),
    "SoftwareVersions": st.sampled_from(["1", "LX"]),
    "DeviceSerialNumber": st.sampled_from(["1000", "b1000"]),
}


def decisions(bench: Any, headers: Headers) -> list[Decision]:
    return [item.decision for item in bench.decide(headers).volumes]


@pytest.mark.parametrize("name", REFUSED)
def test_what_looks_like_a_condition_and_is_none_is_refused(bench: Any, name: str) -> None:
    builder, tags = REFUSED[name]
    assert set(decisions(bench, getattr(bench, builder)(9, **tags))) == {Decision.REFUSE}


@pytest.mark.parametrize(
    "tags",
    [
        {"SamplesPerPixel": 3},
        {"SamplesPerPixel": 3, "PhotometricInterpretation": "MONOCHROME2"},
        {"PhotometricInterpretation": "RGB"},
        {"PhotometricInterpretation": "PALETTE COLOR", "SamplesPerPixel": 1},
    ],
)
@pytest.mark.parametrize("builder", ["mr", "ct", "dwi"])
def test_a_colour_image_by_one_of_its_tags_alone_is_not_accepted(
    bench: Any, builder: str, tags: dict[str, Any]
) -> None:
    assert Decision.ACCEPT not in decisions(bench, getattr(bench, builder)(*SMALL[builder], **tags))


@pytest.mark.parametrize("colours", ["RGB", "YBR_FULL_422"])
@pytest.mark.parametrize("builder", ["mr", "ct", "dwi"])
def test_a_colour_image_is_refused(bench: Any, builder: str, colours: str) -> None:
    tags = {"SamplesPerPixel": 3, "PhotometricInterpretation": colours}
    assert set(decisions(bench, getattr(bench, builder)(*SMALL[builder], **tags))) == {Decision.REFUSE}


@pytest.mark.parametrize("grey", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("builder", ["mr", "ct", "dwi"])
def test_a_grey_image_is_taken(bench: Any, builder: str, grey: str) -> None:
    headers = getattr(bench, builder)(*SMALL[builder], SamplesPerPixel=1, PhotometricInterpretation=grey)
    assert Decision.ACCEPT in decisions(bench, headers)


@REASONABLE
@given(name=st.sampled_from(sorted(REFUSED)), removed=st.sets(st.sampled_from(REMOVABLE), min_size=1))
def test_removing_evidence_never_makes_an_acceptance_of_a_refusal(bench: Any, name: str, removed: set[str]) -> None:
    builder, tags = REFUSED[name]
    headers = getattr(bench, builder)(9, **{**tags, **dict.fromkeys(removed)})
    assert Decision.ACCEPT not in decisions(bench, headers)


@pytest.mark.parametrize("name", REFUSED)
def test_removing_any_one_tag_never_makes_an_acceptance_of_a_refusal(bench: Any, name: str) -> None:
    builder, tags = REFUSED[name]
    present = next(iter(getattr(bench, builder)(1, **tags).values()))
    for keyword in [keyword for keyword in REMOVABLE if keyword in present]:
        headers = getattr(bench, builder)(8, **{**tags, keyword: None})
        assert Decision.ACCEPT not in decisions(bench, headers), keyword


DISPUTED_CONTRAST: dict[str, dict[str, Any]] = {
    "into a vein, and no agent": {"ContrastBolusAgent": "NONE", "ContrastBolusRoute": "IV"},
    "an agent for a vein, by mouth": {"ContrastBolusAgent": "OMNI 350", "ContrastBolusRoute": "ORAL"},
    "by mouth, and injected": {
        "ContrastBolusAgent": "ORAL",
        "ContrastBolusRoute": "PO",
        "ContrastFlowRate": "3",
    },
}


@pytest.mark.parametrize("name", DISPUTED_CONTRAST)
def test_contrast_of_which_two_places_differ_is_asked_about(bench: Any, name: str) -> None:
    assert decisions(bench, bench.ct(9, **DISPUTED_CONTRAST[name])) == [Decision.CONFIRM]


@REASONABLE
@given(
    route=st.sampled_from([None, "IV", "ORAL"]),
    agent=st.sampled_from([None, "NONE", "ORAL", "OMNI 350"]),
    flow=st.sampled_from([None, "0", "3"]),
    removed=st.sets(st.sampled_from(["ContrastBolusRoute", "ContrastBolusAgent", "ContrastFlowRate"]), min_size=1),
)
def test_removing_what_tells_contrast_never_makes_an_acceptance_of_a_refusal(
    bench: Any, route: str | None, agent: str | None, flow: str | None, removed: set[str]
) -> None:
    tags = {"ContrastBolusRoute": route, "ContrastBolusAgent": agent, "ContrastFlowRate": flow}
    assume(decisions(bench, bench.ct(9, **tags)) == [Decision.REFUSE])
    assert Decision.ACCEPT not in decisions(bench, bench.ct(9, **{**tags, **dict.fromkeys(removed)}))


@REASONABLE
@given(builder=st.sampled_from(["mr", "ct", "dwi"]), removed=st.sets(st.sampled_from(REMOVABLE), min_size=1))
def test_what_is_left_is_never_accepted_for_another_condition(bench: Any, builder: str, removed: set[str]) -> None:
    mine = {"mr": "pre-nact-t2wi", "ct": "ct-portal-venous", "dwi": "pre-nact-dwi"}[builder]
    headers = getattr(bench, builder)(*SMALL[builder], **dict.fromkeys(removed))
    for item in bench.decide(headers).volumes:
        assert item.decision is not Decision.ACCEPT or item.condition == mine


@pytest.mark.parametrize("keyword", ["BodyPartExamined", "ImageType", "SeriesDescription", "ScanOptions"])
def test_no_single_source_is_enough_without_the_others(bench: Any, keyword: str) -> None:
    assert bench.best(bench.mr(**{keyword: None})).decision is Decision.CONFIRM


FOR: dict[str, frozenset[str]] = {
    "direction_signs": frozenset({ISOTROPIC, DERIVED_MEAN}),
    "fat_signs": frozenset({"yes"}),
    "region_signs": frozenset({"liver", "abdomen"}),
    "phase_signs": frozenset({"portal-venous"}),
    "contrast_signs": frozenset({"yes"}),
    "kind_signs": frozenset({SOUND}),
}
"""What speaks for a shipped condition, fact by fact."""
AGAINST: dict[str, frozenset[str]] = {
    "direction_signs": frozenset({DIRECTIONAL, UNSURE}),
    "fat_signs": frozenset({"no"}),
    "region_signs": frozenset({"prostate", "head"}),
    "phase_signs": frozenset({"arterial", "delayed"}),
    "contrast_signs": frozenset({"no"}),
    "kind_signs": frozenset({"localizer", "map", UNSURE}),
}
PLACES = ("(0008,0008)", "(0008,103E)", "(0018,0015)")


def some_signs(fact: str) -> st.SearchStrategy[tuple[Sign, ...]]:
    said = st.sampled_from(sorted(FOR[fact] | AGAINST[fact]))
    by = st.sampled_from(["tag", "text", "timing", "frame-anatomy"])
    return st.lists(st.builds(Sign, said, st.just("told"), st.sampled_from(PLACES), by), max_size=5).map(tuple)


@settings(REASONABLE, max_examples=300)
@given(data=st.data(), builder=st.sampled_from(["mr", "ct", "dwi"]))
def test_a_sign_for_that_is_lost_never_raises_the_margin(bench: Any, data: st.DataObject, builder: str) -> None:
    volume = bench.facts(getattr(bench, builder)(*SMALL[builder]))[-1]
    signs = data.draw(st.fixed_dictionaries({fact: some_signs(fact) for fact in FOR}))
    before = replace(volume, **signs)
    speaking = [(fact, at) for fact, told in signs.items() for at, sign in enumerate(told) if sign.says in FOR[fact]]
    assume(speaking)
    fact, lost = data.draw(st.sampled_from(speaking))
    after = replace(before, **{fact: tuple(sign for at, sign in enumerate(signs[fact]) if at != lost)})
    for need in (need for route in bench.routes for need in route.needs.values()):
        assert judge(after, need).margin <= judge(before, need).margin


@settings(REASONABLE, max_examples=200)
@given(data=st.data(), builder=st.sampled_from(["mr", "ct", "dwi"]))
def test_the_sign_of_the_margin_is_the_decision(bench: Any, data: st.DataObject, builder: str) -> None:
    volume = bench.facts(getattr(bench, builder)(*SMALL[builder]))[-1]
    told = replace(volume, **data.draw(st.fixed_dictionaries({fact: some_signs(fact) for fact in FOR})))
    for need in (need for route in bench.routes for need in route.needs.values()):
        verdict = judge(told, need)
        sign = {Decision.ACCEPT: 1, Decision.CONFIRM: 0, Decision.REFUSE: -1}[verdict.decision]
        assert (verdict.margin > 0) - (verdict.margin < 0) == sign


@REASONABLE
@given(seed=st.integers(0, 10**6), builder=st.sampled_from(["mr", "ct", "dwi"]))
def test_the_order_of_instances_decides_nothing(bench: Any, seed: int, builder: str) -> None:
    headers = getattr(bench, builder)(*SMALL[builder])
    shuffled = list(headers.items())
    random.Random(seed).shuffle(shuffled)
    assert as_json(bench.decide(dict(shuffled))) == as_json(bench.decide(headers))


@REASONABLE
@given(
    told=st.lists(st.sampled_from(sorted(IRRELEVANT)), min_size=1, unique=True).flatmap(
        lambda names: st.fixed_dictionaries({name: IRRELEVANT[name] for name in names})
    ),
    builder=st.sampled_from(["mr", "ct", "dwi"]),
)
def test_irrelevant_tags_decide_nothing(bench: Any, told: dict[str, Any], builder: str) -> None:
    plain = getattr(bench, builder)(*SMALL[builder])
    assert as_json(bench.decide(getattr(bench, builder)(*SMALL[builder], **told))) == as_json(bench.decide(plain))


@REASONABLE
@given(block=st.integers(0x10, 0xFF), other=st.integers(0x10, 0xFF))
def test_the_number_of_a_private_block_decides_nothing(
    bench: Any, private: Callable[..., Headers], block: int, other: int
) -> None:
    headers = bench.dwi((1000,), 9, DiffusionBValue=None, DiffusionDirectionality=None)
    private(headers, "SIEMENS MR HEADER", 0x0019, 0x0C, "IS", 1000, block)
    private(headers, "", 0x0019, 0x0D, "CS", "ISOTROPIC", block)
    if other != block:
        private(headers, "ANOTHER CREATOR", 0x0019, 0x0C, "IS", 50, other)
    (item,) = bench.decide(headers).volumes
    assert (item.decision, item.condition) == (Decision.ACCEPT, "pre-nact-dwi")


@pytest.mark.parametrize("time_point", list(TimePoint))
def test_no_time_point_is_ever_made_up(bench: Any, time_point: TimePoint) -> None:
    for headers in (bench.mr(), bench.dwi()):
        conditions = {item.condition for item in bench.decide(headers, time_point=time_point).volumes} - {None}
        if time_point in (TimePoint.PRE, TimePoint.POST):
            assert all(str(condition).startswith(time_point.value) for condition in conditions)
        else:
            assert conditions == set()


def test_facts_are_values(bench: Any) -> None:
    """The same headers give equal, hashable facts: they are compared, kept and sent as they are."""
    one, two = bench.fact(bench.mr()), bench.fact(copy.deepcopy(bench.mr()))
    assert one == two
    assert hash(one) == hash(two)
