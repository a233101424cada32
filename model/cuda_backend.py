"""A network on CUDA as one recorded graph: hundreds of kernels are then started by one call.

A graph holds for one shape. Fewer slices than a batch leave old ones in the rows behind them, whose answers nobody
reads. Not measured on a GPU yet: it is used where the configuration asks for it, and never by `auto`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from model.openvino_backend import BackendProblem, Forward

_WARM_UPS = 3
"""Runs before recording, in which libraries choose their kernels and take their memory."""


def recorded(forward: Forward, example: Sequence[Tensor], batch: int) -> Forward:
    """`forward` recorded for the example's sides and `batch` rows. Raises BackendProblem where CUDA cannot."""
    stills = [image.new_zeros(batch, *image.shape[1:]) for image in example]
    try:
        replay, answer = _record(lambda: forward(stills), stills[0].device)
    except RuntimeError as error:
        raise BackendProblem(f"CUDA cannot record the network as a graph: {error}") from error

    def run(inputs: Sequence[Tensor]) -> Tensor:
        rows = len(inputs[0])
        if rows > batch:
            return torch.cat([run([image[:batch] for image in inputs]), run([image[batch:] for image in inputs])])
        for still, image in zip(stills, inputs, strict=True):
            still[:rows].copy_(image, non_blocking=True)
        replay()
        return answer[:rows].clone()

    return run


def _record(step: Callable[[], Tensor], device: torch.device) -> tuple[Callable[[], None], Tensor]:
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # its stub
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UPS):
            step()
    torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        answer = step()
    return graph.replay, answer
