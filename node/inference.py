"""The engine child: one process per accelerator that gets paths and answers with paths.

A network that hangs, runs out of memory or crashes is a killed child and a job with a reason; the worker that
holds jobs and deliveries lives on. The child (`python -m model.server`) keeps its engines warm.
"""

from __future__ import annotations

import json
import logging
import queue
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from node.domain import GivenImage, Inference
from node.errors import InferenceError, VolumeRefusal

log = logging.getLogger(__name__)


class InferenceRefusal(InferenceError):
    """The engine cannot use the bundle: asking again would not help."""

    retry = False


# kinds of the child's own answers that the same input would only repeat
_REFUSALS: dict[str, type[InferenceError]] = {"bad-volume": VolumeRefusal, "bundle": InferenceRefusal}


class EngineProcess:
    """Handle of the child; it is started at the first request and again after it was lost. Safe to share by threads."""

    def __init__(self, *, device: str, threads: int | None, timeout_s: float, backend: str = "auto") -> None:
        self._command = [sys.executable, "-m", "model.server", "--device", device, "--backend", backend]
        if threads is not None:
            self._command += ["--threads", str(threads)]
        self._timeout_s = timeout_s
        self._turn = threading.Lock()
        self._child: subprocess.Popen[str] | None = None
        self._answers: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._next_id = 0

    def __enter__(self) -> EngineProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """Process id of the running child, None between children."""
        child = self._child
        return child.pid if child is not None and child.poll() is None else None

    def warm(self, bundles: Sequence[Path]) -> None:
        """Load these bundles' engines now, so that the first study does not wait. Raises InferenceError."""
        self._ask({"warm": [str(bundle) for bundle in bundles]})

    def segment(self, bundle: Path, images: Mapping[str, GivenImage], out: Path) -> Inference:
        """Run the bundle's network on volume files, one a role; the probability lies at `out` when this returns.

        Raises InferenceError (worth a retry: lost child, time-out, memory) or VolumeRefusal or InferenceRefusal (the
        images or the bundle cannot be used).
        """
        given = {role: {**asdict(image), "volume": str(image.volume)} for role, image in images.items()}
        answer = self._ask({"bundle": str(bundle), "images": given, "out": str(out)})
        seconds = {str(step): float(value) for step, value in answer.get("seconds", {}).items()}
        return Inference(seconds, tuple(map(str, answer.get("remarks", ()))))

    def close(self) -> None:
        """End the child: it leaves at the end of its input, or is killed after 5 s."""
        with self._turn:
            self._end(grace_s=5.0)

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        with self._turn:
            self._next_id += 1
            request_id = str(self._next_id)
            self._send({"id": request_id, **request})
            answer = self._receive(request_id)
        if answer.get("ok"):
            return answer
        kind = str(answer.get("kind", "internal"))
        reason = str(answer.get("reason", "no reason given"))
        raise _REFUSALS.get(kind, InferenceError)(reason if kind == "bad-volume" else f"{kind}: {reason}")

    def _send(self, request: dict[str, Any]) -> None:
        stdin = self._running().stdin
        assert stdin is not None  # opened with a pipe
        try:
            stdin.write(json.dumps(request) + "\n")
            stdin.flush()
        except OSError as error:
            code = self._end(grace_s=0.0)
            raise InferenceError(f"the engine process ended with code {code} before it took the request") from error

    def _receive(self, request_id: str) -> dict[str, Any]:
        while True:
            try:
                line = self._answers.get(timeout=self._timeout_s)
            except queue.Empty:
                self._end(grace_s=0.0)
                raise InferenceError(f"no answer within {self._timeout_s:g} s; the engine process was ended") from None
            if line is None:
                code = self._end(grace_s=1.0)
                raise InferenceError(f"the engine process ended with code {code} while it worked")
            answer = json.loads(line)
            if answer.get("id") == request_id:
                return dict(answer)

    def _running(self) -> subprocess.Popen[str]:
        if self._child is None or self._child.poll() is not None:
            self._end(grace_s=0.0)
            self._answers = queue.SimpleQueue()
            self._child = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            assert self._child.stdout is not None  # opened with a pipe
            threading.Thread(
                target=_pass_on, args=(self._child.stdout, self._answers), name="engine-answers", daemon=True
            ).start()
            log.info("engine_started pid=%d", self._child.pid)
        return self._child

    def _end(self, grace_s: float) -> int | None:
        child, self._child = self._child, None
        if child is None:
            return None
        if child.stdin is not None:
            try:
                child.stdin.close()
            except OSError:
                log.debug("engine_stdin_was_closed pid=%d", child.pid)
        try:
            return child.wait(timeout=grace_s) if grace_s else _kill(child)
        except subprocess.TimeoutExpired:
            return _kill(child)


def _kill(child: subprocess.Popen[str]) -> int:
    if child.poll() is None:
        child.kill()
    return child.wait()


def _pass_on(stdout: IO[str], answers: queue.SimpleQueue[str | None]) -> None:
    with stdout:
        for line in stdout:
            answers.put(line)
    answers.put(None)
