"""Before or after chemotherapy: who is asked, in which order, and when nobody's word is enough."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.config import TagRule, TimePointSettings
from node.domain import TimePoint
from node.errors import TherapyFileError
from node.evidence import StudyHeader
from node.timepoint import Therapy, parse_therapies_csv, time_point_of

PRE, POST, UNKNOWN = TimePoint.PRE, TimePoint.POST, TimePoint.UNKNOWN
FOLFOX = Therapy("P1", "", "FOLFOX", date(2026, 3, 1), date(2026, 6, 1))


def study(day: date | None = date(2026, 2, 1), **fields: Any) -> StudyHeader:
    return StudyHeader(**{"study_uid": "1.2", "patient_id": "P1", "issuer": "", "study_date": day, **fields})


def test_nobody_told_means_unknown_and_held() -> None:
    finding = time_point_of(study())
    assert (finding.time_point, finding.source) == (UNKNOWN, "nobody")
    assert finding.hold_reason


def test_the_operator_goes_before_everything() -> None:
    finding = time_point_of(study(), operator=POST, called=PRE, therapies=[FOLFOX])
    assert (finding.time_point, finding.source, finding.hold_reason) == (POST, "operator", None)


def test_the_called_title_goes_before_the_therapy_table() -> None:
    finding = time_point_of(study(), called=POST, therapies=[FOLFOX])
    assert (finding.time_point, finding.source) == (POST, "called-ae")


def test_the_therapy_table_goes_before_the_tag_rules() -> None:
    rules = TimePointSettings(tag_rules=(TagRule(keyword="StudyDescription", pattern="post", time_point="post"),))
    header = study(attributes=(("StudyDescription", "post chemo"),))
    finding = time_point_of(header, therapies=[FOLFOX], settings=rules)
    assert (finding.time_point, finding.source) == (PRE, "therapies")


@pytest.mark.parametrize(
    ("day", "time_point", "why"),
    [
        (date(2025, 12, 30), UNKNOWN, "more than 60 days before"),
        (date(2025, 12, 31), PRE, "60 days before"),
        (date(2026, 2, 28), PRE, "1 days before"),
        (date(2026, 3, 1), PRE, "0 days before"),
        (date(2026, 3, 2), UNKNOWN, "on therapy for 1 days"),
        (date(2026, 3, 28), UNKNOWN, "on therapy for 27 days"),
        (date(2026, 3, 29), POST, "28 days after the start"),
        (date(2026, 6, 1), POST, "after the start"),
        (date(2026, 8, 30), POST, "after the start"),
        (date(2026, 8, 31), UNKNOWN, "more than 90 days after the end"),
    ],
)
def test_the_windows_of_a_therapy(day: date, time_point: TimePoint, why: str) -> None:
    finding = time_point_of(study(day), therapies=[FOLFOX])
    assert finding.time_point is time_point
    assert why in finding.reasons[0].what
    assert (finding.hold_reason is None) == (time_point is not UNKNOWN)


@pytest.mark.parametrize(("day", "time_point"), [(date(2026, 11, 26), POST), (date(2026, 11, 27), UNKNOWN)])
def test_a_therapy_whose_end_nobody_entered_does_not_count_for_ever(day: date, time_point: TimePoint) -> None:
    finding = time_point_of(study(day), therapies=[Therapy("P1", "", "FOLFOX", date(2026, 3, 1), None)])
    assert finding.time_point is time_point
    assert ("end is not entered" in finding.reasons[0].what) == (time_point is UNKNOWN)


def test_the_windows_are_the_sites_to_set() -> None:
    wide = TimePointSettings(pre_days_before_start=365, post_days_after_start=7, post_days_after_end=365)
    assert time_point_of(study(date(2025, 6, 1)), therapies=[FOLFOX], settings=wide).time_point is PRE
    assert time_point_of(study(date(2026, 3, 8)), therapies=[FOLFOX], settings=wide).time_point is POST


@pytest.mark.parametrize("day", [date(2026, 7, 1), date(2026, 7, 20)])
def test_from_the_day_of_surgery_on_a_person_decides(day: date) -> None:
    operated = Therapy("P1", "", "FOLFOX", date(2026, 3, 1), date(2026, 6, 1), surgery=date(2026, 7, 1))
    finding = time_point_of(study(day), therapies=[operated])
    assert finding.time_point is UNKNOWN
    assert "surgery" in str(finding.hold_reason)


def test_a_therapy_without_an_end_still_runs() -> None:
    running = Therapy("P1", "", "FOLFIRI", date(2026, 3, 1))
    assert time_point_of(study(date(2026, 10, 1)), therapies=[running]).time_point is POST


def test_a_second_line_is_not_before_all_therapy() -> None:
    second = Therapy("P1", "", "FOLFIRI", date(2026, 10, 1))
    finding = time_point_of(study(date(2026, 9, 20)), therapies=[FOLFOX, second])
    assert finding.time_point is UNKNOWN
    assert finding.hold_reason


def test_a_study_after_one_line_and_before_the_next_is_held() -> None:
    second = Therapy("P1", "", "FOLFIRI", date(2026, 7, 10))
    finding = time_point_of(study(date(2026, 7, 1)), therapies=[FOLFOX, second])
    assert finding.time_point is UNKNOWN
    assert "disagree" in str(finding.hold_reason)


def test_a_later_line_far_ahead_does_not_disturb_the_first() -> None:
    second = Therapy("P1", "", "FOLFIRI", date(2027, 3, 1))
    assert time_point_of(study(date(2026, 2, 1)), therapies=[FOLFOX, second]).time_point is PRE
    assert time_point_of(study(date(2026, 6, 10)), therapies=[FOLFOX, second]).time_point is POST


@given(
    day=st.dates(date(2020, 1, 1), date(2030, 1, 1)),
    start=st.dates(date(2020, 1, 1), date(2030, 1, 1)),
    lasts=st.one_of(st.none(), st.integers(0, 400)),
)
def test_a_therapy_says_pre_only_before_and_post_only_after_its_start(
    day: date, start: date, lasts: int | None
) -> None:
    end = None if lasts is None else date.fromordinal(start.toordinal() + lasts)
    finding = time_point_of(study(day), therapies=[Therapy("P1", "", "x", start, end)])
    assert finding.time_point is not PRE or day <= start
    assert finding.time_point is not POST or day > start
    assert (finding.time_point is UNKNOWN) == (finding.hold_reason is not None)


def test_a_study_without_a_date_cannot_be_compared() -> None:
    assert time_point_of(study(None), therapies=[FOLFOX]).time_point is UNKNOWN


@pytest.mark.parametrize(
    ("of_study", "of_therapy", "site", "is_known"),
    [
        ("", "", "", True),
        ("HOSP", "HOSP", "", True),
        ("", "HOSP", "HOSP", True),
        ("HOSP", "", "HOSP", True),
        ("OTHER", "HOSP", "HOSP", False),
        ("OTHER", "", "HOSP", False),
    ],
)
def test_a_patient_is_who_issuer_and_identifier_say(of_study: str, of_therapy: str, site: str, is_known: bool) -> None:
    therapy = Therapy("P1", of_therapy, "FOLFOX", date(2026, 3, 1))
    finding = time_point_of(study(issuer=of_study), therapies=[therapy], site_issuer=site)
    assert (finding.time_point is PRE) is is_known


def test_an_empty_identifier_is_nobodys() -> None:
    therapy = Therapy("", "", "FOLFOX", date(2026, 3, 1))
    assert time_point_of(study(patient_id=""), therapies=[therapy]).source == "nobody"


def rule(pattern: str, time_point: Any = "pre", keyword: str = "ClinicalTrialTimePointID") -> TagRule:
    return TagRule(keyword=keyword, pattern=pattern, time_point=time_point)


def test_a_rule_that_the_administrator_owns_tells_the_time_point() -> None:
    settings = TimePointSettings(tag_rules=(rule("^BASELINE$"),))
    finding = time_point_of(study(attributes=(("ClinicalTrialTimePointID", "BASELINE"),)), settings=settings)
    assert (finding.time_point, finding.source) == (PRE, "tag-rule")
    assert time_point_of(study(), settings=settings).source == "nobody"


def test_rules_that_disagree_tell_nothing() -> None:
    settings = TimePointSettings(tag_rules=(rule("BASE"), rule("LINE", "post")))
    finding = time_point_of(study(attributes=(("ClinicalTrialTimePointID", "BASELINE"),)), settings=settings)
    assert finding.time_point is UNKNOWN
    assert "disagree" in str(finding.hold_reason)


def test_upper_and_lower_case_are_one_to_a_rule() -> None:
    settings = TimePointSettings(tag_rules=(rule("^baseline$"),))
    finding = time_point_of(study(attributes=(("ClinicalTrialTimePointID", "BASELINE"),)), settings=settings)
    assert finding.time_point is PRE


def test_two_requests_that_rules_take_differently_tell_nothing() -> None:
    asked = "RequestedProcedureDescription"
    settings = TimePointSettings(tag_rules=(rule("staging", keyword=asked), rule("restaging", "post", asked)))
    header = study(attributes=((asked, "MR liver staging"), (asked, "MR liver restaging")))
    finding = time_point_of(header, settings=settings)
    assert (finding.time_point, finding.source) == (UNKNOWN, "tag-rule")


def test_no_reason_names_the_patient_or_a_date() -> None:
    finding = time_point_of(study(patient_id="SECRET"), therapies=[Therapy("SECRET", "", "x", date(2026, 3, 1))])
    told = " ".join(reason.what for reason in finding.reasons)
    assert "SECRET" not in told
    assert "2026" not in told


# --- CSV


def test_a_csv_file_becomes_therapies() -> None:
    text = (
        "\ufeffpatient_id;issuer;name;start;end;surgery\nP1;HOSP;FOLFOX;2026-03-01;2026-06-01;\n P2 ;;;2026-01-05;;\n"
    )
    one, two = parse_therapies_csv(text, source="ris.csv")
    assert one == Therapy("P1", "HOSP", "FOLFOX", date(2026, 3, 1), date(2026, 6, 1), None, "ris.csv")
    assert (two.patient_id, two.start, two.end) == ("P2", date(2026, 1, 5), None)


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("", ["column patient_id is missing", "column start is missing"]),
        ("patient_id,begin\nP1,2026-01-01\n", ["column start is missing", "no column 'begin'"]),
        (
            "patient_id,start\nSECRET,1.3.2026\n,2026-01-01\n",
            ["line 2: start is no date", "line 3: patient_id is empty"],
        ),
        ("patient_id,start,end\nSECRET,2026-03-01,2026-02-01\n", ["line 2: end lies before start"]),
        ('patient_id,start\n"SECRET,2026\n', ["not a CSV file"]),
    ],
)
def test_every_fault_of_a_csv_file_is_named_without_a_patient(text: str, faults: list[str]) -> None:
    with pytest.raises(TherapyFileError) as raised:
        parse_therapies_csv(text)
    for fault in faults:
        assert fault in str(raised.value)
    assert "SECRET" not in str(raised.value)
