"""Which cases of a folder a bundle may be measured on: never those that its training has seen.

A card holds the digest of its training's split. The folder is split anew by the seed and shares that are named; the
digests agree exactly where the bundle was trained on this folder with this split.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from model.card import Card
from model.case_sets import CaseSet
from model.cases import CaseRef, list_cases
from model.problems import RecipeProblem, ReportProblem
from model.training.recipe import FolderSource
from model.training.sources import Split, split_of

Part = Literal["test", "validation", "all"]


@dataclass(frozen=True)
class HeldOut:
    """Cases to measure on, and what must be known of them: nothing, or a warning."""

    cases: CaseSet
    warning: str = ""


def held_out(source: FolderSource, part: Part | None, card: Card) -> HeldOut:
    """Part `part` of a folder for the bundle of `card`; None is `test` for a bundle trained on patients, else `all`.

    Raises ReportProblem where training and testing would mix, or the part is empty; CaseProblem for what is no folder
    of cases.
    """
    learnt = card.training.split_sha256 if card.training.trained_on == "patients" else None
    wanted = part or ("all" if card.training.trained_on == "phantom" else "test")
    found, split = list_cases(source.path), _split(source)
    is_same = split is not None and split.sha256 == learnt
    if wanted == "all" and is_same:
        raise ReportProblem(f"{card.name} was trained on cases of {source.path}: measure it on --part test alone")
    if wanted != "all" and learnt is not None and not is_same:
        raise ReportProblem(
            f"{card.name} was not trained on {source.path} with split seed {source.split_seed} and shares "
            f"{source.training_share:g} {source.validation_share:g}: name those of its recipe by --split-seed and "
            "--shares, or --part all if these are other patients"
        )
    chosen = found if wanted == "all" else _part(found, split, wanted)
    if not chosen:
        raise ReportProblem(f"{source.path}: no case is in part {wanted}; name another part, or other shares")
    return HeldOut(_case_set(chosen, source, wanted), _warning(card, wanted, learnt))


def _split(source: FolderSource) -> Split | None:
    """None where the folder has too few patients for a training."""
    try:
        return split_of(source)
    except RecipeProblem:
        return None


def _part(found: tuple[CaseRef, ...], split: Split | None, part: Part) -> tuple[CaseRef, ...]:
    if split is None:
        return ()
    validation = {case.patient for case in split.validation}
    if part == "validation":
        return tuple(case for case in found if case.patient in validation)
    seen = validation | {case.patient for case in split.training}
    return tuple(case for case in found if case.patient not in seen)


def _case_set(chosen: tuple[CaseRef, ...], source: FolderSource, part: Part) -> CaseSet:
    collections = ", ".join(sorted({case.collection for case in chosen}))
    shares = f"shares {source.training_share:g} {source.validation_share:g}"
    which = "all" if part == "all" else f"part {part}, split seed {source.split_seed}, {shares}"
    patients = len({case.patient for case in chosen})
    return CaseSet(f"{len(chosen)} cases of {patients} patients of {collections} ({which})", chosen)


def _warning(card: Card, part: Part, learnt: str | None) -> str:
    if card.training.trained_on == "phantom":
        return ""
    if learnt is None:
        return f"the card of {card.name} does not say by which split it was trained: it may have seen these cases"
    if part == "validation":
        return f"the operating point of {card.name} was chosen on these cases: they flatter it"
    if part == "all":
        return f"that {card.name} has seen none of these patients cannot be told from its card"
    return ""
