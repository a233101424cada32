"""A bundle is never measured on what its training saw, as far as its card and the folder can tell."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.bundle import Bundle
from model.card import Card
from model.problems import ReportProblem
from model.training.held_out import held_out
from model.training.recipe import FolderSource
from model.training.sources import split_of


@pytest.fixture
def source(case_folder: Path) -> FolderSource:
    return FolderSource(path=case_folder, training_share=0.5, validation_share=0.2)


@pytest.fixture
def trained_here(untrained_bundle: Bundle, source: FolderSource) -> Card:
    """As if it had been trained on the folder."""
    return trained_on(untrained_bundle, split_of(source).sha256)


def trained_on(bundle: Bundle, split_sha256: str | None) -> Card:
    statement = bundle.card.training.model_copy(update={"trained_on": "patients", "split_sha256": split_sha256})
    return bundle.card.model_copy(update={"training": statement})


def patients(found: object) -> set[str]:
    return {case.patient for case in found.cases.sources}  # type: ignore[attr-defined]  # a HeldOut of CaseRefs


def test_the_test_part_is_what_the_training_left(source: FolderSource, trained_here: Card) -> None:
    split, found = split_of(source), held_out(source, None, trained_here)
    used = {case.patient for case in (*split.training, *split.validation)}
    assert patients(found) == {f"patient-{n}" for n in range(6)} - used
    assert patients(found)
    assert found.warning == ""
    assert "part test, split seed 0, shares 0.5 0.2" in found.cases.words
    assert str(source.path) not in found.cases.words


def test_the_cases_that_chose_the_operating_point_come_with_a_warning(source: FolderSource, trained_here: Card) -> None:
    found = held_out(source, "validation", trained_here)
    assert patients(found) == {case.patient for case in split_of(source).validation}
    assert "operating point" in found.warning


def test_all_cases_are_refused_to_a_bundle_that_learnt_from_some(source: FolderSource, trained_here: Card) -> None:
    with pytest.raises(ReportProblem, match="measure it on --part test alone"):
        held_out(source, "all", trained_here)


@pytest.mark.parametrize("changes", [{"split_seed": 1}, {"training_share": 0.6}])
def test_another_split_than_that_of_the_training_is_refused(
    source: FolderSource, trained_here: Card, changes: dict[str, float]
) -> None:
    with pytest.raises(ReportProblem, match=r"was not trained on .* name those of its recipe"):
        held_out(source.model_copy(update=changes), "test", trained_here)


def test_cases_of_others_are_measured_whole_with_a_warning(source: FolderSource, untrained_bundle: Bundle) -> None:
    found = held_out(source, "all", trained_on(untrained_bundle, "b" * 64))
    assert len(patients(found)) == 6
    assert "cannot be told" in found.warning


def test_a_card_without_a_split_is_warned_of(source: FolderSource, untrained_bundle: Bundle) -> None:
    assert "may have seen" in held_out(source, "test", trained_on(untrained_bundle, None)).warning


def test_phantom_weights_have_seen_no_patient(source: FolderSource, untrained_bundle: Bundle) -> None:
    found = held_out(source, None, untrained_bundle.card)
    assert (len(patients(found)), found.warning) == (6, "")


def test_an_empty_part_is_told(source: FolderSource, untrained_bundle: Bundle) -> None:
    whole = source.model_copy(update={"training_share": 0.8, "validation_share": 0.2})
    with pytest.raises(ReportProblem, match="no case is in part test"):
        held_out(whole, "test", untrained_bundle.card)
