"""The ways to compute a network on a device, quickest first, and which of them may be tried.

The order is fixed and not timed at load: the same machine must give the same answer after every start, and a timing
on a busy machine does not. It was measured by `bench.forward`. Whether a way is used is the probe's word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from model.cuda_backend import recorded
from model.hardware import has_bf16
from model.openvino_backend import Forward, compiled, has_openvino

Backend = Literal["eager", "openvino", "cuda-graph"]
BACKENDS = ("auto", "eager", "openvino", "cuda-graph")
"""What may be asked for. `auto` tries OpenVINO on a CPU where it is installed, and nothing but torch on CUDA."""


@dataclass(frozen=True)
class Way:
    """Who computes, and in which number format."""

    backend: Backend
    precision: torch.dtype

    def __str__(self) -> str:
        return f"{self.backend} {'bf16' if self.precision == torch.bfloat16 else 'fp32'}"


EXACT = Way("eager", torch.float32)
"""What the others are compared with."""


def ways_for(wish: str, device: torch.device, *, may_round: bool) -> list[Way]:
    """Ways to try before `EXACT`, quickest first; `may_round` admits bf16 where the device has it.

    Raises ValueError for a back end that there is not, or not on this device.
    """
    if wish not in BACKENDS:
        raise ValueError(f"there is no back end {wish!r}; write one of {', '.join(BACKENDS)}")
    compiler: Backend = "openvino" if device.type == "cpu" else "cuda-graph"
    if wish not in ("auto", "eager", compiler):
        raise ValueError(f"the back end {wish} does not run on {device.type}; write auto")
    formats = [torch.bfloat16] if may_round and has_bf16(device) else []
    backends: list[Backend] = ["eager"]
    if wish == compiler or (wish == "auto" and compiler == "openvino" and has_openvino()):
        backends.insert(0, compiler)
    tried = [Way(backend, precision) for backend in backends for precision in (*formats, torch.float32)]
    return [way for way in tried if way != EXACT]


def forward_of(network: nn.Module, way: Way, example: Sequence[Tensor], batch: int) -> Forward:
    """The network on its device, computed that way, for the example's sides; `batch` is how many rows it is mostly
    given. Raises BackendProblem."""
    if way.backend == "openvino":
        return compiled(network, example, way.precision)
    if way.backend == "cuda-graph":
        return recorded(_eager(network, way.precision, remembers=False), example, batch)
    return _eager(network, way.precision)


def _eager(network: nn.Module, precision: torch.dtype, *, remembers: bool = True) -> Forward:
    """`remembers`: weights stay in bf16 from one layer's call to the next, which a recorded graph must not do."""

    def forward(inputs: Sequence[Tensor]) -> Tensor:
        is_bf16 = precision == torch.bfloat16
        with torch.autocast(inputs[0].device.type, torch.bfloat16, enabled=is_bf16, cache_enabled=remembers):
            logits: Tensor = network(*inputs)
        return logits.float()

    return forward
