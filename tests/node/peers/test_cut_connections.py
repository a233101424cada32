"""Wherever the wire breaks, the receipt comes in time, is not "stored" without every status, and says: try again."""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from node.config_peers import DimsePeer
from node.peers import send

WHOLE = 10**9
UP_BYTES = 14_000  # what the two objects and their association take towards the peer …
DOWN_BYTES = 900  # … and its answers
CHANCE = random.Random(20260101)
CUTS = [
    *((CHANCE.randrange(UP_BYTES), WHOLE) for _ in range(9)),
    *((WHOLE, CHANCE.randrange(DOWN_BYTES)) for _ in range(9)),
]


class Wire:
    """A connection to `port` that breaks after so many bytes up or down; by RST, as when a firewall forgets it."""

    def __init__(self, port: int, up_bytes: int, down_bytes: int, *, by_reset: bool) -> None:
        self._behind, self._by_reset = port, by_reset
        self._has_broken = threading.Event()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._run, args=(up_bytes, down_bytes))
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._listening.getsockname()[1])

    def join(self) -> None:
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _run(self, up_bytes: int, down_bytes: int) -> None:
        near = self._listening.accept()[0]
        far = socket.create_connection(("127.0.0.1", self._behind))
        with self._listening, near, far:
            directions = ((near, far, up_bytes), (far, near, down_bytes))
            pumps = [threading.Thread(target=self._pump, args=ends) for ends in directions]
            for pump in pumps:
                pump.start()
            self._has_broken.wait()
            if self._by_reset:
                near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            for end in (far, near):
                with suppress(OSError):  # the peer may have ended it
                    end.shutdown(socket.SHUT_RD)
            for pump in pumps:
                pump.join()

    def _pump(self, source: socket.socket, sink: socket.socket, budget: int) -> None:
        try:
            while budget > 0 and (content := source.recv(4096)):
                sink.sendall(content[:budget])
                budget -= len(content)
        except OSError:
            pass  # the other direction broke first
        self._has_broken.set()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("by_reset", [False, True], ids=["closed", "reset"])
def test_a_broken_connection_is_never_taken_for_a_delivery_and_never_hangs(
    by_reset: bool,
    results: Any,
    storescp_dcmtk: Any,
    peer: Callable[..., DimsePeer],
    wait_until: Callable[..., None],
) -> None:
    archive = storescp_dcmtk("--fork")
    threads, files = threading.active_count(), open_files()
    stored = 0
    for up_bytes, down_bytes in CUTS:
        wire = Wire(archive.port, up_bytes, down_bytes, by_reset=by_reset)
        began_s = time.monotonic()
        receipt = send(peer(wire.port, timeout_s=30), results.objects, "CRLM-NODE")
        wire.join()
        cut = f"cut after {up_bytes} up, {down_bytes} down: {receipt}"
        assert time.monotonic() - began_s < 15, cut
        assert receipt.is_stored or receipt.retry, cut
        assert not receipt.is_stored or list(receipt.statuses.values()) == [0, 0], cut
        stored += receipt.is_stored
    # most of the cuts were in the middle, else nothing was tested
    assert stored < len(CUTS) / 2
    wait_until(lambda: threading.active_count() <= threads, "no thread of an association is left")
    wait_until(lambda: open_files() <= files, "no socket is left")
