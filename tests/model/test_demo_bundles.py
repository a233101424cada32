"""The bundles that ship: whole, small, marked, and able to find what they were trained to find.

Three unseen phantoms a condition here; a hundred, with intervals and bounds, by `make campaign`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from model.bundle import load_bundle
from model.campaign import LOWEST_DICE, OTHER_LOWEST_DICE
from model.case_sets import FIRST_EVALUATION_SEED
from model.engine import Engine
from model.evaluate import draw_exam, score_case
from model.findings import find_lesions
from model.hardware import has_bf16
from model.metrics import Overlap
from model.training.demo_card import DEMO_CONDITIONS, bundle_name
from model.ways import Way

BUNDLES = Path(__file__).resolve().parents[2] / "model" / "bundles"
SEEDS = range(FIRST_EVALUATION_SEED + 1000, FIRST_EVALUATION_SEED + 1003)


@pytest.mark.parametrize("condition", DEMO_CONDITIONS)
def test_each_condition_has_a_whole_and_small_bundle_marked_as_demo(condition: str) -> None:
    bundle = load_bundle(BUNDLES / bundle_name(condition))
    assert bundle.card.is_demo
    assert bundle.card.trained
    assert bundle.card.intended_use == "demo"
    assert bundle.card.conditions == (condition,)
    assert bundle.card.name == bundle.path.name
    assert bundle.weights_path.stat().st_size < 1.25e6


@pytest.mark.parametrize("condition", DEMO_CONDITIONS)
def test_each_card_carries_measures_of_these_very_weights(condition: str) -> None:
    card = load_bundle(BUNDLES / bundle_name(condition)).card
    assert {"dice", "lesion_recall", "false_positives_per_case"} <= card.metrics.keys()
    assert card.test_set.startswith(f"{card.metrics['dice'].cases} unseen phantoms of {condition}")
    assert card.metrics["dice"].cases >= 100


@pytest.mark.parametrize("condition", DEMO_CONDITIONS)
def test_each_card_keeps_the_bounds_that_the_project_set_itself(condition: str) -> None:
    card = load_bundle(BUNDLES / bundle_name(condition)).card
    assert card.metrics["dice"].low >= LOWEST_DICE.get(condition, OTHER_LOWEST_DICE)


@pytest.mark.parametrize("condition", DEMO_CONDITIONS)
def test_unseen_phantoms_are_segmented(condition: str) -> None:
    engine = Engine(load_bundle(BUNDLES / bundle_name(condition)), "cpu")
    cases = [score_case(engine, draw_exam(condition, seed)) for seed in SEEDS]
    with_lesions = [case.dice for case in cases if case.true]
    assert np.mean(with_lesions) > 0.5
    large = [case for case in cases if any(lesion.long_axis_mm > 25 for lesion in case.true)]
    for case in large:
        found = [true for _, true in case.pairs()]
        assert all(lesion in found for lesion in case.true if lesion.long_axis_mm > 25)


@pytest.mark.parametrize("condition", ["pre-nact-dwi", "ct-portal-venous"])
def test_bf16_finds_what_fp32_finds(condition: str) -> None:
    if not has_bf16(torch.device("cpu")):
        pytest.skip("this CPU does not multiply bf16")
    engine = Engine(load_bundle(BUNDLES / bundle_name(condition)), "cpu")
    exams = (draw_exam(condition, seed) for seed in range(SEEDS[0], SEEDS[0] + 20))
    exam = next(exam for exam in exams if (exam.labels_DHW > 0).sum() * exam.image.voxel_ml > 5)
    masks = []
    for precision in (torch.bfloat16, torch.float32):
        engine.way = Way("eager", precision)
        probability_DHW = engine.segment(exam.image).probability_DHW
        mask, _ = find_lesions(probability_DHW, exam.image, engine.card.output)
        masks.append(mask.labels_DHW > 0)
    assert masks[1].any()
    assert Overlap.of(*masks).dice > 0.98
