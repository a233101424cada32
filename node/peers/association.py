"""One association to a peer: opened, watched, ended, and its failures told in words that a night shift understands.

An Association of pynetdicom belongs to one thread; whoever opens one here uses it in the same `with` block.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pydicom.uid import UID
from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.pdu import A_ABORT_RQ
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AssociationSocket

from node.config_peers import DimsePeer
from node.errors import PeerError, PeerRefusal
from node.peers.statuses import name_of, rejection

CONNECTION_TIMEOUT_S = 10.0
RELEASE_TIMEOUT_S = 2.0
Handler = evt.EventHandlerType


@dataclass
class _Trace:
    """What the wire showed; pynetdicom itself keeps only that it went wrong."""

    is_connected: bool = False
    has_peer_aborted: bool = False


class _Entity(AE):
    """An AE that keeps its socket in hand: pynetdicom drops one unclosed when the other end is gone first."""

    wire: socket.socket | None = None

    def _create_socket(self, *arguments: Any, **settings: Any) -> AssociationSocket:
        carrier = super()._create_socket(*arguments, **settings)
        self.wire = carrier.socket
        if self.wire is not None:
            # many small messages: Nagle's algorithm would wait 40 ms on each
            self.wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return carrier

    def close(self, association: Association) -> None:
        """Close the socket, once pynetdicom's thread is off it."""
        association.dul.join(timeout=RELEASE_TIMEOUT_S)
        if self.wire is not None:
            self.wire.close()


@contextmanager
def associate(
    peer: DimsePeer,
    our_ae_title: str,
    contexts: Sequence[PresentationContext],
    handlers: Sequence[Handler] = (),
) -> Iterator[Association]:
    """An established association that proposes `contexts`; released at the end of the block.

    At least one context is accepted. Raises PeerError (may be tried again) or PeerRefusal (not before someone
    changes something) with a sentence for the administrator; also when pynetdicom finds it ended in the block.
    """
    # process-wide switches of pynetdicom: a file's bytes go out as they are, and no data set is ever logged
    _config.STORE_SEND_CHUNKED_DATASET = True
    _config.LOG_HANDLER_LEVEL = "none"
    trace = _Trace()
    entity = _Entity(ae_title=our_ae_title)
    began_s = time.monotonic()
    association = _request(entity, peer, contexts, [*_watchers(peer, trace), *handlers])
    try:
        if not association.is_established:
            raise _failure(peer, our_ae_title, association, trace, time.monotonic() - began_s)
        leave_answers_to_caller(association)
        yield association
    finally:
        # what was said is said: a peer that is slow to say goodbye must not hold the job
        association.acse_timeout = RELEASE_TIMEOUT_S
        association.release()
        entity.close(association)


def ended(peer: DimsePeer, association: Association, began_s: float) -> PeerError:
    """The error when a request got no response; `began_s` is the monotonic time at which it was sent."""
    if time.monotonic() - began_s >= (association.dimse_timeout or 0):
        return PeerError(f"{name_of(peer)} did not answer within {association.dimse_timeout:.0f} s")
    return PeerError(f"{name_of(peer)} ended the association, or the network did")


def _request(
    entity: _Entity, peer: DimsePeer, contexts: Sequence[PresentationContext], handlers: Sequence[Handler]
) -> Association:
    entity.connection_timeout = CONNECTION_TIMEOUT_S
    entity.acse_timeout = entity.dimse_timeout = peer.timeout_s
    # the idle timer runs while we read and encode between requests, too
    entity.network_timeout = 2 * peer.timeout_s + 60
    try:
        return entity.associate(
            peer.host, peer.port, contexts=list(contexts), ae_title=peer.ae_title, evt_handlers=list(handlers)
        )
    except socket.gaierror as error:
        raise PeerError(
            f"{name_of(peer)}: no such host name here; check host in peers.yaml and this machine's name service"
        ) from error


def _failure(
    peer: DimsePeer, our_ae_title: str, association: Association, trace: _Trace, elapsed_s: float
) -> PeerError:
    answer = association.acceptor.primitive
    if not trace.is_connected:
        return PeerError(f"{name_of(peer)} is not reachable: {_connection_fault(peer, elapsed_s)}")
    if answer is not None and association.is_rejected:
        return rejection(peer, our_ae_title, answer.result or 0, answer.result_source or 0, answer.diagnostic or 0)
    if answer is not None and answer.result == 0:
        classes = sorted({UID(context.abstract_syntax or "").name for context in association.rejected_contexts})
        return PeerRefusal(
            f"{name_of(peer)} accepts none of: {', '.join(classes)}; allow them there for {our_ae_title}"
        )
    if trace.has_peer_aborted:
        return PeerError(f"{name_of(peer)} aborted the association before it was established")
    if elapsed_s >= peer.timeout_s:
        return PeerError(
            f"{name_of(peer)} took the connection but did not answer the association request within "
            f"{peer.timeout_s:.0f} s; is it hung, or no DICOM port?"
        )
    return PeerError(f"{name_of(peer)} closed the connection without an answer; is it a DICOM port, does it want TLS?")


def _connection_fault(peer: DimsePeer, elapsed_s: float) -> str:
    """Why TCP failed. pynetdicom does not tell, so a failure that came at once is provoked again."""
    if elapsed_s >= CONNECTION_TIMEOUT_S:
        return f"no answer within {CONNECTION_TIMEOUT_S:.0f} s (address, firewall, or the machine is off)"
    try:
        with socket.create_connection((peer.host, peer.port), timeout=1):
            return "the connection failed a moment ago, and works now"
    except ConnectionRefusedError:
        return "connection refused (is its DICOM service running, is the port right?)"
    except OSError as error:
        return error.strerror or type(error).__name__


def _watchers(peer: DimsePeer, trace: _Trace) -> list[Handler]:
    def opened(event: evt.Event) -> None:
        trace.is_connected = True
        carrier = event.assoc.dul.socket
        if carrier is not None and carrier.socket is not None:
            # a peer that stops reading would otherwise block pynetdicom's sending thread, and its abort, for ever
            carrier.socket.settimeout(peer.timeout_s)

    def received(event: evt.Event) -> None:
        trace.has_peer_aborted = trace.has_peer_aborted or isinstance(event.pdu, A_ABORT_RQ)

    return [(evt.EVT_CONN_OPEN, opened), (evt.EVT_PDU_RECV, received)]


def leave_answers_to_caller(association: Association) -> None:
    """From now on only the caller takes messages of this association.

    pynetdicom's own thread looks for requests of the peer, and is to pause while the caller waits for an answer. It
    says that it pauses a moment before it does: on a busy machine it then takes the answer itself and drops it, and
    the caller waits until its time is up (seen twice in five transfers of 300 instances).
    """
    get_msg = association.dimse.get_msg

    def get_for_caller(block: bool = False) -> Any:
        if threading.current_thread() is association:
            return None, None
        return get_msg(block)

    vars(association.dimse)["get_msg"] = get_for_caller


def take_requests(association: Association) -> None:
    """Undo `leave_answers_to_caller`: requests of the peer, such as a commitment report, are served again."""
    vars(association.dimse).pop("get_msg", None)
