"""Quicker ways of computing give the same lesions, or are not used, and say so."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from model.bundle import Bundle
from model.engine import Engine
from model.hardware import has_bf16
from model.networks import build_network
from model.openvino_backend import BackendProblem, compiled, has_openvino
from model.volume import Volume
from model.ways import EXACT, Way, ways_for

CPU = torch.device("cpu")
OPENVINO = Way("openvino", torch.float32)

needs_openvino = pytest.mark.skipif(not has_openvino(), reason="the extra `cpu` is not installed")


@needs_openvino
@pytest.mark.parametrize(
    ("network", "kwargs", "shapes"),
    [
        ("unetpp", {"width": 0.125}, [(3, 32, 32)]),
        ("cmg", {"width": 0.125}, [(3, 64, 64), (3, 64, 64)]),
        ("segresnet", {}, [(1, 16, 16, 16)]),
        ("resenc", {"width": 0.125}, [(3, 64, 64)]),
    ],
)
def test_openvino_computes_what_torch_computes_for_any_batch(
    network: str, kwargs: dict[str, float], shapes: list[tuple[int, ...]]
) -> None:
    torch.manual_seed(0)
    module = build_network(network, kwargs).eval()
    images = [torch.randn(3, *shape) for shape in shapes]
    with torch.inference_mode():
        forward = compiled(module, [image[:2] for image in images], torch.float32)
        expected = module(*images)
    assert torch.allclose(forward(images), expected, atol=1e-3)
    assert torch.allclose(forward([image[2:] for image in images]), expected[2:], atol=1e-3)


class Sorted(nn.Module):
    """Something that OpenVINO has no operation for."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.linalg.svd(images)[0]


@needs_openvino
def test_a_network_that_openvino_cannot_express_is_refused_with_the_reason() -> None:
    with pytest.raises(BackendProblem, match="svd"):
        compiled(Sorted(), [torch.rand(1, 1, 8, 8)], torch.float32)


def test_the_order_is_fixed_and_the_quickest_comes_first() -> None:
    ways = ways_for("openvino", CPU, may_round=False)
    assert ways == [OPENVINO]
    assert ways_for("eager", CPU, may_round=False) == []
    if has_bf16(CPU):
        assert [str(way) for way in ways_for("openvino", CPU, may_round=True)] == [
            "openvino bf16",
            "openvino fp32",
            "eager bf16",
        ]


@pytest.mark.parametrize("wish", ["onnx", "cuda-graph"])
def test_a_back_end_that_is_not_there_is_refused_in_words(wish: str) -> None:
    with pytest.raises(ValueError, match=wish):
        ways_for(wish, CPU, may_round=True)


@needs_openvino
def test_an_engine_takes_openvino_and_answers_the_same_bit_for_bit_after_each_start(
    untrained_bundle: Bundle, axial_volume: Callable[..., Volume]
) -> None:
    engines = [Engine(untrained_bundle, "cpu", threads=1) for _ in range(2)]
    assert [engine.way.backend for engine in engines] == ["openvino", "openvino"]
    first, second = (engine.segment(axial_volume()).probability_DHW for engine in engines)
    assert np.array_equal(first, second)
    engines[0].way = EXACT
    exact = engines[0].segment(axial_volume()).probability_DHW
    assert 0 < np.abs(first.astype(np.float32) - exact).mean() < 0.005


@needs_openvino
def test_another_answer_is_not_taken_and_the_engine_says_why(
    untrained_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("model.probe.MEAN_TOLERANCE", -1.0)  # so that no answer is near enough
    engine = Engine(untrained_bundle, "cpu", threads=1, backend="openvino")
    assert engine.way == EXACT
    assert any("openvino fp32 is not used: mean difference" in sentence for sentence in engine.refused_ways)
    assert "openvino fp32 is not used" in caplog.text


def test_without_openvino_the_engine_falls_back_and_says_so(
    untrained_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    engine = Engine(untrained_bundle, "cpu", threads=1, backend="openvino")
    assert engine.way.backend == "eager"
    assert "OpenVINO is not installed" in engine.refused_ways[0]


@needs_openvino
def test_the_processes_logging_is_left_as_it_was(untrained_bundle: Bundle) -> None:
    root = logging.getLogger()
    before = (root.level, root.filters[:], root.handlers[:])
    Engine(untrained_bundle, "cpu", threads=1, backend="openvino")
    assert (root.level, root.filters, root.handlers) == before


_WATCHED = """
import os, sys
from pathlib import Path
seen = []
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
def hear(event, arguments):
    if event.startswith("socket."):
        seen.append(event)
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITES:
        if str(arguments[0]).startswith(os.environ["HOME"]):
            seen.append(f"{event} {arguments[0]}")
sys.addaudithook(hear)
from model.bundle import load_bundle
from model.engine import Engine
engine = Engine(load_bundle(Path(sys.argv[1])), "cpu", 1, "openvino")
engine.dry_run()
if len(sys.argv) > 2:
    import socket
    socket.socket().close()
    (Path.home() / "identity").write_text("1")
descriptors = [os.readlink(entry) for entry in Path("/proc/self/fd").iterdir() if os.path.lexists(entry)]
reporters = [name for name, module in sys.modules.items() if "telemetry" in name and module is not None
             and not name.startswith("openvino.")]
print(engine.way.backend, [*seen, *(d for d in descriptors if d.startswith("socket:")), *reporters])
"""


def watched(bundle: Bundle, home: Path, *more: str) -> str:
    """What a process that loads an OpenVINO engine says of itself: back end, sockets, files written under HOME."""
    environment = {**os.environ, "HOME": str(home), "PYTHONPATH": str(Path.cwd()), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-W", "ignore", "-c", _WATCHED, str(bundle.path), *more]
    return subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True, timeout=120
    ).stdout.strip()


@needs_openvino
@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open sockets are looked up in /proc")
def test_openvino_opens_no_socket_and_writes_nothing_at_home(untrained_bundle: Bundle, tmp_path: Path) -> None:
    assert watched(untrained_bundle, tmp_path) == "openvino []"
    assert list(tmp_path.rglob("*")) == []


@needs_openvino
@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open sockets are looked up in /proc")
def test_the_watch_would_see_a_socket_and_a_file(untrained_bundle: Bundle, tmp_path: Path) -> None:
    told = watched(untrained_bundle, tmp_path, "misbehave")
    assert "socket.__new__" in told
    assert "identity" in told
