"""A receiver or a whole node as processes of their own, and senders that can also misbehave."""

from __future__ import annotations

import itertools
import json
import os
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.presentation import build_context

from node.dicom.part10 import FileMeta
from node.spool import Arrival, Spool

ROOT = Path(__file__).resolve().parent.parent
STARTED_DEADLINE_S = 60.0

PEERS = """
peers:
  pacs: {ae_title: PACS, host: 127.0.0.1, port: 104, may_send: true, may_receive: true}
  archive: {ae_title: ARCHIVE, host: 127.0.0.1, port: 104, may_receive: true}
  moved: {ae_title: MOVED, host: 192.0.2.1, port: 104, may_send: true, check_host: true}
"""


def write_config(folder: Path, peers: str = PEERS) -> Path:
    """A configuration folder with the shipped files and these peers; nothing is delivered anywhere."""
    shutil.copytree(ROOT / "dicom_config", folder)
    (folder / "peers.yaml").write_text(peers)
    routes = (folder / "routes.yaml").read_text()
    (folder / "routes.yaml").write_text("\n".join(line for line in routes.splitlines() if "deliver_to" not in line))
    return folder


def environment(spool: Path, **values: object) -> dict[str, str]:
    """The process environment with values of node.yaml: `environment(spool, dicom__port=0)`."""
    settings = {f"CRLM_NODE_{name.upper()}": str(value) for name, value in values.items()}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CRLM_NODE_")}
    return {
        **kept,
        "PYTHONPATH": str(ROOT),
        "CRLM_NODE_SPOOL__PATH": str(spool),
        "CRLM_NODE_SPOOL__MIN_FREE_MB": "1",
        **settings,
    }


@dataclass
class ReceiverProcess:
    """One receiving process, started without a supervisor, on a socket that this process keeps listening on."""

    config: Path
    spool_path: Path
    settings: Mapping[str, object] = field(default_factory=dict)
    max_file_bytes: int | None = None
    prelude: str = ""
    process: subprocess.Popen[str] | None = None

    def __post_init__(self) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = int(self.listening.getsockname()[1])

    def start(self) -> None:
        """Start it and wait until it says that it is ready."""
        ours, theirs = socket.socketpair()
        code = (
            f"{self.prelude}\nimport runpy; runpy.run_module('node.roles.receive', run_name='__main__', alter_sys=True)"
        )
        arguments = ["--config", str(self.config), "--socket-fd", str(self.listening.fileno())]
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            env={**environment(self.spool_path, **self.settings), "CRLM_SUPERVISOR_FD": str(theirs.fileno())},
            pass_fds=[self.listening.fileno(), theirs.fileno()],
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=self._limit,
        )
        theirs.close()
        self._wire = ours
        ours.settimeout(STARTED_DEADLINE_S)
        if ours.recv(64) != b"ready\n":
            raise AssertionError(f"the receiver did not start: {self.process.communicate()[1]}")

    def _limit(self) -> None:
        if self.max_file_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.max_file_bytes, self.max_file_bytes))

    @property
    def spool(self) -> Spool:
        return Spool.open(self.spool_path)

    def kill(self) -> None:
        """kill -9."""
        assert self.process
        self.process.kill()
        self.process.communicate()
        self._wire.close()

    def end(self) -> tuple[int, str]:
        """SIGTERM; exit code and what it wrote to stderr."""
        assert self.process
        self.process.send_signal(signal.SIGTERM)
        _, errors = self.process.communicate(timeout=30)
        self._wire.close()
        return self.process.returncode, errors

    def close(self) -> None:
        if self.process and self.process.poll() is None:
            self.kill()
        self.listening.close()


@contextmanager
def running_receiver(folder: Path, **options: Any) -> Iterator[ReceiverProcess]:
    """A receiver with its own spool and configuration under `folder`."""
    config = folder / "config"
    receiver = ReceiverProcess(config if config.exists() else write_config(config), folder / "spool", **options)
    try:
        receiver.start()
        yield receiver
    finally:
        receiver.close()


@dataclass
class NodeProcess:
    """`crlm-node serve` with some roles, as a process of its own."""

    process: subprocess.Popen[str]
    spool_path: Path
    ready_line: str

    @property
    def ready(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads((self.spool_path / "ready.json").read_text())
        return told

    @property
    def port(self) -> int:
        return int(self.ready["port"])

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=40)


def start_node(config: Path, spool: Path, role: str = "receive", **settings: object) -> subprocess.Popen[str]:
    """Start it and do not wait."""
    return subprocess.Popen(
        [sys.executable, "-c", "from node.cli import main; main()", "serve", "--config", str(config), "--role", role],
        env=environment(spool, **{"dicom__port": 0, "dicom__host": "127.0.0.1", **settings}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def running_node(config: Path, spool: Path, role: str = "receive", **settings: object) -> Iterator[NodeProcess]:
    """A node that has printed its ready line."""
    process = start_node(config, spool, role, **settings)
    try:
        assert process.stdout
        readable, _, _ = select.select([process.stdout], [], [], STARTED_DEADLINE_S)
        line = process.stdout.readline() if readable else ""
        if not line:
            process.kill()
            raise AssertionError(f"the node did not start: {process.communicate()[1]}")
        yield NodeProcess(process, spool, line.rstrip("\n"))
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout=40)
            except subprocess.TimeoutExpired:
                process.kill()
        process.communicate()


# --- instances

_numbers = itertools.count(1)
ROOT_UID = f"2.25.{time.time_ns()}"


def new_uid() -> str:
    return f"{ROOT_UID}.{next(_numbers)}"


def ct_slice(
    study_uid: str | None = None, series_uid: str | None = None, number: int = 1, size: int = 32, **attributes: Any
) -> Dataset:
    """An axial CT slice, 5 mm from its neighbours; pixels differ by number. Attributes override; None removes."""
    image = Dataset()
    image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, new_uid()
    image.StudyDate, image.StudyTime, image.AccessionNumber = "20260101", "120000", ""
    image.Modality, image.Manufacturer = "CT", "Test"
    image.PatientName, image.PatientID = "Secret^Name", "SECRET-ID"
    image.StudyInstanceUID, image.SeriesInstanceUID = study_uid or new_uid(), series_uid or new_uid()
    image.InstanceNumber = number
    image.ImagePositionPatient = [-100.0, -100.0, 5.0 * number]
    image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.Rows = image.Columns = size
    image.PixelSpacing = [2.0, 2.0]
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 1
    image.PixelData = number.to_bytes(2, "little") * (size * size)
    for keyword, value in attributes.items():
        if value is None:
            delattr(image, keyword)
        else:
            setattr(image, keyword, value)
    return image


def encoded(dataset: Dataset) -> bytes:
    """Explicit VR Little Endian, without file meta."""
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, dataset)
    return buffer.getvalue()


def save(dataset: Dataset, path: Path) -> Path:
    """As a DICOM file, for senders that read files."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta = meta
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def keep(spool: Spool, dataset: Dataset, called_ae: str = "CRLM-NODE", data: bytes | None = None) -> Any:
    """Store an instance as the receiver would."""
    meta = FileMeta(
        str(dataset.SOPClassUID), str(dataset.SOPInstanceUID), ExplicitVRLittleEndian, "PACS", called_ae=called_ae
    )
    arrival = Arrival(str(dataset.StudyInstanceUID), str(dataset.SeriesInstanceUID), meta)
    return spool.keep_instance(arrival, data if data is not None else encoded(dataset))


# --- senders


class Sender:
    """A C-STORE user that sends any bytes under any UIDs. One association, closed by `with`."""

    def __init__(
        self,
        port: int,
        contexts: Sequence[tuple[str, str]] = ((CTImageStorage, ExplicitVRLittleEndian),),
        *,
        calling: str = "PACS",
        called: str = "CRLM-NODE",
        **options: Any,
    ) -> None:
        entity = AE(calling)
        entity.requested_contexts = [build_context(sop_class, syntax) for sop_class, syntax in contexts]
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 20
        handlers = [(evt.EVT_CONN_OPEN, self._remember_socket), *options.pop("evt_handlers", ())]
        self.association: Any = entity.associate("127.0.0.1", port, ae_title=called, evt_handlers=handlers, **options)
        self._messages = itertools.count(1)

    def __enter__(self) -> Sender:
        assert self.association.is_established, "the association was not accepted"
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def _remember_socket(self, event: Any) -> None:
        self.socket: socket.socket = event.assoc.dul.socket.socket

    def close(self) -> None:
        """Release the association where it stands, and leave no socket to the garbage collector."""
        if self.association.is_established:
            self.association.release()
        self.association.kill()
        self.socket.close()

    @property
    def rejection(self) -> tuple[int, int, int] | None:
        """Result, source and reason of an A-ASSOCIATE-RJ."""
        if not self.association.is_rejected:
            return None
        answer = self.association.acceptor.primitive
        return answer.result, answer.result_source, answer.diagnostic

    @property
    def results(self) -> dict[tuple[str, str], int]:
        """(abstract syntax, transfer syntax) of each proposed context → its result, 0 for accepted."""
        contexts = [*self.association.accepted_contexts, *self.association.rejected_contexts]
        return {(str(one.abstract_syntax), str(one.transfer_syntax[0])): one.result for one in contexts}

    def store(
        self, data: bytes, sop_class: str = CTImageStorage, sop_instance: str = "", context: int = 0
    ) -> int | None:
        """The status of the answer, None where none came. `data` None announces no data set."""
        request = C_STORE()
        request.MessageID = next(self._messages)
        request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = sop_class, sop_instance
        request.Priority = 0
        request.DataSet = None if data is None else BytesIO(data)
        context_id = self.association.accepted_contexts[0].context_id
        self.association._reactor_checkpoint.clear()
        while not self.association._is_paused:
            time.sleep(0.001)
        try:
            self.association.dimse.send_msg(request, context_id)
            if data == b"":  # pynetdicom announces the data set, and then sends no fragment of it
                fragment = P_DATA()
                fragment.presentation_data_value_list = [[context_id, b"\x02"]]
                self.association.dul.send_pdu(fragment)
            _, answer = self.association.dimse.get_msg(block=True)
        finally:
            self.association._reactor_checkpoint.set()
        return None if answer is None else int(answer.Status)

    def store_dataset(self, dataset: Dataset) -> int | None:
        return self.store(encoded(dataset), str(dataset.SOPClassUID), str(dataset.SOPInstanceUID))
