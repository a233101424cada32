"""A score holds all that its case has to say, and survives its file."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from model.metrics import Overlap
from model.metrics_lesions import match_lesions
from model.scores import from_json, score, to_json
from tests.model.hand_cases import ANSWER, NOTHING, TRUTH, answered, exam, grid, scored


def test_a_case_counted_by_hand() -> None:
    """Pixels of 4 × 2 mm, slices of 5 mm; the answer at probability 0.75, all else at 0.25."""
    case = scored(TRUTH, np.where(ANSWER > 0, 0.75, 0.25))
    assert case.overlap() == Overlap(2, 2, 4)
    assert case.dice == pytest.approx(0.4)
    assert case.voxel_ml == pytest.approx(0.04)
    assert [lesion.volume_ml for lesion in case.true] == pytest.approx([0.16, 0.08])
    assert [lesion.mean_probability for lesion in case.answered] == [0.75]
    assert case.shared == ((1, 1, 2),)
    assert case.confidence == pytest.approx(2 * 3.0 / (8.25 + 4))
    assert case.surface.assd_mm == pytest.approx((4 * 0 + 4 * 2 + 8 + np.hypot(8, 2)) / 10)
    assert case.band is not None
    assert sum(case.band.voxels) == 25


def test_a_perfect_answer_is_perfect_in_everything() -> None:
    case = scored(TRUTH, TRUTH)
    assert (case.dice, case.confidence) == (1.0, 1.0)
    assert (case.surface.assd_mm, case.surface.hd95_mm, case.surface.nsd_2mm, case.surface.nsd_3mm) == (0, 0, 1, 1)
    assert case.pairs(0.5) == tuple(zip(case.answered, case.true, strict=True))
    assert [(a.long_axis_mm, a.volume_ml) for a, _ in case.pairs()] == [
        (t.long_axis_mm, t.volume_ml) for t in case.true
    ]


def test_nothing_true_and_nothing_answered_is_right_and_has_no_surface_nor_band() -> None:
    case = scored(NOTHING, NOTHING)
    assert (case.dice, case.confidence, case.band) == (1.0, 1.0, None)
    assert (case.surface.hd95_mm, case.surface.nsd_2mm) == (None, None)


def test_an_invented_lesion_and_a_missed_one_have_no_distance_but_no_agreement_either() -> None:
    for case in (scored(NOTHING, ANSWER), scored(TRUTH, NOTHING)):
        assert (case.dice, case.surface.hd95_mm, case.surface.nsd_3mm) == (0.0, None, 0.0)


def test_lesions_are_matched_from_the_score_as_from_the_masks() -> None:
    answer = grid("11000", "01100", "00000", "00000", "00022")
    case = scored(TRUTH, answer)
    for minimum in (0.05, 0.1, 0.5, 0.9):
        assert case.matches(minimum) == match_lesions(answered((answer > 0) * 1.0).mask.labels_DHW, TRUTH, minimum)


def test_lesions_are_counted_as_the_report_counts_them() -> None:
    """Two answers that touch by a corner are one 26-connected lesion there, and so here."""
    case = scored(TRUTH, grid("11000", "00110", "00000", "00000", "00000"))
    assert len(case.answered) == 1


def test_a_liver_is_told_to_be_known_or_not() -> None:
    liver = np.zeros(TRUTH.shape, bool)
    assert scored(TRUTH, ANSWER, liver=liver).has_liver
    assert not scored(TRUTH, ANSWER).has_liver


@pytest.mark.parametrize(
    ("truth", "answer"), [(TRUTH, ANSWER), (NOTHING, NOTHING), (TRUTH, NOTHING), (NOTHING, ANSWER)]
)
def test_a_score_survives_its_json(truth: np.ndarray, answer: np.ndarray) -> None:
    case = scored(truth, answer, patient="someone", training=2)
    text = to_json(case)
    assert "\n" not in text
    json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    back = from_json(text)
    assert back == case
    assert back.matches(0.5) == case.matches(0.5)


def test_a_score_of_another_format_says_what_to_do() -> None:
    fields = json.loads(to_json(scored(TRUTH, ANSWER)))
    with pytest.raises(ValueError, match=r"format 2.*measure the bundle again"):
        from_json(json.dumps({**fields, "format": 2}))


def test_what_is_no_score_is_refused_with_the_field() -> None:
    fields = json.loads(to_json(scored(TRUTH, ANSWER)))
    with pytest.raises(ValueError, match=r"voxel_ml"):
        from_json(json.dumps({**fields, "voxel_ml": "much"}))


def test_an_answer_on_another_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="grid"):
        score(exam(TRUTH[:, :4]), answered((ANSWER > 0) * 1.0))


def test_the_training_is_that_of_the_answer() -> None:
    answer = replace(answered((ANSWER > 0) * 1.0), training=7)
    assert score(exam(TRUTH), answer).training == 7
