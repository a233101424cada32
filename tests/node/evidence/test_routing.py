"""Facts × routes: who is taken, who is asked about, who is refused, and which of several is the one."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from node.config_routes import Evidence, Route
from node.domain import Decision, Reason, TimePoint, TimePointFinding
from node.routing import as_json, decide

ACCEPT, CONFIRM, REFUSE = Decision.ACCEPT, Decision.CONFIRM, Decision.REFUSE


def against(decision: Any) -> str:
    return "; ".join(reason.what for reason in decision.reasons if not reason.is_for)


# --- one volume, one question


@pytest.mark.parametrize(
    ("series", "time_point", "condition"),
    [
        ("dwi", TimePoint.PRE, "pre-nact-dwi"),
        ("dwi", TimePoint.POST, "post-nact-dwi"),
        ("mr", TimePoint.PRE, "pre-nact-t2wi"),
        ("mr", TimePoint.POST, "post-nact-t2wi"),
        ("ct", TimePoint.UNKNOWN, "ct-portal-venous"),
    ],
)
def test_a_plain_series_is_accepted_for_exactly_its_condition(
    bench: Any, series: str, time_point: TimePoint, condition: str
) -> None:
    decisions = bench.decide(getattr(bench, series)(), time_point=time_point).volumes
    accepted = [item for item in decisions if item.decision is ACCEPT]
    assert [item.condition for item in accepted] == [condition]
    assert not [item for item in decisions if item.decision is CONFIRM]


@pytest.mark.parametrize(
    ("tags", "why"),
    [
        ({"ScanOptions": "PFP", "SeriesDescription": "t2_tse_tra"}, "not fat-suppressed"),
        ({"EchoTime": "650"}, "only fluid shows"),
        ({"BodyPartExamined": "PROSTATE"}, "prostate"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}, "coronal"),
        ({"ImageType": ["DERIVED", "SECONDARY", "PROJECTION IMAGE"]}, "projection"),
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "screenshot"),
        ({"BurnedInAnnotation": "YES", "ImageType": ["DERIVED", "SECONDARY"]}, "burned"),
        ({"ScanningSequence": ["IR", "SE"], "InversionTime": "2200"}, "fluid is suppressed"),
        ({"SeriesDescription": "t2_fs dark-fluid"}, "fluid suppressed"),
        ({"SeriesDescription": "AAHScout fs"}, "localizer"),
        ({"SeriesDescription": "Asset cal fs"}, "calibration"),
        ({"SeriesDescription": "ADC fs", "ImageType": ["DERIVED", "PRIMARY", "OTHER"]}, "apparent diffusion"),
        ({"SeriesDescription": "localizer fs"}, "localizer"),
        ({"StudyInstanceUID": ""}, "Study Instance UID is empty"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "not analysed"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.33"}, "no image"),
    ],
)
def test_a_refusal_gives_the_reason_that_a_radiographer_would(bench: Any, tags: dict[str, Any], why: str) -> None:
    best = bench.best(bench.mr(**tags))
    assert best.decision is REFUSE
    assert why in against(best)


@pytest.mark.parametrize(
    ("tags", "why"),
    [
        ({"BodyPartExamined": None}, "no region is told"),
        ({"BodyPartExamined": "PROSTATE", "ProtocolName": "LIVER"}, "prostate"),
        ({"ScanOptions": "PFP"}, "no fat suppression"),
        ({"ScanOptions": None}, "words only"),
        ({"SeriesDescription": None}, "no description"),
        ({"ImageType": None}, "no Image Type"),
        ({"ScanningSequence": ["IR", "SE"]}, "inversion time is not told"),
        ({"SeriesDescription": "t2_fs MPR tra"}, "reformat"),
    ],
)
def test_what_is_missing_or_contradicted_is_asked_about(bench: Any, tags: dict[str, Any], why: str) -> None:
    best = bench.best(bench.mr(**tags))
    assert best.decision is CONFIRM
    assert best.condition == "pre-nact-t2wi"
    assert why in against(best)


def test_what_the_study_is_called_is_no_evidence_of_a_region(bench: Any) -> None:
    assert bench.best(bench.mr(BodyPartExamined=None, StudyDescription="MRI LIVER")).decision is CONFIRM


def test_too_few_slices_and_too_little_coverage_are_refused(bench: Any) -> None:
    assert "7 slices" in against(bench.best(bench.mr(count=7)))
    thin = bench.mr(count=20)
    for number, dataset in enumerate(thin.values()):
        dataset.ImagePositionPatient = [0.0, 0.0, number * 2.0]
    assert "40 mm are covered" in against(bench.best(thin))


def test_a_missing_slice_is_refused_with_the_gap(bench: Any) -> None:
    headers = bench.mr()
    del headers[sorted(headers)[9]]
    assert "gap" in against(bench.best(headers))


# --- the margin


def margin(bench: Any, headers: Any) -> int:
    return int(bench.best(headers).margin)


def test_the_margin_counts_the_signs_that_would_have_to_go(bench: Any) -> None:
    told_once = {"ScanOptions": "FS", "BodyPartExamined": "LIVER"}
    assert margin(bench, bench.mr(**told_once)) == 1
    told_twice = {**told_once, "SpectrallySelectedSuppression": "FAT", "ProtocolName": "liver"}
    assert margin(bench, bench.mr(**told_twice)) == 2


def test_a_margin_is_that_of_the_question_with_the_fewest_signs(bench: Any) -> None:
    assert margin(bench, bench.mr(BodyPartExamined="LIVER", ProtocolName="liver")) == 1


def test_what_is_asked_about_has_no_margin(bench: Any) -> None:
    assert margin(bench, bench.mr(BodyPartExamined=None)) == 0


def test_the_margin_of_a_refusal_counts_the_questions_that_refuse(bench: Any) -> None:
    assert margin(bench, bench.mr(EchoTime="650")) == -1
    assert margin(bench, bench.mr(EchoTime="650", BodyPartExamined="PROSTATE")) == -2


def test_the_margin_of_a_volume_that_was_beaten_is_minus_one(bench: Any) -> None:
    beaten = [item for item in bench.decide(bench.dwi((800, 1000))).volumes if item.loser_of]
    assert [item.margin for item in beaten] == [-1]


def test_two_votes_on_the_phase_are_needed_and_a_third_can_be_spared(bench: Any) -> None:
    headers = bench.ct()
    assert margin(bench, headers) == 1
    declared = bench.trusting(protocol="Liver", contrast_phase="portal-venous")
    assert margin(declared, headers) == 2


# --- diffusion


def test_the_preferred_b_value_is_picked_out_of_a_series(bench: Any) -> None:
    decision = bench.decide(bench.dwi((0, 50, 800, 1000, 1200)))
    taken = [item for item in decision.volumes if item.decision is ACCEPT]
    assert [item.volume.b_s_mm2 for item in taken] == [1000]
    assert {item.b_pick_s_mm2 for item in decision.volumes} == {1000}
    losers = [item for item in decision.volumes if item.loser_of]
    assert [item.volume.b_s_mm2 for item in losers] == [800, 1200]
    assert "nearer to the preferred" in against(losers[0])


def test_without_a_b_value_in_range_nothing_is_taken(bench: Any) -> None:
    best = bench.best(bench.dwi((0, 50, 1500)))
    assert best.decision is REFUSE
    assert "no b-value between 800 and 1200" in against(best)


def test_one_direction_is_never_taken_for_the_trace(bench: Any) -> None:
    _, weighted = bench.decide(bench.dwi((0, 1000), DiffusionDirectionality="DIRECTIONAL")).volumes
    assert weighted.decision is REFUSE
    assert "single gradient direction" in against(weighted)


def test_an_untold_direction_is_asked_about(bench: Any) -> None:
    assert bench.best(bench.dwi((0, 1000), DiffusionDirectionality=None)).decision is CONFIRM


def test_the_trace_goes_before_volumes_of_untold_direction(bench: Any) -> None:
    untold = bench.again(
        bench.dwi((1000,), DiffusionDirectionality=None), SeriesInstanceUID="1.2.3.5", AcquisitionTime="120000"
    )
    decision = bench.decide(bench.dwi((1000,)), untold)
    assert [item.volume.series_uid for item in decision.volumes if item.condition] == ["1.2.3.4"]


# --- CT phase


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({}, ACCEPT),
        ({"SeriesDescription": "Liver 5.0"}, CONFIRM),
        ({"ContrastBolusStartTime": None}, CONFIRM),
        ({"SeriesDescription": "Liver 5.0", "ContrastBolusStartTime": None}, CONFIRM),
        ({"SeriesDescription": "Liver art"}, CONFIRM),
        ({"ContrastBolusStartTime": "101040"}, CONFIRM),
        ({"SeriesDescription": "Liver art", "ContrastBolusStartTime": "101040"}, REFUSE),
        ({"SeriesDescription": "Liver 180 s", "ContrastBolusStartTime": "100810"}, REFUSE),
        ({"SeriesDescription": "Liver ART PV"}, CONFIRM),
        ({"ContrastBolusAgent": None, "ContrastBolusRoute": None}, CONFIRM),
        ({"ContrastBolusAgent": "ORAL", "ContrastBolusRoute": "PO"}, REFUSE),
        (
            {
                "ContrastBolusAgent": None,
                "ContrastBolusRoute": None,
                "SeriesDescription": "Liver",
                "ContrastBolusStartTime": None,
            },
            REFUSE,
        ),
        ({"ConvolutionKernel": "B70f"}, REFUSE),
        ({"ConvolutionKernel": None}, CONFIRM),
    ],
)
def test_two_independent_votes_without_dissent_run_unattended(
    bench: Any, tags: dict[str, Any], expected: Decision
) -> None:
    best = bench.best(bench.ct(**tags))
    assert best.decision is expected


def test_all_strings_together_are_one_vote(bench: Any) -> None:
    tags = {"ProtocolName": "portal venous", "ImageComments": "PV phase", "ContrastBolusStartTime": None}
    assert bench.best(bench.ct(**tags)).decision is CONFIRM


def phases(bench: Any, *times: str, **tags: Any) -> list[dict[Any, Any]]:
    told = {"SeriesDescription": "Liver 5.0", "ContrastBolusStartTime": None, **tags}
    return [
        bench.again(
            bench.ct(**told), shift=n * 1000, SeriesInstanceUID=f"1.2.3.{n}", SeriesNumber=n, AcquisitionTime=time
        )
        for n, time in enumerate(times, start=4)
    ]


def order_of(bench: Any, series: list[dict[Any, Any]]) -> list[str | None]:
    return [item.volume.contrast_phase for item in bench.decide(*series).volumes]


def test_the_order_of_three_enhanced_acquisitions_votes(bench: Any) -> None:
    assert order_of(bench, phases(bench, "101030", "101110", "101300")) == ["arterial", "portal-venous", "delayed"]


def test_two_acquisitions_far_apart_say_nothing_of_each_other(bench: Any) -> None:
    assert order_of(bench, phases(bench, "101110", "101300")) == [None, None]


def test_two_reconstructions_of_one_acquisition_are_no_order(bench: Any) -> None:
    assert order_of(bench, phases(bench, "101110", "101110")) == [None, None]


def test_an_order_that_a_sibling_denies_is_no_vote(bench: Any) -> None:
    """After an acquisition of 70 s the next, of 100 s, is no portal-venous phase: nobody knows which."""
    first, second = phases(bench, "101110", "101140", ContrastBolusStartTime="101000")
    taken = [item for item in bench.decide(first, second).volumes if item.decision is not REFUSE]
    assert [item.decision for item in taken] == [CONFIRM]
    assert not [vote for vote in taken[0].volume.phase_signs if vote.by == "order"]


def test_a_t1_series_is_compared_with_t2_and_not_with_diffusion(bench: Any) -> None:
    tags = {"ScanningSequence": "GR", "EchoTime": "2.4", "RepetitionTime": "4.8", "SeriesDescription": "t1_vibe"}
    assert "T1-weighted, not T2-weighted" in against(bench.best(bench.mr(**tags)))


def test_the_order_makes_a_second_vote(bench: Any) -> None:
    art, pv, late = phases(bench, "101030", "101110", "101300")
    for dataset in pv.values():
        dataset.SeriesDescription = "Liver PV"
    accepted = [item for item in bench.decide(art, pv, late).volumes if item.decision is ACCEPT]
    assert [item.volume.series_uid for item in accepted] == ["1.2.3.5"]


# --- one of several


def chosen(bench: Any, *series: dict[Any, Any]) -> list[str]:
    return [item.volume.series_uid for item in bench.decide(*series).volumes if item.condition]


def test_the_repeat_replaces_the_earlier_one(bench: Any) -> None:
    bad = bench.mr(AcquisitionTime="100000")
    repeat = bench.again(bad, SeriesInstanceUID="1.2.3.5", SeriesNumber=4, AcquisitionTime="101500")
    assert chosen(bench, bad, repeat) == ["1.2.3.5"]
    (loser,) = [item for item in bench.decide(bad, repeat).volumes if item.loser_of]
    assert loser.loser_of == "1.2.3.5"
    assert "acquired later" in against(loser)


def test_a_repeat_that_covers_much_less_does_not_replace(bench: Any) -> None:
    whole = bench.mr(count=24, AcquisitionTime="100000")
    part = bench.again(bench.mr(count=12), SeriesInstanceUID="1.2.3.5", AcquisitionTime="101500")
    assert chosen(bench, whole, part) == ["1.2.3.4"]


def test_what_needs_no_confirmation_goes_first(bench: Any) -> None:
    sure = bench.mr(AcquisitionTime="100000")
    unsure = bench.again(sure, SeriesInstanceUID="1.2.3.5", AcquisitionTime="101500", BodyPartExamined="")
    assert chosen(bench, sure, unsure) == ["1.2.3.4"]


def test_the_soft_kernel_and_the_customary_thickness_go_first(bench: Any) -> None:
    soft = bench.ct()
    unknown = bench.again(soft, SeriesInstanceUID="1.2.3.5", ConvolutionKernel="QQ", AcquisitionTime="101111")
    assert chosen(bench, soft, unknown) == ["1.2.3.4"]


def test_the_choice_does_not_depend_on_the_order_of_series(bench: Any) -> None:
    one = bench.mr(AcquisitionTime="100000")
    two = bench.again(one, shift=6000, SeriesInstanceUID="1.2.3.5")
    three = bench.again(one, shift=7000, SeriesInstanceUID="1.2.3.6", SeriesNumber=9)
    answers = {tuple(chosen(bench, *order)) for order in itertools.permutations((one, two, three))}
    assert len(answers) == 1


def test_a_route_for_all_takes_every_one_that_fits(bench: Any, routes: tuple[Route, ...]) -> None:
    one = bench.mr()
    two = bench.again(one, SeriesInstanceUID="1.2.3.5", AcquisitionTime="101500")
    every = tuple(route.model_copy(update={"all": True}) for route in routes)
    finding = TimePointFinding(TimePoint.PRE, "operator")
    decision = decide([*bench.facts(one), *bench.facts(two)], every, finding)
    assert [item.decision for item in decision.volumes] == [ACCEPT, ACCEPT]
    assert len(decision.picks) == 2


# --- time point


def test_an_unknown_time_point_holds_one_pick_with_both_candidates(bench: Any) -> None:
    decision = bench.decide(bench.dwi((50, 1000)), time_point=TimePoint.UNKNOWN)
    (pick,) = decision.picks
    assert pick.condition is None
    assert pick.candidates == ("pre-nact-dwi", "post-nact-dwi")
    assert pick.hold_reason is not None
    assert "pre-nact-dwi or post-nact-dwi" in pick.hold_reason
    (held,) = [item for item in decision.volumes if item.decision is ACCEPT]
    assert (held.condition, held.candidates) == (None, pick.candidates)


def test_ct_does_not_wait_for_a_time_point(bench: Any) -> None:
    (pick,) = bench.decide(bench.ct(), time_point=TimePoint.UNKNOWN).picks
    assert (pick.condition, pick.hold_reason) == ("ct-portal-venous", None)
    assert pick.time_point is TimePoint.NOT_APPLICABLE


def mixed(routes: tuple[Route, ...]) -> tuple[Route, ...]:
    pre = next(route for route in routes if route.condition == "pre-nact-dwi")
    return (*routes, pre.model_copy(update={"condition": "mixed-dwi", "time_point": "unknown"}))


def test_a_mixed_bundle_takes_the_studies_whose_time_point_nobody_told(bench: Any, routes: tuple[Route, ...]) -> None:
    unknown = TimePointFinding(TimePoint.UNKNOWN, "nobody", (), "nobody told")
    (pick,) = decide(bench.facts(bench.dwi((50, 1000))), mixed(routes), unknown).picks
    assert (pick.condition, pick.time_point, pick.hold_reason) == ("mixed-dwi", TimePoint.UNKNOWN, None)


def test_a_mixed_bundle_is_not_asked_when_the_time_point_is_known(bench: Any, routes: tuple[Route, ...]) -> None:
    finding = TimePointFinding(TimePoint.POST, "operator")
    (pick,) = decide(bench.facts(bench.dwi((50, 1000))), mixed(routes), finding).picks
    assert pick.condition == "post-nact-dwi"


def test_a_series_that_fits_only_the_other_time_point_is_told_so(bench: Any, routes: tuple[Route, ...]) -> None:
    only_post = tuple(route for route in routes if route.time_point == "post")
    decision = decide(bench.facts(bench.mr()), only_post, TimePointFinding(TimePoint.PRE, "operator"))
    assert decision.volumes[0].decision is REFUSE
    assert "but the study is pre-treatment" in against(decision.volumes[0])


# --- routes with several roles


def pair(routes: tuple[Route, ...]) -> tuple[Route, ...]:
    by_name = {route.condition: route for route in routes}
    needs = {"dwi": by_name["pre-nact-dwi"].needs["image"], "t2": by_name["pre-nact-t2wi"].needs["image"]}
    return (by_name["pre-nact-dwi"].model_copy(update={"condition": "pair", "needs": needs}),)


def test_a_pair_is_one_pick_of_two_volumes(bench: Any, routes: tuple[Route, ...]) -> None:
    t2 = bench.again(bench.mr(), SeriesInstanceUID="1.2.3.5")
    volumes = [*bench.facts(bench.dwi((50, 1000))), *bench.facts(t2)]
    (pick,) = decide(volumes, pair(routes), TimePointFinding(TimePoint.PRE, "operator")).picks
    assert [role for role, _ in pick.inputs] == ["dwi", "t2"]


def test_half_a_pair_waits_and_says_for_what(bench: Any, routes: tuple[Route, ...]) -> None:
    decision = decide(bench.facts(bench.mr()), pair(routes), TimePointFinding(TimePoint.PRE, "operator"))
    assert decision.picks == ()
    assert "waits for its other roles, for up to 900 s after the last image: dwi" in against(decision.volumes[0])
    assert [(wait.route.condition, wait.missing) for wait in decision.waits] == [("pair", ("dwi",))]


def test_the_worse_half_of_a_pair_that_waits_is_told_that_nothing_is_chosen_yet(
    bench: Any, routes: tuple[Route, ...]
) -> None:
    better = bench.again(bench.mr(), SeriesInstanceUID="1.2.3.5", AcquisitionTime="101500")
    volumes = [*bench.facts(bench.mr()), *bench.facts(better)]
    worse, _ = decide(volumes, pair(routes), TimePointFinding(TimePoint.PRE, "operator")).volumes
    assert "for pair another would be chosen: it was acquired later" in against(worse)


def test_what_was_waited_for_in_vain_is_said_first_and_the_time_point_last(
    bench: Any, routes: tuple[Route, ...]
) -> None:
    offered = (*pair(routes), *routes)
    told = TimePointFinding(TimePoint.PRE, "operator", (Reason(True, "an operator said pre", "operator"),))
    reasons = decide(bench.facts(bench.mr()), offered, told, waited_s=lambda wait: 900).volumes[0].reasons
    assert "in vain" in reasons[0].what
    assert reasons[-1] == told.reasons[0]


def test_half_a_pair_that_waited_long_enough_goes_to_the_next_route(bench: Any, routes: tuple[Route, ...]) -> None:
    offered = (*pair(routes), *routes)
    told = TimePointFinding(TimePoint.PRE, "operator")
    decision = decide(bench.facts(bench.mr()), offered, told, waited_s=lambda wait: 900)
    assert [pick.condition for pick in decision.picks] == ["pre-nact-t2wi"]
    assert decision.volumes[0].decision is ACCEPT
    assert "pair waited 900 s in vain for dwi" in against(decision.volumes[0])
    assert decision.waits == ()


def test_half_a_pair_with_no_other_route_says_what_it_waited_for(bench: Any, routes: tuple[Route, ...]) -> None:
    told = TimePointFinding(TimePoint.PRE, "operator")
    decision = decide(bench.facts(bench.mr()), pair(routes), told, waited_s=lambda wait: 900)
    assert decision.picks == ()
    assert "pair waited 900 s in vain for dwi" in against(decision.volumes[0])


def test_patience_says_nothing_of_a_route_with_all_its_roles(bench: Any, routes: tuple[Route, ...]) -> None:
    t2 = bench.again(bench.mr(), SeriesInstanceUID="1.2.3.5")
    volumes = [*bench.facts(bench.dwi((50, 1000))), *bench.facts(t2)]
    told = TimePointFinding(TimePoint.PRE, "operator")
    assert decide(volumes, pair(routes), told, waited_s=lambda wait: 900) == decide(volumes, pair(routes), told)


# --- the explanation


def test_the_explanation_has_the_documented_fields(bench: Any) -> None:
    told = as_json(bench.decide(bench.dwi((50, 1000))))
    assert len(told) == 2
    fields = {
        "series_uid",
        "source",
        "weighting",
        "b_values_s_mm2",
        "b_pick_s_mm2",
        "fat_suppressed",
        "contrast_phase",
        "region",
        "decision",
        "condition",
        "time_point",
        "reasons",
    }
    assert fields <= set(told[0])
    assert told[1]["decision"] == "accept"
    assert told[1]["condition"] == "pre-nact-dwi"
    assert all(set(reason) == {"for", "what", "where"} for reason in told[0]["reasons"])


def test_the_explanation_names_no_patient(bench: Any, edit: Callable[..., Any]) -> None:
    headers = edit(bench.mr(), PatientName="Doe^Jane", PatientID="SECRET-77", StudyDescription="for Jane Doe")
    told = str(as_json(bench.decide(headers)))
    assert "Doe" not in told
    assert "SECRET" not in told


def test_without_routes_everything_is_refused(bench: Any) -> None:
    decision = decide(bench.facts(bench.mr()), (), TimePointFinding(TimePoint.PRE, "operator"))
    assert against(decision.volumes[0]) == "no route is configured"


def test_a_need_without_regions_asks_none(bench: Any, routes: tuple[Route, ...]) -> None:
    need = Evidence(modality="MR", weighting="t2", regions=())
    route = routes[0].model_copy(update={"needs": {"image": need}})
    volume = replace(bench.fact(bench.mr(BodyPartExamined=None)))
    (pick,) = decide([volume], (route,), TimePointFinding(TimePoint.PRE, "operator")).picks
    assert pick.decision is ACCEPT
