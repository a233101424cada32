"""Names under which durable work is known: queues, executors, workflows, and the library's own database.

Workers and the command line must agree on them exactly, and they outlive both: they stand in the database.
"""

from __future__ import annotations

from pathlib import Path

from dbos import EnqueueOptions
from sqlalchemy.engine import make_url

from node.config import Config
from node.database import create_wal_file
from node.database_deliveries import Commitment, Delivery
from node.domain import PIPELINE_VERSION

APPLICATION = "crlm-node"
SCHEMA = "dbos"
"""Schema of the library's tables in a PostgreSQL database that it shares with ours."""

ANALYSE, DELIVER, COMMIT = "analyse", "deliver", "commit"


def segment_queue(spool_id: str) -> str:
    """Analyses of one spool: only a worker that can open its paths listens to it."""
    return f"segment@{spool_id}"


def deliver_queue(spool_id: str) -> str:
    """Deliveries of one spool's results, partitioned by peer: a dead peer delays neither the networks nor another."""
    return f"deliver@{spool_id}"


def executor_id(spool_id: str, index: int) -> str:
    """A worker's own name, the same after a restart: under it the library finds the work that it left."""
    return f"{spool_id}-{index}"


def is_of_spool(executor: str, spool_id: str) -> bool:
    """Whether an executor works on that spool."""
    return executor.rpartition("-")[0] == spool_id


def attempt_id(delivery: Delivery) -> str:
    """The workflow of a delivery's next attempt."""
    return f"deliver:{delivery.job_id}:{delivery.peer}:{delivery.attempts + 1}"


def request_id(commitment: Commitment) -> str:
    """The workflow that asks for a commitment next."""
    return f"commit:{commitment.transaction_uid}:{commitment.attempts + 1}"


def analyse_options(job_id: str, spool_id: str) -> EnqueueOptions:
    """The workflow of a job has the job's id: asked for twice, it runs once."""
    return {
        "workflow_name": ANALYSE,
        "workflow_id": job_id,
        "queue_name": segment_queue(spool_id),
        "app_version": PIPELINE_VERSION,
    }


def deliver_options(workflow_name: str, workflow_id: str, peer: str, spool_id: str) -> EnqueueOptions:
    """A short workflow that speaks with one peer; one at a time and worker."""
    return {
        "workflow_name": workflow_name,
        "workflow_id": workflow_id,
        "queue_name": deliver_queue(spool_id),
        "queue_partition_key": peer,
        "app_version": PIPELINE_VERSION,
    }


def system_database_url(config: Config) -> str:
    """Where the library keeps its tables: a SQLite file beside ours, or its own schema in our PostgreSQL."""
    url = make_url(config.database_url)
    if url.get_backend_name() == "sqlite":
        return f"sqlite:///{system_database_file(config)}"
    return url.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)


def system_database_file(config: Config) -> Path | None:
    """The library's SQLite file; None on PostgreSQL."""
    url = make_url(config.database_url)
    return Path(str(url.database)).with_name("dbos.sqlite") if url.get_backend_name() == "sqlite" else None


def create_system_database_file(config: Config) -> None:
    """Have the file in write-ahead-log mode before the library makes it: an enqueue then takes 2 ms instead of 19."""
    file = system_database_file(config)
    if file is not None:
        create_wal_file(file)
