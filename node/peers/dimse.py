"""A remote application entity: C-STORE, C-ECHO, storage commitment and C-FIND as a service class user.

One association per job; never two threads on one association (pynetdicom's is not made for it).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import build_context, evt
from pynetdicom.association import Association
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.presentation import PresentationContext

from node.config_peers import DimsePeer
from node.dicom.commitment import CommitmentReport, report_of, request_of
from node.dicom.header import PARSE_FAULTS, text
from node.domain import Receipt, ResultObject
from node.errors import PeerError, PeerRefusal, UnreadableInstance
from node.peers import statuses
from node.peers.answers import (
    MAX_MATCHES,
    CommitmentAnswer,
    EchoResult,
    StudyMatch,
    StudyQuery,
    in_sending_order,
)
from node.peers.association import associate, ended, take_requests
from node.peers.receipts import broken_off, is_required, judge
from node.peers.statuses import name_of

VERIFICATION = UID("1.2.840.10008.1.1")
STORAGE_COMMITMENT = UID("1.2.840.10008.1.20.1")
STORAGE_COMMITMENT_INSTANCE = UID("1.2.840.10008.1.20.1.1")
STUDY_ROOT_FIND = UID("1.2.840.10008.5.1.4.1.2.2.1")
UNCOMPRESSED = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
SLOWEST_BYTES_PER_S = 125_000
"""1 Mbit/s: a large SEG over a thin line is no time-out."""
MAX_CONTEXTS = 128
SLOWEST_ANSWER = 3
"""All matches of a query may take so many times `timeout_s`, each of which may come at its very end."""
LIMIT_REACHED = 0xB001
"""C-FIND: there are more matches than the peer tells (PS3.4 Table C.4-1)."""
REQUEST_COMMITMENT = 1
"""Action Type ID, PS3.4 Table J.3-1."""


@dataclass(frozen=True)
class _Parcel:
    """An object and what its file says about the presentation context that it needs."""

    item: ResultObject
    sop_class: UID
    transfer_syntax: UID

    @property
    def pair(self) -> tuple[UID, UID]:
        return self.sop_class, self.transfer_syntax

    def acceptable(self, *, has_implicit: bool) -> tuple[UID, ...]:
        """Transfer syntaxes that this object can be sent in, its own first."""
        if self.transfer_syntax not in UNCOMPRESSED:
            return (self.transfer_syntax,)
        others = UNCOMPRESSED if has_implicit else (ExplicitVRLittleEndian,)
        return tuple(dict.fromkeys((self.transfer_syntax, *others)))


def send(peer: DimsePeer, objects: Sequence[ResultObject], our_ae_title: str) -> Receipt:
    """Store the objects over one association: SEG first, SR last; stops at the first required one that fails.

    Nothing is sent unless every required object has an accepted presentation context. Bytes go out as they stand
    in the file wherever the peer accepts the file's transfer syntax, else re-encoded in Implicit (Explicit) VR.
    """
    told: dict[str, int] = {}
    try:
        parcels = [_parcel(item) for item in in_sending_order(objects)]
        with associate(peer, our_ae_title, _storage_contexts(peer, parcels)) as association:
            chosen = _storable(association, peer, parcels, our_ae_title)
            for number, parcel in enumerate(chosen, start=1):
                told[parcel.item.sop_instance_uid] = status = _store(association, peer, parcel, number)
                if not statuses.of_store(status).is_done and is_required(peer.results, parcel.item):
                    break
    except (PeerError, UnreadableInstance) as error:
        return broken_off(error, objects, told)
    return judge(name_of(peer), peer.results, objects, told)


def echo(peer: DimsePeer, our_ae_title: str) -> EchoResult:
    """C-ECHO with the association's set-up and end in the time."""
    began_s = time.monotonic()
    try:
        with associate(peer, our_ae_title, [build_context(VERIFICATION, list(UNCOMPRESSED))]) as association:
            status = _answer(peer, association, lambda: association.send_c_echo())
    except PeerError as error:
        return EchoResult(False, (time.monotonic() - began_s) * 1000, str(error))
    milliseconds = (time.monotonic() - began_s) * 1000
    if status != 0:
        return EchoResult(False, milliseconds, f"{name_of(peer)} answered C-ECHO with {status:04X}")
    return EchoResult(True, milliseconds, f"{name_of(peer)} answers C-ECHO")


def accepted_classes(peer: DimsePeer, our_ae_title: str, classes: Sequence[str]) -> frozenset[str]:
    """Which of these SOP classes the peer would accept from us now; sends nothing. Raises as `find_study`."""
    contexts = [build_context(sop_class, list(UNCOMPRESSED)) for sop_class in classes]
    with associate(peer, our_ae_title, contexts) as association:
        return frozenset(str(context.abstract_syntax) for context in association.accepted_contexts)


def request_commitment(
    peer: DimsePeer,
    objects: Sequence[ResultObject],
    our_ae_title: str,
    transaction_uid: str,
    *,
    linger_s: float = 1.0,
    has_report: Callable[[], bool] = lambda: False,
) -> CommitmentAnswer:
    """Ask the peer to keep the objects safe (N-ACTION); `receipt.is_stored` says that it took the request.

    Most peers report on a new association to our receiver, some on this one: it is kept for `linger_s` at most,
    and let go as soon as `has_report()` says that the report came the other way.
    """
    reports: list[CommitmentReport] = []
    has_come = threading.Event()

    def reported(event: evt.Event) -> tuple[int, None]:
        try:
            report = report_of(event.event_information)
        except UnreadableInstance:
            return 0x0115, None
        if report["transaction_uid"] == transaction_uid:
            reports.append(report)
        return 0x0000, None

    def sent(event: evt.Event) -> None:
        # only when our response is on the wire may the association be released
        if reports and isinstance(event.pdu, P_DATA_TF):
            has_come.set()

    context = build_context(STORAGE_COMMITMENT, list(UNCOMPRESSED))
    try:
        with associate(
            peer, our_ae_title, [context], [(evt.EVT_N_EVENT_REPORT, reported), (evt.EVT_PDU_SENT, sent)]
        ) as association:
            status = _answer(peer, association, lambda: _send_action(association, objects, transaction_uid))
            if status == 0:
                _linger(association, has_come, linger_s, has_report)
    except PeerRefusal as error:
        hint = "if it offers no storage commitment, set storage_commitment: false in peers.yaml"
        return CommitmentAnswer(Receipt(False, False, f"{error} ({hint})"))
    except PeerError as error:
        return CommitmentAnswer(Receipt(False, error.retry, str(error)))
    meaning = statuses.of_action(status)
    told = {item.sop_instance_uid: status for item in objects}
    reason = f"{name_of(peer)} answered the commitment request with {status:04X}: {meaning.words}"
    return CommitmentAnswer(Receipt(meaning.is_done, meaning.retry, reason, told), next(iter(reports), None))


def find_study(peer: DimsePeer, study_uid: str, our_ae_title: str) -> list[StudyMatch]:
    """The study as the peer holds it now, with whose it is there; empty when it is gone.

    Raises PeerError, or PeerRefusal where the peer has no Study Root C-FIND for us.
    """
    query = Dataset()
    query.QueryRetrieveLevel = "STUDY"
    query.StudyInstanceUID = study_uid
    for keyword in ("PatientID", "IssuerOfPatientID", "AccessionNumber"):
        setattr(query, keyword, "")
    with _finder(peer, our_ae_title) as association:
        found = list(_find(peer, association, query))
    return [
        StudyMatch(
            study_uid=str(item.StudyInstanceUID),
            patient_id=str(item.get("PatientID") or ""),
            issuer_of_patient_id=str(item.get("IssuerOfPatientID") or ""),
            accession_number=str(item.get("AccessionNumber") or ""),
        )
        for item in found
        if item.get("StudyInstanceUID") == study_uid
    ]


def find_studies(peer: DimsePeer, query: StudyQuery, our_ae_title: str) -> list[StudyMatch]:
    """A patient's studies of some days. Raises as `find_study`, also where the peer does not tell all of them.

    The issuer is asked for, not matched: many archives do not match it, and some find nothing then.
    """
    keys = Dataset()
    keys.QueryRetrieveLevel = "STUDY"
    if not query.patient_id.isascii():
        keys.SpecificCharacterSet = "ISO_IR 192"
    keys.PatientID, keys.StudyDate = query.patient_id, query.study_date
    for keyword in ("StudyInstanceUID", "IssuerOfPatientID", "StudyDescription", "ModalitiesInStudy"):
        setattr(keys, keyword, "")
    found: list[StudyMatch] = []
    began_s = time.monotonic()
    try:
        with _finder(peer, our_ae_title) as association:
            for item in _find(peer, association, keys, is_partial=lambda status: status == LIMIT_REACHED):
                found.append(_match(item))
                if time.monotonic() - began_s > SLOWEST_ANSWER * peer.timeout_s:
                    raise PeerError(f"{name_of(peer)} did not end its answer within {time.monotonic() - began_s:.0f} s")
                if len(found) > MAX_MATCHES:
                    raise PeerRefusal(f"{name_of(peer)} answers with more than {MAX_MATCHES} studies of one patient")
    except (*PARSE_FAULTS, RuntimeError) as error:
        # the traceback may quote a value, which may be a name
        raise PeerError(f"{name_of(peer)}: the query or its answer is unreadable ({type(error).__name__})") from None
    return found


def _match(item: Dataset) -> StudyMatch:
    item.decode()
    return StudyMatch(
        study_uid=text(item, "StudyInstanceUID"),
        patient_id=text(item, "PatientID"),
        issuer_of_patient_id=text(item, "IssuerOfPatientID"),
        study_date=text(item, "StudyDate"),
        description=text(item, "StudyDescription"),
        modalities=tuple(filter(None, text(item, "ModalitiesInStudy").split("\\"))),
    )


def _parcel(item: ResultObject) -> _Parcel:
    try:
        meta = read_file_meta_info(item.path)
        return _Parcel(item, UID(meta.MediaStorageSOPClassUID), UID(meta.TransferSyntaxUID))
    except (OSError, InvalidDicomError, AttributeError) as error:
        raise UnreadableInstance(
            f"{item.path.name}: no DICOM file that could be sent ({type(error).__name__})"
        ) from error


def _storage_contexts(peer: DimsePeer, parcels: Sequence[_Parcel]) -> list[PresentationContext]:
    """One context per (SOP class, transfer syntax): an acceptor picks one syntax of a context, we need to know each."""
    pairs = dict.fromkeys(
        (parcel.sop_class, syntax)
        for parcel in parcels
        for syntax in parcel.acceptable(has_implicit=peer.offer_implicit_vr)
    )
    if len(pairs) > MAX_CONTEXTS:
        raise PeerRefusal(
            f"{len(pairs)} kinds of objects are more than one association can propose; send fewer at once"
        )
    return [build_context(sop_class, syntax) for sop_class, syntax in pairs]


def _storable(
    association: Association, peer: DimsePeer, parcels: Sequence[_Parcel], our_ae_title: str
) -> list[_Parcel]:
    """The parcels that an accepted context fits. Raises PeerRefusal when a required one is not among them."""
    accepted = {(context.abstract_syntax, context.transfer_syntax[0]) for context in association.accepted_contexts}

    def is_accepted(parcel: _Parcel) -> bool:
        syntaxes = parcel.acceptable(has_implicit=peer.offer_implicit_vr)
        return any((parcel.sop_class, syntax) in accepted for syntax in syntaxes)

    refused = {p.pair for p in parcels if is_required(peer.results, p.item) and not is_accepted(p)}
    if refused:
        classes = ", ".join(f"{c.name} ({c}) in {s.name}" for c, s in sorted(refused))
        raise PeerRefusal(
            f"{name_of(peer)} does not take {classes}; nothing was sent. Allow it there for {our_ae_title}, "
            "or take it out of results.required in peers.yaml"
        )
    return [parcel for parcel in parcels if is_accepted(parcel)]


def _store(association: Association, peer: DimsePeer, parcel: _Parcel, number: int) -> int:
    """Send one object; its status. Raises PeerError when none came."""
    accepted = {(context.abstract_syntax, context.transfer_syntax[0]) for context in association.accepted_contexts}
    path = parcel.item.path
    # given a path, pynetdicom sends the file's bytes; given a data set, it encodes it for the context it finds
    payload = path if parcel.pair in accepted else dcmread(path)
    # the response's clock starts when the last byte is queued, not when it is on the wire
    association.dimse_timeout = peer.timeout_s + path.stat().st_size / SLOWEST_BYTES_PER_S
    return _answer(peer, association, lambda: association.send_c_store(payload, msg_id=(number - 1) % 65535 + 1))


def _answer(peer: DimsePeer, association: Association, ask: Callable[[], Dataset]) -> int:
    began_s = time.monotonic()
    if not association.is_established:
        raise ended(peer, association, began_s)
    try:
        status = ask()
    except RuntimeError as error:  # it ended between our look and pynetdicom's
        raise ended(peer, association, began_s) from error
    if "Status" not in status:
        raise ended(peer, association, began_s)
    return int(status.Status)


def _send_action(association: Association, objects: Sequence[ResultObject], transaction_uid: str) -> Dataset:
    status, _ = association.send_n_action(
        request_of(objects, transaction_uid),
        REQUEST_COMMITMENT,
        STORAGE_COMMITMENT,
        STORAGE_COMMITMENT_INSTANCE,
    )
    return status


def _linger(
    association: Association, has_come: threading.Event, linger_s: float, has_report: Callable[[], bool]
) -> None:
    take_requests(association)
    until_s = time.monotonic() + linger_s
    while time.monotonic() < until_s and association.is_established and not has_report():
        if has_come.wait(0.02):
            return


def _finder(peer: DimsePeer, our_ae_title: str) -> AbstractContextManager[Association]:
    return associate(peer, our_ae_title, [build_context(STUDY_ROOT_FIND, list(UNCOMPRESSED))])


def _find(
    peer: DimsePeer,
    association: Association,
    query: Dataset,
    is_partial: Callable[[int], bool] = lambda status: False,
) -> Iterator[Dataset]:
    began_s = time.monotonic()
    if not association.is_established:
        raise ended(peer, association, began_s)
    for status, identifier in association.send_c_find(query, STUDY_ROOT_FIND):
        if "Status" not in status:
            raise ended(peer, association, began_s)
        if status.Status in (0xFF00, 0xFF01):
            if identifier is not None:
                yield identifier
            continue
        if is_partial(status.Status):
            raise PeerRefusal(f"{name_of(peer)} answered C-FIND with {status.Status:04X}: it has more than it tells")
        meaning = statuses.of_find(status.Status)
        if not meaning.is_done:
            kind = PeerError if meaning.retry else PeerRefusal
            raise kind(f"{name_of(peer)} answered C-FIND with {status.Status:04X}: {meaning.words}")
