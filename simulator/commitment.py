"""Storage commitment as an archive gives it (PS3.4 Annex J): request in, and the report on its way out.

The report travels on a new association to the requestor's configured address, with the roles turned round: the
archive opens the association and is still the SCP (PS3.4 J.3.3, role selection of PS3.7 D.3.3.4). An archive that
reports on the requestor's own association can be played too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import cast

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pynetdicom import build_role, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import N_ACTION

from simulator.shelf import Shelf
from simulator.wire import CallingAE

STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"
NO_SUCH_INSTANCE, CLASS_CONFLICT, PROCESSING_FAILURE = 0x0112, 0x0119, 0x0110
NO_SUCH_ACTION = 0x0123
ALL_COMMITTED, SOME_FAILED = 1, 2  # event types, PS3.4 table J.3-2
REPORT_ATTEMPTS = 3
RETRY_S = 0.5


@dataclass
class CommitmentBehaviour:
    """How the archive treats requests; may be changed while it runs.

    `failures` maps a SOP class or instance UID to the Failure Reason (0008,1197) reported for it; `request_status` is
    the answer to the request itself.
    """

    delay_s: float = 0.0
    is_on_same_association: bool = False
    is_silent: bool = False
    request_status: int = 0x0000
    failures: dict[str, int] = field(default_factory=dict)


@dataclass
class Commitment:
    """One request, and what became of it: `outcome` is "waiting" until the report was answered or given up."""

    transaction_uid: str
    requestor: str
    references: tuple[tuple[str, str], ...]  # (SOP class UID, SOP instance UID)
    outcome: str = "waiting"


class CommitmentDesk:
    """Takes requests, judges them by what is on the shelf, and reports from a thread of each request's own."""

    def __init__(
        self, ae_title: str, shelf: Shelf, peers: Mapping[str, tuple[str, int]], behaviour: CommitmentBehaviour
    ) -> None:
        self.requests: list[Commitment] = []
        self.behaviour = behaviour
        self._ae_title, self._shelf, self._peers = ae_title, shelf, peers
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []

    def take(self, event: evt.Event) -> tuple[int, Dataset | None]:
        """Handler of N-ACTION: (status, no reply)."""
        if event.action_type != 1:
            return NO_SUCH_ACTION, None
        if cast(N_ACTION, event.request).RequestedSOPInstanceUID != STORAGE_COMMITMENT_INSTANCE:
            return NO_SUCH_INSTANCE, None
        if self.behaviour.request_status != 0x0000:
            return self.behaviour.request_status, None
        information = event.action_information
        request = Commitment(
            str(information.TransactionUID),
            str(event.assoc.requestor.ae_title).strip(),
            tuple((str(i.ReferencedSOPClassUID), str(i.ReferencedSOPInstanceUID)) for i in _references(information)),
        )
        self.requests.append(request)
        if not self.behaviour.is_silent:
            thread = threading.Thread(target=self._report, args=(request, event.assoc), daemon=True)
            self._threads.append(thread)
            thread.start()
        return 0x0000, None

    def close(self) -> None:
        """Gives up what is still to be reported."""
        self._closing.set()
        for thread in self._threads:
            thread.join(timeout=5)

    def _report(self, request: Commitment, association: Association) -> None:
        if self._closing.wait(max(self.behaviour.delay_s, 0.05)):  # the answer to the request goes first
            request.outcome = "archive closed"
            return
        event_type, information = self._judge(request)
        if self.behaviour.is_on_same_association:
            request.outcome = _send(association, event_type, information)
            return
        request.outcome = self._call_back(request.requestor, event_type, information)

    def _judge(self, request: Commitment) -> tuple[int, Dataset]:
        kept: list[Dataset] = []
        failed: list[Dataset] = []
        for sop_class, sop_instance in request.references:
            reason = self._reason(sop_class, sop_instance)
            item = _reference(sop_class, sop_instance)
            if reason:
                item.FailureReason = reason
            (failed if reason else kept).append(item)
        information = Dataset()
        information.TransactionUID = request.transaction_uid
        information.RetrieveAETitle = self._ae_title
        if kept:
            information.ReferencedSOPSequence = Items(kept)
        if failed:
            information.FailedSOPSequence = Items(failed)
        return (SOME_FAILED if failed else ALL_COMMITTED), information

    def _reason(self, sop_class: str, sop_instance: str) -> int:
        wished = self.behaviour.failures.get(sop_instance, self.behaviour.failures.get(sop_class, 0))
        if wished:
            return wished
        stored = self._shelf.get(sop_instance)
        if stored is None or not stored.path.exists():
            return NO_SUCH_INSTANCE
        return 0 if sop_class == stored.SOPClassUID else CLASS_CONFLICT

    def _call_back(self, requestor: str, event_type: int, information: Dataset) -> str:
        address = self._peers.get(requestor)
        if address is None:
            return f"no address is known for {requestor}"
        outcome = ""
        for _ in range(REPORT_ATTEMPTS):
            outcome = _on_new_association(self._ae_title, requestor, address, event_type, information)
            if outcome == "reported" or self._closing.wait(RETRY_S):
                break
        return outcome


def _on_new_association(
    ae_title: str, requestor: str, address: tuple[str, int], event_type: int, information: Dataset
) -> str:
    ae = CallingAE(ae_title=ae_title)
    ae.connection_timeout, ae.acse_timeout, ae.dimse_timeout = 5, 10, 30
    ae.add_requested_context(STORAGE_COMMITMENT)
    role = build_role(STORAGE_COMMITMENT, scu_role=False, scp_role=True)
    association = ae.associate(*address, ae_title=requestor, ext_neg=[role])
    if not association.is_established:
        return f"{requestor} makes no association"
    try:
        return _send(association, event_type, information)
    finally:
        association.release()


def _send(association: Association, event_type: int, information: Dataset) -> str:
    send: Callable[..., tuple[Dataset, Dataset | None]] = association.send_n_event_report
    try:
        answer, _ = send(information, event_type, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE)
    except (ValueError, RuntimeError) as problem:  # no context for it, or the association has ended
        return f"report not sent: {problem}"
    if "Status" not in answer:
        return "report not answered"
    return "reported" if answer.Status == 0x0000 else f"report answered with {answer.Status:04X}"


def _references(information: Dataset) -> list[Dataset]:
    return list(information.get("ReferencedSOPSequence", []))


def _reference(sop_class: str, sop_instance: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, sop_instance
    return item
