"""The sweep: a clock of our own that brings tables and running workflows together again.

Deliveries, commitments and jobs are rows; workflows only carry them for a while and may be lost: by a crash between
row and enqueue, by a new pipeline version that leaves the old one's workflows lying, by a peer that is dead for
days. So whatever is due and carried by no workflow is enqueued here, whatever way it got lost.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from dbos import DBOS, EnqueueOptions, WorkflowStatus
from sqlalchemy.exc import DBAPIError

from node.database import AWAY, moment_of, utc_now
from node.database_deliveries import Delivery, due_commitments
from node.database_jobs import Job, add_next_run, job_of, list_jobs, record_state
from node.database_outage import told
from node.delivery import Peers
from node.delivery_records import apply_commitment_report, due, pass_deadline, settle_attempt, settle_request
from node.domain import PIPELINE_VERSION, JobState, Receipt
from node.jobs_executor import ExecutorLease, recover_executor
from node.jobs_queues import (
    COMMIT,
    DELIVER,
    analyse_options,
    attempt_id,
    deliver_options,
    deliver_queue,
    is_of_spool,
    request_id,
    segment_queue,
)
from node.jobs_steps import Steps
from node.logs import event

log = logging.getLogger(__name__)

CARRIED_STATES = (JobState.QUEUED, JobState.SEGMENTING, JobState.ENCODING)
"""States in which a job needs its workflow; afterwards its deliveries carry it."""
MAX_RECOVERIES = 3
"""So often a job whose worker died is taken up again; then it counts as the cause."""
POISON = f"poison: the worker died {MAX_RECOVERIES + 1} times on it"
_BATCH = 500


@dataclass(frozen=True)
class Pace:
    """How often what is looked at, in seconds. Tests hurry; nobody else needs to turn these."""

    poll_s: float = 0.05
    reports_s: float = 0.1
    sweep_s: float = 1.0
    reconcile_s: float = 5.0
    step_retries_s: tuple[float, ...] = (5.0, 20.0)


class Sweep:
    """One thread that looks, and enqueues."""

    def __init__(self, steps: Steps, lease: ExecutorLease, pace: Pace) -> None:
        self._steps = steps
        self._lease = lease
        self._pace = pace
        self._wake = threading.Event()
        self._is_stopped = False
        self._broken: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="sweep", daemon=True)

    def start(self) -> None:
        """Look for the first time, in the caller's thread, and go on in another."""
        self.reconcile()
        self.sweep(utc_now())
        self._thread.start()

    def wake(self) -> None:
        """Something is due now."""
        self._wake.set()

    def stop(self) -> None:
        """Look no more."""
        self._is_stopped = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    def raise_if_broken(self) -> None:
        """Raises what ended the thread, if anything did: a node that no longer sweeps must not look alive."""
        if self._broken is not None:
            raise self._broken

    def _run(self) -> None:
        last_sweep = last_reconcile = utc_now()
        try:
            while not self._is_stopped:
                is_awake = self._wake.wait(self._pace.reports_s)
                self._wake.clear()
                now = utc_now()
                try:
                    self.take_in_reports(now)
                    if is_awake or (now - last_sweep).total_seconds() >= self._pace.sweep_s:
                        last_sweep = now
                        self.sweep(now)
                    if (now - last_reconcile).total_seconds() >= self._pace.reconcile_s:
                        last_reconcile = now
                        self.reconcile()
                except AWAY as error:
                    # everything is still written there, so look again
                    self._steps.database.outage.note(told(error))
                except DBAPIError as error:
                    event(log, "database refuses", level=logging.WARNING, error=type(error.orig).__name__)
        except Exception as error:  # noqa: BLE001 - carried to raise_if_broken, in the thread that can end the process
            self._broken = error

    # --- deliveries and commitments

    def sweep(self, now: datetime) -> None:
        """Enqueue every attempt and request that is due and that no workflow carries; let deadlines pass."""
        with self._steps.database.read() as rows:
            deliveries = due(rows, self._spool_id, self._peers, now)
            commitments = due_commitments(rows, self._spool_id, now)
        overdue = [item for item in commitments if moment_of(item.deadline_at) <= now]
        for commitment in overdue:
            with self._steps.database.begin() as rows:
                pass_deadline(rows, commitment, self._peers, now)
        requests = [item for item in commitments if item not in overdue]
        known = _workflows([*map(attempt_id, deliveries), *map(request_id, requests)])
        for delivery in deliveries:
            workflow_id = attempt_id(delivery)
            options = deliver_options(DELIVER, workflow_id, delivery.peer, self._spool_id)
            arguments = (delivery.job_id, delivery.peer, delivery.attempts + 1)
            if failure := self._carry(known.get(workflow_id), options, *arguments):
                self._settle_lost(delivery, failure, now)
        for commitment in requests:
            workflow_id = request_id(commitment)
            options = deliver_options(COMMIT, workflow_id, commitment.peer, self._spool_id)
            attempt = commitment.attempts + 1
            if failure := self._carry(known.get(workflow_id), options, commitment.transaction_uid, attempt):
                with self._steps.database.begin() as rows:
                    settle_request(rows, commitment.transaction_uid, attempt, failure, self._peers, now)
        if overdue:
            self.wake()

    def take_in_reports(self, now: datetime) -> None:
        """Take in what the receivers wrote into the spool; a file goes when its report is in the database."""
        try:
            reports = self._steps.spool.commitment_reports()
        except FileNotFoundError:
            return  # another worker of this spool took one in just now
        for received in reports:
            told = received.report
            with self._steps.database.begin() as rows:
                if not apply_commitment_report(rows, told["transaction_uid"], told["committed"], told["failed"], now):
                    event(log, "commitment report for no request of ours", caller=received.calling_ae)
            received.path.unlink(missing_ok=True)
            self.wake()

    def _carry(self, status: WorkflowStatus | None, options: EnqueueOptions, *arguments: object) -> Receipt | None:
        """Have a workflow carry this attempt; returns the receipt of one that ended without any."""
        if status is not None and _is_active(status):
            if not self._is_abandoned(status):
                return None
            DBOS.delete_workflow(status.workflow_id)
        elif status is not None:
            return _lost_receipt(status)
        DBOS.enqueue_workflow_with_options(options, *arguments)
        return None

    def _settle_lost(self, delivery: Delivery, receipt: Receipt, now: datetime) -> None:
        with self._steps.database.begin() as rows:
            # an attempt that ended properly since we looked has counted itself: then nothing is written
            settle_attempt(rows, delivery.job_id, delivery.peer, delivery.attempts + 1, receipt, self._peers, now)

    # --- jobs

    def reconcile(self) -> None:
        """Recover the work of dead executors, and bring jobs and their workflows together."""
        self._lease.hold()
        for executor in self._dead_executors():
            event(log, "executor is dead, its work is queued again", executor=executor)
            recover_executor(executor)
        with self._steps.database.read() as rows:
            jobs = list_jobs(rows, states=CARRIED_STATES, spool_id=self._spool_id)
        known = _workflows(job.job_id for job in jobs)
        for job in reversed(jobs):  # who came first goes first
            self._reconcile_job(job, known.get(job.job_id))

    def _reconcile_job(self, job: Job, status: WorkflowStatus | None) -> None:
        is_running = status is not None and _is_active(status) and not self._is_abandoned(status)
        if is_running:
            return
        if job.pipeline_version != PIPELINE_VERSION:
            self._restart(job, f"pipeline version {PIPELINE_VERSION} took over from {job.pipeline_version}")
        elif job.state is JobState.QUEUED and status is not None and status.status == "SUCCESS":
            # held midway and released since; the library never runs a finished id again
            self._restart(job, "released")
        elif status is None:
            DBOS.enqueue_workflow_with_options(analyse_options(job.job_id, self._spool_id), job.job_id)
        else:
            self._end_lost(job, status)

    def _restart(self, job: Job, why: str) -> None:
        """Begin a job again from its order, where it cannot be finished as it was begun."""
        with self._steps.database.begin() as rows:
            if job_of(rows, job.job_id).state != job.state:
                return  # it has moved since we looked
            again = add_next_run(rows, job, why)
            record_state(rows, job.job_id, JobState.SUPERSEDED, f"{why}: {again.job_id}")
        event(log, "job restarted from its order", job=job.job_id, again=again.job_id, why=why)
        DBOS.enqueue_workflow_with_options(analyse_options(again.job_id, self._spool_id), again.job_id)

    def _end_lost(self, job: Job, status: WorkflowStatus) -> None:
        """The workflow ended and could not say so in the job's row."""
        state, reason = _ENDS.get(status.status, (JobState.FAILED, "internal error: the workflow ended too early"))
        with self._steps.database.begin() as rows:
            if job_of(rows, job.job_id).state in CARRIED_STATES:
                record_state(rows, job.job_id, state, reason)

    def _dead_executors(self) -> list[str]:
        pending = DBOS.list_workflows(
            status="PENDING",
            app_version=PIPELINE_VERSION,
            queue_name=[segment_queue(self._spool_id), deliver_queue(self._spool_id)],
            load_input=False,
            load_output=False,
        )
        executors = {status.executor_id for status in pending if status.executor_id}
        return sorted(
            executor
            for executor in executors
            if is_of_spool(executor, self._spool_id) and not self._lease.is_alive(executor)
        )

    def _is_abandoned(self, status: WorkflowStatus) -> bool:
        """Whether nobody will go on with an active workflow: it is of another version, and no live worker is."""
        if status.app_version == PIPELINE_VERSION:
            return False
        is_ours = status.executor_id == self._lease.executor_id
        return status.status != "PENDING" or is_ours or not self._lease.is_alive(str(status.executor_id))

    @property
    def _spool_id(self) -> str:
        return self._steps.spool.spool_id

    @property
    def _peers(self) -> Peers:
        return self._steps.config.peers


_ENDS = {
    "MAX_RECOVERY_ATTEMPTS_EXCEEDED": (JobState.FAILED, POISON),
    "ERROR": (JobState.FAILED, "internal error; see the log"),
    "CANCELLED": (JobState.CANCELLED, "cancelled"),
}


def _is_active(status: WorkflowStatus) -> bool:
    return status.status in ("ENQUEUED", "PENDING", "DELAYED")


def _lost_receipt(status: WorkflowStatus) -> Receipt:
    if status.status == "MAX_RECOVERY_ATTEMPTS_EXCEEDED":
        return Receipt(False, False, POISON)
    if status.status == "ERROR":
        return Receipt(False, False, "internal error; see the log")
    return Receipt(False, True, "the attempt broke off")


def _workflows(workflow_ids: Iterable[str]) -> dict[str, WorkflowStatus]:
    ids: Sequence[str] = list(workflow_ids)
    found: dict[str, WorkflowStatus] = {}
    for start in range(0, len(ids), _BATCH):
        batch = DBOS.list_workflows(workflow_ids=list(ids[start : start + _BATCH]), load_input=False, load_output=False)
        found |= {status.workflow_id: status for status in batch}
    return found
