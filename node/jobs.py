"""Durability: what was begun is finished, once, whatever dies in between. (Owns dbos, with node/jobs_*.py.)

One worker process launches; the command line and the console use node/jobs_client.py. Read in this order: the three
workflows below, what their steps do (jobs_steps.py), what finds the lost (jobs_sweep.py), who works (jobs_executor.py).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from dbos import DBOS, DBOSConfig, DBOSPortableJSONSerializer, StepOptions
from sqlalchemy.exc import InterfaceError, OperationalError

from node.config import Config
from node.database import Database
from node.domain import PIPELINE_VERSION, JobOrder, Receipt, ResultObject
from node.jobs_executor import ExecutorLease
from node.jobs_logging import join_logs
from node.jobs_queues import (
    ANALYSE,
    APPLICATION,
    COMMIT,
    DELIVER,
    SCHEMA,
    analyse_options,
    create_system_database_file,
    deliver_queue,
    executor_id,
    segment_queue,
    system_database_url,
)
from node.jobs_steps import Outcome, Steps, Work
from node.jobs_sweep import MAX_RECOVERIES, Pace, Sweep
from node.spool import Spool

if TYPE_CHECKING:
    from node.peers.answers import CommitmentAnswer


class Jobs:
    """The durable work of one process. There can be one at a time: the library is a singleton."""

    def __init__(self, steps: Steps, sweep: Sweep, lease: ExecutorLease) -> None:
        self._steps = steps
        self._sweep = sweep
        self._lease = lease

    @classmethod
    def launch(
        cls,
        config: Config,
        database: Database,
        executor_index: int = 0,
        *,
        segment: Callable[[JobOrder, Path], Mapping[str, Any]],
        encode: Callable[[JobOrder, Path], Mapping[str, Any]],
        refuse: Callable[[JobOrder, Path, str], Mapping[str, Any]],
        deliver: Callable[[str, Sequence[ResultObject]], Receipt],
        request_commitment: Callable[[str, Sequence[ResultObject], str], CommitmentAnswer],
        is_current: Callable[[JobOrder], bool],
        whereabouts: Callable[[str, Sequence[ResultObject]], str | None],
        pace: Pace | None = None,
    ) -> Self:
        """Become worker `executor_index` of this spool, take up what an earlier one left, and go on.

        The callables are described at `Work`. Raises ConfigurationError while another process is that worker.
        """
        if _steps is not None:
            raise RuntimeError("this process has launched its jobs already")
        pace = pace or Pace()
        spool = Spool.open(config.spool_path, config.node.spool.min_free_mb << 20)
        name = executor_id(spool.spool_id, executor_index)
        lease = ExecutorLease.take(name, config.spool_path, database.engine)
        try:
            work = Work(segment, encode, refuse, deliver, request_commitment, is_current, whereabouts)
            steps = Steps(config, database, spool, work, wake=lambda: sweep.wake())
            sweep = Sweep(steps, lease, pace)
            _launch(config, name, spool.spool_id, steps, pace)
            sweep.start()
        except BaseException:
            _destroy()
            lease.release()
            raise
        return cls(steps, sweep, lease)

    @property
    def spool_id(self) -> str:
        """The spool whose jobs these are."""
        return self._steps.spool.spool_id

    def enqueue(self, job_id: str) -> None:
        """Have a job run whose row is written; asked twice, it runs once."""
        DBOS.enqueue_workflow_with_options(analyse_options(job_id, self.spool_id), job_id)

    def reconfigure(self, config: Config) -> None:
        """Use another configuration from the next step on (peers and their policies)."""
        self._steps.config = config
        self._sweep.wake()

    def wake(self) -> None:
        """Rows were changed: look now for what is due."""
        self._sweep.wake()

    def raise_if_broken(self) -> None:
        """Raises what ended the sweep, if anything did; to be asked now and then by the role's main loop."""
        self._sweep.raise_if_broken()

    def close(self, finish_s: int = 0) -> None:
        """Take no more work, give running steps so long to end, and leave the rest to the next start.

        While a step runs on, the lease is kept to the end of the process: nobody may run that step beside it.
        """
        self._sweep.stop()
        _destroy(finish_s)
        if not _underway.count:
            self._lease.release()


class _Underway:
    """How many steps run at this moment."""

    def __init__(self) -> None:
        self.count = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            self.count += 1

    def __exit__(self, *raised: object) -> None:
        with self._lock:
            self.count -= 1


# --- the workflows. Their bodies must take the same way at every replay: every fact comes out of a step.

_steps: Steps | None = None  # the library calls by name what it finds in its tables, so the receiver is global
_retries_s: tuple[float, ...] = ()
_underway = _Underway()


@DBOS.workflow(name=ANALYSE, max_recovery_attempts=MAX_RECOVERIES)
def analyse(job_id: str) -> str:
    """segment → encode → open the deliveries; a report of refusal takes the place of results where there are none."""
    for name in ("segment", "encode", "plan"):
        outcome = _insist(name, job_id)
        if outcome["status"] == "refused":
            outcome = _step("refuse", job_id, outcome["reason"])
            if outcome["status"] == "done":
                outcome = _insist("plan", job_id)
            if outcome["status"] == "done":
                return "refused"
        if outcome["status"] != "done":
            _step("end", job_id, outcome)
            return outcome["status"]
    return "done"


@DBOS.workflow(name=DELIVER, max_recovery_attempts=MAX_RECOVERIES)
def deliver(job_id: str, peer: str, attempt: int) -> None:
    """One attempt at one peer, and what follows from its answer. Short: waiting is done in the table."""
    receipt = _step("attempt", job_id, peer, attempt)
    if receipt is None:
        return
    transaction_uid = _step("settle", job_id, peer, attempt, receipt)
    if transaction_uid is not None:
        _request(transaction_uid, 1)


@DBOS.workflow(name=COMMIT, max_recovery_attempts=MAX_RECOVERIES)
def commit(transaction_uid: str, attempt: int) -> None:
    """Ask a peer once more to commit to what it stored."""
    _request(transaction_uid, attempt)


def _request(transaction_uid: str, attempt: int) -> None:
    answer = _step("request", transaction_uid, attempt)
    if answer is not None:
        _step("settle_request", transaction_uid, attempt, answer)


def _insist(name: str, job_id: str) -> Outcome:
    """A step of a job, again after a delay where it says that this may help (crash, time-out, out of memory)."""
    outcome: Outcome = _step(name, job_id)
    for delay_s in _retries_s:
        if outcome["status"] != "failed" or not outcome["retry"]:
            break
        DBOS.sleep(delay_s)
        outcome = _step(name, job_id)
    return outcome


def _step(name: str, *arguments: Any) -> Any:
    """Run a step, or take its recorded result. A database that does not answer is waited for, not recorded."""
    options: StepOptions = {
        "name": name,
        "retries_allowed": True,
        "max_attempts": 20,
        "interval_seconds": 1.0,
        "backoff_rate": 1.5,  # more than an hour in all
        "should_retry": lambda error: isinstance(error, OperationalError | InterfaceError),
    }
    with _underway:
        return DBOS.run_step(options, getattr(_steps, name), *arguments)


def _launch(config: Config, name: str, spool_id: str, steps: Steps, pace: Pace) -> None:
    global _steps, _retries_s
    _steps, _retries_s = steps, pace.step_retries_s
    create_system_database_file(config)
    join_logs(steps.database.outage)
    settings: DBOSConfig = {
        "name": APPLICATION,
        "system_database_url": system_database_url(config),
        "dbos_system_schema": SCHEMA,
        "application_version": PIPELINE_VERSION,
        "executor_id": name,
        "serializer": DBOSPortableJSONSerializer(),
        "use_listen_notify": False,
        "log_level": "WARNING",
    }
    DBOS(config=settings)
    # another spool's queues may lie in the same database: its paths are not here
    DBOS.listen_queues([segment_queue(spool_id), deliver_queue(spool_id)])
    DBOS.launch()
    DBOS.register_queue(
        segment_queue(spool_id),
        worker_concurrency=1,
        polling_interval_sec=pace.poll_s,
        on_conflict="always_update",
    )
    DBOS.register_queue(
        deliver_queue(spool_id),
        partition_worker_concurrency=1,
        polling_interval_sec=pace.poll_s,
        on_conflict="always_update",
    )


def _destroy(finish_s: int = 0) -> None:
    global _steps
    DBOS.destroy(workflow_completion_timeout_sec=finish_s)
    _steps = None
