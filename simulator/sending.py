"""Sends files as a modality does: one association, one C-STORE after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from simulator.wire import CallingAE, leave_answers_to_caller

CONNECT_TIMEOUT_S = 10.0
RESPONSE_TIMEOUT_S = 60.0
PDU_BYTES = 131072


class SendFailed(Exception):
    """No association, or it broke before the last instance was answered."""


@dataclass(frozen=True)
class SendResult:
    """The answers: (SOP Instance UID, status) in the order of sending."""

    statuses: tuple[tuple[str, int], ...]

    @property
    def is_accepted(self) -> bool:
        """Each instance was answered with 0000 or a warning (Bxxx)."""
        return all(is_accepted(status) for _, status in self.statuses)


def is_accepted(status: int) -> bool:
    """0000, or a warning (Bxxx): the receiver has the instance."""
    return status == 0 or status >> 12 == 0xB


def send(
    paths: Sequence[Path],
    host: str,
    port: int,
    called_ae: str,
    calling_ae: str = "PHANTOM1",
    *,
    heard: Callable[[str, int], None] = lambda uid, status: None,
) -> SendResult:
    """C-STOREs the files in their order over one association. `heard` gets each SOP UID and status as it comes.

    Raises SendFailed where no association is made, a context is refused, or it breaks in the middle.
    """
    headers = [dcmread(path, stop_before_pixels=True) for path in paths]
    ae = CallingAE(ae_title=calling_ae)
    ae.connection_timeout, ae.dimse_timeout = CONNECT_TIMEOUT_S, RESPONSE_TIMEOUT_S
    ae.maximum_pdu_size = PDU_BYTES
    for sop_class, syntax in dict.fromkeys(_context(header) for header in headers):
        ae.add_requested_context(sop_class, list(dict.fromkeys([syntax, *_plain(syntax)])))
    association = ae.associate(host, port, ae_title=called_ae)
    if not association.is_established:
        raise SendFailed(f"{called_ae} at {host}:{port} makes no association")
    leave_answers_to_caller(association)
    try:
        statuses = []
        for path, header in zip(paths, headers, strict=True):
            status = _store(association.send_c_store, path)
            statuses.append((str(header.SOPInstanceUID), status))
            heard(*statuses[-1])
    finally:
        association.release()
    return SendResult(tuple(statuses))


def _store(send_c_store: Callable[[Dataset], Dataset], path: Path) -> int:
    try:
        answer = send_c_store(dcmread(path))
    except (ValueError, RuntimeError) as problem:  # no accepted context; the association has ended
        raise SendFailed(f"{path.name} could not be sent: {problem}") from problem
    if "Status" not in answer:
        raise SendFailed(f"{path.name}: the association ended without an answer")
    return int(answer.Status)


def _context(header: Dataset) -> tuple[str, str]:
    return str(header.SOPClassUID), str(header.file_meta.TransferSyntaxUID)


def _plain(syntax: str) -> tuple[str, ...]:
    """An uncompressed file may travel in either byte-wise plain syntax."""
    plain = (str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian))
    return plain if syntax in plain else ()
