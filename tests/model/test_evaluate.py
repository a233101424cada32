"""Evaluation measures what ships, on seeds that training cannot have seen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from model.bundle import Bundle, load_bundle, save_bundle
from model.campaign import earlier_report, measure_bundle, missed_bounds, run_campaign
from model.case_sets import FIRST_EVALUATION_SEED, unseen_phantoms
from model.engine import Engine
from model.evaluate import draw_exam, evaluate, exams, score_case
from model.report import Report, into_card, read_report, write_report
from model.scores import Exam
from model.threshold_baseline import BestThreshold


@pytest.fixture(scope="module")
def engine(untrained_bundle: Bundle) -> Engine:
    return Engine(untrained_bundle, "cpu", threads=1)


@pytest.fixture(scope="module")
def report(engine: Engine) -> Report:
    (report,) = evaluate(engine, unseen_phantoms("pre-nact-dwi", [FIRST_EVALUATION_SEED]))
    return report


class Oracle:
    """An engine that answers with a given probability: what the measuring makes of it is then known by hand."""

    def __init__(self, engine: Engine, probability_DHW: np.ndarray) -> None:
        self.card = engine.card
        self.bundle = engine.bundle
        self._probability_DHW = probability_DHW

    def segment(self, _: object) -> SimpleNamespace:
        return SimpleNamespace(probability_DHW=self._probability_DHW, seconds={"forward": 0.5}, remarks=())


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
    assert (case.dice, case.matches().false_positives, len(case.pairs())) == (1.0, 0, exam.labels_DHW.max())
    assert (case.surface.hd95_mm, case.surface.nsd_2mm, case.confidence) == (0.0, 1.0, 1.0)
    for answered, true in case.pairs():
        assert answered.long_axis_mm == pytest.approx(true.long_axis_mm)
        assert answered.volume_ml == pytest.approx(true.volume_ml)


def test_a_missed_lesion_and_an_invented_one_are_both_counted(engine: Engine, exam: Exam) -> None:
    answer = (exam.labels_DHW > 1).astype(np.float32)
    answer[0, :6, :6] = 1.0
    # an oracle speaks as an engine does, and is none
    matches = score_case(Oracle(engine, answer), exam).matches()  # type: ignore[arg-type]
    assert (len(matches.pairs), matches.false_positives) == (exam.labels_DHW.max() - 1, 1)
    assert 1 not in {true for _, true in matches.pairs}


def test_phantoms_bring_their_liver_so_that_slices_without_it_are_told_apart(engine: Engine, exam: Exam) -> None:
    # an oracle speaks as an engine does, and is none
    case = score_case(Oracle(engine, (exam.labels_DHW > 0).astype(np.float32)), exam)  # type: ignore[arg-type]
    shares = [case.slices.chosen(slices).mean() for slices in ("tumour_slices", "all_liver_slices", "whole_volume")]
    assert case.has_liver
    assert 0 < shares[0] < shares[1] < shares[2] == 1


def test_the_conditions_of_a_seed_are_examinations_of_one_patient() -> None:
    before, after = (draw_exam(condition, FIRST_EVALUATION_SEED) for condition in ("pre-nact-t2wi", "post-nact-t2wi"))
    assert before.case != after.case
    assert before.patient == after.patient


def test_training_seeds_are_refused() -> None:
    with pytest.raises(ValueError, match="training's"):
        unseen_phantoms("pre-nact-dwi", [99_999])


def test_phantoms_drawn_by_other_processes_are_the_same_and_in_order() -> None:
    seeds = [FIRST_EVALUATION_SEED + 1, FIRST_EVALUATION_SEED]
    ahead = list(exams("pre-nact-dwi", seeds, workers=2))
    assert [exam.case for exam in ahead] == [draw_exam("pre-nact-dwi", seed).case for seed in seeds]
    assert np.array_equal(ahead[1].image.array_DHW, draw_exam("pre-nact-dwi", seeds[1]).image.array_DHW)


def test_a_report_survives_its_file(report: Report, tmp_path: Path) -> None:
    write_report(tmp_path / "r.json", report)
    assert read_report(tmp_path / "r.json") == report


def test_a_campaign_has_no_earlier_report_in_a_missing_file_or_one_of_another_format(tmp_path: Path) -> None:
    assert earlier_report(tmp_path / "none.json") is None
    (tmp_path / "old.json").write_text('{"bundle": "demo", "seeds": [900000, 900099]}')
    assert earlier_report(tmp_path / "old.json") is None


def test_a_report_goes_into_the_card_of_its_own_weights_only(report: Report, untrained_bundle: Bundle) -> None:
    card = into_card(untrained_bundle.card, report)
    assert card.metrics["dice"].value == report.dice.value
    assert "1 unseen phantoms" in card.test_set
    with pytest.raises(ValueError, match="other weights"):
        into_card(untrained_bundle.card.model_copy(update={"sha256": "1" * 64}), report)


def test_bounds_that_are_missed_are_told(report: Report) -> None:
    def with_low(low: float) -> Report:
        dice = replace(report.dice, value=0.9, low=low)
        return replace(report, measures={"dice": dice}, best_threshold=BestThreshold(0.5, 0.5, True))

    good = with_low(0.81)
    assert missed_bounds(good) == ()
    (low,) = missed_bounds(with_low(0.79))
    assert "0.80" in low
    assert missed_bounds(replace(with_low(0.66), condition="post-nact-dwi")) == ()
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
