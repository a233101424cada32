"""What a person may say: this study is pre- or post-chemotherapy, this series is that condition, this patient's
therapy began then. A word is written down, and the study is looked at again by the one way in (its markers).
"""

from __future__ import annotations

from collections.abc import Iterable

from node.assembly_repeats import TWO_IMAGES
from node.bundles import bundle_card
from node.config import Config
from node.database import Database
from node.database_jobs import Job, add_next_run, job_of
from node.database_studies import (
    add_therapy,
    confirm_series,
    remove_therapy,
    series_by_uid,
    set_operator_time_point,
    studies_of_patient,
    study_of,
)
from node.domain import JobState, TimePoint
from node.errors import NodeError
from node.history import touched_by
from node.jobs_client import JobsClient
from node.spool import Spool
from node.timepoint import Therapy


class OperatorError(NodeError):
    """The word cannot be taken: the sentence says why, and what can be said instead."""


def confirm_job(
    config: Config,
    spool: Spool,
    database: Database,
    job_id: str,
    *,
    condition: str | None,
    time_point: TimePoint | None,
) -> str:
    """Release a held job by saying what nobody knew; returns what will happen now.

    Raises OperatorError where the job is not held, or where the condition must be named and is not.
    """
    with database.begin() as rows:
        job = job_of(rows, job_id)
        if job.state is not JobState.HELD:
            raise OperatorError(f"job {job_id} is {job.state}, not held; there is nothing to confirm")
        if job.summary:
            raise OperatorError(f"job {job_id} is held with its results made: {job.reason}")
        if job.reason.startswith(TWO_IMAGES):
            raise OperatorError(
                f"job {job_id}: {job.reason}; which one is meant is no question of condition. Look at both (the later "
                "ones lie in the spool's aside/), then `crlm-node jobs release` to use the first, or `jobs cancel`"
            )
        condition = _chosen_condition(config, job, condition, time_point)
        before = study_of(rows, job.study_uid)
        route = config.route(condition)
        assert route is not None  # the choice is among the routes
        if route.time_point in ("pre", "post"):
            set_operator_time_point(rows, job.study_uid, TimePoint(route.time_point))
        for given in job.order.inputs.values():
            for series in series_by_uid(rows, given.series_uid):
                if series.study_uid == job.study_uid:
                    confirm_series(rows, series.marker, condition)
        study = study_of(rows, job.study_uid)
        # a word on one study may be what a later one of the patient waits for
        touched = touched_by(rows, before, study, config) if study is not None else frozenset()
    if study is not None:
        _look_again(spool, [study.spool_key, *touched])
    return f"confirmed as {condition}; the study is looked at again"


def _chosen_condition(config: Config, job: Job, condition: str | None, time_point: TimePoint | None) -> str:
    candidates = job.condition.split(" or ")
    if condition is None and time_point is not None:
        fitting = [
            name for name in candidates if (route := config.route(name)) and route.time_point == time_point.value
        ]
        condition = fitting[0] if len(fitting) == 1 else None
    if condition is None and len(candidates) == 1:
        condition = candidates[0]
    if condition is None or condition not in candidates or config.route(condition) is None:
        raise OperatorError(
            f"job {job.job_id}: say which it is by --condition {' or --condition '.join(candidates)}, "
            "or by --time-point pre or --time-point post"
        )
    return condition


def enter_therapies(
    spool: Spool, database: Database, therapies: Iterable[Therapy], *, default_issuer: str
) -> tuple[int, int]:
    """Enter therapies; returns how many, and how many known studies are looked at again because of them."""
    count = 0
    touched: set[str] = set()
    with database.begin() as rows:
        for therapy in therapies:
            key = add_therapy(
                rows,
                patient_id=therapy.patient_id,
                issuer=therapy.issuer or default_issuer,
                name=therapy.name,
                start_date=therapy.start.isoformat(),
                end_date=therapy.end.isoformat() if therapy.end else None,
                surgery_date=therapy.surgery.isoformat() if therapy.surgery else None,
                source=therapy.source,
            )
            count += 1
            touched |= {study.spool_key for study in studies_of_patient(rows, key)}
    _look_again(spool, touched)
    return count, len(touched)


def withdraw_therapy(spool: Spool, database: Database, therapy_id: int) -> int:
    """Remove a therapy; returns how many studies are looked at again. Raises OperatorError for an unknown number."""
    with database.begin() as rows:
        key = remove_therapy(rows, therapy_id)
        if key is None:
            raise OperatorError(f"no therapy {therapy_id}; `crlm-node therapies list` shows the numbers")
        touched = {study.spool_key for study in studies_of_patient(rows, key)}
    _look_again(spool, touched)
    return len(touched)


def _look_again(spool: Spool, study_keys: Iterable[str]) -> None:
    for study_key in study_keys:
        spool.mark_study(study_key)


def retry_job(config: Config, spool: Spool, database: Database, jobs: JobsClient, job_id: str) -> str:
    """Have an ended job run again; returns what will happen now.

    Where its route or weights have changed since, the order no longer says what is wanted: the study is decided
    anew instead. Raises OperatorError for a job that waits for a person's word.
    """
    with database.read() as rows:
        job = job_of(rows, job_id)
        study = study_of(rows, job.study_uid)
    if job.state is JobState.HELD and not job.summary:
        raise OperatorError(f"job {job_id} waits for a word: {job.reason}; use `crlm-node jobs confirm`")
    if not job.order.bundle:
        with database.begin() as rows:
            again = add_next_run(rows, job, "waits for a word again", state=JobState.HELD)
        return f"waits for a word as job {again.job_id}; use `crlm-node jobs confirm`"
    route = config.route(job.condition)
    card = bundle_card(config.bundle_path(route.bundle)) if route else None
    if route is None or card is None or (route.revision, card.sha256) != (job.order.route_revision, job.bundle_sha256):
        if study is None:
            raise OperatorError(f"job {job_id}: its route has changed and its study is not in the spool any more")
        _look_again(spool, [study.spool_key])
        return "its route or its weights have changed since; the study is decided anew"
    again = jobs.retry(job_id)
    return f"runs again as job {again.job_id}"
