"""One incoming association: pynetdicom's state machine, woken by what happens and answering whatever comes.

pynetdicom has two threads for each association, both of which look for news every millisecond and hand messages to
one another; the waits add up to several milliseconds for each instance. Here the upper layer's thread sleeps until
the peer sends, and serves a message itself as soon as it is whole: the peer waits for the answer anyway, since
nobody negotiates asynchronous operations. The association's thread negotiates, and sees to the end.

The rest is what pynetdicom has no setting for: an answer to every C-STORE, also to one of unknown class or without
UID, which it meets with an abort or with silence; a bound on a PDU; an end between two messages.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import select
import socket
import struct
import threading
from collections import Counter
from typing import Any, Protocol

from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu import A_ABORT_RQ
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.presentation import PresentationContextTuple
from pynetdicom.transport import AssociationSocket

MAX_PDU_BYTES = 4 << 20
"""Far above what we negotiate; an association request with 128 contexts is the longest honest PDU."""
LOOK_S = 0.5
"""At the latest after so long timers are looked at, though nothing happened."""
BEGIN_S = 30.0
"""How long a first message may have to wait for our own thread on a machine that has no time."""
ABORTED_BY_PROVIDER = 0x02
C_STORE_RSP = 0x8001
NO_DATA_SET = 0x0101
LAST_COMMAND_FRAGMENT = b"\x03"
"""Message control header of a P-DATA item (PS3.8 section E.2)."""

log = logging.getLogger("node.scp")


class Owner(Protocol):
    """What an association asks of the listener that accepted it."""

    @property
    def is_draining(self) -> bool:
        """No further message is to be taken."""

    def store(self, association: IncomingAssociation, message: C_STORE, context: PresentationContextTuple) -> int:
        """Status of the answer to a C-STORE request; must not raise."""

    def forget(self, association: IncomingAssociation) -> None:
        """The association is over."""


class IncomingSocket(AssociationSocket):
    """Reads in large pieces, and not without bound."""

    def recv(self, nr_bytes: int) -> bytearray:
        """Exactly `nr_bytes`, or fewer where the peer closed. Raises OSError beyond `MAX_PDU_BYTES`."""
        if nr_bytes > MAX_PDU_BYTES or self.socket is None:
            raise OSError(f"a PDU of {nr_bytes} bytes")
        buffer = bytearray(nr_bytes)
        view = memoryview(buffer)
        have = 0
        while have < nr_bytes and (got := self.socket.recv_into(view[have:])):
            have += got
        view.release()
        del buffer[have:]
        return buffer

    @property
    def ready(self) -> bool:
        """Whether there is something to read; by poll, because select() knows no descriptor above 1023."""
        if self.socket is None or not self._is_connected:
            return False
        try:
            return bool(_poll([self.socket], 0))
        except OSError:
            self.event_queue.put("Evt17")  # the transport connection is closed
            return False

    def _shutdown_socket(self) -> None:
        """Close it in any case; the base class leaves it open where the peer was faster."""
        if self.socket is not None:
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)
            self.socket.close()


class IncomingProvider(DULServiceProvider):
    """The upper layer's thread: PDUs in, PDUs out, and asleep in between."""

    def __init__(self, association: IncomingAssociation) -> None:
        super().__init__(association)
        self._association = association
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)

    def wake(self) -> None:
        """There is something to send, or to end. From any thread."""
        with contextlib.suppress(OSError):  # woken so often already that the buffer is full, or over
            self._waker.send(b"!")

    def send_pdu(self, primitive: Any) -> None:
        """As the base class, and at once."""
        super().send_pdu(primitive)
        self.wake()

    def kill_dul(self) -> None:
        """As the base class, and at once."""
        super().kill_dul()
        self.wake()

    def stop_dul(self) -> bool:
        """As the base class, and at once."""
        if self.state_machine.current_state == "Sta1":
            self.kill_dul()
        return super().stop_dul()

    def run_reactor(self) -> None:
        """Until killed. An error in a PDU that the state machine does not know ends the association."""
        self._idle_timer.start()
        self._association._dul_ready.set()
        try:
            while not self._kill_thread:
                self._turn()
        except Exception:
            log.exception("the upper layer failed; association aborted")
            self._abort()
        finally:
            self._association.happened.set()
            self._woken.close()
            self._waker.close()

    def _turn(self) -> None:
        if self.artim_timer.expired:
            self.event_queue.put("Evt18")
        if not self._process_recv_primitive() and self._is_transport_event():
            self._idle_timer.restart()
        try:
            event = self.event_queue.get(block=False)
        except queue.Empty:
            self._sleep()
            return
        self.state_machine.do_action(event)
        self._association.serve_waiting()
        if not self.to_user_queue.empty():
            self._association.happened.set()

    def _sleep(self) -> None:
        connection = self.socket.socket if self.socket else None
        with contextlib.suppress(OSError):  # closed in this moment: the next turn sees it
            _poll([self._woken, *([connection] if connection else [])], LOOK_S)
        with contextlib.suppress(OSError):
            self._woken.recv(4096)

    def _abort(self) -> None:
        """Past the state machine, which is of no more use."""
        pdu = A_ABORT_RQ()
        pdu.source, pdu.reason_diagnostic = ABORTED_BY_PROVIDER, 0
        if self.socket and self.socket.socket:
            self.socket.send(pdu.encode())
        self._association.is_aborted, self._association.is_established = True, False
        self._association._kill = self._kill_thread = True


class IncomingAssociation(Association):
    """An association that counts what it brought, answers each C-STORE, and can be ended between two messages."""

    dul: IncomingProvider

    def __init__(self, ae: ApplicationEntity, mode: str, owner: Owner) -> None:
        super().__init__(ae, mode)
        self.owner = owner
        self.outcomes: Counter[str] = Counter()
        self.is_serving = False
        self.happened = threading.Event()
        self._has_begun = threading.Event()
        self.dul = IncomingProvider(self)
        # the timers are the provider's, and this is another one than the base class has set
        self.acse_timeout, self.network_timeout = ae.acse_timeout, ae.network_timeout

    @property
    def is_open(self) -> bool:
        """Occupies a place: a released or aborted one no longer does, though its threads may still be ending."""
        return self.is_alive() and not (self.is_released or self.is_aborted)

    @property
    def is_between_messages(self) -> bool:
        """No message is half received, waits, is served, or has an answer still to be sent."""
        return (
            not self.is_serving
            and self.dimse.message is None
            and self.dimse.msg_queue.empty()
            and self.dul.to_provider_queue.empty()
        )

    def run_reactor(self) -> None:
        """The association's whole life; however it ends, the owner learns of it."""
        try:
            super().run_reactor()
        finally:
            self.owner.forget(self)

    def kill(self) -> None:
        """As the base class, and at once."""
        self._kill = True
        self.happened.set()
        super().kill()

    def _run_reactor(self) -> None:
        """Until the association is released, aborted, or has been idle for too long."""
        self._is_paused = False
        self._has_begun.set()
        while not self._kill:
            self.happened.wait(LOOK_S)
            self.happened.clear()
            if self._is_over():
                self.kill()

    def serve_waiting(self) -> None:
        """Serve the message that has become whole, if one has. Called by the provider's thread."""
        context_id, message = self.dimse.get_msg(block=False)
        if message and context_id is not None:
            # a quick peer's first message can overtake our own thread, which sets the association up
            self._has_begun.wait(BEGIN_S)
            self._serve_request(message, context_id)

    def _abort_blocking(self, block: bool = True) -> None:
        # the provider's thread would wait for its own end
        super()._abort_blocking(block and threading.current_thread() is not self.dul)

    def _is_over(self) -> bool:
        if self.is_established and self.acse.is_release_requested():
            self.acse.send_release(is_response=True)
            self.is_released, self.is_established = True, False
            return True
        if self.acse.is_aborted():
            self.is_aborted, self.is_established = True, False
            return True
        if self.dul.idle_timer_expired():
            self.abort()
            return True
        return not self.dul.is_alive()

    def _serve_request(self, msg: Any, context_id: int) -> None:
        self.is_serving = True
        try:
            context = self._accepted_cx.get(context_id)
            if isinstance(msg, C_STORE) and context is not None and msg.MessageID is not None:
                # by the context alone: the base class looks the service up by the UID in the message, which may be any
                self._answer(msg, context_id, self.owner.store(self, msg, context.as_tuple))
            else:
                super()._serve_request(msg, context_id)
        finally:
            self.is_serving = False
        if self.owner.is_draining:
            self.abort()

    def _answer(self, request: C_STORE, context_id: int, status: int) -> None:
        answer = P_DATA()
        # the setter insists on a list where its annotation says tuple
        fragment: Any = [context_id, LAST_COMMAND_FRAGMENT + store_answer(request, status)]
        answer.presentation_data_value_list = [fragment]
        self.dul.send_pdu(answer)


def store_answer(request: C_STORE, status: int) -> bytes:
    """Command set of a C-STORE-RSP (PS3.7 Table 9.3-2), Implicit VR Little Endian.

    Six elements, written by hand: through pydicom data sets they cost as much as all other code for an instance.
    """
    body = b"".join(
        (
            _command_element(0x0002, _uid(request.AffectedSOPClassUID)),
            _command_element(0x0100, struct.pack("<H", C_STORE_RSP)),
            _command_element(0x0120, struct.pack("<H", request.MessageID)),
            _command_element(0x0800, struct.pack("<H", NO_DATA_SET)),
            _command_element(0x0900, struct.pack("<H", status)),
            _command_element(0x1000, _uid(request.AffectedSOPInstanceUID)),
        )
    )
    return _command_element(0x0000, struct.pack("<I", len(body))) + body


def _command_element(number: int, value: bytes) -> bytes:
    return struct.pack("<HHI", 0x0000, number, len(value)) + value


def _uid(uid: str | None) -> bytes:
    told = str(uid or "").encode("latin-1", "replace")
    return told + b"\0" * (len(told) % 2)


def _poll(sockets: list[socket.socket], timeout_s: float) -> list[tuple[int, int]]:
    poller = select.poll()
    for one in sockets:
        poller.register(one, select.POLLIN)
    return poller.poll(timeout_s * 1000)
