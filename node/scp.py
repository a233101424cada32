"""Storage SCP: who may talk to us, and what each instance that arrives is answered.

The answer to a C-STORE is the promise to keep the instance, so it follows the fsync. 0000 for what is durable, also
in quarantine; B007 for a data set that is not what its request said, durable in quarantine as well; A700, on which
a sender tries again later, only where the disk did not take the bytes. Never a failure for poison: dcmtk ends the
whole study at the first one, and most senders would repeat it for ever.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event
from pynetdicom.presentation import PresentationContextTuple

from node import logs
from node.config import Config, DicomSettings
from node.config_peers import AnyPeer, DimsePeer
from node.dicom.commitment import report_of
from node.dicom.identity import Identity, read_identity
from node.dicom.part10 import IMPLEMENTATION_CLASS_UID, FileMeta
from node.errors import SpoolFull, UnreadableInstance
from node.scp_contexts import is_kept, service_contexts, storage_contexts
from node.scp_listener import Listener
from node.scp_reactor import IncomingAssociation
from node.spool import Arrival, Spool

SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700
DATA_SET_DOES_NOT_MATCH = 0xB007
PROCESSING_FAILURE = 0x0110
INVALID_ARGUMENT = 0x0115
IMPLEMENTATION_VERSION_NAME = "CRLM-NODE"
ACSE_TIMEOUT_S = 30.0
GRACE_S = 10.0
"""How long a message that is being received may still take once we were told to end."""

log = logging.getLogger("node.scp")


@dataclass(frozen=True)
class Caller:
    """Who asks for an association, by its own word, and from which address."""

    calling_ae: str
    called_ae: str
    host: str


@dataclass(frozen=True)
class Rejection:
    """A-ASSOCIATE-RJ: result, source, reason (PS3.8 section 9.3.4), and what the log says."""

    result: int
    source: int
    reason: int
    why: str


CALLED_AE_UNKNOWN = Rejection(1, 1, 7, "called AE title is none of ours")
CALLING_AE_UNKNOWN = Rejection(1, 1, 3, "calling AE title is no peer that may send")
HOST_UNKNOWN = Rejection(1, 1, 3, "calling AE title from another host than peers.yaml says")
TOO_MANY = Rejection(2, 3, 2, "as many associations as dicom.max_associations allows")


@dataclass(frozen=True)
class Admission:
    """The association may be; `may_store` tells a sender from an archive that only reports its commitments."""

    may_store: bool


def admit(caller: Caller, settings: DicomSettings, peers: Iterable[AnyPeer], is_full: bool) -> Admission | Rejection:
    """Who may open an association. A peer that only receives may: its commitment reports come that way."""
    if caller.called_ae not in settings.our_titles:
        return CALLED_AE_UNKNOWN
    namesakes = [peer for peer in peers if isinstance(peer, DimsePeer) and peer.ae_title == caller.calling_ae]
    right_place = [peer for peer in namesakes if not peer.check_host or is_at(caller.host, peer.host)]
    may_store = settings.accept_unknown_callers or any(peer.may_send for peer in right_place)
    may_report = any(peer.may_receive and peer.storage_commitment for peer in right_place)
    if not (may_store or may_report):
        return HOST_UNKNOWN if namesakes and not right_place else CALLING_AE_UNKNOWN
    return TOO_MANY if is_full else Admission(may_store)


def is_at(address: str, host: str) -> bool:
    """Whether `address` is one of the addresses of `host`, a name or an address."""
    try:
        known = {_canonical(str(info[4][0])) for info in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return _canonical(address) in known


def _canonical(address: str) -> str:
    # an IPv4 caller has an IPv6 address where we listen on both
    parsed = ipaddress.ip_address(address.partition("%")[0])
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return str(mapped or parsed)


@dataclass(frozen=True)
class Request:
    """A C-STORE request without its data set."""

    sop_class_uid: str
    sop_instance_uid: str
    context_class_uid: str
    transfer_syntax_uid: str
    calling_ae: str
    called_ae: str


def contradiction(request: Request, identity: Identity) -> str | None:
    """In what a request and its data set differ. What the data set leaves empty, the request may tell."""
    if request.sop_class_uid != request.context_class_uid:
        return "the SOP class of the request is not that of its presentation context"
    if identity.sop_class_uid not in ("", request.sop_class_uid):
        return "the data set is of another SOP class than the request"
    if identity.sop_instance_uid not in ("", request.sop_instance_uid):
        return "the data set has another SOP Instance UID than the request"
    return None


def missing(request: Request, identity: Identity) -> str | None:
    """Which of the identifiers that place an instance is nowhere told."""
    told = {
        "SOP Instance UID": request.sop_instance_uid,
        "Study Instance UID": identity.study_uid,
        "Series Instance UID": identity.series_uid,
    }
    absent = [name for name, uid in told.items() if not uid]
    return f"no {' and no '.join(absent)}: it belongs to no series" if absent else None


def arrival_of(request: Request, identity: Identity) -> Arrival:
    """What the spool must know of an instance that is in order."""
    meta = FileMeta(
        request.sop_class_uid,
        request.sop_instance_uid,
        request.transfer_syntax_uid,
        calling_ae=request.calling_ae,
        called_ae=request.called_ae,
    )
    return Arrival(identity.study_uid, identity.series_uid, meta)


class Store:
    """C-STORE: bytes in, status out, and the outcome's name for the count."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool

    def store(self, request: Request, dataset: bytes) -> tuple[int, str]:
        """Never raises: each instance gets its answer, whatever is wrong with it or with us."""
        try:
            return self._keep(request, dataset)
        except (SpoolFull, OSError) as error:
            return _not_durable(request, error)
        except Exception as error:
            # our own fault must not cost the sender its study: kept, and told
            log.exception("the receiver failed on an instance")
            return self._quarantine_or_refuse(request, dataset, f"the node failed on it ({type(error).__name__})")

    def _keep(self, request: Request, dataset: bytes) -> tuple[int, str]:
        if not is_kept(request.context_class_uid):
            return SUCCESS, "dropped"
        if self._spool.is_our_result(request.sop_instance_uid):
            return SUCCESS, "own-result"
        try:
            identity = read_identity(dataset, request.transfer_syntax_uid)
        except UnreadableInstance as error:
            return self._quarantine(request, dataset, str(error)), "quarantined"
        if reason := contradiction(request, identity):
            self._quarantine(request, dataset, reason)
            return DATA_SET_DOES_NOT_MATCH, "quarantined"
        if reason := missing(request, identity):
            return self._quarantine(request, dataset, reason), "quarantined"
        return SUCCESS, self._spool.keep_instance(arrival_of(request, identity), dataset).outcome.value

    def _quarantine(self, request: Request, dataset: bytes, reason: str) -> int:
        meta = FileMeta(request.sop_class_uid, request.sop_instance_uid, request.transfer_syntax_uid)
        facts = {
            "calling_ae": request.calling_ae,
            "called_ae": request.called_ae,
            "sop_class_uid": request.sop_class_uid,
        }
        name = self._spool.quarantine((meta.encode(), dataset), reason, facts)
        logs.event(
            log,
            "instance quarantined",
            level=logging.WARNING,
            quarantine_id=name,
            reason=reason,
            calling=request.calling_ae,
        )
        return SUCCESS

    def _quarantine_or_refuse(self, request: Request, dataset: bytes, reason: str) -> tuple[int, str]:
        try:
            return self._quarantine(request, dataset, reason), "quarantined"
        except (SpoolFull, OSError) as error:
            return _not_durable(request, error)


def _not_durable(request: Request, error: Exception) -> tuple[int, str]:
    reason = str(error) if isinstance(error, SpoolFull) else getattr(error, "strerror", "")
    logs.event(log, "instance refused", level=logging.ERROR, status="A700", reason=reason, calling=request.calling_ae)
    return OUT_OF_RESOURCES, "refused"


class Receiver:
    """One receiving process's acceptor: association policy in front, the spool behind."""

    def __init__(self, config: Config, spool: Spool, listening: socket.socket, max_associations: int) -> None:
        self._settings = config.node.dicom
        self._peers: Mapping[str, AnyPeer] = config.peers
        self._spool = spool
        self._store = Store(spool)
        self._max_associations = max_associations
        self._admitting = threading.Lock()
        self._admitted: set[IncomingAssociation] = set()
        # built now, not while the first peer waits: 200 contexts with their syntaxes take a tenth of a second
        self._contexts = {True: [*service_contexts(), *storage_contexts()], False: [*service_contexts()]}
        self._listener = Listener(
            _application_entity(self._settings),
            listening,
            self._on_store,
            (
                (evt.EVT_REQUESTED, self._on_requested),
                (evt.EVT_C_ECHO, lambda event: SUCCESS),
                (evt.EVT_N_EVENT_REPORT, self._on_event_report),
            ),
            max_associations,
        )

    def serve(self) -> None:
        """Accept and answer until `stop` is called from another thread."""
        self._listener.serve_forever()

    def stop(self, grace_s: float = GRACE_S) -> None:
        """Accept no more; a message under way is received and answered first, if it ends within `grace_s`."""
        self._listener.stop(grace_s)

    def _on_requested(self, event: Event) -> None:
        association: Any = event.assoc
        asked = association.requestor.primitive
        caller = Caller(
            asked.calling_ae_title.strip(), asked.called_ae_title.strip(), association.requestor.address_info.address
        )
        with self._admitting:
            self._admitted = {one for one in self._admitted if one.is_open}
            is_full = len(self._admitted) >= self._max_associations
            verdict = admit(caller, self._settings, self._peers.values(), is_full)
            if isinstance(verdict, Admission):
                self._admitted.add(association)
        facts = {"calling": caller.calling_ae, "called": caller.called_ae, "host": caller.host}
        if isinstance(verdict, Rejection):
            logs.event(log, "association rejected", level=logging.WARNING, why=verdict.why, **facts)
            association.acse.send_reject(verdict.result, verdict.source, verdict.reason)
            association.kill()
            return
        association.acceptor.supported_contexts = self._contexts[verdict.may_store]

    def _on_store(self, association: IncomingAssociation, message: C_STORE, context: PresentationContextTuple) -> int:
        dataset = message.DataSet.getvalue() if message.DataSet else b""
        status, outcome = self._store.store(_request_of(message, association, context), dataset)
        association.outcomes[outcome] += 1
        return status

    def _on_event_report(self, event: Event) -> tuple[int, None]:
        calling = event.assoc.requestor.ae_title.strip()
        try:
            report = report_of(event.event_information)
        except Exception as error:  # noqa: BLE001 - a report that pydicom cannot read fails in many ways, one answer
            logs.event(log, "commitment report unreadable", level=logging.WARNING, calling=calling, error=type(error))
            return INVALID_ARGUMENT, None
        try:
            self._spool.write_commitment_report(report, calling, datetime.now(UTC))
        except OSError as error:
            logs.event(log, "commitment report not kept", level=logging.ERROR, reason=error.strerror, calling=calling)
            return PROCESSING_FAILURE, None
        counts = {"committed": len(report["committed"]), "failed": len(report["failed"])}
        logs.event(log, "commitment report", calling=calling, **counts)
        return SUCCESS, None


def _request_of(message: C_STORE, association: IncomingAssociation, context: PresentationContextTuple) -> Request:
    asked: Any = association.requestor.primitive
    return Request(
        sop_class_uid=_plain(message.AffectedSOPClassUID),
        sop_instance_uid=_plain(message.AffectedSOPInstanceUID),
        context_class_uid=str(context.abstract_syntax),
        transfer_syntax_uid=str(context.transfer_syntax),
        calling_ae=asked.calling_ae_title.strip(),
        called_ae=asked.called_ae_title.strip(),
    )


def _plain(uid: str | None) -> str:
    return str(uid or "").strip(" \0")


def _application_entity(settings: DicomSettings) -> ApplicationEntity:
    entity = ApplicationEntity(settings.ae_title)
    entity.maximum_pdu_size = settings.max_pdu_bytes
    entity.network_timeout = settings.network_timeout_s or None
    entity.dimse_timeout = settings.network_timeout_s or None
    entity.acse_timeout = ACSE_TIMEOUT_S
    entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    entity.supported_contexts = list(service_contexts())
    # ours are counted at the request, after the titles: pynetdicom counts connections that it has rejected too
    entity.maximum_associations = 1_000_000
    return entity
