"""What earlier studies say of a study: nothing without a rule, nothing where rules or studies contradict."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.config import EarlierStudyRule, TagRule, TimePointSettings
from node.domain import Reason, TimePoint, TimePointFinding
from node.evidence import StudyHeader
from node.timepoint import Therapy, time_point_of
from node.timepoint_earlier import Earlier, EarlierStudy

PRE, POST, UNKNOWN = TimePoint.PRE, TimePoint.POST, TimePoint.UNKNOWN
STAGING = {"keyword": "StudyDescription", "pattern": "staging.*before chemo", "days_before": [28, 200]}
STAGING_MEANS_POST = {**STAGING, "time_point": "post"}
SAME_VISIT = {"was": "pre", "days_before": [0, 3], "time_point": "pre"}
DOWN = Reason(False, "pacs: not reachable", "pacs")


def study(**fields: Any) -> StudyHeader:
    told = {"study_uid": "1.2", "patient_id": "P1", "issuer": "", "study_date": date(2026, 6, 1), **fields}
    return StudyHeader(**told)


def settings(*rules: dict[str, Any], tag_rules: tuple[TagRule, ...] = ()) -> TimePointSettings:
    earlier = tuple(EarlierStudyRule.model_validate(rule) for rule in rules)
    return TimePointSettings(earlier_studies=earlier, tag_rules=tag_rules)


def described(days: int, description: str = "Staging CT, before chemo", known_to: str = "pacs") -> EarlierStudy:
    return EarlierStudy(days, known_to, (("StudyDescription", description),))


def that_was(time_point: TimePoint, days: int) -> EarlierStudy:
    return EarlierStudy(days, "this node", was=time_point)


def decide(*known: EarlierStudy, by: TimePointSettings, **facts: Any) -> TimePointFinding:
    return time_point_of(study(), settings=by, earlier=Earlier(known), **facts)


@pytest.mark.parametrize(("days", "time_point"), [(27, UNKNOWN), (28, POST), (200, POST), (201, UNKNOWN), (0, UNKNOWN)])
def test_an_earlier_study_that_a_rule_describes_tells_within_its_days(days: int, time_point: TimePoint) -> None:
    assert decide(described(days), by=settings(STAGING_MEANS_POST)).time_point is time_point


def test_another_description_tells_nothing() -> None:
    finding = decide(described(60, "Staging CT"), by=settings(STAGING_MEANS_POST))
    assert (finding.time_point, finding.source) == (UNKNOWN, "nobody")
    assert "no rule fits the 1 earlier studies" in finding.reasons[-1].what


def test_a_study_whose_description_nobody_knows_fits_no_pattern() -> None:
    anything = {**STAGING_MEANS_POST, "pattern": ".*"}
    assert decide(EarlierStudy(60, "pacs"), by=settings(anything)).source == "nobody"


def test_each_modality_is_asked_by_itself() -> None:
    rule = {"keyword": "ModalitiesInStudy", "pattern": "^MR$", "days_before": [1, 90], "time_point": "post"}
    known = EarlierStudy(60, "pacs", (("ModalitiesInStudy", "CT\\MR"),))
    assert decide(known, by=settings(rule)).time_point is POST


def test_the_other_half_of_a_visit_is_what_the_first_was() -> None:
    finding = decide(that_was(PRE, 1), by=settings(SAME_VISIT))
    assert (finding.time_point, finding.source, finding.hold_reason) == (PRE, "earlier-study", None)


def test_a_time_point_that_no_rule_asks_for_tells_nothing() -> None:
    assert decide(that_was(POST, 1), by=settings(SAME_VISIT)).time_point is UNKNOWN


def test_the_evidence_is_shown_by_rule_distance_and_source() -> None:
    finding = decide(described(60), by=settings(SAME_VISIT, STAGING_MEANS_POST))
    (reason,) = finding.reasons
    assert reason.where == "node.yaml time_point.earlier_studies.1"
    assert reason.what == (
        "post-treatment: an earlier study, 60 days before, has such a StudyDescription (known to pacs)"
    )


def test_rules_that_disagree_are_nobodys_word() -> None:
    finding = decide(described(60), that_was(PRE, 2), by=settings(STAGING_MEANS_POST, SAME_VISIT))
    assert finding.time_point is UNKNOWN
    assert "disagree" in str(finding.hold_reason)
    assert len(finding.reasons) == 2


def test_a_peer_that_was_not_heard_leaves_the_question_open() -> None:
    earlier = Earlier((described(60),), (DOWN,))
    finding = time_point_of(study(), settings=settings(STAGING_MEANS_POST), earlier=earlier)
    assert finding.time_point is UNKNOWN
    assert finding.hold_reason == "earlier studies could not be looked up: pacs: not reachable"
    assert finding.reasons[-1] == DOWN


@pytest.mark.parametrize(
    ("source", "facts"),
    [
        ("operator", {"operator": PRE}),
        ("called-ae", {"called": PRE}),
        ("therapies", {"therapies": [Therapy("P1", "", "FOLFOX", date(2026, 6, 10))]}),
    ],
)
def test_every_word_goes_before_the_earlier_studies(source: str, facts: dict[str, Any]) -> None:
    rules = settings(STAGING_MEANS_POST)
    earlier = Earlier((described(60), that_was(POST, 60)), (DOWN,))
    finding = time_point_of(study(), settings=rules, earlier=earlier, **facts)
    assert (finding.time_point, finding.source) == (PRE, source)


BASELINE = TagRule(keyword="StudyDescription", pattern="baseline", time_point="pre")
FOLLOW_UP = TagRule(keyword="StudyDescription", pattern="follow", time_point="post")
TAG_RULES = (BASELINE, FOLLOW_UP)


def with_tag(description: str, *known: EarlierStudy, by: TimePointSettings) -> TimePointFinding:
    header = study(attributes=(("StudyDescription", description),))
    return time_point_of(header, settings=by, earlier=Earlier(known, (DOWN,)))


def test_a_tag_rule_goes_before_earlier_studies_and_waits_for_no_peer() -> None:
    finding = with_tag("baseline", described(60), by=settings(STAGING_MEANS_POST, tag_rules=TAG_RULES))
    assert (finding.time_point, finding.source) == (PRE, "tag-rule")


def test_a_tag_rules_pre_is_held_where_an_earlier_study_was_post() -> None:
    finding = with_tag("baseline", that_was(POST, 90), by=settings(SAME_VISIT, tag_rules=TAG_RULES))
    assert (finding.time_point, finding.source) == (UNKNOWN, "tag-rule")
    assert "an earlier study of this patient was post-treatment" in str(finding.hold_reason)
    assert finding.reasons[-1].what == "an earlier study, 90 days before, was post-treatment"


def test_a_tag_rules_post_stands_after_an_earlier_pre() -> None:
    finding = with_tag("follow-up", that_was(PRE, 90), by=settings(SAME_VISIT, tag_rules=TAG_RULES))
    assert (finding.time_point, finding.hold_reason) == (POST, None)


def test_an_earlier_studys_pre_is_held_where_a_still_earlier_one_was_post() -> None:
    finding = decide(that_was(PRE, 1), that_was(POST, 90), by=settings(SAME_VISIT))
    assert (finding.time_point, finding.source) == (UNKNOWN, "earlier-study")


def test_a_second_line_is_the_administrators_to_say() -> None:
    second_line = {"was": "post", "days_before": [60, 400], "time_point": "pre"}
    assert decide(that_was(POST, 90), by=settings(second_line)).time_point is PRE
    assert decide(that_was(POST, 30), that_was(POST, 90), by=settings(second_line)).time_point is UNKNOWN


POINTS = st.sampled_from([PRE, POST, None])
KNOWN = st.builds(
    EarlierStudy,
    st.integers(0, 400),
    st.just("pacs"),
    st.sampled_from([(), (("StudyDescription", "staging before chemo"),)]),
    POINTS,
)
EARLIER = st.builds(Earlier, st.lists(KNOWN, max_size=4).map(tuple), st.lists(st.just(DOWN), max_size=1).map(tuple))


@given(earlier=EARLIER, description=st.sampled_from(["baseline", "follow-up", "", "baseline, follow-up"]))
def test_without_rules_earlier_studies_change_nothing(earlier: Earlier, description: str) -> None:
    header = study(attributes=(("StudyDescription", description),))
    without = settings(tag_rules=TAG_RULES)
    assert time_point_of(header, settings=without, earlier=earlier) == time_point_of(header, settings=without)


@given(earlier=EARLIER)
def test_a_time_point_is_told_only_where_every_rule_and_every_peer_agree(earlier: Earlier) -> None:
    finding = time_point_of(study(), settings=settings(STAGING_MEANS_POST, SAME_VISIT), earlier=earlier)
    assert (finding.hold_reason is None) == (finding.time_point is not UNKNOWN)
    if finding.time_point is not UNKNOWN:
        assert not earlier.open_questions
        assert finding.reasons
        assert all(reason.is_for and finding.time_point.value in reason.what for reason in finding.reasons)
