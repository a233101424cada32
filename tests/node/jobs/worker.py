"""Workers as processes of their own, for tests that kill them. Real `Jobs`; their work is lines in a file.

    python worker.py VERSION

is a nursery of one pipeline version: it imports everything once (a second and a half), then forks a worker for each
line `{"config": …, "workshop": …, "index": …}` on stdin and answers with its pid; `{"poll": pid}` is answered with
the exit code, or null while it lives.

What a worker is to do stands in its workshop, so that a test can change it while the worker runs: `hold-<step>`
makes our work in a step wait, `die-<step>` kills the process in the middle of it, `die-before-<step>` (holding a
job's id) kills it once between two steps, `answer-<step>.json` is a step's answer, `changed` says that the series
changed, `lost-<peer>` why a peer has the study no more, `peer-<name>` is alive, dead, slow or refuses. Each call is
appended to `calls` as `pid step subject what`.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import node.domain

# before node.jobs and its kin read it
node.domain.PIPELINE_VERSION = sys.argv[1]

from node.config import load_config  # noqa: E402 - see above
from node.database import Database  # noqa: E402 - see above
from node.errors import ConfigurationError  # noqa: E402 - see above
from node.jobs import Jobs  # noqa: E402 - see above
from node.jobs_steps import Steps  # noqa: E402 - see above
from node.jobs_sweep import Pace  # noqa: E402 - see above
from node.peers.answers import CommitmentAnswer  # noqa: E402 - see above


class Workshop:
    """The callables that `Jobs` is given."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def segment(self, order: node.domain.JobOrder, folder: Path) -> Mapping[str, Any]:
        self._work("segment", order.job_id)
        return self._answer("segment", order.job_id)

    def encode(self, order: node.domain.JobOrder, folder: Path) -> Mapping[str, Any]:
        self._work("encode", order.job_id)
        answer = self._answer("encode", order.job_id)
        objects = [self._write(order, kind, folder / f"{kind}.dcm") for kind in ("seg", "sr")]
        return {"objects": objects, "summary": {"lesion_count": 2}, **answer}

    def refuse(self, order: node.domain.JobOrder, folder: Path, reason: str) -> Mapping[str, Any]:
        self._work("refuse", order.job_id)
        objects = [self._write(order, "refusal", folder / "refusal.dcm")]
        return {"objects": objects, "summary": {"not_analysed": reason}, **self._answer("refuse", order.job_id)}

    def deliver(self, peer: str, objects: Sequence[node.domain.ResultObject]) -> node.domain.Receipt:
        self._call("deliver", peer, "begin")
        manner = self._manner(peer)
        while manner == "slow":
            time.sleep(0.01)
            manner = self._manner(peer)
        sent = ",".join(f"{item.sop_instance_uid}={_digest(item.path)}" for item in objects)
        self._call("deliver", peer, f"end:{manner}:{sent}")
        if manner == "dead":
            return node.domain.Receipt(False, True, f"{peer} does not answer")
        status = 0xA900 if manner == "refuses" else 0x0000
        statuses = {item.sop_instance_uid: status for item in objects}
        stored = () if status else tuple(statuses)
        return node.domain.Receipt(status == 0, False, f"{peer} {manner}", statuses, stored)

    def request_commitment(
        self, peer: str, objects: Sequence[node.domain.ResultObject], transaction_uid: str
    ) -> CommitmentAnswer:
        self._call("request", peer, transaction_uid)
        return CommitmentAnswer(node.domain.Receipt(True, False, ""))

    def whereabouts(self, peer: str, objects: Sequence[node.domain.ResultObject]) -> str | None:
        self._call("whereabouts", peer, "asked")
        file = self.folder / f"lost-{peer}"
        return file.read_text() if file.exists() else None

    def is_current(self, order: node.domain.JobOrder) -> bool:
        return not (self.folder / "changed").exists()

    def _work(self, step: str, subject: str) -> None:
        self._call(step, subject, "begin")
        while (self.folder / f"hold-{step}").exists():
            time.sleep(0.01)
        if (self.folder / f"die-{step}").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        self._call(step, subject, "end")

    def _answer(self, step: str, job_id: str) -> dict[str, Any]:
        named = self.folder / f"answer-{step}-{job_id}.json"
        file = named if named.exists() else self.folder / f"answer-{step}.json"
        done = {"status": "done", "retry": False, "reason": ""}
        return {**done, **json.loads(file.read_text())} if file.exists() else done

    def _manner(self, peer: str) -> str:
        file = self.folder / f"peer-{peer}"
        return file.read_text() if file.exists() else "alive"

    def _call(self, step: str, subject: str, what: str) -> None:
        descriptor = os.open(self.folder / "calls", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        os.write(descriptor, f"{os.getpid()} {step} {subject} {what}\n".encode())
        os.close(descriptor)

    def _write(self, order: node.domain.JobOrder, kind: str, path: Path) -> dict[str, str]:
        # other bytes at each writing, as a time of day in a header would make them
        path.write_bytes(f"{kind} of {order.job_id} written at {time.time_ns()}".encode())
        number = int.from_bytes(hashlib.sha256(f"{kind} {order.job_id}".encode()).digest()[:12], "big")
        return {
            "kind": kind,
            "sop_class_uid": "1.2.840.10008.5.1.4.1.1.66.4",
            "sop_instance_uid": f"2.25.{number}",
            "path": str(path),
            "sha256": _digest(path),
        }


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def dying_before(step: str, function: Callable[..., Any], workshop: Path) -> Callable[..., Any]:
    """The step, but for the first job named in `die-before-<step>` the process dies as it comes to it."""

    def run(steps: Any, subject: str, *arguments: Any) -> Any:
        order = workshop / f"die-before-{step}"
        if order.exists() and order.read_text() in ("", subject):
            order.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return function(steps, subject, *arguments)

    return run


def work(config_folder: Path, workshop: Path, index: int) -> int:
    """Be a worker until SIGTERM; returns the exit code."""
    config = load_config(config_folder, environment={})
    shop = Workshop(workshop)
    for step in ("encode", "plan", "end", "attempt", "settle", "request"):
        setattr(Steps, step, dying_before(step, getattr(Steps, step), workshop))
    try:
        jobs = Jobs.launch(
            config,
            Database.open(config),
            index,
            segment=shop.segment,
            encode=shop.encode,
            refuse=shop.refuse,
            deliver=shop.deliver,
            request_commitment=shop.request_commitment,
            is_current=shop.is_current,
            whereabouts=shop.whereabouts,
            pace=Pace(sweep_s=0.1, reconcile_s=0.3, step_retries_s=(0.05, 0.05)),
        )
    except ConfigurationError as error:
        print(error, flush=True)
        return 2
    print("ready", flush=True)
    while signal.sigtimedwait({signal.SIGTERM}, 0.2) is None:
        jobs.raise_if_broken()
    jobs.close()
    return 0


def fork_worker(request: dict[str, Any]) -> int:
    """Pid of a new worker; what it says goes into `said-<pid>` in its workshop."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        said = os.open(Path(request["workshop"]) / f"said-{os.getpid()}", os.O_CREAT | os.O_WRONLY)
        os.dup2(said, sys.stdout.fileno())
        code = work(Path(request["config"]), Path(request["workshop"]), request["index"])
    finally:
        os._exit(code)


def main() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    for line in sys.stdin:
        request = json.loads(line)
        if "poll" in request:
            pid, status = os.waitpid(request["poll"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        else:
            answer = fork_worker(request)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
