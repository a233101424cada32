"""A bundle's network on a device: normalised images in, probabilities of the class that is looked for out.

Here is all that stands between tensors and probabilities: the way of computing, members of an ensemble, mirror images,
temperature, the channel of the target. What a tensor shows and where it lies is its caller's.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

from model.bundle import Bundle
from model.card import BundleProblem, Card, PlanarInput
from model.hardware import placed
from model.openvino_backend import BackendProblem, Forward
from model.probe import difference
from model.ways import EXACT, Way, forward_of, ways_for

log = logging.getLogger(__name__)


class Runner:
    """The networks of one bundle, warm on one device."""

    def __init__(self, bundle: Bundle, device: torch.device) -> None:
        """Computed exactly until `settle` has found something quicker. Raises BundleProblem."""
        self.card: Card = bundle.card
        self.device = device
        self.way = EXACT
        """How the networks are computed; may be set to another for a comparison."""
        self.refused: tuple[str, ...] = ()
        """Which quicker ways were tried and not taken, and why: sentences."""
        self._weights_path = bundle.weights_path
        self._target = self.card.output.classes.index(self.card.output.target)
        self._members = [placed(network, device) for network in bundle.networks()]
        self._forwards: dict[Way, list[Forward]] = {}

    def __call__(self, images: Sequence[Tensor], code: int | None = None, way: Way | None = None) -> Tensor:
        """Probabilities (B, 1, …) float32 of the target class; `images` one tensor (B, C, …) a role, normalised.

        `code`: the modality of a conditioned network. Raises BundleProblem for answers that are no numbers.
        """
        label = self._label(code, len(images[0]))
        forwards = self._of(way or self.way, [*images, *label])
        passes = [(forward, flip) for forward in forwards for flip in self._flips(images[0].ndim)]
        total: Tensor | None = None
        for forward, axes in passes:
            flipped = [torch.flip(image, axes) if axes else image for image in images]
            probability = self._probability(forward([*flipped, *label]))
            probability = torch.flip(probability, axes) if axes else probability
            total = probability if total is None else total.add_(probability)
        assert total is not None  # a bundle has a member
        mean = total / len(passes) if len(passes) > 1 else total
        if not bool(torch.isfinite(mean).all()):
            raise BundleProblem(f"{self._weights_path}: the network answers with values that are no numbers")
        return mean

    def settle(self, probe: Sequence[Tensor], code: int | None = None, backend: str = "auto") -> None:
        """Take the first way that works here and finds the lesions of eager fp32 in the probe.

        Raises ValueError for a back end that there is not on this device.
        """
        ways = ways_for(backend, self.device, may_round=self.card.inference.precision == "auto")
        exact = self(probe, code, EXACT)
        faults = []
        for way in ways:
            fault = self._fault(way, exact, probe, code)
            if fault is None:
                self.way = way
                break
            faults.append(f"{way} is not used: {fault}")
            self._forwards.pop(way, None)
        self.refused = tuple(faults)
        for sentence in faults:
            log.warning("slower_way bundle=%s: %s", self.card.name, sentence)
        log.info("computed_by bundle=%s way=%s", self.card.name, self.way)

    def _fault(self, way: Way, exact: Tensor, probe: Sequence[Tensor], code: int | None) -> str | None:
        """Why the answers of `way` are not those of eager fp32; None where they are."""
        try:
            quick = self(probe, code, way)
            if len(exact) > 1:
                # a compiled network must know no batch size by heart
                first = self([image[:1] for image in probe], code, way)
                quick = torch.cat([first, quick[1:]])
        except BackendProblem as problem:
            return str(problem)
        return difference(exact, quick, self.card.output.threshold)

    def _of(self, way: Way, inputs: Sequence[Tensor]) -> list[Forward]:
        """The members computed that way, made at its first use. Raises BackendProblem."""
        if way not in self._forwards:
            batch = self.card.inference.batch if isinstance(self.card.input, PlanarInput) else 1
            self._forwards[way] = [forward_of(member, way, inputs, batch) for member in self._members]
        return self._forwards[way]

    def _probability(self, logits: Tensor) -> Tensor:
        scaled = logits / self.card.output.temperature
        answer = torch.sigmoid(scaled) if self.card.output.activation == "sigmoid" else torch.softmax(scaled, 1)
        return answer[:, self._target : self._target + 1]

    def _flips(self, dimensions: int) -> list[tuple[int, ...]]:
        """Axes to mirror, one entry a way: rows and columns are the last two."""
        if self.card.inference.tta == "none":
            return [()]
        plane = (dimensions - 2, dimensions - 1)
        return [axes for count in range(3) for axes in combinations(plane, count)]

    def _label(self, code: int | None, count: int) -> list[Tensor]:
        """What a conditioned network is told beside its images; others are told nothing."""
        if code is None:
            return []
        label_BK = torch.zeros(count, self.card.modality_count, device=self.device)
        label_BK[:, code] = 1.0
        return [label_BK]
