"""A SEG and an SR as small as they can be, and an SCP whose every answer a test decides."""

from __future__ import annotations

import hashlib
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus

import highdicom as hd
import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import ComprehensiveSRStorage, CTImageStorage, ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE, evt
from pynetdicom.transport import ThreadedAssociationServer

from node.config_peers import DicomwebPeer, DimsePeer
from node.domain import ResultObject
from tests.real_peers import DICOMWEB_PLUGIN, free_port

SEG = "1.2.840.10008.5.1.4.1.1.66.4"
SR = "1.2.840.10008.5.1.4.1.1.88.34"


def slice_of(study_uid: str, series_uid: str, frame_uid: str, number: int) -> Dataset:
    """A slice of a CT series, 32 × 32 pixels of 2 mm."""
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, generate_uid()
    image.StudyInstanceUID, image.SeriesInstanceUID, image.FrameOfReferenceUID = study_uid, series_uid, frame_uid
    image.PatientID, image.PatientName, image.PatientBirthDate, image.PatientSex = "P-4711", "Test^Peers", "", "O"
    image.StudyDate, image.StudyTime, image.StudyID, image.AccessionNumber = "20260101", "120000", "1", "A-1"
    image.Modality, image.SeriesNumber, image.InstanceNumber = "CT", 1, number
    image.Manufacturer = image.ReferringPhysicianName = ""
    image.ImagePositionPatient, image.ImageOrientationPatient = [0, 0, 5 * number], [1, 0, 0, 0, 1, 0]
    image.PixelSpacing, image.SliceThickness = [2, 2], 5
    image.Rows = image.Columns = 32
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated = image.BitsStored = 16
    image.HighBit, image.PixelRepresentation = 15, 0
    image.PixelData = bytes(32 * 32 * 2)
    return image


def segmentation_of(images: Sequence[Dataset]) -> Dataset:
    """A SEG with one lesion on the middle slices."""
    mask = np.zeros((len(images), 32, 32), np.uint8)
    mask[1:-1, 8:20, 8:16] = 1
    algorithm = hd.AlgorithmIdentificationSequence("test", codes.DCM.ArtificialIntelligence, "1")
    description = hd.seg.SegmentDescription(
        1, "Lesion 1", codes.SCT.MorphologicallyAbnormalStructure, codes.SCT.Lesion, "AUTOMATIC", algorithm
    )
    return hd.seg.Segmentation(
        images, mask, "BINARY", [description], generate_uid(), 90001, generate_uid(), 1, "m", "m", "1", "1"
    )


def report_of(images: Sequence[Dataset], segmentation: Dataset) -> Dataset:
    """An SR whose evidence are the SEG and the images."""
    finding = hd.sr.CodeContentItem(
        codes.DCM.Finding, codes.SCT.Lesion, relationship_type=hd.sr.RelationshipTypeValues.CONTAINS
    )
    title = hd.sr.CodedConcept("126000", "DCM", "Imaging Measurement Report")
    content = hd.sr.ContainerContentItem(title, template_id="1500")
    content.ContentSequence = hd.sr.ContentSequence([finding])
    return hd.sr.Comprehensive3DSR(
        [segmentation, *images], content, generate_uid(), 90002, generate_uid(), 1, "m", is_complete=True
    )


@dataclass(frozen=True)
class Results:
    """The objects of a job and where they belong."""

    study_uid: str
    patient_id: str
    objects: list[ResultObject]

    def of(self, kind: str) -> ResultObject:
        return next(item for item in self.objects if item.kind == kind)


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """A job's folder with sr.dcm and seg.dcm, the SR named first so that somebody has to put them in order."""
    folder = tmp_path_factory.mktemp("jobs") / "0123456789abcdef-1"
    folder.mkdir()
    uids = [generate_uid() for _ in range(3)]
    images = [slice_of(*uids, number) for number in range(4)]
    segmentation = segmentation_of(images)
    objects = []
    for kind, dataset in (("sr", report_of(images, segmentation)), ("seg", segmentation)):
        path = folder / f"{kind}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        objects.append(described(kind, path))
    assert {item.sop_class_uid for item in objects} == {SEG, SR}
    assert ComprehensiveSRStorage != SR
    return Results(uids[0], "P-4711", objects)


def described(kind: str, path: Path) -> ResultObject:
    """The result object that a file is."""
    dataset = dcmread(path, stop_before_pixels=True)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return ResultObject(kind, str(dataset.SOPClassUID), str(dataset.SOPInstanceUID), path, digest)


@pytest.fixture
def as_result() -> Callable[[str, Path], ResultObject]:
    """`as_result(kind, path)`."""
    return described


@dataclass
class Scp:
    """An SCP of the test and what it was sent, in the order of arrival."""

    ae: AE
    port: int
    received: list[evt.Event] = field(default_factory=list)

    @property
    def classes(self) -> list[str]:
        return [str(event.request.AffectedSOPClassUID) for event in self.received]


@pytest.fixture(scope="module")
def servers() -> Iterator[list[ThreadedAssociationServer]]:
    """Servers to be shut down at the end, together: each takes half a second for it."""
    started: list[ThreadedAssociationServer] = []
    yield started
    with ThreadPoolExecutor(max_workers=len(started) or 1) as pool:
        list(pool.map(lambda server: server.shutdown(), started))


@pytest.fixture
def scp(servers: list[ThreadedAssociationServer]) -> Callable[..., Scp]:
    """`scp(contexts={class: syntaxes}, status=…, handlers=…)`: an SCP that answers C-STORE with `status(event)`."""

    def start(
        contexts: dict[str, Sequence[str]] | None = None,
        status: Callable[[evt.Event], int] = lambda event: 0,
        handlers: Sequence[Any] = (),
        roles: dict[str, dict[str, bool]] | None = None,
        **settings: Any,
    ) -> Scp:
        entity = AE(ae_title="PACS")
        for name, value in settings.items():
            setattr(entity, name, value)
        for sop_class, syntaxes in (contexts or {SEG: [ExplicitVRLittleEndian], SR: [ExplicitVRLittleEndian]}).items():
            entity.add_supported_context(sop_class, list(syntaxes), **(roles or {}).get(sop_class, {}))
        started = Scp(entity, free_port())

        def stored(event: evt.Event) -> int:
            started.received.append(event)
            return status(event)

        answers = [(evt.EVT_C_STORE, stored), *handlers]
        servers.append(entity.start_server(("127.0.0.1", started.port), block=False, evt_handlers=answers))
        return started

    return start


@dataclass(frozen=True)
class Asked:
    """A request as a web server got it."""

    method: str
    path: str
    """With the query, decoded."""
    headers: dict[str, str]
    body: bytes = field(repr=False)


@dataclass
class Web:
    """A web server of the test: what it was asked, and what it answers."""

    url: str
    asked: list[Asked] = field(default_factory=list)


WebAnswer = tuple[int, str] | tuple[int, str, dict[str, str]]


@pytest.fixture
def web() -> Iterator[Callable[..., Web]]:
    """`web((status, body), …)`: a web server that gives these answers in turn, the last one for ever."""
    servers: list[ThreadingHTTPServer] = []

    def start(*answers: WebAnswer, tls: ssl.SSLContext | None = None) -> Web:
        left = list(answers)

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                started.asked.append(Asked(self.command, unquote_plus(self.path), dict(self.headers), body))
                status, content, *headers = left.pop(0) if len(left) > 1 else left[0]
                self.send_response(status)
                told = {"Content-Type": "application/dicom+json; charset=utf-8", **(headers[0] if headers else {})}
                for name, value in {**told, "Content-Length": str(len(content.encode()))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content.encode())

            def log_message(self, *arguments: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *arguments: Any) -> None:
                pass  # a client that does not trust us

        server = Server(("127.0.0.1", 0), Handler)
        if tls is not None:
            # the handshake in the connection's own thread, whatever comes of it
            server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        servers.append(server)
        started = Web(f"http{'s' if tls else ''}://127.0.0.1:{server.server_port}")
        return started

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def dicomweb(orthanc: Any, require_peer: Callable[[str], Path], tmp_path: Path) -> DicomwebPeer:
    """The real Orthanc by its DICOMweb plugin, its password in a file."""
    require_peer(str(DICOMWEB_PLUGIN))
    secret = tmp_path / "password"
    secret.write_text(f"{orthanc.password}\n", encoding="utf-8")
    settings = {"url": orthanc.dicomweb_url, "username": orthanc.username, "password_file": str(secret)}
    return DicomwebPeer.model_validate({"protocol": "dicomweb", "timeout_s": 5, **settings})


@pytest.fixture
def peer() -> Callable[..., DimsePeer]:
    """`peer(port, **settings)`: a peer on loopback with short patience."""

    def make(port: int, **settings: Any) -> DimsePeer:
        return DimsePeer.model_validate(
            {"ae_title": "PACS", "host": "127.0.0.1", "port": port, "timeout_s": 5, "may_receive": True, **settings}
        )

    return make
