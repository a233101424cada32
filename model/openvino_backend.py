"""A network compiled for the CPU by OpenVINO, from the torch module itself, in memory.

Part of the extra `cpu`. Converting takes 1 to 5 s a network; nothing is kept on disk. OpenVINO's Python package would
report its use over the network and write an identity below the home folder: it never gets to import what does that.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

Forward = Callable[[Sequence[Tensor]], Tensor]
"""Tensors in the order of the network's arguments → logits float32."""


class BackendProblem(Exception):
    """A network cannot be computed that way here; the message says why."""


def has_openvino() -> bool:
    """The extra `cpu` is installed."""
    return find_spec("openvino") is not None


def compiled(network: nn.Module, example: Sequence[Tensor], precision: torch.dtype) -> Forward:
    """`network` for tensors of the example's sides and any batch size, on as many threads as torch has.

    `precision`: torch.float32, or torch.bfloat16 where the CPU has it. Raises BackendProblem: OpenVINO is not
    installed, or cannot express the network.
    """
    openvino = _openvino()
    try:
        with _logging_kept():
            graph = openvino.convert_model(_traced(network, example), example_input=tuple(example))
        sides = zip(graph.inputs, example, strict=True)
        graph.reshape({port: openvino.PartialShape([-1, *image.shape[1:]]) for port, image in sides})
        program = _core().compile_model(graph, "CPU", _settings(precision))
    except (RuntimeError, ValueError, TypeError, openvino.frontend.OpConversionFailure) as error:
        raise BackendProblem(f"OpenVINO cannot convert the network: {_told(error)}") from error

    def forward(inputs: Sequence[Tensor]) -> Tensor:
        arrays = [image.contiguous().numpy() for image in inputs]
        return torch.from_numpy(program(arrays, share_inputs=True, share_outputs=False)[0])

    return forward


def _traced(network: nn.Module, example: Sequence[Tensor]) -> Any:
    with warnings.catch_warnings():
        # the tracer warns of sizes that it takes for constant: sides are, and batches are compared by the caller
        warnings.simplefilter("ignore")
        return torch.jit.trace(network, tuple(example), check_trace=False)  # type: ignore[no-untyped-call]  # its stub


@contextmanager
def _logging_kept() -> Iterator[None]:
    """OpenVINO's converter sets the process's logging to its own liking; that is not its to decide."""
    root = logging.getLogger()
    level, filters, handlers = root.level, root.filters[:], root.handlers[:]
    try:
        yield
    finally:
        root.setLevel(level)
        root.filters, root.handlers = filters, handlers


def _settings(precision: torch.dtype) -> dict[str, Any]:
    """One request at a time, on our threads, wherever the system lets them run."""
    return {
        "INFERENCE_PRECISION_HINT": "bf16" if precision == torch.bfloat16 else "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": 1,
        # several engines on one machine must not crowd on the same cores
        "ENABLE_CPU_PINNING": False,
    }


@cache
def _core() -> Any:
    return _openvino().Core()


def _openvino() -> ModuleType:
    # an entry of None makes the import fail, which OpenVINO provides for
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # what the import system does with None
    try:
        import openvino
        import openvino.frontend
    except ImportError as error:
        raise BackendProblem(f"OpenVINO is not installed ({error}); `make install EXTRAS=cpu` brings it") from error
    module: ModuleType = openvino
    return module


def _told(error: Exception) -> str:
    """The line that names an operation, else the last: OpenVINO's messages begin with places in its own source."""
    lines = [line.strip("- ") for line in str(error).splitlines() if line.strip("- ")]
    return next((line for line in lines if "conversion rule" in line), (lines or [type(error).__name__])[-1])
