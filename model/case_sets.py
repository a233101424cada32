"""What a bundle is measured on: unseen phantoms by their seeds, or cases from disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from model.cases import Case, CaseImage, CaseProblem
from model.phantom_cases import phantom_case
from model.samples import Readable, Sample

FIRST_EVALUATION_SEED = 900_000
"""Training and its choices draw below 100000 (model/training/cases.py refuses others)."""

_SEQUENCES: Mapping[str, str] = MappingProxyType({"dwi-trace": "dwi", "t2": "t2wi", "t1": "t1wi"})


@dataclass(frozen=True)
class UnseenPhantom:
    """A phantom to be drawn as its condition and family have it."""

    condition: str
    seed: int
    family: int = 1

    def read(self) -> Case:
        """Raises CaseProblem for what the phantoms do not know."""
        try:
            return phantom_case(self.condition, self.seed, family=self.family)
        except ValueError as error:
            raise CaseProblem(str(error)) from error


@dataclass(frozen=True)
class CaseSet:
    """Cases, and what they are in words that a card may print."""

    words: str
    sources: tuple[Readable, ...]
    condition: str | None = None
    """What all of them show; None: each sample says it by `condition_of`."""


def unseen_phantoms(condition: str, seeds: Sequence[int], family: int = 1) -> CaseSet:
    """Phantoms `seeds` of one condition. Raises ValueError for no seed, or one that training might have seen."""
    if not seeds or min(seeds) < FIRST_EVALUATION_SEED:
        raise ValueError(f"evaluation needs seeds, from {FIRST_EVALUATION_SEED} on: lower ones are training's")
    of_family = "" if family == 1 else f" of family {family}"
    words = f"{len(seeds)} unseen phantoms{of_family} of {condition}, seeds {min(seeds)} to {max(seeds)}"
    return CaseSet(words, tuple(UnseenPhantom(condition, seed, family) for seed in seeds), condition)


def condition_of(sample: Sample) -> str:
    """What its images show, in the words of the conditions: `pre-nact-dwi`, `ct-portal-venous`; joined by `+`."""
    return "+".join(_shown(image) for _, image in sample.images.values())


def _shown(image: CaseImage) -> str:
    words = (
        f"{image.time_point}-nact" if image.time_point else "",
        _SEQUENCES.get(image.weighting, image.weighting),
        image.phase or "",
    )
    return "-".join(word for word in words if word)
