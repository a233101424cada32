"""What a job's results need from the database: series numbers, times, predecessors, lesion identities.

Kept per job, so that encoding once more after a crash says the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from node.config import Config
from node.database import Database, Rows, moment_of
from node.database_jobs import Job, job_of, objects_of, series_slot
from node.database_studies import lesions_of, record_lesions, study_of
from node.delivery_records import has_results
from node.dicom.context import Tracking
from node.dicom.uids import derived_uid
from node.domain import JobOrder
from node.errors import ObjectError
from node.spool import Spool
from node.tracking import Previous

FIRST_SERIES_NUMBER = 90000
SERIES_NUMBERS_A_JOB = 10


class DatabaseLedger:
    """The ledger of a node that serves (node/analysis.py says what is asked of it)."""

    def __init__(self, config: Config, spool: Spool, database: Database) -> None:
        self._config = config
        self._spool = spool
        self._database = database

    def series_number(self, order: JobOrder) -> int:
        """90000 + 10·k, k counted within the study and kept for the job."""
        with self._database.begin() as rows:
            slot = series_slot(rows, order.study_uid, order.job_id)
        return FIRST_SERIES_NUMBER + SERIES_NUMBERS_A_JOB * slot

    def content_datetime(self, order: JobOrder) -> datetime:
        """When the job was made, on the site's clock."""
        with self._database.read() as rows:
            return moment_of(job_of(rows, order.job_id).created_at).astimezone(self._config.zone)

    def previous(self, order: JobOrder) -> Previous | None:
        """The result that this job's replaces; None where nobody has an earlier one."""
        with self._database.read() as rows:
            replaced = next((job for job in _ancestors(rows, order.job_id) if has_results(rows, job)), None)
            if replaced is None:
                return None
            report = next((item for item in objects_of(rows, replaced.job_id) if item.kind == "sr"), None)
            tracking = tuple(Tracking(identifier=name, uid=uid) for uid, name in lesions_of(rows, replaced.job_id))
            earlier = sum(has_results(rows, job) for job in _ancestors(rows, replaced.job_id))
        if report is None:
            return None
        return Previous(
            version=earlier + 1,
            sr_series_uid=derived_uid(replaced.job_id, "sr", "series", root=self._config.node.site.uid_root),
            sr_instance_uid=report.sop_instance_uid,
            folder=self._spool.job_folder(replaced.job_id),
            tracking=tracking,
        )

    def keep_tracking(self, order: JobOrder, tracking: Sequence[Tracking]) -> Sequence[Tracking]:
        """Keep the identities, or return those of the first call."""
        with self._database.begin() as rows:
            study = study_of(rows, order.study_uid)
            if study is None:
                raise ObjectError("the study of the job is not in the database any more")
            kept = record_lesions(
                rows,
                order.job_id,
                patient_key=study.patient_key,
                study_uid=order.study_uid,
                identities=[(item.uid, item.identifier) for item in tracking],
            )
        return [Tracking(identifier=name, uid=uid) for uid, name in kept]


def _ancestors(rows: Rows, job_id: str) -> Iterator[Job]:
    """The jobs that a job came after, nearest first; a failed one among them replaced nothing."""
    job = job_of(rows, job_id)
    while job.predecessor_job_id is not None:
        job = job_of(rows, job.predecessor_job_id)
        yield job
