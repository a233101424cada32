"""Real peers of other people's making, started on free loopback ports: Orthanc and dcmtk's storescp."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from pyorthanc import Orthanc

START_DEADLINE_S = 30.0
DICOMWEB_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


def free_port() -> int:
    """A TCP port of loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class OrthancServer:
    """A running Orthanc: its ports, and a REST client that looks inside."""

    ae_title: str
    dicom_port: int
    http_port: int
    username: str
    password: str
    client: Orthanc

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def dicomweb_url(self) -> str:
        """Where its DICOMweb plugin listens, if it runs with it."""
        return f"{self.url}/dicom-web"

    def register(self, ae_title: str, port: int) -> None:
        """Make an AE on loopback known to it, so that it takes our requests and finds us for commitment reports."""
        self.client.put_modalities_id(ae_title, {"AET": ae_title, "Host": "127.0.0.1", "Port": port})

    def find(self, level: str, **query: str) -> list[dict[str, Any]]:
        """Resources that match, as Orthanc tells of them, with their main tags."""
        found = self.client.post_tools_find({"Level": level, "Query": query, "Expand": True})
        assert isinstance(found, list)
        return found

    def file_of(self, sop_instance_uid: str) -> bytes:
        """The instance as Orthanc keeps it."""
        (instance,) = self.find("Instance", SOPInstanceUID=sop_instance_uid)
        content = self.client.get_instances_id_file(instance["ID"])
        assert isinstance(content, bytes)
        return content

    def clear(self) -> None:
        """Forget every study."""
        for study in self.find("Study"):
            self.client.delete_studies_id(study["ID"])


@contextmanager
def running_orthanc(program: Path, folder: Path, plugins: Sequence[Path] = ()) -> Iterator[OrthancServer]:
    """Orthanc with storage in `folder`, one registered user, and these plugins."""
    http_port, username, password = free_port(), "crlm", "orthanc-test"
    client = Orthanc(f"http://127.0.0.1:{http_port}", username=username, password=password, trust_env=False)
    server = OrthancServer("ORTHANC", free_port(), http_port, username, password, client)
    settings = {
        "Name": "crlm-node tests",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "Plugins": [str(plugin) for plugin in plugins],
        "DicomAet": server.ae_title,
        "DicomPort": server.dicom_port,
        "HttpPort": server.http_port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": True,
        "RegisteredUsers": {server.username: server.password},
        "DicomModalitiesInDatabase": True,
        "SaveJobs": False,
        "StorageCommitmentReportsSize": 100,
    }
    path = folder / "orthanc.json"
    path.write_text(json.dumps(settings), encoding="utf-8")
    with client, running([str(program), str(path)], folder / "orthanc.log") as process:
        _wait(process, folder / "orthanc.log", lambda: _answers_http(server))
        yield server


@dataclass(frozen=True)
class StoreScp:
    """A running storescp: where it listens and where it puts what it gets."""

    port: int
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def files(self) -> list[Path]:
        """What it received, in the order of arrival."""
        return sorted(self.folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)

    def pause(self) -> None:
        """Stop it in its tracks, connections open, as a hung machine would."""
        self.process.send_signal(signal.SIGSTOP)


@contextmanager
def running_storescp(program: Path, folder: Path, options: Sequence[str]) -> Iterator[StoreScp]:
    """dcmtk's storescp, writing exactly what it reads."""
    received = folder / "received"
    received.mkdir()
    port = free_port()
    command = [str(program), "-v", "-aet", "STORESCP", "+B", "-od", str(received), *options, str(port)]
    with running(command, folder / "storescp.log") as process:
        _wait(process, folder / "storescp.log", lambda: _listens(port))
        yield StoreScp(port, received, process)


@contextmanager
def running(command: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A program that is killed at the end of the block: it is thrown away with its folder, running or stopped."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, "TCP_NODELAY": "1"}
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _wait(process: subprocess.Popen[bytes], log: Path, is_ready: Any) -> None:
    end = time.monotonic() + START_DEADLINE_S
    while not is_ready():
        if process.poll() is not None or time.monotonic() > end:
            pytest.fail(f"{process.args} did not start:\n{log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.02)


def _answers_http(server: OrthancServer) -> bool:
    try:
        return bool(server.client.get_system())
    except httpx.HTTPError:
        return False


def _listens(port: int) -> bool:
    """Whether somebody listens there; asked of the kernel, since a bare connection would be an association to it."""
    wanted = f":{port:04X}"
    lines = Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]
    lines += Path("/proc/net/tcp6").read_text(encoding="ascii").splitlines()[1:]
    return any(line.split()[1].endswith(wanted) and line.split()[3] == "0A" for line in lines)
