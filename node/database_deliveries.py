"""Deliveries, receipts and commitments as rows: the truth about what each peer was sent, and what it said.

A delivery is one job's objects to one peer. It carries no pipeline version and needs no running workflow: whoever
finds it due may attempt it. What follows from an answer is decided in node/delivery.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import and_, func, insert, or_, select, update

from node.database import Rows, iso
from node.domain import Receipt
from node.tables import commitments, deliveries, jobs, receipts


class DeliveryState(StrEnum):
    """Where one job's delivery to one peer stands."""

    WAITING = "waiting"
    """To be attempted at `next_attempt_at`."""
    SENDING = "sending"
    """An attempt is being made."""
    SENT = "sent"
    """Every object was taken; the peer's commitment is awaited."""
    COMMITTED = "committed"
    """The peer committed to every object; or it took them and is, by its configuration, not asked to commit."""
    FAILED = "failed"
    HELD = "held"
    """Withheld from this peer; `reason` says why."""
    CANCELLED = "cancelled"

    @property
    def is_open(self) -> bool:
        """Something is still to happen by itself."""
        return self in (DeliveryState.WAITING, DeliveryState.SENDING, DeliveryState.SENT)


class CommitmentState(StrEnum):
    """Where one storage commitment transaction stands (PS3.4 section J)."""

    OPEN = "open"
    COMMITTED = "committed"
    FAILED = "failed"
    OVERDUE = "overdue"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class Delivery:
    """A row of `deliveries`. `attempts` counts those that ended; `rounds` counts sendings that commitment asked for.

    `pending_uids` names the SOP instances to send; None means all that the peer's profile takes.
    """

    job_id: str
    peer: str
    state: DeliveryState
    attempts: int
    rounds: int
    pending_uids: tuple[str, ...] | None
    first_attempt_at: str | None
    next_attempt_at: str | None
    reason: str
    updated_at: str


@dataclass(frozen=True)
class ReceiptRecord:
    """A row of `receipts`: what a peer answered to one attempt, and when."""

    job_id: str
    peer: str
    attempt: int
    at: str
    receipt: Receipt


@dataclass(frozen=True)
class Commitment:
    """A row of `commitments`: which SOP instances we asked a peer to commit to, by when, and what it said so far."""

    transaction_uid: str
    job_id: str
    peer: str
    requested_uids: tuple[str, ...]
    committed_uids: tuple[str, ...]
    attempts: int
    requested_at: str | None
    next_request_at: str | None
    deadline_at: str
    state: CommitmentState
    reason: str


def add_delivery(rows: Rows, job_id: str, peer: str, *, state: DeliveryState, reason: str, now: datetime) -> None:
    """Write a delivery where there is none yet; it is due at once if it waits."""
    if delivery_of(rows, job_id, peer) is None:
        rows.execute(
            insert(deliveries).values(
                job_id=job_id,
                peer=peer,
                state=state.value,
                attempts=0,
                rounds=1,
                pending_uids=None,
                first_attempt_at=None,
                next_attempt_at=iso(now) if state is DeliveryState.WAITING else None,
                reason=reason,
                updated_at=iso(now),
            )
        )


def change_delivery(rows: Rows, job_id: str, peer: str, *, now: datetime, **values: Any) -> None:
    """Write these columns of a delivery."""
    chosen = (deliveries.c.job_id == job_id) & (deliveries.c.peer == peer)
    rows.execute(update(deliveries).where(chosen).values(updated_at=iso(now), **values))


def delivery_of(rows: Rows, job_id: str, peer: str) -> Delivery | None:
    """The delivery of that job to that peer."""
    chosen = (deliveries.c.job_id == job_id) & (deliveries.c.peer == peer)
    row = rows.execute(select(deliveries).where(chosen)).first()
    return _delivery(row) if row else None


def deliveries_of(rows: Rows, job_id: str) -> list[Delivery]:
    """A job's deliveries, by peer."""
    query = select(deliveries).where(deliveries.c.job_id == job_id).order_by(deliveries.c.peer)
    return [_delivery(row) for row in rows.execute(query)]


def due_deliveries(rows: Rows, spool_id: str, now: datetime) -> list[Delivery]:
    """Deliveries of a spool's jobs that should be under way by now, longest due first."""
    query = (
        select(deliveries)
        .join(jobs, jobs.c.job_id == deliveries.c.job_id)
        .where(jobs.c.spool_id == spool_id)
        .where(deliveries.c.state.in_([DeliveryState.WAITING.value, DeliveryState.SENDING.value]))
        .where(deliveries.c.next_attempt_at <= iso(now))
        .order_by(deliveries.c.next_attempt_at, deliveries.c.job_id)
    )
    return [_delivery(row) for row in rows.execute(query)]


def hasten(rows: Rows, peer: str, now: datetime) -> None:
    """The peer answers again: what waits for it is due now. What somebody is changing just now is passed over."""
    waiting = (deliveries.c.peer == peer) & (deliveries.c.state == DeliveryState.WAITING.value)
    free = select(deliveries.c.job_id).where(waiting).with_for_update(skip_locked=True)
    job_ids = rows.execute(free).scalars().all()
    chosen = waiting & deliveries.c.job_id.in_(job_ids)
    rows.execute(update(deliveries).where(chosen).values(next_attempt_at=iso(now)))


def cancel_deliveries(rows: Rows, job_id: str, reason: str, now: datetime) -> None:
    """End what is open or held of a job's deliveries and commitments."""
    endable = [state.value for state in DeliveryState if state.is_open or state is DeliveryState.HELD]
    rows.execute(
        update(deliveries)
        .where(deliveries.c.job_id == job_id, deliveries.c.state.in_(endable))
        .values(state=DeliveryState.CANCELLED.value, next_attempt_at=None, reason=reason, updated_at=iso(now))
    )
    rows.execute(
        update(commitments)
        .where(commitments.c.job_id == job_id, commitments.c.state == CommitmentState.OPEN.value)
        .values(state=CommitmentState.CANCELLED.value, next_request_at=None, reason=reason)
    )


# --- receipts


def add_receipt(rows: Rows, job_id: str, peer: str, attempt: int, receipt: Receipt, now: datetime) -> None:
    """Keep a peer's answer."""
    rows.execute(
        insert(receipts).values(
            job_id=job_id,
            peer=peer,
            attempt=attempt,
            at=iso(now),
            is_stored=receipt.is_stored,
            retry=receipt.retry,
            reason=receipt.reason,
            statuses=receipt.statuses,
            stored=list(receipt.stored),
        )
    )


def receipts_of(rows: Rows, job_id: str) -> list[ReceiptRecord]:
    """Every answer to a job's deliveries, oldest first."""
    query = select(receipts).where(receipts.c.job_id == job_id)
    return [_receipt(row) for row in rows.execute(query.order_by(receipts.c.at, receipts.c.peer))]


def last_receipts(rows: Rows, peer: str, limit: int) -> list[ReceiptRecord]:
    """A peer's latest answers to any job, newest first."""
    query = select(receipts).where(receipts.c.peer == peer).order_by(receipts.c.at.desc(), receipts.c.attempt.desc())
    return [_receipt(row) for row in rows.execute(query.limit(limit))]


def failures_in_a_row(rows: Rows, job_id: str, peer: str) -> int:
    """How many attempts of a delivery have failed since its last success."""
    own = (receipts.c.job_id == job_id) & (receipts.c.peer == peer)
    last = select(func.max(receipts.c.attempt)).where(own, receipts.c.is_stored).scalar_subquery()
    query = select(func.count()).select_from(receipts).where(own, receipts.c.attempt > func.coalesce(last, 0))
    return int(rows.execute(query).scalar_one())


# --- commitments


def add_commitment(
    rows: Rows,
    transaction_uid: str,
    *,
    job_id: str,
    peer: str,
    requested_uids: Iterable[str],
    next_request_at: datetime,
    deadline_at: datetime,
) -> None:
    """Write down what we are about to ask, before asking: the report may come back sooner than the answer."""
    rows.execute(
        insert(commitments).values(
            transaction_uid=transaction_uid,
            job_id=job_id,
            peer=peer,
            requested_uids=list(requested_uids),
            committed_uids=[],
            attempts=0,
            requested_at=None,
            next_request_at=iso(next_request_at),
            deadline_at=iso(deadline_at),
            state=CommitmentState.OPEN.value,
            reason="",
        )
    )


def change_commitment(rows: Rows, transaction_uid: str, **values: Any) -> None:
    """Write these columns of a commitment."""
    rows.execute(update(commitments).where(commitments.c.transaction_uid == transaction_uid).values(**values))


def commitment_of(rows: Rows, transaction_uid: str) -> Commitment | None:
    """The commitment of that transaction."""
    row = rows.execute(select(commitments).where(commitments.c.transaction_uid == transaction_uid)).first()
    return _commitment(row) if row else None


def commitments_of(rows: Rows, job_id: str, peer: str | None = None) -> list[Commitment]:
    """A job's commitments, or those with one peer, the earliest deadline first."""
    query = select(commitments).where(commitments.c.job_id == job_id).order_by(commitments.c.deadline_at)
    if peer is not None:
        query = query.where(commitments.c.peer == peer)
    return [_commitment(row) for row in rows.execute(query)]


def due_commitments(rows: Rows, spool_id: str, now: datetime) -> list[Commitment]:
    """Open commitments of a spool's jobs that are to be asked for again, or whose deadline has passed."""
    query = (
        select(commitments)
        .join(jobs, jobs.c.job_id == commitments.c.job_id)
        .where(jobs.c.spool_id == spool_id)
        .where(commitments.c.state == CommitmentState.OPEN.value)
        .where(
            or_(
                commitments.c.deadline_at <= iso(now),
                and_(commitments.c.next_request_at.is_not(None), commitments.c.next_request_at <= iso(now)),
            )
        )
        .order_by(commitments.c.deadline_at)
    )
    return [_commitment(row) for row in rows.execute(query)]


def _delivery(row: Any) -> Delivery:
    values = dict(row._mapping)
    pending = values["pending_uids"]
    return Delivery(
        **{
            **values,
            "state": DeliveryState(values["state"]),
            "pending_uids": None if pending is None else tuple(pending),
        }
    )


def _receipt(row: Any) -> ReceiptRecord:
    told = Receipt(row.is_stored, row.retry, row.reason, row.statuses, tuple(row.stored))
    return ReceiptRecord(row.job_id, row.peer, row.attempt, row.at, told)


def _commitment(row: Any) -> Commitment:
    values = dict(row._mapping)
    return Commitment(
        **{
            **values,
            "requested_uids": tuple(values["requested_uids"]),
            "committed_uids": tuple(values["committed_uids"]),
            "state": CommitmentState(values["state"]),
        }
    )
