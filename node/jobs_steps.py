"""What the durable steps do. No library of durability in here: each step is an ordinary function that may be
asked again after a crash and then does what is left to do.

Expected outcomes are returned, never raised: with portable serialization an error of ours would come back from a
replay as another type, and the workflow would take another branch than before the crash.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from sqlalchemy.exc import InterfaceError, OperationalError

from node.config import Config
from node.database import Database, utc_now
from node.database_jobs import Job, job_of, lock_job, objects_of, record_objects, record_state
from node.delivery import is_late_or_repeated
from node.delivery_records import (
    apply_commitment_report,
    begin_attempt,
    hold_attempt,
    plan_deliveries,
    requested_objects,
    settle_attempt,
    settle_request,
    supersede,
)
from node.domain import JobOrder, JobState, Receipt, ResultObject
from node.errors import NodeError
from node.spool import Spool

if TYPE_CHECKING:
    from node.peers.answers import CommitmentAnswer

log = logging.getLogger(__name__)

Status = Literal["done", "refused", "held", "failed", "superseded", "ended"]
CHANGED = "the series changed before anything was sent"


class Outcome(TypedDict):
    """What came of a step.

    `refused`: these images cannot be analysed. `ended`: the job was ended by somebody else, there is nothing left
    to do.
    """

    status: Status
    retry: bool
    reason: str


@dataclass(frozen=True)
class Work:
    """What is done, by others: given by the composition root.

    `segment` and `encode` get the order and the job's folder and return a mapping with `status` (done, refused, held,
    failed or superseded), `retry` and `reason`; `encode` adds `objects` (kind, sop_class_uid, sop_instance_uid,
    path, sha256; in sending order) and `summary`. `refuse` does as `encode` where `segment` said refused, and gets
    the reason too. `deliver` gets a peer's name and objects,
    `request_commitment` also the transaction UID. `is_current` says whether the series of an order are still
    what they were when it was made, `whereabouts` why a peer's study is no place for its results any more.
    """

    segment: Callable[[JobOrder, Path], Mapping[str, Any]]
    encode: Callable[[JobOrder, Path], Mapping[str, Any]]
    refuse: Callable[[JobOrder, Path, str], Mapping[str, Any]]
    deliver: Callable[[str, Sequence[ResultObject]], Receipt]
    request_commitment: Callable[[str, Sequence[ResultObject], str], CommitmentAnswer]
    is_current: Callable[[JobOrder], bool]
    whereabouts: Callable[[str, Sequence[ResultObject]], str | None]


@dataclass
class Steps:
    """The steps of one worker. `config` may be replaced between jobs; `wake` tells the sweep of new deliveries."""

    config: Config
    database: Database
    spool: Spool
    work: Work
    wake: Callable[[], None]

    # --- analyse

    def segment(self, job_id: str) -> Outcome:
        """Have the networks find the lesions."""
        job = self._begin(job_id, JobState.SEGMENTING)
        if job is None:
            return _outcome("ended")
        if not self.work.is_current(job.order):
            return _outcome("superseded", CHANGED)
        return _trimmed(self._call(self.work.segment, job))

    def encode(self, job_id: str) -> Outcome:
        """Have the result objects written, once: what was recorded is never written again."""
        job = self._begin(job_id, JobState.ENCODING)
        if job is None:
            return _outcome("ended")
        if not self.work.is_current(job.order):
            return _outcome("superseded", CHANGED)
        with self.database.read() as rows:
            if objects_of(rows, job_id):
                return _outcome("done")
        return self._record(job_id, self._call(self.work.encode, job))

    def refuse(self, job_id: str, reason: str) -> Outcome:
        """Have a report written that the images were not analysed, if any destination wants to hear of it."""
        told = f"not analysed: {reason}"
        with self.database.read() as rows:
            job = job_of(rows, job_id)
            is_written = bool(objects_of(rows, job_id))
        peers = (self.config.peers.get(name) for name in job.order.deliver_to)
        if not any(peer and "refusal" in peer.results.objects for peer in peers):
            return _outcome("failed", told)
        if is_written:
            return _outcome("done")
        if self._begin(job_id, JobState.ENCODING) is None:
            return _outcome("ended")
        outcome = self._record(job_id, self._call(lambda order, folder: self.work.refuse(order, folder, reason), job))
        # who cannot be told so much as that still has the reason in the list of jobs
        return outcome if outcome["status"] == "done" else _outcome("failed", f"{told} ({outcome['reason']})")

    def _record(self, job_id: str, answer: Mapping[str, Any]) -> Outcome:
        """Keep the objects of an answer: from here on they are sent as they are."""
        if answer["status"] == "done":
            objects = [ResultObject(**{**item, "path": Path(item["path"])}) for item in answer["objects"]]
            # known as ours before anybody else can have them: an archive may route them back at once
            self.spool.mark_result(item.sop_instance_uid for item in objects)
            with self.database.begin() as rows:
                record_objects(rows, job_id, objects, dict(answer.get("summary") or {}))
        return _trimmed(answer)

    def plan(self, job_id: str) -> Outcome:
        """Open the deliveries; from here on the sweep carries them."""
        with self.database.read() as rows:
            job = job_of(rows, job_id)
        if not self.work.is_current(job.order):
            return _outcome("superseded", CHANGED)
        with self.database.begin() as rows:
            if lock_job(rows, job_id).state.is_final:
                return _outcome("ended")
            plan_deliveries(rows, job, self.config.peers, utc_now())
        self.wake()
        return _outcome("done")

    def end(self, job_id: str, outcome: Outcome) -> None:
        """Write what a job came to that will not be delivered."""
        if outcome["status"] == "ended":
            return
        state = {"held": JobState.HELD, "superseded": JobState.SUPERSEDED}.get(outcome["status"], JobState.FAILED)
        with self.database.begin() as rows:
            record_state(rows, job_id, state, outcome["reason"])

    # --- deliver

    def attempt(self, job_id: str, peer: str, attempt: int) -> dict[str, Any] | None:
        """Make one attempt and return the receipt; None where none is to be made (any more)."""
        with self.database.read() as rows:
            job = job_of(rows, job_id)
        is_current = self.work.is_current(job.order)
        with self.database.begin() as rows:
            if not is_current and supersede(rows, job_id, CHANGED, utc_now()):
                return None
            objects = begin_attempt(rows, job_id, peer, attempt, self.config.peers, utc_now())
        if not objects:
            return None
        try:
            if is_late_or_repeated(job.created_at, attempt, utc_now()) and (
                doubt := self.work.whereabouts(peer, objects)
            ):
                with self.database.begin() as rows:
                    hold_attempt(rows, job_id, peer, attempt, doubt, utc_now())
                return None
            return asdict(self.work.deliver(peer, objects))
        except (NodeError, OSError) as error:
            return asdict(_unsent(error))

    def settle(self, job_id: str, peer: str, attempt: int, receipt: dict[str, Any]) -> str | None:
        """Write what follows from a receipt; returns the transaction UID where commitment is to be asked for."""
        with self.database.begin() as rows:
            given = Receipt.from_json(receipt)
            transaction_uid = settle_attempt(rows, job_id, peer, attempt, given, self.config.peers, utc_now())
        self.wake()
        return transaction_uid

    def request(self, transaction_uid: str, attempt: int) -> dict[str, Any] | None:
        """Ask a peer to commit and return its answer; None where that was done or is settled."""
        with self.database.read() as rows:
            found = requested_objects(rows, transaction_uid, attempt)
        if found is None:
            return None
        peer, objects = found
        try:
            answer = self.work.request_commitment(peer, objects, transaction_uid)
        except (NodeError, OSError) as error:
            return {"receipt": asdict(_unsent(error)), "report": None}
        return {"receipt": asdict(answer.receipt), "report": dict(answer.report) if answer.report else None}

    def settle_request(self, transaction_uid: str, attempt: int, answer: dict[str, Any]) -> None:
        """Write what came of asking, and the report where it came at once."""
        report = answer["report"]
        with self.database.begin() as rows:
            receipt = Receipt.from_json(answer["receipt"])
            settle_request(rows, transaction_uid, attempt, receipt, self.config.peers, utc_now())
            if report:
                apply_commitment_report(rows, transaction_uid, report["committed"], report["failed"], utc_now())
        self.wake()

    # ---

    def _begin(self, job_id: str, state: JobState) -> Job | None:
        """Write that a job has come so far; None where it was ended meanwhile."""
        with self.database.begin() as rows:
            job = job_of(rows, job_id)
            if job.state == state:
                return job if record_state(rows, job_id, state, "once more") else None
            return job if record_state(rows, job_id, state) else None

    def _call(self, function: Callable[[JobOrder, Path], Mapping[str, Any]], job: Job) -> Mapping[str, Any]:
        try:
            return function(job.order, self.spool.job_folder(job.job_id))
        except NodeError as error:
            return _outcome("failed", str(error), retry=error.retry)
        except (OperationalError, InterfaceError):
            raise  # the database does not answer: the whole step waits for it
        except Exception as error:
            # a foreign error's text may quote a patient: only its type goes on
            log.exception("step failed", extra={"facts": {"job": job.job_id}})
            return _outcome("failed", f"internal error ({type(error).__name__})")


def _outcome(status: Status, reason: str = "", *, retry: bool = False) -> Outcome:
    return {"status": status, "retry": retry, "reason": reason}


def _trimmed(answer: Mapping[str, Any]) -> Outcome:
    """What a workflow needs to know of an answer; the rest has its home in the database and the job's folder."""
    return {
        "status": answer["status"],
        "retry": bool(answer.get("retry", False)),
        "reason": str(answer.get("reason", "")),
    }


def _unsent(error: NodeError | OSError) -> Receipt:
    if isinstance(error, NodeError):
        return Receipt(False, error.retry, str(error))
    return Receipt(False, True, f"{type(error).__name__}: {error.strerror}")
