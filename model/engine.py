"""The engine: a bundle loaded once, volumes in, lesion probabilities on the volume's own grid out.

Everything about the input is in the card; the engine speaks arrays only. Same volume, same bundle, same machine:
the same answer, bit for bit.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from model.bundle import Bundle
from model.canonical import VolumeProblem
from model.card import BundleProblem, Card, InputSpec
from model.preprocess import Intake, intake
from model.volume import Buffer, Float64, Half, Volume

__all__ = ["Engine", "Segmentation", "VolumeProblem"]

_PROBE_TOLERANCE = 0.005
_PROBE_BATCH = 2


@dataclass(frozen=True)
class Segmentation:
    """Lesion probability per voxel, float16 in [0, 1], on the input volume's grid and in its array order."""

    probability_DHW: Half
    affine_lps_mm: Float64
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time of `prepare`, `forward` and `restore`."""


class Engine:
    """One bundle on one device. Loading warms it up; not for use by two threads at once."""

    def __init__(self, bundle: Bundle, device: str = "auto", threads: int | None = None) -> None:
        """`device`: auto, cpu or cuda. `threads`: CPU threads for the whole process. Raises BundleProblem."""
        if threads is not None:
            torch.set_num_threads(threads)
        # the same kernel for the same shape every time
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
        self.bundle = bundle
        self.card: Card = bundle.card
        self.device = choose_device(device)
        network = bundle.network().to(self.device)
        # torch's stub of Module.to lacks memory_format
        self._network: nn.Module = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._mean = torch.tensor(self.card.input.mean, device=self.device).view(1, -1, 1, 1)
        self._std = torch.tensor(self.card.input.std, device=self.device).view(1, -1, 1, 1)
        self.precision: torch.dtype = torch.float32
        self.precision = self._choose_precision()
        self.dry_run()

    def segment(self, volume: Volume, buffer: Buffer | None = None) -> Segmentation:
        """Probabilities of `volume`, in memory of `buffer` if given. Raises VolumeProblem for one that is unfit."""
        spec, seconds = self.card.input, dict[str, float]()
        with torch.inference_mode():
            with _timed(seconds, "prepare", self.device):
                taken = intake(volume, spec)
                pictures_D1HW = self._pictures(taken)
            with _timed(seconds, "forward", self.device):
                maps_D1HW = self._probabilities(pictures_D1HW)
            with _timed(seconds, "restore", self.device):
                probability_DHW = (buffer or Buffer(np.float16)).take(volume.array_DHW.shape)
                self._restore(maps_D1HW, taken, taken.turn.apply(probability_DHW))
        return Segmentation(probability_DHW, volume.affine_lps_mm, seconds)

    def dry_run(self) -> float:
        """Seconds of one inference on noise: says that weights, device and memory work together."""
        started = time.perf_counter()
        spec = self.card.input
        slices = max(spec.minimum_slices, 2 * spec.context + 1)
        noise_DHW = np.random.default_rng(0).normal(100.0, 40.0, (slices, spec.size, spec.size)).astype(np.float32)
        self.segment(Volume(noise_DHW, np.diag([5.0, 1.0, 1.0, 1.0])[[2, 1, 0, 3]]))
        return time.perf_counter() - started

    def _pictures(self, taken: Intake) -> Tensor:
        """All slices as the network's pictures in [0, 1], (D, 1, size, size)."""
        size = self.card.input.size
        parts = [
            taken.slices(first, last, size, self.device) for first, last in self._batches(len(taken.canonical_DHW))
        ]
        return torch.cat(parts)

    def _probabilities(self, pictures_D1HW: Tensor) -> Tensor:
        channels_DCHW = with_context(pictures_D1HW, self.card.input)
        parts = [self._forward(channels_DCHW[first:last]) for first, last in self._batches(len(channels_DCHW))]
        maps_D1HW = torch.cat(parts)
        if not bool(torch.isfinite(maps_D1HW).all()):
            raise BundleProblem(f"{self.bundle.weights_path}: the network answers with values that are no numbers")
        return maps_D1HW

    def _forward(self, images_BCHW: Tensor, precision: torch.dtype | None = None) -> Tensor:
        """Probabilities (B, 1, size, size) in float32 of images in [0, 1]."""
        precision = precision or self.precision
        normal = ((images_BCHW - self._mean) / self._std).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=precision == torch.bfloat16):
            logits_BKHW = self._network(normal)
        return torch.sigmoid(logits_BKHW.float() / self.card.output.temperature)

    def _restore(self, maps_D1HW: Tensor, taken: Intake, canonical_DHW: Half) -> None:
        """Write the maps on the native matrix into `canonical_DHW`, a view of the answer."""
        for first, last in self._batches(len(maps_D1HW)):
            canonical_DHW[first:last] = taken.framing.back(maps_D1HW[first:last]).half()[:, 0].cpu().numpy()

    def _batches(self, count: int) -> Iterator[tuple[int, int]]:
        batch = self.card.inference.batch
        return ((first, min(first + batch, count)) for first in range(0, count, batch))

    def _choose_precision(self) -> torch.dtype:
        """bf16 where the card allows it, the device computes in it, and a probe agrees with fp32; else fp32."""
        if self.card.inference.precision == "fp32" or not has_bf16(self.device):
            return torch.float32
        with torch.inference_mode():
            probe = probe_images(self.card.input).to(self.device)
            exact = self._forward(probe, torch.float32)
            quick = self._forward(probe, torch.bfloat16)
            difference = float((exact - quick).abs().mean())
        # a comparison that is false for NaN too
        return torch.bfloat16 if difference <= _PROBE_TOLERANCE else torch.float32


def choose_device(wish: str) -> torch.device:
    """The device for `auto`, `cpu` or `cuda`. Raises ValueError where CUDA is asked for and absent."""
    if wish == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if wish == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is cuda, but this machine or this torch has no CUDA; write cpu or auto")
    return torch.device(wish)


def has_bf16(device: torch.device) -> bool:
    """The device multiplies bf16 in hardware; emulated, it would be slower than fp32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    abilities = torch.cpu.get_capabilities()
    return bool(abilities.get("avx512_bf16") or abilities.get("amx_bf16"))


def with_context(pictures_D1HW: Tensor, spec: InputSpec) -> Tensor:
    """Channels of each slice: the slice replicated, or with its neighbours (the outermost repeated at the ends)."""
    if spec.context == 0:
        return pictures_D1HW.expand(-1, spec.channels, -1, -1)
    last = len(pictures_D1HW) - 1
    neighbours = torch.arange(-spec.context, spec.context + 1)
    rows = (torch.arange(last + 1)[:, None] + neighbours).clamp(0, last).to(pictures_D1HW.device)
    return pictures_D1HW[rows, 0]


def probe_images(spec: InputSpec) -> Tensor:
    """A fixed picture with smooth bright and dark patches and noise, (2, channels, size, size) in [0, 1]."""
    generator = torch.Generator().manual_seed(0)
    patches = torch.rand((_PROBE_BATCH, 1, 8, 8), generator=generator)
    smooth = nn.functional.interpolate(patches, (spec.size, spec.size), mode="bicubic", align_corners=False)
    noise = 0.05 * torch.randn(smooth.shape, generator=generator)
    return (smooth + noise).clamp(0, 1).expand(-1, spec.channels, -1, -1)


@contextmanager
def _timed(seconds: dict[str, float], step: str, device: torch.device) -> Iterator[None]:
    started = time.perf_counter()
    yield
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    seconds[step] = time.perf_counter() - started
