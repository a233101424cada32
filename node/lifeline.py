"""The one wire between a role and its supervisor: ready in one direction, and that the other still lives in both.

A supervisor that is killed cannot pass anything on. Its end of the wire closes with it, so its roles notice and end
as if told to: none is left holding the port or the database against the next start.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading

VARIABLE = "CRLM_SUPERVISOR_FD"
"""Names the role's end of the wire; absent where a role was started by hand."""
READY = b"ready\n"


def report_ready() -> None:
    """Tell the supervisor that this role does its work from now on, and end by SIGTERM once it is gone.

    Does nothing where there is no supervisor.
    """
    descriptor = os.environ.pop(VARIABLE, "")
    if not descriptor:
        return
    wire = socket.socket(fileno=int(descriptor))
    wire.set_inheritable(False)
    with contextlib.suppress(OSError):  # gone already: the watch below sees it
        wire.sendall(READY)
    threading.Thread(target=_end_with, args=(wire,), name="lifeline", daemon=True).start()


def _end_with(wire: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while wire.recv(64):
            pass
    os.kill(os.getpid(), signal.SIGTERM)
