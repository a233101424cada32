"""What a decision on a study makes of its jobs: which are made, released, replaced or ended. All in one transaction.

A job's id is its content, so what is wanted twice is there once. What is no longer wanted and was not delivered is
superseded; what was delivered is replaced by a new job that names it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from node import logs
from node.assembly import SeriesReady
from node.database import Rows, utc_now
from node.database_jobs import (
    Job,
    add_job,
    add_next_run,
    add_remark,
    list_jobs,
    objects_of,
    record_state,
    set_generation,
)
from node.database_studies import give_series_reason, series_of_study
from node.delivery_records import cancel_job, has_results, supersede
from node.domain import Decision, JobOrder, JobState
from node.evidence import Sign
from node.routing import WAITS, Pick
from node.spool import Spool

log = logging.getLogger("node.orders")

BETTER_CAME = "a better series came after a result was delivered; confirm to replace that result"
REPLACED = "a newer decision on the study replaces it"
IMAGES_GONE = "its images have left the spool before it was decided anew"
NOT_YET_DELIVERED = frozenset(
    {JobState.HELD, JobState.QUEUED, JobState.SEGMENTING, JobState.ENCODING, JobState.SENDING}
)


@dataclass(frozen=True)
class Wanted:
    """A job that should exist: its order, whether it may run, and if not why."""

    order: JobOrder
    pick: Pick
    sources: tuple[SeriesReady, ...]
    generation: str
    is_demo: bool
    hold_reason: str | None = None
    is_confirmed: bool = False
    """A person said that these series are of that condition."""


def judged(offer: Wanted, confirmed: Mapping[str, str | None]) -> Wanted:
    """The offer with what a person said of its series, and whether a person must look first."""
    is_confirmed = any(confirmed.get(volume.series_uid) == offer.pick.condition for _, volume in offer.pick.inputs)
    return replace(offer, is_confirmed=is_confirmed, hold_reason=_hold_reason(offer, is_confirmed=is_confirmed))


def _hold_reason(offer: Wanted, *, is_confirmed: bool) -> str | None:
    """Why a person must look first; None where the job may run."""
    pick = offer.pick
    held = next((source.held for source in offer.sources if source.held), None) or pick.hold_reason
    if held:
        return held
    if is_confirmed:
        return None
    incomplete = next((source.incomplete for source in offer.sources if source.incomplete), None)
    if incomplete:
        return f"needs confirmation: {incomplete}"
    if pick.decision is Decision.CONFIRM:
        doubts = [reason.what for reason in pick.reasons if not reason.is_for]
        return f"needs confirmation: {doubts[0] if doubts else 'the evidence is thin'}"
    return None


def take_back(rows: Rows, study_uid: str, rejected: Mapping[str, Sign]) -> set[str]:
    """End the jobs whose images their archive has taken back; those that a peer has results of are marked.

    Returns the ids of all of them.
    """
    taken_back: set[str] = set()
    for job in list_jobs(rows, study_uid=study_uid) if rejected else ():
        uids = (item.sop_instance_uid for given in job.order.inputs.values() for item in given.every_instance)
        sign = next((rejected[uid] for uid in uids if uid in rejected), None)
        if sign is None:
            continue
        taken_back.add(job.job_id)
        cancel_job(rows, job.job_id, sign.what, utc_now())
        if has_results(rows, job):
            add_remark(rows, job.job_id, f"results are at a peer, but {sign.what}")
    return taken_back


def settle(rows: Rows, spool: Spool, study_uid: str, wanted: Sequence[Wanted], taken_back: set[str]) -> list[str]:
    """Make the study's jobs those that are wanted; returns the ids of jobs that may run now."""
    known = list_jobs(rows, study_uid=study_uid)
    keep = {wish.order.content_key for wish in wanted}
    left = [job for job in known if job.content_key not in keep]
    for job in left:
        if job.job_id in taken_back:
            continue
        if job.state in NOT_YET_DELIVERED:
            supersede(rows, job.job_id, REPLACED, utc_now())
        elif job.state is JobState.COMMITTED and has_results(rows, job):
            add_remark(rows, job.job_id, f"results are at a peer, but {REPLACED}")
    to_run = [_settle_one(rows, spool, wish, known, left) for wish in wanted]
    return [job_id for job_id in to_run if job_id is not None]


def end_waiting(rows: Rows, study_uid: str) -> None:
    """What waits for a decision on a study whose images are gone waits in vain: say so, and end it.

    Where the images come again, they are decided as new ones.
    """
    for series in series_of_study(rows, study_uid):
        if WAITS in series.reason:
            give_series_reason(rows, series.marker, IMAGES_GONE)
    for job in list_jobs(rows, study_uid=study_uid):
        if job.state is JobState.HELD and not objects_of(rows, job.job_id):
            supersede(rows, job.job_id, IMAGES_GONE, utc_now())
    logs.event(log, IMAGES_GONE, logging.WARNING, study=logs.pseudonym(study_uid))


def _settle_one(rows: Rows, spool: Spool, wish: Wanted, known: Sequence[Job], left: Sequence[Job]) -> str | None:
    """`left` are the known jobs that nobody wants any more."""
    runs = [job for job in known if job.content_key == wish.order.content_key]
    latest = max(runs, key=lambda job: job.run, default=None)
    replaced = _delivered(rows, wish.order, [job for job in known if job not in runs], left)
    is_better = replaced is not None and not _same_series(replaced.order, wish.order)
    if is_better and wish.hold_reason is None and not wish.is_confirmed:
        wish = replace(wish, hold_reason=BETTER_CAME)
    if latest is None:
        return _add(rows, spool, wish, replaced)
    if latest.state is JobState.SUPERSEDED:
        again = add_next_run(
            rows,
            latest,
            wish.hold_reason or "the series is again what it was",
            state=JobState.HELD if wish.hold_reason else JobState.QUEUED,
        )
        set_generation(rows, again.job_id, wish.generation)
        return None if wish.hold_reason else again.job_id
    if latest.state.is_final:
        held = next((source.held for source in wish.sources if source.held), None)
        if held and has_results(rows, latest):
            add_remark(rows, latest.job_id, f"results are at a peer, but {held}")
        return None
    set_generation(rows, latest.job_id, wish.generation)
    if latest.state is not JobState.HELD or objects_of(rows, latest.job_id):
        return None  # it is on its way, or was held for a reason that is not ours
    if wish.hold_reason is None:
        record_state(rows, latest.job_id, JobState.QUEUED, "released")
        return latest.job_id
    if wish.hold_reason != latest.reason:
        record_state(rows, latest.job_id, JobState.HELD, wish.hold_reason)
    return None


def _add(rows: Rows, spool: Spool, wish: Wanted, replaced: Job | None) -> str | None:
    wish = replace(wish, order=_unused(spool, wish.order))
    add_job(
        rows,
        wish.order,
        spool_id=spool.spool_id,
        is_demo=wish.is_demo,
        generation=wish.generation,
        state=JobState.HELD if wish.hold_reason else JobState.QUEUED,
        reason=wish.hold_reason or "",
        predecessor_job_id=replaced.job_id if replaced else None,
    )
    study = logs.pseudonym(wish.order.study_uid)
    logs.event(
        log,
        "job ordered",
        study=study,
        condition=wish.order.condition,
        job=wish.order.job_id,
        held=wish.hold_reason,
    )
    return None if wish.hold_reason else wish.order.job_id


def _unused(spool: Spool, order: JobOrder) -> JobOrder:
    """The order's first run that left nothing in the spool.

    A folder without a row is of a database that was lost: its results may lie at a peer, and their UIDs must not
    get another content.
    """
    while (spool.path / "jobs" / order.job_id).exists():
        order = replace(order, run=order.run + 1)
    return order


def _delivered(rows: Rows, order: JobOrder, known: Sequence[Job], left: Sequence[Job]) -> Job | None:
    """The latest job whose delivered results the order's will take the place of.

    It is of the same condition; or it is wanted no more, and had only a part of the series that the order takes
    together.
    """
    for job in known:  # newest first
        is_part = job in left and _series(job.order) < _series(order)
        if (job.condition == order.condition or is_part) and has_results(rows, job):
            return job
    return None


def _same_series(one: JobOrder, other: JobOrder) -> bool:
    return _series(one) == _series(other)


def _series(order: JobOrder) -> set[str]:
    return {given.series_uid for given in order.inputs.values()}
