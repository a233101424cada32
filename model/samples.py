"""Which images of a case a bundle looks at together: the join of a case's images with a card's inputs."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from model.card import AnyInput
from model.cases import Case, CaseImage
from model.engine import Fed


class Readable(Protocol):
    """A case that can be read, in whatever process."""

    def read(self) -> Case:
        """With its voxels. Raises CaseProblem."""


@dataclass(frozen=True)
class Sample:
    """One image a role, each with the spec that it is read by; the first role's grid is that of the answer."""

    images: Mapping[str, tuple[AnyInput, CaseImage]]
    case: str = ""
    """`<case>/<primary image>`: no other sample of the same cases has this name, whichever bundle reads them."""
    patient: str = ""

    @property
    def primary(self) -> tuple[AnyInput, CaseImage]:
        """The image that the answer lies on."""
        return next(iter(self.images.values()))

    @property
    def fed(self) -> dict[str, Fed]:
        """As the engine takes it."""
        return {role: Fed(image.volume, spec.weighting, spec.phase) for role, (spec, image) in self.images.items()}


def samples_of(case: Case, inputs: Sequence[AnyInput]) -> Iterator[Sample]:
    """Every image that the one role takes, or one image for each of several roles where all are there."""
    fitting = [(spec, name) for spec in inputs for name, image in case.images.items() if takes(spec, image)]
    if len({spec.role for spec in inputs}) == 1:
        chosen = [{spec.role: (spec, name)} for spec, name in fitting]
    else:
        found = {spec.role: (spec, name) for spec, name in reversed(fitting)}
        chosen = [{spec.role: found[spec.role] for spec in inputs}] if all(s.role in found for s in inputs) else []
    for one in chosen:
        _, primary = next(iter(one.values()))
        images = {role: (spec, case.images[name]) for role, (spec, name) in one.items()}
        yield Sample(images, f"{case.case}/{primary}", case.patient)


def takes(spec: AnyInput, image: CaseImage) -> bool:
    """The image is of the kind that the spec reads."""
    if (spec.modality, spec.weighting) != (image.modality, image.weighting):
        return False
    if spec.phase is not None and spec.phase != image.phase:
        return False
    if spec.b_value_s_mm2 is None or image.b_value_s_mm2 is None:
        return spec.b_value_s_mm2 is None
    return spec.b_value_s_mm2[0] <= image.b_value_s_mm2 <= spec.b_value_s_mm2[1]


def samples_ahead(sources: Sequence[Readable], inputs: Sequence[AnyInput], workers: int) -> Iterator[Sample]:
    """The samples of all sources in their order, read (or drawn) ahead by `workers` processes."""
    return (sample for case in cases_ahead(sources, workers) for sample in samples_of(case, inputs))


def cases_ahead(sources: Sequence[Readable], workers: int) -> Iterator[Case]:
    """The cases of all sources in their order, read (or drawn) ahead by `workers` processes."""
    if workers <= 1:
        yield from (source.read() for source in sources)
        return
    # spawn: a fork after torch has started its threads may hang
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting: deque[Future[Case]] = deque()
        for source in sources:
            waiting.append(pool.submit(source.read))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
