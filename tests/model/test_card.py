"""A card says only what it may say."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from model.card import Card, TrainingStatement
from model.training.demo_card import DEMO_CONDITIONS, draft_card

STATEMENT = TrainingStatement(trained_on="phantom", description="phantoms", cases=3, seeds=(0, 2), licence="Apache-2.0")


def changed(**changes: Any) -> dict[str, Any]:
    card = draft_card("pre-nact-dwi", training=STATEMENT, trained=True).model_dump(mode="json")
    for dotted, value in changes.items():
        *parents, last = dotted.split("__")
        place = card
        for parent in parents:
            place = place[0] if parent == "first" else place[parent]
        place[last] = value
    return card


@pytest.mark.parametrize("condition", DEMO_CONDITIONS)
def test_each_condition_has_a_card_that_survives_json(condition: str) -> None:
    card = draft_card(condition, training=STATEMENT, trained=True)
    assert Card.model_validate_json(card.model_dump_json()) == card


def test_phantom_trained_weights_are_demo_weights_whatever_their_intended_use() -> None:
    assert Card.model_validate(changed(intended_use="research")).is_demo


def test_weights_trained_on_patients_for_research_are_no_demo_weights() -> None:
    assert not Card.model_validate(changed(intended_use="research", training__trained_on="patients")).is_demo


def test_untrained_weights_are_demo_weights_even_if_the_card_speaks_of_patients() -> None:
    assert Card.model_validate(changed(intended_use="research", training__trained_on="patients", trained=False)).is_demo


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"intended_use": "clinical"}, "trained on patients"),
        ({"colour": "red"}, "Extra inputs"),
        ({"inputs__first__mean": [0.5]}, "one a channel"),
        ({"inputs__first__b_value_s_mm2": None}, "b_value"),
        ({"inputs__first__modality": "CT"}, "contradict"),
        ({"inputs__first__context": 2}, "channels"),
        ({"output__threshold": 1.0}, "less than 1"),
        ({"sha256": "abc"}, "pattern"),
        ({"inputs__first__scaling": {"kind": "percentiles", "low": 99, "high": 1}}, "not below"),
    ],
)
def test_a_card_that_contradicts_itself_is_refused(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        Card.model_validate(changed(**changes))
