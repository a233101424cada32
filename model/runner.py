"""A bundle's network on a device: normalised images in, probabilities of the class that is looked for out.

Here is all that stands between tensors and probabilities: number format, members of an ensemble, mirror images,
temperature, the channel of the target. What a tensor shows and where it lies is its caller's.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor, nn

from model.bundle import Bundle
from model.card import BundleProblem, Card
from model.hardware import has_bf16, placed
from model.probe import difference

log = logging.getLogger(__name__)


class Runner:
    """The networks of one bundle, warm on one device."""

    def __init__(self, bundle: Bundle, device: torch.device) -> None:
        """fp32 until `settle_precision` has found something quicker. Raises BundleProblem."""
        self.card: Card = bundle.card
        self.device = device
        self.precision: torch.dtype = torch.float32
        self._weights_path = bundle.weights_path
        self._target = self.card.output.classes.index(self.card.output.target)
        self._members = [placed(network, device) for network in bundle.networks()]

    def __call__(
        self, images: Sequence[Tensor], code: int | None = None, precision: torch.dtype | None = None
    ) -> Tensor:
        """Probabilities (B, 1, …) float32 of the target class; `images` one tensor (B, C, …) a role, normalised.

        `code`: the modality of a conditioned network. Raises BundleProblem for answers that are no numbers.
        """
        label = [self._label(code, len(images[0]))] if code is not None else []
        ways = [(member, flip) for member in self._members for flip in self._flips(images[0].ndim)]
        total: Tensor | None = None
        for member, axes in ways:
            flipped = [torch.flip(image, axes) if axes else image for image in images]
            probability = self._probability(member, [*flipped, *label], precision or self.precision)
            probability = torch.flip(probability, axes) if axes else probability
            total = probability if total is None else total.add_(probability)
        assert total is not None  # a bundle has a member
        mean = total / len(ways) if len(ways) > 1 else total
        if not bool(torch.isfinite(mean).all()):
            raise BundleProblem(f"{self._weights_path}: the network answers with values that are no numbers")
        return mean

    def settle_precision(self, probe: Sequence[Tensor], code: int | None = None) -> None:
        """bf16 where the card allows it, the device computes in it, and finds the lesions of fp32 in the probe."""
        if self.card.inference.precision == "fp32" or not has_bf16(self.device):
            return
        exact = self(probe, code, torch.float32)
        quick = self(probe, code, torch.bfloat16)
        differs = difference(exact, quick, self.card.output.threshold)
        if differs is None:
            self.precision = torch.bfloat16
        else:
            log.warning("bf16_is_not_used bundle=%s: %s", self.card.name, differs)

    def _probability(self, member: nn.Module, inputs: Sequence[Tensor], precision: torch.dtype) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=precision == torch.bfloat16):
            logits: Tensor = member(*inputs)
        scaled = logits.float() / self.card.output.temperature
        answer = torch.sigmoid(scaled) if self.card.output.activation == "sigmoid" else torch.softmax(scaled, 1)
        return answer[:, self._target : self._target + 1]

    def _flips(self, dimensions: int) -> list[tuple[int, ...]]:
        """Axes to mirror, one entry a way: rows and columns are the last two."""
        if self.card.inference.tta == "none":
            return [()]
        plane = (dimensions - 2, dimensions - 1)
        return [axes for count in range(3) for axes in combinations(plane, count)]

    def _label(self, code: int, count: int) -> Tensor:
        label_BK = torch.zeros(count, self.card.modality_count, device=self.device)
        label_BK[:, code] = 1.0
        return label_BK
