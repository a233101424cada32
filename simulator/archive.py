"""A small PACS of our own, for the demo, the tests and load: store, commit, query, get, kept in a folder.

    with Archive(folder, peers={"CRLM-NODE": ("127.0.0.1", 11112)}) as archive:
        ...  # archive.port, archive.instances(), archive.commitments

It takes every storage class of the Standard in every transfer syntax, never looks into pixels, and can be told to
misbehave while it runs: refuse classes, answer with a status, be off-line, report commitments late, wrongly, never.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, cast

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import AllTransferSyntaxes, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.transport import ThreadedAssociationServer

from simulator.commitment import STORAGE_COMMITMENT, Commitment, CommitmentBehaviour, CommitmentDesk
from simulator.shelf import NotStorable, Shelf, StoredInstance
from simulator.wire import AcceptedSockets

VERIFICATION = "1.2.840.10008.1.1"
STUDY_ROOT_FIND, STUDY_ROOT_GET = "1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.5.1.4.1.2.2.3"
SUCCESS, PENDING, CANCELLED = 0x0000, 0xFF00, 0xFE00
CANNOT_UNDERSTAND, OUT_OF_MATCH = 0xC000, 0xA900
PDU_BYTES = 131072
MAX_ASSOCIATIONS = 30


@dataclass(frozen=True)
class Arrival:
    """One C-STORE as it was answered."""

    sop_class_uid: str
    sop_instance_uid: str
    calling_ae: str
    transfer_syntax_uid: str
    status: int


class Archive:
    """An archive AE. Runs between `start` and `stop`, or as a context manager.

    `peers` (AE title → host and port) are where commitment reports go; it may grow while the archive runs.
    `refuse_sop_classes` are not accepted as presentation contexts (from the next association on); `status_for` maps a
    SOP class UID to the C-STORE status it is answered with: a failure keeps nothing, a warning (Bxxx) keeps it.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        ae_title: str = "ARCHIVE",
        port: int = 0,
        host: str = "127.0.0.1",
        peers: Mapping[str, tuple[str, int]] | None = None,
        refuse_sop_classes: Iterable[str] = (),
        status_for: Mapping[str, int] | None = None,
        commitment: CommitmentBehaviour | None = None,
        require_called_ae: bool = True,
    ) -> None:
        self.folder, self.ae_title, self.host = Path(folder), ae_title, host
        self.peers: dict[str, tuple[str, int]] = dict(peers or {})
        self.status_for: dict[str, int] = dict(status_for or {})
        self.arrivals: list[Arrival] = []
        self.shelf = Shelf(self.folder)
        self.commitment = commitment or CommitmentBehaviour()
        self._desk = CommitmentDesk(ae_title, self.shelf, self.peers, self.commitment)
        self._port = port
        self._server: ThreadedAssociationServer | None = None
        self._ae = _application_entity(ae_title, require_called_ae)
        self.refuse(refuse_sop_classes)

    @property
    def port(self) -> int:
        """The port that it listens on; told by the system where 0 was asked for."""
        return self._port

    @property
    def commitments(self) -> list[Commitment]:
        """The commitment requests so far, each with its outcome."""
        return self._desk.requests

    def instances(self) -> list[StoredInstance]:
        """What is kept, in the order of arrival."""
        return self.shelf.instances()

    def refuse(self, sop_classes: Iterable[str]) -> None:
        """From the next association on these classes are not accepted."""
        refused = set(sop_classes)
        self._ae.supported_contexts = []
        for service in (VERIFICATION, STUDY_ROOT_FIND, STUDY_ROOT_GET):
            self._ae.add_supported_context(service)
        self._ae.add_supported_context(STORAGE_COMMITMENT, scu_role=True, scp_role=True)
        syntaxes = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
        syntaxes += [syntax for syntax in AllTransferSyntaxes if syntax not in syntaxes]
        for context in AllStoragePresentationContexts:
            if context.abstract_syntax is not None and context.abstract_syntax not in refused:
                self._ae.add_supported_context(context.abstract_syntax, syntaxes, scu_role=True, scp_role=True)
        if self._server is not None:
            self._server.contexts = self._ae.supported_contexts

    @property
    def offline(self) -> bool:
        """Whether nobody listens; set it to take the archive down (associations too) and up again on the same port."""
        return self._server is None

    @offline.setter
    def offline(self, wished: bool) -> None:
        if not wished and self.offline:
            self.start()
        elif wished:
            self._hang_up()

    def start(self) -> Archive:
        """Listens. Raises OSError where the port is taken."""
        handlers: list[Any] = [
            *AcceptedSockets().handlers,
            (evt.EVT_C_ECHO, lambda event: SUCCESS),
            (evt.EVT_C_STORE, self._on_store),
            (evt.EVT_C_FIND, self._on_find),
            (evt.EVT_C_GET, self._on_get),
            (evt.EVT_N_ACTION, self._desk.take),
        ]
        self._server = self._ae.start_server((self.host, self._port), block=False, evt_handlers=handlers)
        assert self._server is not None  # None is for servers that block
        self._port = int(self._server.server_address[1])
        return self

    def stop(self) -> None:
        """Ends all associations and pending reports; the folder stays."""
        self._desk.close()
        self._hang_up()

    def __enter__(self) -> Archive:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _hang_up(self) -> None:
        self._ae.shutdown()
        self._server = None

    def _on_store(self, event: evt.Event) -> int:
        request = cast(C_STORE, event.request)
        status = self.status_for.get(str(request.AffectedSOPClassUID), SUCCESS)
        if status == SUCCESS or status >> 12 == 0xB:
            try:
                self.shelf.keep(event.encoded_dataset())
            except NotStorable:
                status = CANNOT_UNDERSTAND
        self.arrivals.append(
            Arrival(
                str(request.AffectedSOPClassUID),
                str(request.AffectedSOPInstanceUID),
                str(event.assoc.requestor.ae_title).strip(),
                str(event.context.transfer_syntax),
                status,
            )
        )
        return status

    def _on_find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        try:
            for answer in self.shelf.find(event.identifier):
                if event.is_cancelled:
                    yield CANCELLED, None
                    return
                answer.RetrieveAETitle = self.ae_title
                yield PENDING, answer
        except ValueError:
            yield OUT_OF_MATCH, None

    def _on_get(self, event: evt.Event) -> Iterator[Any]:
        instances = self.shelf.select(event.identifier)
        yield len(instances)
        for instance in instances:
            if event.is_cancelled:
                yield CANCELLED, None
                return
            yield PENDING, dcmread(instance.path)


def _application_entity(ae_title: str, require_called_ae: bool) -> AE:
    ae = AE(ae_title=ae_title)
    ae.require_called_aet = require_called_ae
    ae.maximum_pdu_size, ae.maximum_associations = PDU_BYTES, MAX_ASSOCIATIONS
    ae.network_timeout = 300  # 60 s would cut a node off that keeps its association while it thinks
    return ae


def main(arguments: list[str] | None = None) -> int:
    """Runs an archive until SIGTERM or SIGINT; prints one line when it is ready."""
    parser = argparse.ArgumentParser(prog="python -m simulator.archive", description="A small PACS.")
    parser.add_argument("--folder", type=Path, required=True, help="where instances are kept")
    parser.add_argument("--port", type=int, default=0, help="0: any free port, told in the ready line")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--ae-title", default="ARCHIVE")
    parser.add_argument("--peer", action="append", default=[], metavar="AE=HOST:PORT", help="where reports go")
    options = parser.parse_args(arguments)
    try:
        peers = dict(_peer(text) for text in options.peer)
    except ValueError as problem:
        parser.error(str(problem))
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    archive = Archive(options.folder, ae_title=options.ae_title, port=options.port, host=options.host, peers=peers)
    with archive:
        sys.stdout.write(f"ready: AE {archive.ae_title} on {archive.host}:{archive.port}, kept in {archive.folder}\n")
        sys.stdout.flush()
        ended.wait()
    return 0


def _peer(text: str) -> tuple[str, tuple[str, int]]:
    title, _, address = text.partition("=")
    host, _, port = address.rpartition(":")
    if not (title and host and port.isdigit()):
        raise ValueError(f"a peer is written AE=HOST:PORT, not {text!r}")
    return title, (host, int(port))


if __name__ == "__main__":
    sys.exit(main())
