"""pynetdicom's acceptor on a listening socket that several receiving processes share, and that outlives each of them.

pynetdicom's own server binds its socket itself and shuts it down when it leaves, which would end the listening of
all processes that have it. Its associations are node/scp_reactor.py's.
"""

from __future__ import annotations

import logging
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

from pynetdicom import _config
from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.ae import ApplicationEntity
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import InterventionEvent, NotificationEvent
from pynetdicom.presentation import PresentationContextTuple
from pynetdicom.transport import AddressInformation, AssociationServer, RequestHandler

from node import logs
from node.scp_reactor import IncomingAssociation, IncomingSocket

YIELD_S = 0.05
"""How long a full receiver leaves a connection to the others before it refuses it."""

log = logging.getLogger("node.scp")
Handlers = Sequence[tuple[InterventionEvent | NotificationEvent, Callable[..., Any]]]


def set_up_pynetdicom() -> None:
    """Process-wide: no dump of each message into the log, and no message refused for its UIDs' form.

    A UID that is none must reach our handler, where it gets an answer; pynetdicom would abort the association.
    """
    _config.LOG_HANDLER_LEVEL = "none"
    _config.VALIDATORS["UI"] = lambda value: (True, "")


class _Handler(RequestHandler):
    """Makes an association of a connection, as its base does, with our own classes and without copying contexts."""

    server: Listener

    def _create_association(self) -> IncomingAssociation:
        server = self.server
        association = IncomingAssociation(self.ae, MODE_ACCEPTOR, server)
        association._server = server
        association.name = f"AcceptorThread@{time.monotonic_ns()}"  # pynetdicom finds them by this name
        association.set_socket(IncomingSocket(association, client_socket=self.request))
        association.acceptor.maximum_length = self.ae.maximum_pdu_size
        association.acceptor.ae_title = server.ae_title
        association.acceptor.address_info = self.local
        association.acceptor.implementation_class_uid = self.ae.implementation_class_uid
        association.acceptor.implementation_version_name = self.ae.implementation_version_name
        association.acceptor.supported_contexts = list(server.contexts)
        association.requestor.address_info = AddressInformation.from_tuple(self.client_address)
        for event, handler in server.handlers:
            association.bind(event, handler)
        server.remember(association)
        return association


class Listener(AssociationServer):
    """Accepts associations from a listening socket that other processes may be accepting from as well."""

    def __init__(
        self,
        ae: ApplicationEntity,
        listening: socket.socket,
        store: Callable[[IncomingAssociation, C_STORE, PresentationContextTuple], int],
        handlers: Handlers,
        max_connections: int,
    ) -> None:
        self.store = store
        self.handlers = handlers
        self.is_draining = False
        self._listening = listening
        self._max_connections = max_connections
        self._lock = threading.Lock()
        self._associations: set[IncomingAssociation] = set()
        super().__init__(ae, listening.getsockname(), ae.ae_title, ae.supported_contexts, request_handler=_Handler)

    # --- socketserver's seams

    def server_bind(self) -> None:
        """Take the socket that is bound already in place of the one that socketserver made."""
        cast(socket.socket, self.socket).close()
        self.socket = self._listening
        # another process may take a connection between our being told of it and our accepting it
        self.socket.setblocking(False)

    def server_activate(self) -> None:
        """The socket listens already."""

    def server_close(self) -> None:
        """Close our descriptor only; a shutdown() would end the listening of the other processes too."""
        self._listening.close()

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept; a full receiver lets the others try first, since one of them may have room."""
        if len(self.associations) >= self._max_connections:
            time.sleep(YIELD_S)
        connection, address = self._listening.accept()
        connection.setblocking(True)
        # without it each of our short answers waits for the acknowledgement of the one before
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # a peer that vanishes inside a PDU would hold its thread for ever
        connection.settimeout(self.ae.network_timeout)
        return connection, address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that could not be made an association ends alone."""
        logs.event(log, "connection failed", level=logging.ERROR, host=client_address[0])
        log.debug("why", exc_info=True)

    # --- associations

    @property
    def associations(self) -> tuple[IncomingAssociation, ...]:
        """Those that live, in whatever state."""
        with self._lock:
            return tuple(self._associations)

    def remember(self, association: IncomingAssociation) -> None:
        """Count an association from its connection on."""
        with self._lock:
            self._associations.add(association)

    def forget(self, association: IncomingAssociation) -> None:
        """It is over. The log has one line for all it brought, not one for each instance."""
        with self._lock:
            self._associations.discard(association)
        if association.accepted_contexts:
            end = "released" if association.is_released else "broken off"
            calling = association.requestor.ae_title.strip()
            # a monitor's echo every few seconds is no news
            level = logging.INFO if association.outcomes else logging.DEBUG
            logs.event(log, f"association {end}", level=level, calling=calling, **association.outcomes)

    def stop(self, grace_s: float) -> None:
        """Accept no more, let each running message end and be answered, end the associations. From another thread."""
        socketserver.BaseServer.shutdown(self)
        self.server_close()
        self.is_draining = True
        deadline = time.monotonic() + grace_s
        while self.associations and time.monotonic() < deadline:
            for association in self.associations:
                if association.is_between_messages:
                    association.abort(block=False)
            time.sleep(0.01)
        for association in self.associations:
            _cut(association)


def _cut(association: IncomingAssociation) -> None:
    """The peer did not finish its message in time; what it had sent was not acknowledged."""
    if connection := association.dul.socket:
        connection.close()
    association.kill()
