"""Evaluation measures what ships, on seeds that training cannot have seen."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from model.bundle import Bundle, load_bundle, save_bundle
from model.campaign import measure_bundle, missed_bounds, read_report, run_campaign
from model.engine import Engine
from model.evaluate import (
    FIRST_EVALUATION_SEED,
    CaseScore,
    Exam,
    LesionScore,
    Report,
    draw_exam,
    evaluate,
    exams,
    into_card,
    score_case,
    summarise,
    write_report,
)
from model.threshold_baseline import BestThreshold


@pytest.fixture(scope="module")
def engine(untrained_bundle: Bundle) -> Engine:
    return Engine(untrained_bundle, "cpu", threads=1)


@pytest.fixture(scope="module")
def report(engine: Engine) -> Report:
    return evaluate(engine, "pre-nact-dwi", [FIRST_EVALUATION_SEED])


class Oracle:
    """An engine that answers with a given probability: what the measuring makes of it is then known by hand."""

    def __init__(self, engine: Engine, probability_DHW: np.ndarray) -> None:
        self.card = engine.card
        self.bundle = engine.bundle
        self._probability_DHW = probability_DHW

    def segment(self, _: object) -> SimpleNamespace:
        return SimpleNamespace(probability_DHW=self._probability_DHW, seconds={"forward": 0.5})


@pytest.fixture(scope="module")
def exam() -> Exam:
    seed = next(
        s
        for s in range(FIRST_EVALUATION_SEED, FIRST_EVALUATION_SEED + 20)
        if draw_exam("pre-nact-t2wi", s).labels_DHW.max() >= 2
    )
    return draw_exam("pre-nact-t2wi", seed)


def test_the_truth_itself_scores_perfectly(engine: Engine, exam: Exam) -> None:
    # an oracle speaks as an engine does, and is none
    case = score_case(Oracle(engine, (exam.labels_DHW > 0).astype(np.float32)), exam)  # type: ignore[arg-type]
    assert (case.dice, case.false_positives, case.found) == (1.0, 0, exam.labels_DHW.max())
    for lesion in case.lesions:
        assert lesion.long_axis_mm == pytest.approx(lesion.true_long_axis_mm)
        assert lesion.volume_ml == pytest.approx(lesion.true_volume_ml)


def test_a_missed_lesion_and_an_invented_one_are_both_counted(engine: Engine, exam: Exam) -> None:
    answer = (exam.labels_DHW > 1).astype(np.float32)
    answer[0, :6, :6] = 1.0
    # an oracle speaks as an engine does, and is none
    case = score_case(Oracle(engine, answer), exam)  # type: ignore[arg-type]
    assert (case.found, case.false_positives) == (exam.labels_DHW.max() - 1, 1)
    assert case.lesions[0].volume_ml is None


def test_training_seeds_are_refused(engine: Engine) -> None:
    with pytest.raises(ValueError, match="training's"):
        evaluate(engine, "pre-nact-dwi", [99_999])


def test_phantoms_drawn_by_other_processes_are_the_same_and_in_order() -> None:
    seeds = [FIRST_EVALUATION_SEED + 1, FIRST_EVALUATION_SEED]
    ahead = list(exams("pre-nact-dwi", seeds, workers=2))
    assert [exam.seed for exam in ahead] == seeds
    assert np.array_equal(ahead[1].image.array_DHW, draw_exam("pre-nact-dwi", seeds[1]).image.array_DHW)


def test_means_are_over_cases_and_recall_is_over_lesions(engine: Engine) -> None:
    small, large = LesionScore(8.0, 0.2, None, None), LesionScore(30.0, 9.0, 33.0, 8.0)
    cases = [
        CaseScore(FIRST_EVALUATION_SEED, 0.5, 2, (small, large), 1.0),
        CaseScore(FIRST_EVALUATION_SEED + 1, 1.0, 0, (), 1.0),
    ]
    report = summarise(engine, "pre-nact-dwi", cases, BestThreshold(0.3, 0.5, True))
    assert report.dice.value == 0.75
    assert report.dice_with_lesions.value == 0.5
    assert (report.empty_cases, report.empty_cases_right) == (1, 1)
    assert report.lesion_recall.value == 0.5
    assert (report.recall_by_size["under 10 mm"].value, report.recall_by_size["over 20 mm"].value) == (0.0, 1.0)
    assert report.false_positives_per_case.value == 1.0
    assert (report.long_axis_error_mm.value, report.volume_error_ml.value) == (3.0, 1.0)
    assert report.margin == pytest.approx(0.45)


def test_a_report_survives_its_file(report: Report, tmp_path: Path) -> None:
    write_report(tmp_path / "r.json", report)
    back = read_report(tmp_path / "r.json")
    assert back is not None
    assert json.dumps(back.as_json()) == json.dumps(report.as_json())


def test_a_report_goes_into_the_card_of_its_own_weights_only(report: Report, untrained_bundle: Bundle) -> None:
    card = into_card(untrained_bundle.card, report)
    assert card.metrics["dice"].value == report.dice.value
    assert "1 unseen phantoms" in card.test_set
    with pytest.raises(ValueError, match="other weights"):
        into_card(untrained_bundle.card.model_copy(update={"sha256": "1" * 64}), report)


def test_bounds_that_are_missed_are_told(report: Report) -> None:
    good = replace(report, dice=replace(report.dice, value=0.9, low=0.81), best_threshold=BestThreshold(0.5, 0.5, True))
    assert missed_bounds(good) == ()
    (low,) = missed_bounds(replace(good, dice=replace(good.dice, low=0.79)))
    assert "0.80" in low
    assert missed_bounds(replace(good, condition="post-nact-dwi", dice=replace(good.dice, low=0.66))) == ()
    (easy,) = missed_bounds(replace(good, best_threshold=BestThreshold(0.7, 0.5, True)))
    assert "too easy" in easy


def test_a_stopped_campaign_goes_on_and_measures_changed_bundles_again(
    untrained_bundle: Bundle, tmp_path: Path
) -> None:
    folder = tmp_path / "bundles" / "demo"
    save_bundle(folder, untrained_bundle.card, untrained_bundle.state_dict())
    heard: list[str] = []
    path, seeds = tmp_path / "out" / "demo.json", [FIRST_EVALUATION_SEED]

    def measure() -> Report:
        return measure_bundle(folder, path, seeds, workers=1, heard=lambda name, *_: heard.append(name))

    measure()
    measure()
    assert len(heard) == 1
    run_campaign(tmp_path / "bundles", tmp_path / "out", seeds, workers=1, update_cards=True, heard=lambda *_: None)
    assert "dice" in load_bundle(folder).card.metrics
    measure()
    assert len(heard) == 1, "metrics in the card do not make it another bundle"
    card = folder / "card.json"
    card.write_text(card.read_text().replace('"threshold": 0.5', '"threshold": 0.6'))
    measure()
    assert len(heard) == 2
