"""Delivery over Orthanc's REST interface."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from node.config_peers import OrthancPeer
from node.peers import echo, send

OURS = "CRLM-NODE"
VARIABLE = "CRLM_TEST_ORTHANC_PASSWORD"


@pytest.fixture
def archive(orthanc: Any, monkeypatch: pytest.MonkeyPatch) -> OrthancPeer:
    """The real Orthanc as a REST peer."""
    monkeypatch.setenv(VARIABLE, orthanc.password)
    return at(orthanc.url, username=orthanc.username, password_variable=VARIABLE)


def at(url: str, **settings: Any) -> OrthancPeer:
    return OrthancPeer.model_validate({"protocol": "orthanc", "url": url, "timeout_s": 5, **settings})


@pytest.fixture
def answering() -> Iterator[Callable[[int, str], str]]:
    """`answering(status, body)`: URL of a web server that answers everything so."""
    servers: list[ThreadingHTTPServer] = []

    def start(status: int, body: str) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.do_GET()

            def do_GET(self) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *arguments: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_orthanc_keeps_the_very_bytes_of_the_files(results: Any, archive: OrthancPeer, orthanc: Any) -> None:
    receipt = send(archive, results.objects, OURS)
    assert receipt.is_stored, receipt.reason
    for item in results.objects:
        assert orthanc.file_of(item.sop_instance_uid) == item.path.read_bytes()
        assert receipt.statuses[item.sop_instance_uid] == 200


def test_sending_twice_is_sending_once(results: Any, archive: OrthancPeer, orthanc: Any) -> None:
    send(archive, results.objects, OURS)
    receipt = send(archive, results.objects, OURS)
    assert receipt.is_stored, receipt.reason
    assert len(orthanc.find("Instance", StudyInstanceUID=results.study_uid)) == len(results.objects)


def test_a_wrong_password_is_for_a_person(results: Any, archive: OrthancPeer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "wrong")
    receipt = send(archive, results.objects, OURS)
    assert (receipt.is_stored, receipt.retry) == (False, False)
    assert "password_variable in peers.yaml" in receipt.reason
    assert "wrong" not in receipt.reason


def test_a_password_that_is_not_in_the_environment_is_told_by_its_variable(
    results: Any, archive: OrthancPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE)
    receipt = send(archive, results.objects, OURS)
    assert (receipt.is_stored, receipt.retry) == (False, False)
    assert f"environment variable {VARIABLE} is not set" in receipt.reason


def test_a_file_that_is_no_dicom_is_refused_and_the_rest_told(
    results: Any, archive: OrthancPeer, tmp_path: Path, as_result: Any
) -> None:
    path = tmp_path / "sr.dcm"
    path.write_bytes(results.of("sr").path.read_bytes())
    item = as_result("sr", path)
    damaged = bytes(200)
    path.write_bytes(damaged)
    item = replace(item, sha256=hashlib.sha256(damaged).hexdigest())
    receipt = send(archive, [item, results.of("seg")], OURS)
    assert (receipt.is_stored, receipt.retry) == (False, False)
    assert "1 of 2 objects (seg) were stored before that" in receipt.reason


@pytest.mark.parametrize(
    ("status", "retry"),
    [(status, False) for status in (301, 400, 403, 404, 409, 413)]
    + [(status, True) for status in (429, 500, 502, 503, 507)],
)
def test_each_http_status_decides_whether_to_ask_again(
    status: int, retry: bool, results: Any, answering: Callable[[int, str], str]
) -> None:
    receipt = send(at(answering(status, "")), results.objects, OURS)
    assert (receipt.is_stored, receipt.retry) == (False, retry)
    assert f"answered {status}" in receipt.reason


@pytest.mark.parametrize(
    ("body", "advice"),
    [('{"Status": "FilteredOut"}', "a filter there refuses it"), ("<html>hello</html>", "check url in peers.yaml")],
)
def test_success_without_storage_is_no_success(
    body: str, advice: str, results: Any, answering: Callable[[int, str], str]
) -> None:
    receipt = send(at(answering(200, body)), results.objects, OURS)
    assert (receipt.is_stored, receipt.retry) == (False, False)
    assert advice in receipt.reason


def test_an_orthanc_that_is_not_there_is_tried_again(results: Any, free_port: int) -> None:
    receipt = send(at(f"http://127.0.0.1:{free_port}"), results.objects, OURS)
    assert (receipt.is_stored, receipt.retry) == (False, True)
    assert "not reachable" in receipt.reason


def test_an_orthanc_that_hangs_is_given_up_in_time(results: Any, storescp_dcmtk: Any) -> None:
    hung = storescp_dcmtk()
    hung.pause()
    began_s = time.monotonic()
    receipt = send(at(f"http://127.0.0.1:{hung.port}", timeout_s=0.5), results.objects, OURS)
    assert (receipt.is_stored, receipt.retry) == (False, True)
    assert "did not answer in time" in receipt.reason
    assert time.monotonic() - began_s < 15


def test_an_address_that_is_no_url_is_for_a_person(results: Any) -> None:
    receipt = send(at("http://orthanc.local:port"), results.objects, OURS)
    assert (receipt.is_stored, receipt.retry) == (False, False)
    assert "correct url in peers.yaml" in receipt.reason


def test_a_proxy_of_the_environment_never_sees_the_patient(
    results: Any, archive: OrthancPeer, monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    for variable in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(variable, f"http://127.0.0.1:{free_port}")
    assert send(archive, results.objects, OURS).is_stored


def test_echo_tells_the_version(archive: OrthancPeer) -> None:
    result = echo(archive, OURS)
    assert result.is_ok, result.what
    assert result.what.startswith("Orthanc 1.")


def test_echo_is_not_taken_in_by_another_web_server(answering: Callable[[int, str], str]) -> None:
    result = echo(at(answering(200, "<html>hello</html>")), OURS)
    assert not result.is_ok
    assert "no Orthanc" in result.what
