"""Sockets of associations: no waiting on small messages, and closed in any case.

pynetdicom leaves a socket open where the other end was gone first or nobody listens; the operating system then keeps
it until the garbage collector comes by.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Any

from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.transport import AddressInformation, AssociationSocket


class _ClosingSocket(AssociationSocket):
    def _shutdown_socket(self) -> None:
        if self.socket is not None:
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)
            self.socket.close()


class CallingAE(AE):
    """An AE that requests associations."""

    def _create_socket(
        self, assoc: Association, address: AddressInformation, tls_args: tuple[Any, str] | None
    ) -> AssociationSocket:
        carrier = _ClosingSocket(assoc, address=address)
        carrier.tls_args = tls_args
        if carrier.socket is not None:
            without_delay(carrier.socket)
        return carrier


class AcceptedSockets:
    """The open sockets of an AE that accepts associations; give its `handlers` to the server."""

    def __init__(self) -> None:
        self._open: dict[Association, socket.socket] = {}
        self.handlers: list[evt.EventHandlerType] = [
            (evt.EVT_CONN_OPEN, self._on_open),
            (evt.EVT_CONN_CLOSE, self._on_close),
        ]

    def _on_open(self, event: evt.Event) -> None:
        carrier = event.assoc.dul.socket
        if carrier is not None and carrier.socket is not None:
            without_delay(carrier.socket)
            self._open[event.assoc] = carrier.socket

    def _on_close(self, event: evt.Event) -> None:
        accepted = self._open.pop(event.assoc, None)
        if accepted is not None:
            accepted.close()


def without_delay(stream: socket.socket) -> None:
    """Turns Nagle's algorithm off, which costs 40 ms a message on loopback."""
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def leave_answers_to_caller(association: Association) -> None:
    """From now on only the caller takes messages of this association, which serves no request of its peer.

    pynetdicom's own thread says that it pauses a moment before it does: on a busy machine it takes the answer that the
    caller waits for, and drops it.
    """
    get_msg = association.dimse.get_msg

    def get_for_caller(block: bool = False) -> Any:
        if threading.current_thread() is association:
            return None, None
        return get_msg(block)

    vars(association.dimse)["get_msg"] = get_for_caller
