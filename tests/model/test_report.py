"""Reports are made of scores, read back from their files, and pooled over trainings."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from model.bundle import Bundle
from model.measures import MEASURES
from model.report import Measured, Report, into_card, pooled, read_report, summarise, write_report
from model.scores import CaseScore
from model.threshold_baseline import BestThreshold
from tests.model.hand_cases import ANSWER, MEASURED, NOTHING, TRUTH, scored

CASES = (
    scored(TRUTH, ANSWER, "half"),
    scored(NOTHING, NOTHING, "right"),
    scored(NOTHING, ANSWER, "invented"),
    scored(TRUTH, TRUTH, "perfect"),
)


def report_of(*cases: CaseScore, measured: Measured = MEASURED) -> Report:
    return summarise(
        measured, "pre-nact-dwi", "four by hand", cases, best_threshold=BestThreshold(0.3, 0.5, True), resamples=200
    )


@pytest.fixture(scope="module")
def report() -> Report:
    return report_of(*CASES)


def test_means_are_over_cases_and_recall_is_over_lesions(report: Report) -> None:
    assert report.dice.value == pytest.approx((0.4 + 1 + 0 + 1) / 4)
    assert report["lesion_recall"].value == pytest.approx(3 / 4)
    assert (report.dice.cases, report["lesion_recall"].cases) == (4, 2)
    assert (report.empty_cases, report.empty_cases_right) == (2, 1)
    assert report.margin == pytest.approx(0.6 - 0.3)


def test_every_measure_can_be_asked_for_and_no_other(report: Report) -> None:
    assert all(report[measure.name] is not None for measure in MEASURES)
    with pytest.raises(KeyError):
        report["dise"]


def test_what_could_not_be_measured_is_undefined() -> None:
    only_right = report_of(CASES[1])
    assert not only_right["lesion_recall"].is_defined
    assert "lesion_recall" not in only_right.measures
    assert math.isnan(replace(only_right, best_threshold=None).margin)


def test_a_report_survives_its_file(report: Report, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "r.json"
    write_report(path, report)
    assert read_report(path) == report
    assert [p.name for p in path.parent.iterdir()] == ["r.json"]


def test_the_file_is_json_with_a_head_to_read_and_a_line_for_each_case(report: Report, tmp_path: Path) -> None:
    write_report(tmp_path / "r.json", report)
    text = (tmp_path / "r.json").read_text(encoding="utf-8")
    fields = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert fields["measures"]["dice"]["value"] == pytest.approx(0.6)
    assert sum('"case":"' in line for line in text.splitlines()) == 4


def test_the_measures_can_be_computed_again_from_the_file(report: Report, tmp_path: Path) -> None:
    write_report(tmp_path / "r.json", report)
    assert report_of(*read_report(tmp_path / "r.json").cases).measures == report.measures


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 1, "cases": []}', '{"cases": [{"format": 1}]}'])
def test_a_file_that_is_no_report_says_what_to_do(text: str, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(ValueError, match=r"r\.json: not a report of format 2; measure the bundle again"):
        read_report(tmp_path / "r.json")


def test_a_report_needs_cases_each_once() -> None:
    with pytest.raises(ValueError, match="needs a case"):
        report_of()
    with pytest.raises(ValueError, match="scored twice"):
        report_of(CASES[0], CASES[0])


def test_a_report_goes_into_the_card_of_its_own_weights_only(report: Report, untrained_bundle: Bundle) -> None:
    card = untrained_bundle.card
    own = report_of(*CASES, measured=Measured(card.name, card.sha256, card.output))
    filled = into_card(card, own)
    assert filled.metrics["dice"].value == own.dice.value
    assert filled.test_set == "four by hand; the best single intensity threshold reaches Dice 0.300 on them"
    with pytest.raises(ValueError, match="other weights"):
        into_card(card, report)


def test_a_card_gets_only_what_could_be_measured(untrained_bundle: Bundle) -> None:
    card = untrained_bundle.card
    own = report_of(CASES[1], measured=Measured(card.name, card.sha256, card.output))
    filled = into_card(card, replace(own, best_threshold=None))
    assert "dice" in filled.metrics
    assert "lesion_recall" not in filled.metrics
    assert filled.test_set == "four by hand"


def test_remarks_of_the_engine_that_differ_in_their_numbers_are_counted_as_one() -> None:
    said = ("pixel spacing 7.5 mm, trained on 1 to 2 mm", "pixel spacing 8 mm, trained on 1 to 2 mm", "another")
    cases = [replace(case, remarks=(says,)) for case, says in zip(CASES, said, strict=False)]
    assert [(r.says, r.cases) for r in report_of(*cases).remarks] == [(said[0], 2), (said[2], 1)]


def runs_of_one_recipe() -> list[Report]:
    """Two trainings: one answers the lesion by half, the other fully; patients are all alike."""
    names = ("a", "b", "c")
    trained = [Measured(f"trained-{n}", str(n) * 64, MEASURED.output) for n in (1, 2)]
    return [
        report_of(*(scored(TRUTH, answer, name) for name in names), measured=measured)
        for answer, measured in zip((ANSWER, TRUTH), trained, strict=True)
    ]


def test_reports_on_trainings_of_one_recipe_become_one_whose_intervals_tell_of_the_recipe() -> None:
    first, second = runs_of_one_recipe()
    assert first.dice.low == first.dice.high
    both = pooled([first, second], resamples=200)
    assert (both.dice.value, both.dice.low, both.dice.high) == pytest.approx((0.7, 0.4, 1.0))
    assert both.dice.cases == 3
    assert both.bundle == "trained-1, trained-2"
    assert [case.training for case in both.cases] == [0, 0, 0, 1, 1, 1]


def test_a_pooled_report_is_of_no_single_card(untrained_bundle: Bundle) -> None:
    assert not pooled(runs_of_one_recipe(), resamples=10).is_of(untrained_bundle.card)


def test_only_what_was_measured_on_the_same_cases_is_pooled() -> None:
    first, second = runs_of_one_recipe()
    fewer = replace(second, cases=second.cases[:2])
    with pytest.raises(ValueError, match="same cases"):
        pooled([first, fewer])


def test_a_patient_is_drawn_with_all_his_series() -> None:
    """Three series each of eight patients who are all right or all wrong: they tell no more than one series each."""
    of_patient = [
        scored(TRUTH if who % 2 else NOTHING, TRUTH, f"{who}-{series}", patient=f"patient {who}")
        for who in range(8)
        for series in range(3)
    ]
    alone = [replace(case, patient=case.case) for case in of_patient]
    wide, narrow = (report_of(*cases).dice for cases in (of_patient, alone))
    assert wide.value == narrow.value == 0.5
    assert wide.high - wide.low > 1.4 * (narrow.high - narrow.low)
