"""Which images of a case a bundle looks at together: the join of a case's images with a card's inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from model.card import AnyInput
from model.cases import Case, CaseImage


@dataclass(frozen=True)
class Sample:
    """One image a role, each with the spec that it is read by; the first role's grid is that of the answer."""

    images: Mapping[str, tuple[AnyInput, CaseImage]]

    @property
    def primary(self) -> tuple[AnyInput, CaseImage]:
        """The image that the answer lies on."""
        return next(iter(self.images.values()))


def samples_of(case: Case, inputs: Sequence[AnyInput]) -> Iterator[Sample]:
    """Every image that the one role takes, or one image for each of several roles where all are there."""
    fitting = [(spec, image) for spec in inputs for image in case.images.values() if takes(spec, image)]
    if len({spec.role for spec in inputs}) == 1:
        yield from (Sample({spec.role: (spec, image)}) for spec, image in fitting)
        return
    found = {spec.role: (spec, image) for spec, image in reversed(fitting)}
    if all(spec.role in found for spec in inputs):
        yield Sample({spec.role: found[spec.role] for spec in inputs})


def takes(spec: AnyInput, image: CaseImage) -> bool:
    """The image is of the kind that the spec reads."""
    if (spec.modality, spec.weighting) != (image.modality, image.weighting):
        return False
    if spec.phase is not None and spec.phase != image.phase:
        return False
    if spec.b_value_s_mm2 is None or image.b_value_s_mm2 is None:
        return spec.b_value_s_mm2 is None
    return spec.b_value_s_mm2[0] <= image.b_value_s_mm2 <= spec.b_value_s_mm2[1]
