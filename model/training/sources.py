"""Where training cases come from: phantoms by seed, or case folders on disk. Either way a `Case` in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from model.cases import Case, list_cases, split_patients
from model.phantom_cases import phantom_case
from model.problems import RecipeProblem
from model.training.cases import training_geometry
from model.training.recipe import FolderSource, PhantomSource

FIRST_VALIDATION_SEED = 90_000
_REST = "test"


class CaseSource(Protocol):
    """A case that can be read, in whatever process."""

    @property
    def case(self) -> str:
        """A name that no other case of the source has."""

    @property
    def patient(self) -> str:
        """Who it is of: patients, not cases, are split."""

    @property
    def collection(self) -> str:
        """Where the data come from."""

    @property
    def licence(self) -> str:
        """What may be done with them."""

    def read(self) -> Case:
        """With its voxels. Raises CaseProblem."""


@dataclass(frozen=True)
class PhantomRef:
    """A phantom to be drawn, every second one under another geometry than its condition's own."""

    condition: str
    seed: int

    @property
    def case(self) -> str:
        return f"{self.condition}-{self.seed}"

    @property
    def patient(self) -> str:
        return f"phantom-{self.seed}"

    @property
    def collection(self) -> str:
        return "computed phantoms"

    @property
    def licence(self) -> str:
        return "Apache-2.0"

    def read(self) -> Case:
        return phantom_case(self.condition, self.seed, geometry=training_geometry(self.condition, self.seed))


@dataclass(frozen=True)
class Split:
    """Cases to learn from and cases to choose by; no patient is in both."""

    training: tuple[CaseSource, ...]
    validation: tuple[CaseSource, ...]

    @property
    def sha256(self) -> str:
        """Digest of which cases are where."""
        lines = [*(f"t {c.case}" for c in self.training), *(f"v {c.case}" for c in self.validation)]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def split_of(source: PhantomSource | FolderSource) -> Split:
    """Raises CaseProblem for a folder that is not one of cases, RecipeProblem where a part would be empty."""
    if isinstance(source, PhantomSource):
        return Split(
            _phantoms(source.conditions, range(source.cases)),
            _phantoms(source.conditions, range(FIRST_VALIDATION_SEED, FIRST_VALIDATION_SEED + source.validation_cases)),
        )
    cases = list_cases(source.path)
    shares = {"training": source.training_share, "validation": source.validation_share}
    shares[_REST] = 1 - sum(shares.values())
    parts = split_patients((case.patient for case in cases), source.split_seed, shares)
    split = Split(*(_of_patients(cases, parts[part]) for part in ("training", "validation")))
    if not split.training or not split.validation:
        raise RecipeProblem(
            f"{source.path}: {len(cases)} cases leave {len(split.training)} for training and "
            f"{len(split.validation)} for validation; at least one of each is needed"
        )
    return split


def _of_patients(cases: Sequence[CaseSource], patients: Sequence[str]) -> tuple[CaseSource, ...]:
    return tuple(case for case in cases if case.patient in patients)


def _phantoms(conditions: Sequence[str], seeds: range) -> tuple[PhantomRef, ...]:
    return tuple(PhantomRef(condition, seed) for seed in seeds for condition in conditions)
