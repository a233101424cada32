"""Delivery by DIMSE: what a peer does, and what the receipt says of it."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import evt

from node.config_peers import DimsePeer
from node.domain import ResultObject
from node.peers import echo, send

SEG = "1.2.840.10008.5.1.4.1.1.66.4"
SR = "1.2.840.10008.5.1.4.1.1.88.34"
OURS = "CRLM-NODE"
EXPLICIT, IMPLICIT = [ExplicitVRLittleEndian], [ImplicitVRLittleEndian]

MakePeer = Callable[..., DimsePeer]


def data_set_of(path: Path) -> bytes:
    """The encoded data set behind the file meta information (PS3.10 section 7.1)."""
    content = path.read_bytes()
    return content[144 + int.from_bytes(content[140:144], "little") :]


def test_the_seg_goes_first_and_the_sr_last_over_one_association(results: Any, scp: Any, peer: MakePeer) -> None:
    opened: list[evt.Event] = []
    archive = scp(handlers=[(evt.EVT_ACCEPTED, opened.append)])
    receipt = send(peer(archive.port), results.objects, OURS)
    assert receipt.is_stored, receipt.reason
    assert archive.classes == [SEG, SR]
    assert len(opened) == 1
    assert receipt.statuses == {item.sop_instance_uid: 0 for item in results.objects}


def test_dcmtk_receives_the_very_bytes_of_the_files(results: Any, storescp_dcmtk: Any, peer: MakePeer) -> None:
    storescp = storescp_dcmtk()
    receipt = send(peer(storescp.port, ae_title="STORESCP"), results.objects, OURS)
    assert receipt.is_stored, receipt.reason
    received = [data_set_of(path) for path in storescp.files]
    assert received == [data_set_of(results.of("seg").path), data_set_of(results.of("sr").path)]


def test_a_peer_that_knows_only_implicit_vr_gets_the_same_content_in_it(
    results: Any, storescp_dcmtk: Any, peer: MakePeer
) -> None:
    storescp = storescp_dcmtk("+xi")
    receipt = send(peer(storescp.port), results.objects, OURS)
    assert receipt.is_stored, receipt.reason
    for path, kind in zip(storescp.files, ("seg", "sr"), strict=True):
        received, sent = dcmread(path), dcmread(results.of(kind).path)
        assert received.file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
        # Implicit VR has one VR for Pixel Data, OW (PS3.5 section A.1)
        assert received.get("PixelData") == sent.get("PixelData")
        for dataset in (received, sent):
            dataset.pop("PixelData", None)
        assert received == sent


def test_implicit_vr_is_not_offered_where_the_peer_is_known_to_spoil_it(
    results: Any, storescp_dcmtk: Any, peer: MakePeer
) -> None:
    storescp = storescp_dcmtk("+xi")
    receipt = send(peer(storescp.port, offer_implicit_vr=False), results.objects, OURS)
    assert not receipt.is_stored
    assert not receipt.retry
    assert not storescp.files


def test_nothing_is_sent_when_the_peer_refuses_the_class_of_a_required_object(
    results: Any, scp: Any, peer: MakePeer
) -> None:
    archive = scp(contexts={SR: EXPLICIT})
    receipt = send(peer(archive.port), results.objects, OURS)
    assert not receipt.is_stored
    assert not receipt.retry
    assert "Segmentation Storage" in receipt.reason
    assert archive.received == []


def test_an_optional_object_that_the_peer_refuses_is_left_out_and_told(results: Any, scp: Any, peer: MakePeer) -> None:
    archive = scp(contexts={SR: EXPLICIT})
    receipt = send(peer(archive.port, results={"required": ["sr"]}), results.objects, OURS)
    assert receipt.is_stored, receipt.reason
    assert "seg not sent" in receipt.reason
    assert archive.classes == [SR]


def test_a_peer_that_accepts_no_class_at_all_is_named_with_the_classes(results: Any, scp: Any, peer: MakePeer) -> None:
    archive = scp(contexts={"1.2.840.10008.1.1": EXPLICIT})
    receipt = send(peer(archive.port), results.objects, OURS)
    assert (receipt.is_stored, receipt.retry) == (False, False)
    assert "Segmentation Storage" in receipt.reason


@pytest.mark.parametrize(
    ("status", "is_stored", "retry"),
    [
        (0x0000, True, False),
        (0xB000, True, False),
        (0xB006, True, False),
        (0xB007, True, False),
        (0x0111, True, False),
        (0xA700, False, True),
        (0x0110, False, True),
        (0x0213, False, True),
        (0xA771, False, False),
        (0xA900, False, False),
        (0xC000, False, False),
        (0x0117, False, False),
        (0x0122, False, False),
        (0x0124, False, False),
    ],
)
def test_each_status_decides_whether_it_is_stored_and_whether_to_ask_again(
    status: int, is_stored: bool, retry: bool, results: Any, scp: Any, peer: MakePeer
) -> None:
    archive = scp(status=lambda event: status)
    receipt = send(peer(archive.port), results.objects, OURS)
    assert (receipt.is_stored, receipt.retry) == (is_stored, retry)
    assert receipt.statuses[results.of("seg").sop_instance_uid] == status
    assert set(receipt.stored) == ({item.sop_instance_uid for item in results.objects} if is_stored else set())
    if status:
        assert f"{status:04X}" in receipt.reason


def test_an_sr_does_not_go_out_without_the_seg_that_it_points_at(results: Any, scp: Any, peer: MakePeer) -> None:
    archive = scp(status=lambda event: 0xA700)
    receipt = send(peer(archive.port), results.objects, OURS)
    assert archive.classes == [SEG]
    assert "sr not sent" in receipt.reason


def test_a_part_that_was_stored_is_not_a_delivery_and_is_told(results: Any, scp: Any, peer: MakePeer) -> None:
    archive = scp(status=lambda event: 0xC000 if event.request.AffectedSOPClassUID == SR else 0)
    receipt = send(peer(archive.port), results.objects, OURS)
    assert not receipt.is_stored
    assert "seg stored" in receipt.reason
    assert "sr cannot understand" in receipt.reason


def test_an_optional_object_for_which_the_peer_has_no_room_now_is_tried_again(
    results: Any, scp: Any, peer: MakePeer
) -> None:
    archive = scp(status=lambda event: 0xA700 if event.request.AffectedSOPClassUID == SEG else 0)
    receipt = send(peer(archive.port, results={"required": ["sr"]}), results.objects, OURS)
    assert archive.classes == [SEG, SR]
    assert (receipt.is_stored, receipt.retry) == (False, True)


def test_dcmtk_out_of_disk_is_tried_again(results: Any, storescp_dcmtk: Any, peer: MakePeer) -> None:
    storescp = storescp_dcmtk()
    storescp.folder.rmdir()
    receipt = send(peer(storescp.port), results.objects, OURS)
    assert (receipt.is_stored, receipt.retry) == (False, True)
    assert "A700" in receipt.reason


@pytest.mark.parametrize("when", ["--abort-during", "--abort-after"])
def test_an_abort_in_the_middle_is_tried_again_and_does_not_wait(
    when: str, results: Any, storescp_dcmtk: Any, peer: MakePeer
) -> None:
    storescp = storescp_dcmtk(when)
    began_s = time.monotonic()
    receipt = send(peer(storescp.port, timeout_s=30), results.objects, OURS)
    assert (receipt.is_stored, receipt.retry) == (False, True)
    assert "ended the association" in receipt.reason
    assert time.monotonic() - began_s < 15


def test_an_abort_between_the_objects_tells_what_was_stored_before(results: Any, scp: Any, peer: MakePeer) -> None:
    def status(event: evt.Event) -> int:
        if event.request.AffectedSOPClassUID == SR:
            event.assoc.abort()
        return 0

    receipt = send(peer(scp(status=status).port), results.objects, OURS)
    assert (receipt.is_stored, receipt.retry) == (False, True)
    assert "1 of 2 objects (seg) were stored before that" in receipt.reason


def test_a_peer_that_hangs_before_the_association_is_given_up_in_time(
    results: Any, storescp_dcmtk: Any, peer: MakePeer
) -> None:
    storescp = storescp_dcmtk()
    storescp.pause()
    began_s = time.monotonic()
    receipt = send(peer(storescp.port, timeout_s=1), results.objects, OURS)
    assert (receipt.is_stored, receipt.retry) == (False, True)
    assert "did not answer the association request within 1 s" in receipt.reason
    assert time.monotonic() - began_s < 15


def test_a_peer_that_stops_reading_in_the_middle_is_given_up_in_time(
    results: Any, storescp_dcmtk: Any, peer: MakePeer, tmp_path: Path, as_result: Any
) -> None:
    large = dcmread(results.of("seg").path)
    large.add_new(0x00091010, "UN", bytes(32_000_000))  # more than both kernels buffer
    path = tmp_path / "large.dcm"
    large.save_as(path)
    storescp = storescp_dcmtk("--sleep-during", "60")
    began_s = time.monotonic()
    receipt = send(peer(storescp.port, timeout_s=2), [as_result("seg", path)], OURS)
    assert (receipt.is_stored, receipt.retry) == (False, True)
    assert time.monotonic() - began_s < 30  # for ever, without a limit on the socket


def test_a_peer_that_is_not_there_is_told_as_such(results: Any, free_port: int, peer: MakePeer) -> None:
    receipt = send(peer(free_port), results.objects, OURS)
    assert (receipt.is_stored, receipt.retry) == (False, True)
    assert f"PACS@127.0.0.1:{free_port} is not reachable: connection refused" in receipt.reason


def test_a_host_name_that_does_not_exist_is_told_as_such(results: Any, peer: MakePeer) -> None:
    receipt = send(peer(104, host="pacs.invalid"), results.objects, OURS)
    assert (receipt.is_stored, receipt.retry) == (False, True)
    assert "no such host name" in receipt.reason


def test_a_port_where_no_dicom_is_spoken_is_told_as_such(results: Any, orthanc: Any, peer: MakePeer) -> None:
    receipt = send(peer(orthanc.http_port, timeout_s=2), results.objects, OURS)
    assert (receipt.is_stored, receipt.retry) == (False, True)
    assert "DICOM port" in receipt.reason


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        ({"require_calling_aet": ["SOMEBODY"]}, "does not know our AE title CRLM-NODE"),
        ({"require_called_aet": True, "ae_title": "OTHER"}, "correct ae_title in peers.yaml"),
    ],
)
def test_a_permanent_reject_is_not_tried_again_and_says_what_to_change(
    settings: dict[str, Any], advice: str, results: Any, scp: Any, peer: MakePeer
) -> None:
    receipt = send(peer(scp(**settings).port), results.objects, OURS)
    assert (receipt.is_stored, receipt.retry) == (False, False)
    assert advice in receipt.reason


def test_a_peer_with_too_many_associations_is_tried_again(results: Any, scp: Any, peer: MakePeer) -> None:
    receipt = send(peer(scp(_maximum_associations=0).port), results.objects, OURS)
    assert (receipt.is_stored, receipt.retry) == (False, True)
    assert "too many associations (2,3,2)" in receipt.reason


def test_dcmtk_refusing_every_association_is_a_refusal(results: Any, storescp_dcmtk: Any, peer: MakePeer) -> None:
    receipt = send(peer(storescp_dcmtk("--refuse").port), results.objects, OURS)
    assert (receipt.is_stored, receipt.retry) == (False, False)
    assert "rejected the association" in receipt.reason


def test_a_file_that_changed_since_it_was_encoded_is_never_sent(
    results: Any, scp: Any, peer: MakePeer, tmp_path: Path, as_result: Any
) -> None:
    path = tmp_path / "seg.dcm"
    path.write_bytes(results.of("seg").path.read_bytes())
    item: ResultObject = as_result("seg", path)
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    archive = scp()
    receipt = send(peer(archive.port), [item], OURS)
    assert (receipt.is_stored, receipt.retry) == (False, False)
    assert "has changed since it was encoded" in receipt.reason
    assert archive.received == []


def test_thirty_objects_travel_on_one_association_without_waiting_for_nagle(
    results: Any,
    storescp_dcmtk: Any,
    peer: MakePeer,
    tmp_path: Path,
    as_result: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options: list[tuple[int, ...]] = []
    set_option = socket.socket.setsockopt
    monkeypatch.setattr(
        socket.socket, "setsockopt", lambda wire, *option: (options.append(option), set_option(wire, *option))[1]
    )
    objects = []
    for number in range(30):
        copy = dcmread(results.of("seg").path)
        copy.SOPInstanceUID = copy.file_meta.MediaStorageSOPInstanceUID = f"2.25.{number + 1}"
        copy.save_as(tmp_path / f"{number}.dcm")
        objects.append(as_result("seg", tmp_path / f"{number}.dcm"))
    storescp = storescp_dcmtk()
    receipt = send(peer(storescp.port), objects, OURS)
    assert receipt.is_stored, receipt.reason
    assert len(storescp.files) == 30
    # set once: one association; without it each C-STORE would wait 40 ms
    assert options.count((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)) == 1


def test_echo_tells_the_time_of_a_peer_that_answers(storescp_dcmtk: Any, peer: MakePeer) -> None:
    result = echo(peer(storescp_dcmtk().port), OURS)
    assert result.is_ok, result.what
    assert 0 < result.milliseconds < 5000


def test_echo_says_why_a_peer_does_not_answer(free_port: int, peer: MakePeer) -> None:
    result = echo(peer(free_port), OURS)
    assert not result.is_ok
    assert "connection refused" in result.what
