"""The inference process: `python -m model.server`. One per accelerator, so that a crash or a time-out there is a
killed child and a job with a reason, never a dead worker.

JSON lines, one request a line on stdin, one answer a line on stdout, in order:

    {"id": 1, "bundle": FOLDER, "out": FILE, "images": {ROLE: {"volume": FILE, "weighting": "ct", "phase": null}, …}}
                                     segment; the probability file is whole before the answer
    {"id": 2, "warm": [FOLDER, …]}   load engines ahead of the first study

    {"id": 1, "ok": true, "remarks": ["…"],
     "seconds": {"load": 0.0, "read": …, "place": …, "prepare": …, "forward": …, "restore": …, "write": …}}
    {"id": 1, "ok": false, "kind": "out-of-memory" | "bad-volume" | "exchange" | "bundle" | "internal", "reason": "…"}

The first line is {"ready": true, "device": "cpu"}. End of input ends the process. Logs go to stderr.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from model.bundle import load_bundle
from model.card import BundleProblem, card_digest
from model.engine import Engine, Fed, VolumeProblem
from model.exchange import ExchangeProblem, read_volume, write_probability
from model.hardware import choose_device
from model.volume import Buffer
from model.ways import BACKENDS, ways_for

log = logging.getLogger("model.server")

Answer = dict[str, Any]


class BadRequest(ValueError):
    """A line that is no request."""


class Engines:
    """One warm engine per bundle folder, loaded once and again only when the bundle on disk has changed."""

    def __init__(self, device: str, threads: int | None, backend: str = "auto") -> None:
        self._device = device
        self._backend = backend
        self._threads = threads
        self._loaded: dict[Path, Engine] = {}
        self.buffer = Buffer(np.float16)
        """For the answer to the request at hand."""

    def of(self, folder: Path) -> Engine:
        """The engine of the bundle in `folder` as it is now. Raises BundleProblem."""
        engine = self._loaded.get(folder)
        if engine is None or engine.bundle.sha256 != card_digest(folder):
            engine = Engine(load_bundle(folder), self._device, self._threads, self._backend)
            self._loaded[folder] = engine
        return engine


def serve(requests: Iterable[str], answers: IO[str], engines: Engines) -> None:
    """Answer every request until the input ends."""
    for line in requests:
        if line.strip():
            answers.write(json.dumps(answer(line, engines)) + "\n")
            answers.flush()


def answer(line: str, engines: Engines) -> Answer:
    """The answer to one line; it never raises, because the next request may well succeed."""
    request_id: Any = None
    try:
        request = _parse(line)
        request_id = request.get("id")
        found = {"seconds": _warm(request, engines)} if "warm" in request else _segment(request, engines)
    except Exception as error:
        kind = kind_of(error)
        if kind == "internal":
            log.exception("request failed")
        if kind == "out-of-memory":
            torch.cuda.empty_cache()
        return {"id": request_id, "ok": False, "kind": kind, "reason": f"{error}" or type(error).__name__}
    return {"id": request_id, "ok": True, **found}


def kind_of(error: BaseException) -> str:
    """What the parent must know to decide: try again, hold the study, or call the administrator."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error):
        return "out-of-memory"
    if isinstance(error, VolumeProblem):
        return "bad-volume"
    if isinstance(error, ExchangeProblem):
        return "exchange"
    return "bundle" if isinstance(error, BundleProblem) else "internal"


def _parse(line: str) -> Answer:
    request = json.loads(line)
    if not isinstance(request, dict):
        raise BadRequest("a request is a JSON object")
    missing = {"bundle", "images", "out"} - request.keys()
    if "warm" not in request and missing:
        raise BadRequest(f"the request lacks {', '.join(sorted(missing))}")
    return request


def _warm(request: Answer, engines: Engines) -> dict[str, float]:
    seconds = {}
    for folder in request["warm"]:
        started = time.perf_counter()
        engines.of(Path(folder))
        seconds[str(folder)] = time.perf_counter() - started
    return seconds


def _segment(request: Answer, engines: Engines) -> Answer:
    marks = [time.perf_counter()]
    engine = engines.of(Path(request["bundle"]))
    marks.append(time.perf_counter())
    images = {role: _fed(given) for role, given in request["images"].items()}
    marks.append(time.perf_counter())
    segmentation = engine.segment(images, engines.buffer)
    marks.append(time.perf_counter())
    write_probability(Path(request["out"]), segmentation.probability_DHW)
    marks.append(time.perf_counter())
    load, read, _, write = (after - before for before, after in itertools.pairwise(marks))
    seconds = {"load": load, "read": read, **segmentation.seconds, "write": write}
    return {"seconds": seconds, "remarks": list(segmentation.remarks)}


def _fed(given: Answer) -> Fed:
    return Fed(read_volume(Path(given["volume"])), given.get("weighting"), given.get("phase"))


def _take_stdout() -> IO[str]:
    """Our own handle on stdout; file descriptor 1 becomes stderr, so that no library's print breaks the protocol."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def main() -> None:
    parser = argparse.ArgumentParser(prog="model.server", description="inference process; see the module's text")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--backend", choices=BACKENDS, default="auto")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s %(message)s")
    # Ctrl-C reaches the whole process group; our parent decides, and tells us by closing stdin
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = _take_stdout()
    device = choose_device(arguments.device)
    # a back end that there is not on this device ends the process here, not each request
    ways_for(arguments.backend, device, may_round=True)
    answers.write(json.dumps({"ready": True, "device": device.type}) + "\n")
    answers.flush()
    try:
        serve(sys.stdin, answers, Engines(device.type, arguments.threads, arguments.backend))
    except BrokenPipeError:
        # the node ended while we worked; what is left in the buffer must not be tried again at our own end
        os.dup2(os.open(os.devnull, os.O_WRONLY), answers.fileno())


if __name__ == "__main__":
    main()
