"""Two reports side by side: paired, tested where asked, and only on the same truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from model.compare import COLUMNS, PRIMARY, Row, compare, compare_several
from model.report import Measured, Report, summarise
from model.statistics import Difference, Interval
from tests.model.hand_cases import ANSWER, MEASURED, NOTHING, TRUTH, grid, scored

NEARLY = grid("00000", "01100", "01000", "00000", "00022")
COUNT = 12


def report_of(name: str, answers: list[np.ndarray], truths: list[np.ndarray] | None = None) -> Report:
    truths = truths or [TRUTH] * len(answers)
    cases = [scored(t, a, f"case {n}") for n, (t, a) in enumerate(zip(truths, answers, strict=True))]
    measured = Measured(name, "b" * 64, MEASURED.output)
    return summarise(measured, "pre-nact-dwi", "by hand", cases, resamples=200)


HALF = report_of("half", [ANSWER] * COUNT)
GOOD = report_of("good", [NEARLY] * (COUNT - 1) + [TRUTH])


def test_the_difference_is_second_minus_first() -> None:
    row = compare(HALF, GOOD, resamples=500).row("dice")
    assert row.result.first.value == pytest.approx(0.4)
    assert row.result.difference.value == pytest.approx(GOOD.dice.value - 0.4)
    assert row.favours == "second"
    assert compare(GOOD, HALF, resamples=500).row("dice").favours == "first"


def test_lower_is_better_where_the_table_says_so() -> None:
    inventive = report_of("inventive", [np.maximum(NEARLY, grid(*["00000"] * 4, "20000"))] * COUNT)
    row = compare(GOOD, inventive, resamples=500).row("false_positives_per_case")
    assert (row.result.difference.value, row.favours) == (pytest.approx(1.0), "first")


def test_only_the_questions_that_were_asked_are_tested_and_corrected_together() -> None:
    comparison = compare(HALF, GOOD, resamples=500)
    assert {row.measure for row in comparison.rows if row.p_holm is not None} == set(PRIMARY)
    dice = comparison.row("dice")
    # twelve patients, all better: 2 of 2¹²; the smallest of three p-values
    assert dice.result.p_wilcoxon == pytest.approx(2 / 2**12)
    assert dice.p_holm == pytest.approx(3 * 2 / 2**12)
    assert (dice.test, comparison.row("lesion_recall").test) == ("Wilcoxon signed-rank", "paired bootstrap")


def test_more_comparisons_ask_for_more() -> None:
    others = [GOOD, report_of("same", [ANSWER] * COUNT), report_of("worse", [NOTHING] * COUNT)]
    several = compare_several(HALF, others, tested=["dice"], resamples=200)
    alone = compare(HALF, GOOD, tested=["dice"], resamples=200)
    assert several[0].row("dice").p_holm == pytest.approx(3 * (alone.row("dice").p_holm or 0))
    assert several[1].row("dice").p_holm == 1.0
    assert [of.second for of in several] == ["good", "same", "worse"]


def test_a_measure_that_one_side_lacks_is_no_row() -> None:
    """Who answers nothing has no distance, on any case."""
    comparison = compare(GOOD, report_of("silent", [NOTHING] * COUNT), resamples=200)
    assert "hd95_mm" not in {row.measure for row in comparison.rows}
    assert "nsd_2mm" in {row.measure for row in comparison.rows}
    with pytest.raises(KeyError):
        comparison.row("hd95_mm")


def test_reports_on_other_cases_or_another_truth_are_refused() -> None:
    fewer = report_of("fewer", [ANSWER] * (COUNT - 1))
    with pytest.raises(ValueError, match=r"case 11 was measured of half or fewer only"):
        compare(HALF, fewer)
    other_truth = report_of("other", [ANSWER] * COUNT, [TRUTH] * (COUNT - 1) + [NEARLY])
    with pytest.raises(ValueError, match=r"case 11 has another truth in the report on other"):
        compare(HALF, other_truth)


def test_the_order_of_the_cases_does_not_matter() -> None:
    turned = replace(GOOD, cases=GOOD.cases[::-1])
    assert compare(HALF, turned, resamples=200).row("dice") == compare(HALF, GOOD, resamples=200).row("dice")


def test_a_question_that_no_measure_answers_is_an_error() -> None:
    with pytest.raises(KeyError):
        compare(HALF, GOOD, tested=["beauty"])


def row_of(low: float, high: float, measure: str = "dice", p_holm: float | None = None) -> Row:
    middle = Interval((low + high) / 2, low, high, 9)
    return Row(
        measure, "", Difference(Interval(0.5, 0.4, 0.6, 9), Interval(0.6, 0.5, 0.7, 9), middle, 0.2, 0.01), p_holm
    )


def test_an_interval_that_holds_zero_favours_nobody() -> None:
    assert row_of(-0.01, 0.2).favours == ""
    assert row_of(0.01, 0.2).favours == "second"
    assert row_of(0.01, 0.2, "rvd").favours == ""


def test_a_row_reads_as_a_line_of_a_table() -> None:
    cells = row_of(0.05, 0.15, p_holm=0.0004).cells()
    assert len(cells) == len(COLUMNS)
    assert cells[0] == "dice"
    assert cells[1:] == (
        "0.500 (0.400–0.600)",
        "0.600 (0.500–0.700)",
        "+0.100 (+0.050 to +0.150)",
        "p < 0.001 (Wilcoxon signed-rank)",
    )
    assert row_of(0.05, 0.15).cells()[-1] == ""
