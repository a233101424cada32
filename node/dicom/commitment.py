"""The data sets of storage commitment (PS3.4 Annex J): what is asked, and what the report says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from pydicom.dataset import Dataset

from node.domain import ResultObject
from node.errors import UnreadableInstance

NO_REASON_GIVEN = 0x0110
"""Failure Reason is type 1; where a peer leaves it out, processing failure says least."""


class CommitmentReport(TypedDict):
    """A storage commitment report, in the shape of the files in `spool/commitments/`."""

    transaction_uid: str
    committed: list[str]
    """SOP Instance UIDs that the peer keeps safe."""
    failed: dict[str, int]
    """SOP Instance UID → Failure Reason (0008,1197), PS3.3 C.14-1."""


def request_of(objects: Sequence[ResultObject], transaction_uid: str) -> Dataset:
    """Action Information that asks to keep the objects safe (PS3.4 Table J.3-1)."""
    request = Dataset()
    request.TransactionUID = transaction_uid
    request.ReferencedSOPSequence = [_reference(item) for item in objects]
    return request


def report_of(event_information: Dataset) -> CommitmentReport:
    """What a report says (PS3.4 Table J.3-2). The lists decide; the event type only repeats them.

    Raises UnreadableInstance when it names no transaction.
    """
    if not event_information.get("TransactionUID"):
        raise UnreadableInstance("a storage commitment report without a Transaction UID")
    return {
        "transaction_uid": str(event_information.TransactionUID),
        "committed": [
            str(item.ReferencedSOPInstanceUID) for item in event_information.get("ReferencedSOPSequence", ())
        ],
        "failed": {
            str(item.ReferencedSOPInstanceUID): int(item.get("FailureReason", NO_REASON_GIVEN))
            for item in event_information.get("FailedSOPSequence", ())
        },
    }


def _reference(item: ResultObject) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID = item.sop_class_uid
    reference.ReferencedSOPInstanceUID = item.sop_instance_uid
    return reference
