"""What goes where, when again, and when it counts as delivered: decisions that touch nothing.

No network, no rows, no clock of its own: node/delivery_records.py writes down what is decided here. Whatever leaves
the node passes `withheld`, the only gate for results of demo weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from node.config_peers import AnyPeer, DimsePeer, Retry
from node.database import moment_of
from node.database_deliveries import Delivery, DeliveryState, ReceiptRecord
from node.domain import JobState, Receipt, ResultObject

Peers = Mapping[str, AnyPeer]

DEMO_WEIGHTS = "demo weights"
KEPT = "kept in the spool; no destination"
BREAKER_FAILURES = 5
"""So many attempts in a row at a peer that did not answer, and only one probe an interval goes out."""
LATE_AFTER = timedelta(hours=1)
ROUNDS = 2
"""Objects that a peer does not commit to are sent once more, then a person is called."""

# PS3.3 section C.14.1.1, Failure Reason (0008,1197)
FAILURE_REASONS = {
    0x0110: "processing failure",
    0x0112: "no such object instance",
    0x0119: "class / instance conflict",
    0x0122: "referenced SOP class not supported",
    0x0131: "duplicate transaction UID",
    0x0213: "resource limitation",
}


@dataclass(frozen=True)
class Plan:
    """Where a job's objects go, which peers get none and why, and what that makes of the job."""

    send_to: tuple[str, ...]
    held: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class NextStep:
    """What an answer makes of a delivery."""

    state: DeliveryState
    reason: str
    next_attempt_at: datetime | None = None


def withheld(is_demo: bool, name: str, peers: Peers) -> str | None:
    """Why this peer must not be sent a job's objects; None where it may.

    An invented lesion in a real archive is the worst thing this node could do: results of demo weights go only
    where `accepts_demo_results` says so, folders included.
    """
    peer = peers.get(name)
    if peer is None:
        return f"peers.yaml has no peer {name!r}"
    if not peer.may_receive:
        return f"may_receive is false for peer {name!r}"
    if is_demo and not peer.accepts_demo_results:
        return DEMO_WEIGHTS
    return None


def plan(is_demo: bool, deliver_to: Sequence[str], peers: Peers) -> Plan:
    """Sort a route's destinations into those that get the objects and those that must not."""
    reasons = {name: withheld(is_demo, name, peers) for name in deliver_to}
    return Plan(
        send_to=tuple(name for name, reason in reasons.items() if reason is None),
        held={name: reason for name, reason in reasons.items() if reason is not None},
    )


def objects_for(peer: AnyPeer, objects: Iterable[ResultObject]) -> list[ResultObject]:
    """What a peer's profile takes of a job's objects, in the order in which they are sent."""
    return [item for item in objects if item.kind in peer.results.objects]


def wants_commitment(peer: AnyPeer | None) -> bool:
    """Whether a peer is asked to commit to what it stored: storage commitment is a DIMSE service."""
    return isinstance(peer, DimsePeer) and peer.storage_commitment


def has_answered(receipt: Receipt) -> bool:
    """Whether the peer was there at all, whatever it said of the objects."""
    return receipt.is_stored or bool(receipt.statuses) or not receipt.retry


def is_late_or_repeated(ordered_at: str, attempt: int, now: datetime) -> bool:
    """Whether so much may have happened since the images came that the study must be looked up at the peer first."""
    return attempt > 1 or now - moment_of(ordered_at) > LATE_AFTER


def is_circuit_open(latest: Sequence[ReceiptRecord]) -> bool:
    """Whether a peer counts as dead, by its latest receipts, newest first."""
    recent = latest[:BREAKER_FAILURES]
    return len(recent) == BREAKER_FAILURES and not any(has_answered(record.receipt) for record in recent)


def next_probe_at(latest: Sequence[ReceiptRecord], retry: Retry) -> datetime:
    """When a dead peer may be tried again."""
    return moment_of(latest[0].at) + timedelta(seconds=retry.first_s)


def after_receipt(
    receipt: Receipt, *, failures: int, first_attempt_at: datetime, retry: Retry, now: datetime, is_committing: bool
) -> NextStep:
    """What follows from an answer. `failures` counts the attempts that failed in a row, this one included."""
    if receipt.is_stored:
        return NextStep(DeliveryState.SENT if is_committing else DeliveryState.COMMITTED, receipt.reason)
    if not receipt.retry:
        return NextStep(DeliveryState.FAILED, receipt.reason)
    if now - first_attempt_at >= timedelta(hours=retry.give_up_h):
        return NextStep(DeliveryState.FAILED, f"gave up after {retry.give_up_h:g} h: {receipt.reason}")
    return NextStep(DeliveryState.WAITING, receipt.reason, now + timedelta(seconds=retry.delay_s(failures)))


def verdict(deliveries: Sequence[Delivery]) -> tuple[JobState, str]:
    """What a job's deliveries make of the job, and why."""
    if not deliveries:
        return JobState.COMMITTED, KEPT
    states = {delivery.state for delivery in deliveries}
    if any(state.is_open for state in states):
        return JobState.SENDING, _told(d for d in deliveries if d.state.is_open and d.reason)
    if DeliveryState.FAILED in states:
        # a part that did arrive is told too
        return JobState.FAILED, _told(deliveries)
    if states == {DeliveryState.CANCELLED}:
        return JobState.CANCELLED, _told(deliveries)
    if DeliveryState.COMMITTED in states:
        return JobState.COMMITTED, _told(d for d in deliveries if d.state is not DeliveryState.COMMITTED)
    reasons = {delivery.reason for delivery in deliveries}
    return JobState.HELD, reasons.pop() if len(reasons) == 1 else _told(deliveries)


def refusals(refused: Mapping[str, int]) -> str:
    """Why a peer did not commit to objects, in words: SOP Instance UID → Failure Reason (0008,1197)."""
    named = ", ".join(
        f"{code:04X} {FAILURE_REASONS.get(code, 'unknown reason')}" for code in sorted(set(refused.values()))
    )
    return f"{len(refused)} objects: {named}" if refused else ""


def _told(deliveries: Iterable[Delivery]) -> str:
    return "; ".join(_told_of(delivery) for delivery in deliveries)


def _told_of(delivery: Delivery) -> str:
    if delivery.reason and delivery.state is not DeliveryState.COMMITTED:
        return f"{delivery.peer}: {delivery.state}, {delivery.reason}"
    return f"{delivery.peer}: {delivery.state}"
