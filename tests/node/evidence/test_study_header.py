"""What of a study's header an administrator's tag rules may ask."""

from __future__ import annotations

import pytest
from pydicom.dataset import Dataset

from node.config import TagRule, TimePointSettings
from node.domain import TimePoint
from node.evidence import study_header
from node.timepoint import time_point_of


def dataset(**tags: object) -> Dataset:
    made = Dataset()
    for keyword, told in tags.items():
        setattr(made, keyword, told)
    return made


def request(description: str) -> Dataset:
    code = dataset(CodeValue="1", CodingSchemeDesignator="99SITE", CodeMeaning=f"{description} by code")
    return dataset(RequestedProcedureDescription=description, RequestedProcedureCodeSequence=[code])


def told(header: Dataset, keyword: str) -> list[str]:
    return [value for name, value in study_header(header, [keyword]).attributes if name == keyword]


@pytest.mark.parametrize("keyword", ["RequestedProcedureDescription", "StudyComments", "ScheduledProcedureStepID"])
def test_any_keyword_can_be_asked(keyword: str) -> None:
    assert told(dataset(**{keyword: "restaging"}), keyword) == ["restaging"]


def test_what_stands_in_a_request_can_be_asked() -> None:
    header = dataset(RequestAttributesSequence=[request("restaging")])
    assert told(header, "RequestedProcedureDescription") == ["restaging"]


def test_each_of_several_requests_is_asked() -> None:
    header = dataset(
        RequestedProcedureDescription="staging", RequestAttributesSequence=[request("staging"), request("restaging")]
    )
    assert told(header, "RequestedProcedureDescription") == ["restaging", "staging"]


@pytest.mark.parametrize(
    ("header", "keyword"),
    [
        (dataset(ProcedureCodeSequence=[dataset(CodeMeaning="restaging by code")]), "ProcedureCodeSequence"),
        (dataset(RequestAttributesSequence=[request("restaging")]), "RequestedProcedureCodeSequence"),
    ],
)
def test_a_code_is_asked_by_its_meaning(header: Dataset, keyword: str) -> None:
    assert told(header, keyword) == ["restaging by code"]


def test_a_rule_on_the_requested_procedure_tells_the_time_point() -> None:
    rule = TagRule(keyword="RequestedProcedureDescription", pattern="re-?staging", time_point="post")
    header = study_header(dataset(RequestAttributesSequence=[request("MR liver restaging")]), [rule.keyword])
    assert time_point_of(header, settings=TimePointSettings(tag_rules=(rule,))).time_point is TimePoint.POST
