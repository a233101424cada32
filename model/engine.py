"""The engine: a bundle loaded once, images in, lesion probabilities on the primary image's own grid out.

Everything about the input is in the card; the engine speaks arrays only. Same images, same bundle, same machine: the
same answer, bit for bit.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from model.alignment import onto_grid, registration_remarks, shared_extent
from model.bundle import Bundle
from model.canonical import VolumeProblem
from model.card import AnyInput, Card, PlanarInput
from model.hardware import choose_device
from model.input_check import remarks_on
from model.liver_mask import liver_of
from model.pipeline import Pipeline, Placed, Stopwatch, answer
from model.planar import PlanarPipeline
from model.probe import read_probe
from model.runner import Runner
from model.volume import Buffer, Float64, Half, Volume
from model.ways import Way

__all__ = ["Engine", "Fed", "Segmentation", "VolumeProblem"]

_LEAST_SHARED_EXTENT = 0.5
_WIDE_SPREAD = 0.25


@dataclass(frozen=True)
class Fed:
    """One role's image, and what kind it is where the role takes several: words of the card, None for its only one."""

    volume: Volume
    weighting: str | None = None
    phase: str | None = None


@dataclass(frozen=True)
class Segmentation:
    """Probability of the target per voxel, float16 in [0, 1], on the primary volume's grid and in its array order."""

    probability_DHW: Half
    affine_lps_mm: Float64
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time of `place`, `prepare`, `forward` and `restore`."""
    remarks: tuple[str, ...] = ()
    """What a reader of the result should know: sentences."""


class Engine:
    """One bundle on one device. Loading warms it up; not for use by two threads at once."""

    def __init__(self, bundle: Bundle, device: str = "auto", threads: int | None = None, backend: str = "auto") -> None:
        """`device`: auto, cpu or cuda. `threads`: CPU threads for the whole process. `backend`: one of
        `model.ways.BACKENDS`. Raises BundleProblem, or ValueError for what there is not on this machine."""
        if threads is not None:
            torch.set_num_threads(threads)
        # the same kernel for the same shape every time
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
        self.bundle = bundle
        self.card: Card = bundle.card
        self.device = choose_device(device)
        has_liver = "liver" in self.card.companions
        self._liver = Engine(bundle.companion("liver"), device, backend=backend) if has_liver else None
        self._runner = Runner(bundle, self.device)
        self._pipeline = _pipeline(self._runner)
        self._probe = self._pipeline.probe(read_probe(bundle.path, self.card))
        with torch.inference_mode():
            self._runner.settle(self._probe, self._codes(self.card.input)[0], backend)
        self.dry_run()

    @property
    def way(self) -> Way:
        """How the network is computed; may be set for a comparison."""
        return self._runner.way

    @way.setter
    def way(self, wanted: Way) -> None:
        self._runner.way = wanted

    @property
    def refused_ways(self) -> tuple[str, ...]:
        """Which quicker ways were not taken, and why: sentences."""
        return self._runner.refused

    def segment(self, images: Volume | Mapping[str, Fed], buffer: Buffer | None = None) -> Segmentation:
        """Probabilities of one study's images, one a role, in memory of `buffer` if given; the probabilities lie on
        the grid of the card's first role. Raises VolumeProblem for images that are unfit."""
        given = self._given(images)
        remarks = [r for role, fed in given.items() for r in remarks_on(fed.volume, self._spec(role, fed), self.card)]
        return self._segment(given, buffer, remarks)

    def dry_run(self) -> float:
        """Seconds of one inference on the probe: says that weights, device and memory work together."""
        started = time.perf_counter()
        with torch.inference_mode():
            for code in self._codes(self.card.input):
                self._runner(self._probe, code)
        return time.perf_counter() - started

    def place(self, images: Volume | Mapping[str, Fed]) -> list[Placed]:
        """Each role's image on the primary grid as the network is to see it, in its order. Raises VolumeProblem."""
        given = self._given(images)
        return self._placed(given, given[self.card.roles[0]].volume)

    def _segment(self, given: Mapping[str, Fed], buffer: Buffer | None, remarks: list[str]) -> Segmentation:
        watch = Stopwatch(self.device)
        primary = given[self.card.roles[0]].volume
        with torch.inference_mode():
            with watch.of("place"):
                placed = self._placed(given, primary)
            remarks += registration_remarks(placed, self.card.inference.registration)
            probability_DHW: Half = (buffer or Buffer(np.float16)).take(primary.array_DHW.shape)
            spread = answer(self._pipeline, placed, self._codes(placed[0].spec), probability_DHW, watch)
        if placed[0].inside_DHW is not None:
            probability_DHW *= placed[0].inside_DHW
        if spread > _WIDE_SPREAD:
            remarks.append(f"the sequence is not told, and the network's answers depend on it: by up to {spread:.2f}")
        return Segmentation(probability_DHW, primary.affine_lps_mm, watch.seconds, tuple(remarks))

    def _given(self, images: Volume | Mapping[str, Fed]) -> Mapping[str, Fed]:
        if isinstance(images, Volume):
            images = {self.card.roles[0]: Fed(images)}
        if set(images) != set(self.card.roles):
            raise VolumeProblem(
                f"{self.card.name} reads {', '.join(self.card.roles)}; it was given {', '.join(images) or 'nothing'}"
            )
        return {role: images[role] for role in self.card.roles}

    def _spec(self, role: str, fed: Fed) -> AnyInput:
        try:
            return self.card.spec(role, fed.weighting, fed.phase)
        except KeyError as error:
            raise VolumeProblem(str(error.args[0])) from error

    def _placed(self, given: Mapping[str, Fed], primary: Volume) -> list[Placed]:
        """Each role's image on the primary grid, in the network's order."""
        placed = []
        for role, fed in given.items():
            spec = self._spec(role, fed)
            volume, gain = fed.volume, None
            if fed.volume is not primary:
                volume, gain = _aligned(role, fed.volume, primary, self.card.inference.registration)
            placed.append(Placed(spec, volume, self._inside(spec, volume), gain))
        return placed

    def _inside(self, spec: AnyInput, volume: Volume) -> NDArray[np.bool_] | None:
        """Where the network may look in a volume: the liver, where its input asks for it."""
        if spec.within == "field" or self._liver is None:
            return None
        liver = self._liver
        found = liver.segment(volume)
        return liver_of(found.probability_DHW, volume, liver.card.output.threshold, spec.margin_mm)

    def _codes(self, spec: AnyInput) -> Sequence[int | None]:
        """The labels to ask a conditioned network for: the spec's own, or all where nobody knows it."""
        if spec.modality_code is not None or not self.card.modality_count:
            return [spec.modality_code]
        return range(self.card.modality_count)


def _pipeline(runner: Runner) -> Pipeline[Any]:
    if isinstance(runner.card.input, PlanarInput):
        return PlanarPipeline(runner)
    # brings in MONAI, which takes seconds: only a bundle for volumes pays for it
    from model.volumetric import VolumePipeline

    return VolumePipeline(runner)


def _aligned(role: str, moving: Volume, primary: Volume, registration: str) -> tuple[Volume, float | None]:
    """On the primary grid, and by how much registration brought it nearer; None without one.

    Raises VolumeProblem where the two images hardly show the same part of the patient.
    """
    share = shared_extent(moving, primary)
    if share < _LEAST_SHARED_EXTENT:
        raise VolumeProblem(
            f"the image for {role} covers {share:.0%} of the primary image's slices; at least "
            f"{_LEAST_SHARED_EXTENT:.0%} are needed"
        )
    there = onto_grid(moving, primary)
    if registration == "none":
        return there, None
    # ITK takes a while to import: only a bundle whose card asks for it pays for it
    from model.registration import register

    found = register(there, primary)
    return (found.moved(there) if found.gain > 0 else there), found.gain
