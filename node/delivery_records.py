"""The course of a delivery, written down: each verb asks node/delivery.py what follows, and writes exactly that.

All of a verb happens in the caller's transaction, under the job's lock, and asked again after a crash it changes
nothing twice.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from node.config_peers import AnyPeer, DimsePeer, Retry
from node.database import Rows, iso, moment_of
from node.database_deliveries import (
    Commitment,
    CommitmentState,
    Delivery,
    DeliveryState,
    add_commitment,
    add_delivery,
    add_receipt,
    cancel_deliveries,
    change_commitment,
    change_delivery,
    commitment_of,
    commitments_of,
    deliveries_of,
    delivery_of,
    due_deliveries,
    failures_in_a_row,
    hasten,
    last_receipts,
    receipts_of,
)
from node.database_jobs import Job, job_of, lock_job, objects_of, record_state
from node.delivery import (
    BREAKER_FAILURES,
    ROUNDS,
    NextStep,
    Peers,
    after_receipt,
    has_answered,
    is_circuit_open,
    next_probe_at,
    objects_for,
    plan,
    refusals,
    verdict,
    wants_commitment,
    withheld,
)
from node.domain import JobState, Receipt, ResultObject

REQUEST_GRACE_S = 60.0
"""The attempt that stored the objects asks for commitment itself; after so long nobody did, so the sweep asks."""


def plan_deliveries(rows: Rows, job: Job, peers: Peers, now: datetime) -> JobState:
    """Open a job's deliveries, due at once, and hold those that must not go; returns what the job is then."""
    lock_job(rows, job.job_id)
    planned = plan(job.is_demo, job.order.deliver_to, peers)
    for name in planned.send_to:
        add_delivery(rows, job.job_id, name, state=DeliveryState.WAITING, reason="", now=now)
    for name, reason in planned.held.items():
        add_delivery(rows, job.job_id, name, state=DeliveryState.HELD, reason=reason, now=now)
    return _tell_job(rows, job.job_id)


def release_deliveries(rows: Rows, job: Job, peers: Peers, now: datetime) -> bool:
    """Open again what was held of a job and may go by now; False where nothing may."""
    lock_job(rows, job.job_id)
    held = [delivery for delivery in deliveries_of(rows, job.job_id) if delivery.state is DeliveryState.HELD]
    free = [delivery for delivery in held if withheld(job.is_demo, delivery.peer, peers) is None]
    for delivery in free:
        change_delivery(
            rows,
            job.job_id,
            delivery.peer,
            now=now,
            state=DeliveryState.WAITING.value,
            reason="",
            next_attempt_at=iso(now),
        )
    if free:
        _tell_job(rows, job.job_id)
    return bool(free)


def due(rows: Rows, spool_id: str, peers: Peers, now: datetime) -> list[Delivery]:
    """Deliveries that should be under way; of those that wait for a dead peer one, and only when a probe is due."""
    chosen: list[Delivery] = []
    probes: dict[str, int | None] = {}  # peer → how many may still go; None where the peer is alive
    for delivery in due_deliveries(rows, spool_id, now):
        if delivery.state is DeliveryState.WAITING:
            if delivery.peer not in probes:
                probes[delivery.peer] = _probes(rows, delivery.peer, peers, now)
            left = probes[delivery.peer]
            if left == 0:
                continue
            probes[delivery.peer] = None if left is None else left - 1
        chosen.append(delivery)
    return chosen


def begin_attempt(rows: Rows, job_id: str, peer: str, attempt: int, peers: Peers, now: datetime) -> list[ResultObject]:
    """Mark an attempt as begun and return what to send; nothing where it must not be made (any more).

    Asked again for the same attempt, after a crash in the middle of it, it answers the same.
    """
    job = lock_job(rows, job_id)
    delivery = delivery_of(rows, job_id, peer)
    if delivery is None or not _is_awaited(delivery, attempt):
        return []
    if job.state.is_final:
        _write(rows, delivery, NextStep(DeliveryState.CANCELLED, f"the job is {job.state}"), now, attempts=attempt)
        return []
    told = peers.get(peer)
    reason = withheld(job.is_demo, peer, peers)
    if reason is not None or told is None:
        _write(rows, delivery, NextStep(DeliveryState.HELD, reason or ""), now, attempts=attempt)
        return []
    if delivery.state is DeliveryState.WAITING and _probes(rows, peer, peers, now) == 0:
        # it was queued before the peer died; the attempt's number is spent, no receipt is written
        latest = last_receipts(rows, peer, BREAKER_FAILURES)
        later = NextStep(DeliveryState.WAITING, latest[0].receipt.reason, next_probe_at(latest, told.retry))
        _write(rows, delivery, later, now, attempts=attempt)
        return []
    objects = _pending(rows, delivery, told)
    if not objects:
        nothing = NextStep(DeliveryState.COMMITTED, "the peer's profile takes none of the job's objects")
        _write(rows, delivery, nothing, now, attempts=attempt)
        return []
    change_delivery(
        rows,
        job_id,
        peer,
        now=now,
        state=DeliveryState.SENDING.value,
        first_attempt_at=delivery.first_attempt_at or iso(now),
    )
    return objects


def hold_attempt(rows: Rows, job_id: str, peer: str, attempt: int, reason: str, now: datetime) -> None:
    """Leave a begun attempt to a person; nothing was sent."""
    lock_job(rows, job_id)
    delivery = delivery_of(rows, job_id, peer)
    if delivery is not None and _is_awaited(delivery, attempt):
        _write(rows, delivery, NextStep(DeliveryState.HELD, reason), now, attempts=attempt)


def settle_attempt(
    rows: Rows, job_id: str, peer: str, attempt: int, receipt: Receipt, peers: Peers, now: datetime
) -> str | None:
    """Keep an answer and do what follows from it; returns the transaction UID where commitment is to be asked for.

    An answer that was kept already changes nothing.
    """
    lock_job(rows, job_id)
    delivery = delivery_of(rows, job_id, peer)
    if delivery is None or delivery.attempts >= attempt:
        return _unrequested(rows, job_id, peer)
    was_silent = not all(has_answered(record.receipt) for record in last_receipts(rows, peer, 1))
    add_receipt(rows, job_id, peer, attempt, receipt, now)
    if not _is_awaited(delivery, attempt):
        # cancelled, or committed by a late report, while it was being sent
        change_delivery(rows, job_id, peer, now=now, attempts=attempt)
        return None
    if was_silent and has_answered(receipt):
        hasten(rows, peer, now)
    told = peers.get(peer)
    step = after_receipt(
        receipt,
        failures=failures_in_a_row(rows, job_id, peer),
        first_attempt_at=moment_of(delivery.first_attempt_at) if delivery.first_attempt_at else now,
        retry=_retry(peers, peer),
        now=now,
        is_committing=wants_commitment(told),
    )
    transaction_uid = None
    if step.state is DeliveryState.SENT and isinstance(told, DimsePeer):
        transaction_uid = f"2.25.{uuid.uuid4().int}"  # PS3.5 section B.2
        add_commitment(
            rows,
            transaction_uid,
            job_id=job_id,
            peer=peer,
            requested_uids=receipt.stored,
            next_request_at=now + timedelta(seconds=REQUEST_GRACE_S),
            deadline_at=now + timedelta(hours=told.commitment_timeout_h),
        )
    _write(rows, delivery, step, now, attempts=attempt)
    return transaction_uid


def requested_objects(rows: Rows, transaction_uid: str, attempt: int) -> tuple[str, list[ResultObject]] | None:
    """Peer and objects of a commitment that is still to be asked for; None where that was done or is settled."""
    asked = commitment_of(rows, transaction_uid)
    if asked is None or asked.state is not CommitmentState.OPEN or asked.attempts >= attempt:
        return None
    uids = set(asked.requested_uids)
    return asked.peer, [item for item in objects_of(rows, asked.job_id) if item.sop_instance_uid in uids]


def settle_request(
    rows: Rows, transaction_uid: str, attempt: int, receipt: Receipt, peers: Peers, now: datetime
) -> None:
    """Keep what came of asking for commitment: asked, to be asked again, or refused for good."""
    asked = _locked(rows, transaction_uid)
    if asked is None or asked.attempts >= attempt:
        return
    if asked.state is not CommitmentState.OPEN or receipt.is_stored:
        # the report may have come before this answer
        change_commitment(
            rows, transaction_uid, attempts=attempt, requested_at=iso(now), next_request_at=None, reason=receipt.reason
        )
        return
    if receipt.retry:
        again_at = now + timedelta(seconds=_retry(peers, asked.peer).delay_s(attempt))
        change_commitment(rows, transaction_uid, attempts=attempt, next_request_at=iso(again_at), reason=receipt.reason)
        return
    change_commitment(
        rows,
        transaction_uid,
        attempts=attempt,
        next_request_at=None,
        state=CommitmentState.FAILED.value,
        reason=receipt.reason,
    )
    delivery = delivery_of(rows, asked.job_id, asked.peer)
    if delivery is not None and delivery.state is DeliveryState.SENT:
        _write(rows, delivery, NextStep(DeliveryState.FAILED, f"stored, but not committed: {receipt.reason}"), now)


def apply_commitment_report(
    rows: Rows, transaction_uid: str, committed: Iterable[str], failed: Mapping[str, int], now: datetime
) -> bool:
    """Take in a peer's report (SOP Instance UIDs; Failure Reasons of those it did not commit to).

    Returns False for a transaction that is not ours. A report that comes twice, or late, only adds what it confirms.
    """
    asked = _locked(rows, transaction_uid)
    if asked is None:
        return False
    requested = set(asked.requested_uids)
    kept = set(asked.committed_uids) | (requested & set(committed))
    refused = {uid: reason for uid, reason in failed.items() if uid in requested - kept}
    is_first_word = asked.state is CommitmentState.OPEN
    state = CommitmentState.COMMITTED if kept == requested else asked.state
    if refused and is_first_word:
        state = CommitmentState.FAILED
    told = refusals(refused)
    change_commitment(
        rows, transaction_uid, committed_uids=sorted(kept), state=state.value, next_request_at=None, reason=told
    )
    delivery = delivery_of(rows, asked.job_id, asked.peer)
    if delivery is None:
        return True
    if not _uncommitted(rows, delivery):
        if delivery.state is not DeliveryState.CANCELLED:
            _write(rows, delivery, NextStep(DeliveryState.COMMITTED, ""), now)
    elif refused and is_first_word:
        _send_again_or_fail(rows, delivery, f"not committed by the peer ({told})", now)
    return True


def pass_deadline(rows: Rows, overdue: Commitment, peers: Peers, now: datetime) -> None:
    """The peer did not report in time: send once more, or, where that was done, call a person."""
    asked = _locked(rows, overdue.transaction_uid)
    if asked is None or asked.state is not CommitmentState.OPEN or moment_of(asked.deadline_at) > now:
        return
    change_commitment(rows, asked.transaction_uid, state=CommitmentState.OVERDUE.value, next_request_at=None)
    delivery = delivery_of(rows, asked.job_id, asked.peer)
    told = peers.get(asked.peer)
    patience = f"within {told.commitment_timeout_h:g} h" if isinstance(told, DimsePeer) else "in time"
    if delivery is not None:
        _send_again_or_fail(rows, delivery, f"not committed {patience}", now)


def is_begun(rows: Rows, job_id: str) -> bool:
    """Whether any peer has taken anything of a job: from then on it cannot be replaced silently."""
    return any(record.receipt.stored for record in receipts_of(rows, job_id))


def has_results(rows: Rows, job: Job) -> bool:
    """Whether a peer has anything of a job's results. A report that there are none is no result."""
    return "not_analysed" not in job.summary and is_begun(rows, job.job_id)


def supersede(rows: Rows, job_id: str, reason: str, now: datetime) -> bool:
    """End a job whose series changed before anything of it was delivered; False where something was."""
    lock_job(rows, job_id)
    if is_begun(rows, job_id):
        return False
    cancel_deliveries(rows, job_id, reason, now)
    return record_state(rows, job_id, JobState.SUPERSEDED, reason)


def cancel_job(rows: Rows, job_id: str, reason: str, now: datetime) -> bool:
    """End a job and what is open of its deliveries; False where it has ended by itself."""
    if not record_state(rows, job_id, JobState.CANCELLED, reason):
        return False
    cancel_deliveries(rows, job_id, reason, now)
    return True


def _locked(rows: Rows, transaction_uid: str) -> Commitment | None:
    """The commitment of that transaction as it stands under its job's lock."""
    found = commitment_of(rows, transaction_uid)
    if found is None:
        return None
    lock_job(rows, found.job_id)
    return commitment_of(rows, transaction_uid)


def _pending(rows: Rows, delivery: Delivery, peer: AnyPeer) -> list[ResultObject]:
    """What is to be sent: all that the profile takes, or what the last round was not committed to."""
    objects = objects_for(peer, objects_of(rows, delivery.job_id))
    pending = delivery.pending_uids
    return objects if pending is None else [item for item in objects if item.sop_instance_uid in pending]


def _is_awaited(delivery: Delivery, attempt: int) -> bool:
    is_sendable = delivery.state in (DeliveryState.WAITING, DeliveryState.SENDING)
    return is_sendable and delivery.attempts == attempt - 1


def _probes(rows: Rows, peer: str, peers: Peers, now: datetime) -> int | None:
    """How many attempts at a peer that does not answer may be made now; None where it answers."""
    latest = last_receipts(rows, peer, BREAKER_FAILURES)
    if not is_circuit_open(latest):
        return None
    return 1 if next_probe_at(latest, _retry(peers, peer)) <= now else 0


def _unrequested(rows: Rows, job_id: str, peer: str) -> str | None:
    """The commitment that an attempt wrote down before a crash kept it from asking."""
    written = commitments_of(rows, job_id, peer)
    return next((c.transaction_uid for c in written if c.state is CommitmentState.OPEN and c.attempts == 0), None)


def _retry(peers: Peers, name: str) -> Retry:
    return peers[name].retry if name in peers else Retry()


def _uncommitted(rows: Rows, delivery: Delivery) -> list[str]:
    """SOP Instance UIDs that a peer was asked to commit to and has not, in any of the delivery's rounds."""
    asked = commitments_of(rows, delivery.job_id, delivery.peer)
    kept = {uid for commitment in asked for uid in commitment.committed_uids}
    return sorted({uid for commitment in asked for uid in commitment.requested_uids} - kept)


def _send_again_or_fail(rows: Rows, delivery: Delivery, reason: str, now: datetime) -> None:
    if delivery.state is not DeliveryState.SENT:
        return
    if delivery.rounds >= ROUNDS:
        _write(rows, delivery, NextStep(DeliveryState.FAILED, f"{reason}, sent twice"), now)
        return
    # byte for byte the same objects; the clock of give_up_h starts anew
    change_delivery(
        rows,
        delivery.job_id,
        delivery.peer,
        now=now,
        rounds=delivery.rounds + 1,
        pending_uids=_uncommitted(rows, delivery),
        first_attempt_at=None,
    )
    _write(rows, delivery, NextStep(DeliveryState.WAITING, f"{reason}; sent again", now), now)


def _write(rows: Rows, delivery: Delivery, step: NextStep, now: datetime, attempts: int | None = None) -> None:
    """Write what became of a delivery, and what that makes of its job."""
    change_delivery(
        rows,
        delivery.job_id,
        delivery.peer,
        now=now,
        state=step.state.value,
        reason=step.reason,
        next_attempt_at=iso(step.next_attempt_at) if step.next_attempt_at else None,
        attempts=delivery.attempts if attempts is None else attempts,
    )
    _tell_job(rows, delivery.job_id)


def _tell_job(rows: Rows, job_id: str) -> JobState:
    """Bring a job's state to what its deliveries make of it; a job that has ended stays."""
    state, reason = verdict(deliveries_of(rows, job_id))
    job = job_of(rows, job_id)
    if (job.state, job.reason) != (state, reason):
        record_state(rows, job_id, state, reason)
    return state
