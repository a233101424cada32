"""What every test may lean on: real peers, the shared real data, free ports and waiting without guessing."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.real_peers import DICOMWEB_PLUGIN, OrthancServer, StoreScp, running_orthanc, running_storescp

ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = ROOT.parent / "shared" / "data"

# dcmtk's small writes wait 40 ms each for Nagle's algorithm otherwise
os.environ.setdefault("TCP_NODELAY", "1")


@pytest.fixture(scope="session")
def require_peer() -> Callable[[str], Path]:
    """Path of a peer's program; skips with the reason where it is absent, fails where CRLM_REQUIRE_PEERS=1.

    The path may hold a `*`, for PostgreSQL's folder is named after its version: the last one is taken.
    """

    def find(program: str) -> Path:
        found = sorted(Path("/").glob(program.removeprefix("/")))
        if found:
            return found[-1]
        message = (
            f"{program} is not installed (Debian packages: dcmtk, dicom3tools, orthanc, orthanc-dicomweb, postgresql)"
        )
        if os.environ.get("CRLM_REQUIRE_PEERS") == "1":
            pytest.fail(message)
        pytest.skip(message)

    return find


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real DICOM beside the checkout; skips where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"real DICOM is not beside the checkout ({SHARED_DATA.name} folder absent)")
    return SHARED_DATA


@pytest.fixture
def free_port() -> int:
    """A TCP port of loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def wait_until() -> Callable[..., None]:
    """`wait_until(condition, "what is awaited", deadline_s=20)`: returns when it holds, fails at the deadline."""

    def wait(condition: Callable[[], object], what: str, deadline_s: float = 20.0) -> None:
        end = time.monotonic() + deadline_s
        while not condition():
            if time.monotonic() > end:
                pytest.fail(f"not within {deadline_s} s: {what}")
            time.sleep(0.02)

    return wait


@pytest.fixture(scope="session")
def orthanc_server(
    require_peer: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OrthancServer]:
    """One Orthanc for all tests; take `orthanc` instead, which is empty."""
    program = require_peer("/usr/sbin/Orthanc")
    plugins = [plugin for plugin in (DICOMWEB_PLUGIN,) if plugin.exists()]
    with running_orthanc(program, tmp_path_factory.mktemp("orthanc"), plugins) as server:
        yield server


@pytest.fixture
def orthanc(orthanc_server: OrthancServer) -> OrthancServer:
    """A real Orthanc without any study: dicom_port, http_port, url, client (pyorthanc), register(), find()."""
    orthanc_server.clear()
    return orthanc_server


@pytest.fixture
def storescp_dcmtk(require_peer: Callable[[str], Path], tmp_path: Path) -> Iterator[Callable[..., StoreScp]]:
    """`storescp_dcmtk("+xi", …)`: a running dcmtk storescp with these options; its `files` are what it received."""
    program = require_peer("/usr/bin/storescp")
    with ExitStack() as stack:

        def start(*options: str) -> StoreScp:
            folder = tmp_path / f"storescp-{len(list(tmp_path.glob('storescp-*')))}"
            folder.mkdir()
            return stack.enter_context(running_storescp(program, folder, options))

        yield start
