"""Jobs as rows: what is to be analysed, how far it has come, why, and what it made.

States are a table: a change that TRANSITIONS does not list is an error, and a job that has ended stays as it is.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sqlalchemy import func, insert, select, update

from node.database import Rows, iso, utc_now
from node.domain import PIPELINE_VERSION, InstanceRef, JobOrder, JobState, ResultObject, RoleInput, TimePoint
from node.errors import NodeError
from node.logs import event
from node.tables import job_events, jobs, objects, result_series_numbers

log = logging.getLogger(__name__)


class UnknownJob(NodeError):
    """No job has that id."""


class ForbiddenTransition(NodeError):
    """A job cannot go from its state to that one: the row is missing in TRANSITIONS."""


TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    JobState.HELD: frozenset(
        {JobState.QUEUED, JobState.SENDING, JobState.FAILED, JobState.CANCELLED, JobState.SUPERSEDED}
    ),
    JobState.QUEUED: frozenset(
        {JobState.SEGMENTING, JobState.HELD, JobState.FAILED, JobState.CANCELLED, JobState.SUPERSEDED}
    ),
    JobState.SEGMENTING: frozenset(
        {JobState.ENCODING, JobState.HELD, JobState.FAILED, JobState.CANCELLED, JobState.SUPERSEDED}
    ),
    JobState.ENCODING: frozenset(
        {
            JobState.SENDING,
            JobState.COMMITTED,
            JobState.HELD,
            JobState.FAILED,
            JobState.CANCELLED,
            JobState.SUPERSEDED,
        }
    ),
    JobState.SENDING: frozenset(
        {JobState.COMMITTED, JobState.HELD, JobState.FAILED, JobState.CANCELLED, JobState.SUPERSEDED}
    ),
    # ended is ended: another try is another run with another job id
    JobState.COMMITTED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
    JobState.SUPERSEDED: frozenset(),
}
"""From which state a job may go to which. Staying where it is (a resumed step) is always allowed but at the end."""


@dataclass(frozen=True)
class Job:
    """A row of `jobs`."""

    job_id: str
    content_key: str
    run: int
    spool_id: str
    study_uid: str
    condition: str
    state: JobState
    reason: str
    order: JobOrder
    bundle: str
    bundle_sha256: str
    pipeline_version: str
    is_demo: bool
    generation: str
    predecessor_job_id: str | None
    summary: dict[str, Any]
    created_at: str
    updated_at: str


@dataclass(frozen=True)
class JobEvent:
    """A change of state: when, to which, why."""

    at: str
    state: JobState
    reason: str


def add_job(
    rows: Rows,
    order: JobOrder,
    *,
    spool_id: str,
    is_demo: bool,
    generation: str = "",
    state: JobState = JobState.QUEUED,
    reason: str = "",
    predecessor_job_id: str | None = None,
) -> bool:
    """Write a job's row and first event; False where that very job is known already (nothing changes then)."""
    if state not in (JobState.QUEUED, JobState.HELD):
        raise ForbiddenTransition(f"a new job cannot be {state}")
    known = rows.execute(select(jobs.c.job_id).where(jobs.c.job_id == order.job_id)).first()
    if known:
        return False
    at = iso(utc_now())
    rows.execute(
        insert(jobs).values(
            job_id=order.job_id,
            content_key=order.content_key,
            run=order.run,
            spool_id=spool_id,
            study_uid=order.study_uid,
            condition=order.condition,
            state=state.value,
            reason=reason,
            order_json=order_as_json(order),
            bundle=order.bundle,
            bundle_sha256=order.bundle_sha256,
            pipeline_version=PIPELINE_VERSION,
            is_demo=is_demo,
            generation=generation,
            predecessor_job_id=predecessor_job_id,
            summary={},
            created_at=at,
            updated_at=at,
        )
    )
    rows.execute(insert(job_events).values(job_id=order.job_id, at=at, state=state.value, reason=reason))
    return True


def record_state(rows: Rows, job_id: str, state: JobState, reason: str = "") -> bool:
    """Write a job's new state and the event of it; False, and nothing written, where the job has ended already.

    Raises UnknownJob, or ForbiddenTransition for a change that TRANSITIONS does not list.
    """
    # the lock makes one of two writers the earlier: a cancelled job cannot be committed behind its back
    found = rows.execute(select(jobs.c.state).where(jobs.c.job_id == job_id).with_for_update()).first()
    if found is None:
        raise UnknownJob(f"no job {job_id}")
    present = JobState(found.state)
    if present.is_final:
        return False
    if state != present and state not in TRANSITIONS[present]:
        raise ForbiddenTransition(f"job {job_id} cannot go from {present} to {state}")
    at = iso(utc_now())
    rows.execute(update(jobs).where(jobs.c.job_id == job_id).values(state=state.value, reason=reason, updated_at=at))
    rows.execute(insert(job_events).values(job_id=job_id, at=at, state=state.value, reason=reason))
    level = logging.ERROR if state is JobState.FAILED else logging.INFO
    event(log, f"job {state}", level=level, job=job_id, reason=reason)
    return True


def add_remark(rows: Rows, job_id: str, remark: str) -> None:
    """Put what became known of a job after its end into its reason and events, once. Its state stays."""
    job = lock_job(rows, job_id)
    if remark in (event.reason for event in events_of(rows, job_id)):
        return
    at = iso(utc_now())
    rows.execute(update(jobs).where(jobs.c.job_id == job_id).values(reason=remark, updated_at=at))
    rows.execute(insert(job_events).values(job_id=job_id, at=at, state=job.state.value, reason=remark))
    event(log, "job remarked upon", level=logging.WARNING, job=job_id, reason=remark)


def lock_job(rows: Rows, job_id: str) -> Job:
    """The job; nobody else changes anything of it, its deliveries included, until the transaction ends.

    Whoever changes something takes this lock first, so that no two wait for one another. Raises UnknownJob.
    """
    row = rows.execute(select(jobs).where(jobs.c.job_id == job_id).with_for_update()).first()
    if row is None:
        raise UnknownJob(f"no job {job_id}")
    return _job(row)


def job_of(rows: Rows, job_id: str) -> Job:
    """The job of that id. Raises UnknownJob."""
    row = rows.execute(select(jobs).where(jobs.c.job_id == job_id)).first()
    if row is None:
        raise UnknownJob(f"no job {job_id}")
    return _job(row)


def list_jobs(
    rows: Rows,
    *,
    states: Iterable[JobState] = (),
    study_uid: str | None = None,
    spool_id: str | None = None,
    limit: int | None = None,
) -> list[Job]:
    """Jobs, newest first; what is not named is not asked."""
    query = select(jobs).order_by(jobs.c.created_at.desc(), jobs.c.job_id).limit(limit)
    wanted = [state.value for state in states]
    if wanted:
        query = query.where(jobs.c.state.in_(wanted))
    if study_uid is not None:
        query = query.where(jobs.c.study_uid == study_uid)
    if spool_id is not None:
        query = query.where(jobs.c.spool_id == spool_id)
    return [_job(row) for row in rows.execute(query)]


def next_run(rows: Rows, content_key: str) -> int:
    """The run number of another try at the same content."""
    last = rows.execute(select(func.max(jobs.c.run)).where(jobs.c.content_key == content_key)).scalar_one()
    return int(last or 0) + 1


def set_generation(rows: Rows, job_id: str, generation: str) -> None:
    """The series was looked at again and the decision stands: this is what it is now."""
    rows.execute(update(jobs).where(jobs.c.job_id == job_id).values(generation=generation))


def add_next_run(rows: Rows, job: Job, reason: str, *, state: JobState = JobState.QUEUED) -> Job:
    """Write another run of a job's order: a new job with result UIDs of its own, queued or held."""
    order = replace(job.order, run=next_run(rows, job.order.content_key))
    add_job(
        rows,
        order,
        spool_id=job.spool_id,
        is_demo=job.is_demo,
        generation=job.generation,
        state=state,
        reason=reason,
        predecessor_job_id=job.job_id,
    )
    return job_of(rows, order.job_id)


def events_of(rows: Rows, job_id: str) -> list[JobEvent]:
    """What happened to a job, oldest first."""
    query = select(job_events).where(job_events.c.job_id == job_id).order_by(job_events.c.number)
    return [JobEvent(row.at, JobState(row.state), row.reason) for row in rows.execute(query)]


def record_objects(
    rows: Rows, job_id: str, encoded: Iterable[ResultObject], summary: dict[str, Any] | None = None
) -> None:
    """Remember what was encoded, in sending order, and the findings in short. Once: a replay changes nothing."""
    known = {item.sop_instance_uid for item in objects_of(rows, job_id)}
    for position, item in enumerate(encoded):
        if item.sop_instance_uid not in known:
            rows.execute(
                insert(objects).values(
                    sop_instance_uid=item.sop_instance_uid,
                    job_id=job_id,
                    position=position,
                    kind=item.kind,
                    sop_class_uid=item.sop_class_uid,
                    path=str(item.path),
                    sha256=item.sha256,
                )
            )
    if summary is not None:
        rows.execute(update(jobs).where(jobs.c.job_id == job_id).values(summary=summary))


def objects_of(rows: Rows, job_id: str) -> list[ResultObject]:
    """A job's encoded objects in the order in which they are sent."""
    query = select(objects).where(objects.c.job_id == job_id).order_by(objects.c.position)
    return [
        ResultObject(row.kind, row.sop_class_uid, row.sop_instance_uid, Path(row.path), row.sha256)
        for row in rows.execute(query)
    ]


def series_slot(rows: Rows, study_uid: str, job_id: str) -> int:
    """k of the SeriesNumber 90000 + 10·k + type of a job's results: counted up within the study, kept for the job."""
    table = result_series_numbers
    kept = rows.execute(select(table.c.slot).where(table.c.job_id == job_id)).scalar_one_or_none()
    if kept is not None:
        return int(kept)
    last = rows.execute(select(func.max(table.c.slot)).where(table.c.study_uid == study_uid)).scalar_one()
    slot = 0 if last is None else int(last) + 1
    rows.execute(insert(table).values(study_uid=study_uid, slot=slot, job_id=job_id))
    return slot


def _job(row: Any) -> Job:
    values = dict(row._mapping)
    values["state"] = JobState(values["state"])
    values["order"] = order_of_json(values.pop("order_json"))
    return Job(**values)


# --- orders as JSON: ids and paths only, never pixels or names ------------------------------------------------


def order_as_json(order: JobOrder) -> dict[str, Any]:
    """JSON form of an order; inverse of `order_of_json`."""
    return {
        "study_uid": order.study_uid,
        "condition": order.condition,
        "route_revision": order.route_revision,
        "bundle": order.bundle,
        "bundle_sha256": order.bundle_sha256,
        "time_point": order.time_point.value,
        "inputs": {role: _input_as_json(given) for role, given in order.inputs.items()},
        "deliver_to": list(order.deliver_to),
        "run": order.run,
    }


def order_of_json(data: dict[str, Any]) -> JobOrder:
    """The order that `order_as_json` wrote."""
    return JobOrder(
        study_uid=data["study_uid"],
        condition=data["condition"],
        route_revision=data["route_revision"],
        bundle=data["bundle"],
        bundle_sha256=data["bundle_sha256"],
        time_point=TimePoint(data["time_point"]),
        inputs={role: _input_of_json(given) for role, given in data["inputs"].items()},
        deliver_to=tuple(data["deliver_to"]),
        run=data["run"],
    )


def _input_as_json(given: RoleInput) -> dict[str, Any]:
    return {
        "series_uid": given.series_uid,
        "instances": _instances_as_json(given.instances),
        "b_value_s_mm2": given.b_value_s_mm2,
        "other_directions": [_instances_as_json(direction) for direction in given.other_directions],
    }


def _input_of_json(data: dict[str, Any]) -> RoleInput:
    return RoleInput(
        series_uid=data["series_uid"],
        instances=_instances_of_json(data["instances"]),
        b_value_s_mm2=data["b_value_s_mm2"],
        # rows of nodes that made no means lack it
        other_directions=tuple(_instances_of_json(direction) for direction in data.get("other_directions", ())),
    )


def _instances_as_json(instances: Iterable[InstanceRef]) -> list[list[Any]]:
    return [[i.sop_instance_uid, i.sop_class_uid, str(i.path), i.sha256, list(i.frames)] for i in instances]


def _instances_of_json(data: Iterable[Sequence[Any]]) -> tuple[InstanceRef, ...]:
    return tuple(InstanceRef(uid, kind, Path(path), digest, tuple(frames)) for uid, kind, path, digest, frames in data)
