"""Jobs for those who do not run them: the command line and the console. Looks, and asks; never launches.

A second launch under a worker's name would run its live steps a second time. What is asked for is written into our
tables first; the library is only told so that it need not wait for the next sweep.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Self

from sqlalchemy import inspect

from node.config import Config
from node.database import Database, Rows, utc_now
from node.database_deliveries import (
    Commitment,
    Delivery,
    ReceiptRecord,
    commitments_of,
    deliveries_of,
    receipts_of,
)
from node.database_jobs import (
    Job,
    JobEvent,
    add_next_run,
    events_of,
    job_of,
    list_jobs,
    objects_of,
    record_state,
)
from node.delivery_records import cancel_job, release_deliveries
from node.domain import PIPELINE_VERSION, JobState, ResultObject
from node.errors import NodeError

if TYPE_CHECKING:
    from dbos import DBOSClient


class NotPossibleNow(NodeError):
    """The job is in a state in which that makes no sense; the message says what to do first."""


@dataclass(frozen=True)
class JobStory:
    """Everything that is known of a job."""

    job: Job
    events: list[JobEvent]
    objects: list[ResultObject]
    deliveries: list[Delivery]
    receipts: list[ReceiptRecord]
    commitments: list[Commitment]


class JobsClient:
    """The verbs of a person: list, show, retry, cancel, release."""

    def __init__(self, config: Config, database: Database) -> None:
        self._config = config
        self._database = database

    def list(
        self, *, states: Iterable[JobState] = (), study_uid: str | None = None, limit: int | None = None
    ) -> list[Job]:
        """Jobs, newest first."""
        with self._database.read() as rows:
            return list_jobs(rows, states=states, study_uid=study_uid, limit=limit)

    def show(self, job_id: str) -> JobStory:
        """A job's story. Raises UnknownJob."""
        with self._database.read() as rows:
            return JobStory(
                job_of(rows, job_id),
                events_of(rows, job_id),
                objects_of(rows, job_id),
                deliveries_of(rows, job_id),
                receipts_of(rows, job_id),
                commitments_of(rows, job_id),
            )

    def retry(self, job_id: str) -> Job:
        """Begin a job's next run: a new job id and new result UIDs, from the same order.

        Raises UnknownJob, or NotPossibleNow while the job still runs.
        """
        with self._database.begin() as rows:
            job = job_of(rows, job_id)
            if not job.state.is_final and job.state is not JobState.HELD:
                raise NotPossibleNow(f"job {job_id} is still {job.state}; cancel it first")
            again = _begin_again(rows, job)
        self._enqueue(again)
        return again

    def cancel(self, job_id: str, reason: str = "cancelled by a person") -> None:
        """End a job and what is open of its deliveries; a running step is let finish, its result is dropped.

        Raises UnknownJob, or NotPossibleNow where the job has ended.
        """
        with self._database.begin() as rows:
            if not cancel_job(rows, job_id, reason, utc_now()):
                raise NotPossibleNow(f"job {job_id} has ended already: it is {job_of(rows, job_id).state}")
        if self._is_launched:
            self._client.cancel_workflow(job_id)

    def release(self, job_id: str) -> Job:
        """Let a held job go on; returns the job that does, which is its next run where the hold came midway.

        Raises UnknownJob, or NotPossibleNow where the job is not held or what holds it still does.
        """
        with self._database.begin() as rows:
            job = job_of(rows, job_id)
            if job.state is not JobState.HELD:
                raise NotPossibleNow(f"job {job_id} is not held: it is {job.state}")
            if not job.order.bundle:
                raise NotPossibleNow(f"job {job_id} waits for a word: {job.reason}; use `crlm-node jobs confirm`")
            if objects_of(rows, job_id):
                if not release_deliveries(rows, job, self._config.peers, utc_now()):
                    raise NotPossibleNow(f"job {job_id} is still held: {job.reason}")
                return job_of(rows, job_id)  # the sweep of its worker sends it
            is_begun = any(event.state is JobState.SEGMENTING for event in events_of(rows, job_id))
            if is_begun or job.pipeline_version != PIPELINE_VERSION:
                job = _begin_again(rows, job)
            else:
                record_state(rows, job_id, JobState.QUEUED, "released")
                job = job_of(rows, job_id)
        self._enqueue(job)
        return job

    def enqueue(self, job_id: str) -> None:
        """Have a queued job run without waiting for the next sweep; asked twice, it runs once. Raises UnknownJob."""
        with self._database.read() as rows:
            job = job_of(rows, job_id)
        self._enqueue(job)

    def close(self) -> None:
        """Give connections back; the database is its owner's."""
        if "_client" in self.__dict__:
            self._client.destroy()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def _enqueue(self, job: Job) -> None:
        from node.jobs_queues import analyse_options

        if self._is_launched:
            self._client.enqueue(analyse_options(job.job_id, job.spool_id), job.job_id)

    @property
    def _is_launched(self) -> bool:
        """Whether a worker has ever run here; before that there is nobody to tell, and its start reads our tables."""
        from node.jobs_queues import SCHEMA, system_database_file

        file = system_database_file(self._config)
        if file is not None:
            return file.exists()
        return inspect(self._database.engine).has_table("workflow_status", schema=SCHEMA)

    @cached_property
    def _client(self) -> DBOSClient:
        # imported where needed: listing jobs should not take a second
        from dbos import DBOSClient, DBOSPortableJSONSerializer

        from node.jobs_queues import APPLICATION, SCHEMA, system_database_url

        return DBOSClient(
            system_database_url=system_database_url(self._config),
            dbos_system_schema=SCHEMA,
            serializer=DBOSPortableJSONSerializer(),
            application_name=APPLICATION,
        )


def _begin_again(rows: Rows, job: Job) -> Job:
    again = add_next_run(rows, job, f"run after {job.job_id}")
    # of a job that has ended nothing changes; a held one gives way
    record_state(rows, job.job_id, JobState.SUPERSEDED, f"run again as {again.job_id}")
    return again
