"""Searching and storing by DICOMweb: at a real Orthanc, and at services that answer as they should not."""

from __future__ import annotations

import io
import json
import logging
import ssl
import subprocess
import time
import traceback
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from node import logs
from node.config_peers import DicomwebPeer
from node.errors import PeerError, PeerRefusal
from node.peers import StudyMatch, StudyQuery, echo, find_studies, find_study, send, whereabouts
from node.peers.answers import MAX_MATCHES

OURS = "CRLM-NODE"
VARIABLE = "CRLM_TEST_DICOMWEB_SECRET"
SECRET = "s3cret-of-the-test"
PATIENT = "P-4711 ü&="
QUERY = StudyQuery(PATIENT, date(2026, 1, 1), date(2026, 3, 31))

MakeWeb = Callable[..., Any]


def at(url: str, **settings: Any) -> DicomwebPeer:
    return DicomwebPeer.model_validate({"protocol": "dicomweb", "url": url, "timeout_s": 5, **settings})


def study(number: int = 0, **elements: Any) -> dict[str, Any]:
    """A study in DICOM JSON."""
    return {"0020000D": {"vr": "UI", "Value": [f"1.2.{number}"]}, **elements}


def answer(*studies: dict[str, Any], more: bool = False) -> tuple[int, str, dict[str, str]]:
    told = '299 archive: "There are additional results that can be requested"'
    return 200, json.dumps(studies), {"Warning": told} if more else {}


# --- searching


def test_a_search_asks_for_patient_and_days_and_names_what_rules_may_ask(web: MakeWeb) -> None:
    archive = web((204, ""))
    assert find_studies(at(f"{archive.url}/rs/"), QUERY, OURS) == []
    (asked,) = archive.asked
    path, _, query = asked.path.partition("?")
    assert path == "/rs/studies"
    parts = query.split("&", 2)
    assert "PatientID=P-4711 ü&=" in query
    assert "StudyDate=20260101-20260331" in query
    assert {f"includefield={keyword}" for keyword in ("StudyDescription", "ModalitiesInStudy")} <= set(query.split("&"))
    assert parts
    assert asked.headers["Accept"].startswith("application/dicom+json")
    assert asked.headers["Host"] == archive.url.removeprefix("http://"), "with its port"


def test_an_answer_is_read_with_all_that_it_tells_and_all_that_it_leaves_out(web: MakeWeb) -> None:
    full = study(
        1,
        **{
            "00100020": {"vr": "LO", "Value": ["P-4711 "]},
            "00100021": {"vr": "LO", "Value": ["HOSPITAL"]},
            "00080020": {"vr": "DA", "Value": ["20260201"]},
            "00080050": {"vr": "SH"},
            "00080061": {"vr": "CS", "Value": ["CT", None, "SEG"]},
            "00081030": {"vr": "LO", "Value": ["Leber präoperativ"]},
        },
    )
    assert find_studies(at(web(answer(full, study(2))).url), QUERY, OURS) == [
        StudyMatch("1.2.1", "P-4711", "HOSPITAL", "", "20260201", "Leber präoperativ", ("CT", "SEG")),
        StudyMatch("1.2.2", ""),
    ]


def test_an_answer_in_parts_is_asked_for_to_its_end(web: MakeWeb) -> None:
    archive = web(answer(study(1), study(2), more=True), answer(study(3), more=True), (204, ""))
    assert [match.study_uid for match in find_studies(at(archive.url), QUERY, OURS)] == ["1.2.1", "1.2.2", "1.2.3"]
    assert ["offset=2" in asked.path for asked in archive.asked] == [False, True, False]
    assert "offset=3" in archive.asked[2].path


def test_a_service_that_tells_the_same_part_for_ever_has_not_answered(web: MakeWeb) -> None:
    with pytest.raises(PeerRefusal, match="has more than it tells"):
        find_studies(at(web(answer(study(1), more=True)).url), QUERY, OURS)


def test_a_service_that_tells_everybodys_studies_is_stopped(web: MakeWeb) -> None:
    everything = answer(*(study(number) for number in range(MAX_MATCHES + 1)))
    with pytest.raises(PeerRefusal, match="more than 500 studies of one patient"):
        find_studies(at(web(everything).url), QUERY, OURS)


def test_of_a_study_only_its_own_answer_counts(web: MakeWeb) -> None:
    archive = at(web(answer(study(1), study(2))).url)
    assert [match.study_uid for match in find_study(archive, "1.2.2", OURS)] == ["1.2.2"]


def test_a_study_that_stands_under_two_patients_is_told_with_both(web: MakeWeb) -> None:
    twice = [study(1, **{"00100020": {"vr": "LO", "Value": [patient]}}) for patient in ("P-1", "P-2")]
    assert [match.patient_id for match in find_study(at(web(answer(*twice)).url), "1.2.1", OURS)] == ["P-1", "P-2"]


@pytest.mark.parametrize("content", ["<html>log in</html>", '[{"id": 7}]', "[7]", '{"error": "no"}', '"text"', "7"])
def test_what_is_no_dicom_json_is_no_answer(content: str, web: MakeWeb) -> None:
    with pytest.raises(PeerRefusal, match=r"not as DICOMweb does; check url in peers\.yaml"):
        find_studies(at(web((200, content)).url), QUERY, OURS)


@pytest.mark.parametrize(
    ("status", "may_be_asked_again", "advice"),
    [
        (400, False, "does not understand"),
        (401, False, "credentials"),
        (403, False, "may not do this"),
        (404, False, "check url in peers.yaml"),
        (418, False, "it refuses"),
        (429, True, "later"),
        (500, True, "its log says more"),
        (501, False, "does not offer"),
        (503, True, "not ready"),
        (599, True, "it failed"),
    ],
)
def test_a_status_says_whether_asking_again_can_help(
    status: int, may_be_asked_again: bool, advice: str, web: MakeWeb
) -> None:
    archive = web((status, ""))
    with pytest.raises(PeerError, match=f"answered {status}: .*{advice}") as raised:
        find_studies(at(archive.url), QUERY, OURS)
    assert raised.value.retry is may_be_asked_again
    assert isinstance(raised.value, PeerRefusal) is not may_be_asked_again
    assert len(archive.asked) == 1, "when again is for others to decide"


def test_a_redirect_is_not_followed_with_the_patients_identity(web: MakeWeb) -> None:
    elsewhere = web(answer())
    archive = web((302, "", {"Location": f"{elsewhere.url}/studies"}))
    with pytest.raises(PeerRefusal, match="points to another address; write that one as url"):
        find_studies(at(archive.url), QUERY, OURS)
    assert elsewhere.asked == []


def test_a_proxy_of_the_environment_never_sees_the_patient(
    web: MakeWeb, monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    for variable in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(variable, f"http://127.0.0.1:{free_port}")
    assert find_studies(at(web(answer()).url), QUERY, OURS) == []


def test_a_service_that_is_not_there_is_an_error_and_not_an_empty_answer(free_port: int) -> None:
    with pytest.raises(PeerError, match="is not reachable: Connection refused") as raised:
        find_studies(at(f"http://127.0.0.1:{free_port}"), QUERY, OURS)
    assert raised.value.retry


def test_a_service_that_hangs_is_given_up_in_time(storescp_dcmtk: Any) -> None:
    hung = storescp_dcmtk()
    hung.pause()
    began_s = time.monotonic()
    with pytest.raises(PeerError, match="did not answer in time") as raised:
        find_studies(at(f"http://127.0.0.1:{hung.port}", timeout_s=0.5), QUERY, OURS)
    assert raised.value.retry
    assert time.monotonic() - began_s < 15


@pytest.mark.parametrize("status", [200, 302, 401, 503], ids=["no JSON", "redirect", "refused", "failed"])
def test_no_error_and_no_log_names_the_patient(status: int, web: MakeWeb) -> None:
    log = io.StringIO()
    before = (logging.getLogger().handlers[:], logging.getLogger().level)
    logs.set_up("test", environment={"CRLM_NODE_LOG_LEVEL": "debug"}, stream=log)
    try:
        with pytest.raises(PeerError) as raised:
            find_studies(at(web((status, PATIENT, {"Location": f"/{PATIENT}"})).url), QUERY, OURS)
    finally:
        logging.getLogger().handlers, logging.getLogger().level = before
    assert "4711" not in "".join(traceback.format_exception(raised.value))
    assert "4711" not in log.getvalue()


def test_no_error_of_the_wire_names_the_patient(free_port: int) -> None:
    with pytest.raises(PeerError) as raised:
        find_studies(at(f"http://127.0.0.1:{free_port}"), QUERY, OURS)
    assert "4711" not in "".join(traceback.format_exception(raised.value))


# --- who we are, and who they are


@pytest.mark.parametrize("place", ["variable", "file"])
@pytest.mark.parametrize(
    ("key", "settings", "sent"),
    [
        ("password", {"username": "crlm"}, "Basic Y3JsbTpzM2NyZXQtb2YtdGhlLXRlc3Q="),
        ("token", {}, f"Bearer {SECRET}"),
    ],
)
def test_credentials_come_from_a_variable_or_a_file(
    place: str,
    key: str,
    settings: dict[str, str],
    sent: str,
    web: MakeWeb,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "secret"
    file.write_text(f"{SECRET}\n", encoding="utf-8")
    monkeypatch.setenv(VARIABLE, SECRET)
    named = {f"{key}_variable": VARIABLE} if place == "variable" else {f"{key}_file": str(file)}
    archive = web(answer())
    find_studies(at(archive.url, **settings, **named), QUERY, OURS)
    assert archive.asked[0].headers["Authorization"] == sent


def test_a_secret_that_is_not_there_is_told_by_its_place(web: MakeWeb, tmp_path: Path) -> None:
    archive = web(answer())
    for named, told in (
        ({"token_variable": VARIABLE}, f"environment variable {VARIABLE} is not set"),
        ({"token_file": str(tmp_path / "none")}, "none: cannot be read"),
    ):
        with pytest.raises(PeerRefusal, match=told):
            find_studies(at(archive.url, **named), QUERY, OURS)
    assert archive.asked == []


def test_a_token_that_no_header_can_hold_is_told_and_not_sent(web: MakeWeb, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("tökén", encoding="utf-8")
    archive = web(answer())
    with pytest.raises(PeerRefusal, match="characters that a bearer token cannot have"):
        find_studies(at(archive.url, token_file=str(file)), QUERY, OURS)
    assert archive.asked == []


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory, require_peer: Callable[[str], Path]) -> Path:
    """Key and certificate of a server on loopback that no system trusts, in one PEM file."""
    openssl = require_peer("/usr/bin/openssl")
    folder = tmp_path_factory.mktemp("tls")
    names = ["-subj", "/CN=archive", "-addext", "subjectAltName=IP:127.0.0.1"]
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", "key.pem"]
    command = [str(openssl), "req", "-x509", *key, *names, "-out", "certificate.pem", "-days", "2"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture
def over_tls(web: MakeWeb, authority: Path) -> Any:
    """A web server behind that certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority / "certificate.pem", authority / "key.pem")
    return web(answer(study(1)), tls=context)


def test_a_server_of_the_hospitals_own_authority_is_trusted_by_its_file(over_tls: Any, authority: Path) -> None:
    peer = at(over_tls.url, ca_file=str(authority / "certificate.pem"))
    assert [match.study_uid for match in find_studies(peer, QUERY, OURS)] == ["1.2.1"]


def test_a_server_that_nobody_vouches_for_gets_no_query(over_tls: Any) -> None:
    with pytest.raises(PeerRefusal, match=r"its certificate is not trusted \(self-signed.*by ca_file") as raised:
        find_studies(at(over_tls.url), QUERY, OURS)
    assert over_tls.asked == []
    assert "4711" not in "".join(traceback.format_exception(raised.value))


# --- storing


def test_orthanc_keeps_the_very_bytes_of_the_files(results: Any, dicomweb: DicomwebPeer, orthanc: Any) -> None:
    receipt = send(dicomweb, results.objects, OURS)
    assert receipt.is_stored, receipt.reason
    for item in results.objects:
        assert orthanc.file_of(item.sop_instance_uid) == item.path.read_bytes()
        assert receipt.statuses[item.sop_instance_uid] == 0
    assert set(receipt.stored) == {item.sop_instance_uid for item in results.objects}


def test_sending_twice_is_sending_once(results: Any, dicomweb: DicomwebPeer, orthanc: Any) -> None:
    send(dicomweb, results.objects, OURS)
    receipt = send(dicomweb, results.objects, OURS)
    assert receipt.is_stored, receipt.reason
    assert len(orthanc.find("Instance", StudyInstanceUID=results.study_uid)) == len(results.objects)


def test_orthanc_tells_where_a_study_is_and_that_it_is_gone(results: Any, dicomweb: DicomwebPeer, orthanc: Any) -> None:
    assert "the study is not (or no longer) at" in str(whereabouts(dicomweb, results.objects, OURS))
    send(dicomweb, results.objects, OURS)
    assert whereabouts(dicomweb, results.objects, OURS) is None


def test_a_wrong_password_is_for_a_person(results: Any, dicomweb: DicomwebPeer) -> None:
    assert dicomweb.password_file is not None
    dicomweb.password_file.write_text(SECRET, encoding="utf-8")
    receipt = send(dicomweb, results.objects, OURS)
    assert (receipt.is_stored, receipt.retry) == (False, False)
    assert "it refuses our credentials" in receipt.reason
    assert SECRET not in receipt.reason


def outcome(results: Any, *, failed: dict[str, int] | None = None, warned: dict[str, int] | None = None) -> str:
    """What a service says of the objects: kind → reason; those of neither are stored."""
    failed, warned = failed or {}, warned or {}

    def item(kind: str, **reason: Any) -> dict[str, Any]:
        named = results.of(kind)
        uids = {"00081150": named.sop_class_uid, "00081155": named.sop_instance_uid}
        return {**{tag: {"vr": "UI", "Value": [uid]} for tag, uid in uids.items()}, **reason}

    def reasoned(tag: str, reason: int | None) -> dict[str, Any]:
        return {} if reason is None else {tag: {"vr": "US", "Value": [reason]}}

    kept = [item(kind, **reasoned("00081196", warned.get(kind))) for kind in ("seg", "sr") if kind not in failed]
    refused = [item(kind, **reasoned("00081197", reason)) for kind, reason in failed.items()]
    return json.dumps({"00081198": {"vr": "SQ", "Value": refused}, "00081199": {"vr": "SQ", "Value": kept}})


def test_the_segmentation_goes_before_the_report_that_points_at_it(results: Any, web: MakeWeb) -> None:
    archive = web((200, outcome(results)))
    receipt = send(at(f"{archive.url}/rs"), results.objects, OURS)
    assert receipt.is_stored, receipt.reason
    assert [asked.path for asked in archive.asked] == ["/rs/studies", "/rs/studies"]
    seg, sr = (asked.body for asked in archive.asked)
    assert results.of("seg").path.read_bytes() in seg
    assert results.of("sr").path.read_bytes() in sr
    assert archive.asked[0].headers["Content-Type"].startswith('multipart/related; type="application/dicom"')
    assert int(archive.asked[0].headers["Content-Length"]) == len(seg), "told beforehand, not in chunks"


def test_a_warning_is_stored_and_told(results: Any, web: MakeWeb) -> None:
    receipt = send(at(web((202, outcome(results, warned={"sr": 0xB000}))).url), results.objects, OURS)
    assert receipt.is_stored
    assert "sr stored, elements coerced (B000)" in receipt.reason


@pytest.mark.parametrize(
    ("reason", "may_be_sent_again"), [(0xA700, True), (0x0110, True), (0xC000, False), (0x0122, False)]
)
def test_a_refused_segmentation_ends_the_attempt_and_its_reason_says_whether_to_try_again(
    reason: int, may_be_sent_again: bool, results: Any, web: MakeWeb
) -> None:
    archive = web((409, outcome(results, failed={"seg": reason})))
    receipt = send(at(archive.url), results.objects, OURS)
    assert (receipt.is_stored, receipt.retry) == (False, may_be_sent_again)
    assert f"({reason:04X})" in receipt.reason
    assert "sr not sent" in receipt.reason
    assert len(archive.asked) == 1
    assert receipt.statuses == {results.of("seg").sop_instance_uid: reason}


def test_an_optional_object_may_be_refused(results: Any, web: MakeWeb) -> None:
    archive = web((200, outcome(results)), (409, outcome(results, failed={"sr": 0x0122})))
    receipt = send(at(archive.url, results={"required": ["seg"]}), results.objects, OURS)
    assert receipt.is_stored, receipt.reason
    assert receipt.stored == (results.of("seg").sop_instance_uid,)


def test_a_failure_without_a_reason_of_the_standard_has_that_of_http(results: Any, web: MakeWeb) -> None:
    archive = web((200, outcome(results)), (503, "<html>busy</html>"))
    receipt = send(at(archive.url), results.objects, OURS)
    assert (receipt.is_stored, receipt.retry) == (False, True)
    assert "answered 503: it is not ready, or full; 1 of 2 objects (seg) were stored before that" in receipt.reason
    assert receipt.statuses == {results.of("seg").sop_instance_uid: 0, results.of("sr").sop_instance_uid: 503}


@pytest.mark.parametrize("content", ["", "<html>log in</html>", "{}"])
def test_success_that_does_not_name_the_object_is_none(content: str, results: Any, web: MakeWeb) -> None:
    for headers in ({}, {"Content-Type": "text/html"}):
        receipt = send(at(web((200, content, headers)).url), results.objects, OURS)
        assert (receipt.is_stored, receipt.retry, receipt.stored) == (False, False, ())


# --- is it there?


def test_echo_is_a_search_that_finds_nothing(dicomweb: DicomwebPeer) -> None:
    result = echo(dicomweb, OURS)
    assert result.is_ok, result.what
    assert result.what.endswith("/dicom-web answers QIDO-RS")


@pytest.mark.parametrize(("is_asked", "is_ok"), [(False, True), (True, False)])
def test_a_service_that_stores_only_need_not_search_unless_it_is_asked_to(
    is_asked: bool, is_ok: bool, web: MakeWeb
) -> None:
    result = echo(at(web((405, "")).url, look_up_earlier_studies=is_asked), OURS)
    assert result.is_ok is is_ok
    assert "405" in result.what


def test_echo_is_not_taken_in_by_another_web_server(web: MakeWeb) -> None:
    result = echo(at(web((200, "<html>hello</html>")).url), OURS)
    assert not result.is_ok
    assert "not as DICOMweb does" in result.what


def test_echo_tells_that_nobody_is_there(free_port: int) -> None:
    assert not echo(at(f"http://127.0.0.1:{free_port}"), OURS).is_ok
