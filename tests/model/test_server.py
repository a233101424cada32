"""The inference process: one line in, one line out, warm engines, and no failure that ends it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.bundle import Bundle
from model.card import BundleProblem, card_digest
from model.engine import Engine, VolumeProblem
from model.exchange import read_probability, write_volume
from model.server import kind_of
from model.volume import Volume


class Child:
    """The server as its parent sees it."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "model.server", "--device", "cpu", "--threads", "1"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        self.hello = self._read()

    def ask(self, request: Any) -> dict[str, Any]:
        line = request if isinstance(request, str) else json.dumps(request)
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self._read()

    def end(self) -> int:
        assert self.process.stdin is not None
        self.process.stdin.close()
        code = self.process.wait(20)
        assert self.process.stdout is not None
        self.process.stdout.close()
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    child = Child()
    yield child
    child.end()


@pytest.fixture
def request_of(
    untrained_bundle: Bundle, tmp_path: Path, axial_volume: Callable[..., Volume]
) -> Callable[..., dict[str, Any]]:
    def make(request_id: int = 1, volume: str | None = None, **changes: str) -> dict[str, Any]:
        write_volume(tmp_path / "volume.npy", axial_volume())
        images = {"image": {"volume": volume or str(tmp_path / "volume.npy"), "weighting": "dwi-trace", "phase": None}}
        files = {"bundle": untrained_bundle.path, "out": tmp_path / "out.npy"}
        return {"id": request_id, "images": images, **{k: str(v) for k, v in files.items()}, **changes}

    return make


def test_it_says_that_it_is_ready_before_anything_else(child: Child) -> None:
    assert child.hello == {"ready": True, "device": "cpu"}


def test_its_answer_is_the_engines_answer(
    child: Child,
    request_of: Callable[..., dict[str, Any]],
    untrained_bundle: Bundle,
    axial_volume: Callable[..., Volume],
) -> None:
    request = request_of(5)
    answer = child.ask(request)
    assert (answer["id"], answer["ok"]) == (5, True)
    assert set(answer["seconds"]) == {"load", "read", "place", "prepare", "forward", "restore", "write"}
    expected = Engine(untrained_bundle, "cpu", threads=1).segment(axial_volume()).probability_DHW
    assert np.array_equal(read_probability(Path(request["out"])), expected)


def test_a_warmed_bundle_is_not_loaded_again(
    child: Child, request_of: Callable[..., dict[str, Any]], untrained_bundle: Bundle, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(untrained_bundle.path, tmp_path / "warmed"))
    assert child.ask({"id": 1, "warm": [str(copy)]})["ok"]
    (copy / "weights.safetensors").unlink()
    assert child.ask(request_of(bundle=str(copy)))["ok"]


def test_a_bundle_that_changed_on_disk_is_loaded_again(
    child: Child, request_of: Callable[..., dict[str, Any]], untrained_bundle: Bundle, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(untrained_bundle.path, tmp_path / "copy"))
    first = request_of(bundle=str(copy))
    assert child.ask(first)["ok"]
    cold = np.array(read_probability(Path(first["out"])))
    card = copy / "card.json"
    card.write_text(card.read_text().replace('"temperature": 1.0', '"temperature": 3.0'))
    assert card_digest(copy) != untrained_bundle.sha256
    assert child.ask(first)["ok"]
    assert not np.array_equal(read_probability(Path(first["out"])), cold)


@pytest.mark.parametrize(
    ("changes", "kind", "reason"),
    [
        ({"bundle": "/nowhere"}, "bundle", "cannot be read"),
        ({"volume": "/nowhere.npy"}, "exchange", "nowhere.npy"),
        ({"out": "/nowhere/out.npy"}, "internal", "nowhere"),
    ],
)
def test_a_failure_is_an_answer_with_its_kind_and_the_next_request_is_served(
    child: Child, request_of: Callable[..., dict[str, Any]], changes: dict[str, str], kind: str, reason: str
) -> None:
    answer = child.ask(request_of(9, **changes))
    assert (answer["id"], answer["ok"], answer["kind"]) == (9, False, kind)
    assert reason in answer["reason"]
    assert child.ask(request_of())["ok"]


def test_an_image_that_the_bundle_does_not_read_is_refused(
    child: Child, request_of: Callable[..., dict[str, Any]]
) -> None:
    request = request_of()
    request["images"]["image"]["weighting"] = "t2"
    answer = child.ask(request)
    assert (answer["kind"], "takes no t2" in answer["reason"]) == ("bad-volume", True)


def test_a_constant_volume_is_a_bad_volume(
    child: Child, request_of: Callable[..., dict[str, Any]], axial_volume: Callable[..., Volume]
) -> None:
    request = request_of()
    flat = axial_volume()
    write_volume(Path(request["images"]["image"]["volume"]), flat.with_array(np.zeros_like(flat.array_DHW)))
    answer = child.ask(request)
    assert (answer["kind"], "same value" in answer["reason"]) == ("bad-volume", True)
    assert not Path(request["out"]).exists()


@pytest.mark.parametrize("line", ["not json", "[]", '{"id": 3}'])
def test_a_line_that_is_no_request_gets_an_answer(child: Child, line: str) -> None:
    assert child.ask(line)["kind"] == "internal"


def test_it_ends_with_its_input_and_ctrl_c_does_not_end_it(request_of: Callable[..., dict[str, Any]]) -> None:
    child = Child()
    child.process.send_signal(signal.SIGINT)
    assert child.ask(request_of())["ok"]
    assert child.end() == 0


def test_it_ends_quietly_when_the_node_has_gone_while_it_worked(request_of: Callable[..., dict[str, Any]]) -> None:
    child = Child()
    stdin, stdout, stderr = child.process.stdin, child.process.stdout, child.process.stderr
    assert stdin is not None
    assert stdout is not None
    assert stderr is not None
    stdout.close()
    stdin.write(json.dumps(request_of()) + "\n")
    stdin.close()
    assert "Error" not in stderr.read()
    stderr.close()
    assert child.process.wait(20) == 0


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (MemoryError(), "out-of-memory"),
        (torch.OutOfMemoryError("CUDA out of memory"), "out-of-memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), "out-of-memory"),
        (VolumeProblem("flat"), "bad-volume"),
        (BundleProblem("altered"), "bundle"),
        (RuntimeError("CUDA error"), "internal"),
    ],
)
def test_the_kind_of_a_failure_decides_what_the_parent_does(error: Exception, kind: str) -> None:
    assert kind_of(error) == kind
