"""The receiving process against real senders: what it answers, what is on disk then, and what a kill leaves."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, MRImageStorage
from pynetdicom import AE, _config, build_role, evt

from node.dicom.part10 import split
from node.domain import SeriesKey
from node.scp_contexts import READABLE_SYNTAXES, storage_classes
from node.spool import folder_name
from tests.receiving import ReceiverProcess, Sender, ct_slice, encoded, new_uid, running_receiver, save

WaitUntil = Callable[..., None]
SUCCESS, OUT_OF_RESOURCES, DOES_NOT_MATCH = 0x0000, 0xA700, 0xB007
ENHANCED_SR, RADIATION_DOSE_SR = "1.2.840.10008.5.1.4.1.1.88.22", "1.2.840.10008.5.1.4.1.1.88.67"
PRESENTATION_STATE = "1.2.840.10008.5.1.4.1.1.11.1"
COMMITMENT, COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReceiverProcess]:
    """One process for all tests that do not end it."""
    with running_receiver(tmp_path_factory.mktemp("receiver")) as running:
        yield running


@pytest.fixture
def any_uid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let our own test sender send identifiers that are none."""
    monkeypatch.setitem(_config.VALIDATORS, "UI", lambda value: (True, ""))


@pytest.fixture
def storescu(require_peer: Callable[[str], Path]) -> Callable[..., subprocess.CompletedProcess[str]]:
    program = require_peer("/usr/bin/storescu")

    def send(port: int, *arguments: object, called: str = "CRLM-NODE") -> subprocess.CompletedProcess[str]:
        command = [program, "-v", "-aet", "PACS", "-aec", called, "127.0.0.1", port, *arguments]
        return subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=60)

    return send


def stored(receiver: ReceiverProcess, dataset: Dataset) -> Path:
    key = SeriesKey(folder_name(str(dataset.StudyInstanceUID)), folder_name(str(dataset.SeriesInstanceUID)))
    return receiver.spool.series_folder(key) / f"{folder_name(str(dataset.SOPInstanceUID))}.dcm"


def quarantined(receiver: ReceiverProcess, data: bytes) -> list[str]:
    """Reasons for which just these bytes lie in quarantine."""
    return [item.reason for item in receiver.spool.quarantined() if item.path.read_bytes().endswith(data)]


# --- what is kept


def test_a_stored_instance_is_byte_for_byte_what_was_sent(receiver: ReceiverProcess) -> None:
    dataset = ct_slice()
    with Sender(receiver.port) as sender:
        assert sender.store_dataset(dataset) == SUCCESS
    meta, content = split(stored(receiver, dataset).read_bytes())
    assert bytes(content) == encoded(dataset)
    assert meta.sop_instance_uid == dataset.SOPInstanceUID


def test_the_file_meta_names_who_sent_it_and_which_title_was_called(receiver: ReceiverProcess) -> None:
    dataset = ct_slice()
    with Sender(receiver.port, called="CRLM-PRE") as sender:
        sender.store_dataset(dataset)
    meta = dcmread(stored(receiver, dataset)).file_meta
    assert (meta.SourceApplicationEntityTitle, meta.SendingApplicationEntityTitle) == ("PACS", "PACS")
    assert meta.ReceivingApplicationEntityTitle == "CRLM-PRE"


def test_an_acknowledged_series_is_marked_as_moved(receiver: ReceiverProcess) -> None:
    dataset = ct_slice()
    with Sender(receiver.port) as sender:
        sender.store_dataset(dataset)
    assert SeriesKey(dataset.StudyInstanceUID, dataset.SeriesInstanceUID) in receiver.spool.dirty()


def test_files_are_for_the_node_alone(receiver: ReceiverProcess) -> None:
    dataset = ct_slice()
    with Sender(receiver.port) as sender:
        sender.store_dataset(dataset)
    path = stored(receiver, dataset)
    assert path.stat().st_mode & 0o077 == 0
    assert path.parent.stat().st_mode & 0o077 == 0


def test_dcmtk_sends_a_real_ct_series(
    receiver: ReceiverProcess, storescu: Callable[..., Any], shared_data: Path
) -> None:
    folder = shared_data / "ct-liver" / "crlm-ct-1004"
    assert storescu(receiver.port, "+sd", folder).returncode == 0
    sent = [dcmread(path) for path in folder.glob("*.dcm")]
    kept = [dcmread(stored(receiver, dataset)) for dataset in sent]
    assert [dataset.PixelData for dataset in kept] == [dataset.PixelData for dataset in sent]


@pytest.mark.parametrize(
    "file",
    [
        "pydicom-test_files/MR_small_RLE.dcm",
        "pydicom-test_files/MR_small_jp2klossless.dcm",
        "pydicom-test_files/J2K_pixelrep_mismatch.dcm",
        "pydicom-test_files/MR_small_jpeg_ls_lossless.dcm",
        "pydicom-test_files/MR_small_bigendian.dcm",
        "pydicom-test_files/MR_small_implicit.dcm",
        "transfer-syntaxes/CT1_UNC.fragmented_no_bot_jpeg_ls.80.dcm",
        "transfer-syntaxes/report_dfl",
    ],
)
def test_an_instance_stays_in_the_transfer_syntax_it_came_in(
    receiver: ReceiverProcess, shared_data: Path, file: str
) -> None:
    dataset = dcmread(shared_data / "malformed" / file)
    syntax, sop_class = dataset.file_meta.TransferSyntaxUID, str(dataset.SOPClassUID)
    data = body_of(shared_data / "malformed" / file)
    with Sender(receiver.port, [(sop_class, syntax)]) as sender:
        assert sender.store(data, sop_class, str(dataset.SOPInstanceUID)) == SUCCESS
    # one image in several syntaxes has one UID: the first is stored, the others wait beside it to be judged
    key = SeriesKey(str(dataset.StudyInstanceUID), str(dataset.SeriesInstanceUID))
    kept = [dcmread(path) for path in (stored(receiver, dataset), *receiver.spool.repeats(key))]
    assert [one for one in kept if one.file_meta.TransferSyntaxUID == syntax] == [dataset]


def body_of(path: Path) -> bytes:
    """The encoded data set of a DICOM file."""
    data = path.read_bytes()
    length = int.from_bytes(data[140:144], "little")
    return data[144 + length :]


# --- what is offered


def test_every_syntax_we_can_read_is_accepted_for_images(receiver: ReceiverProcess) -> None:
    with Sender(receiver.port, [(CTImageStorage, syntax) for syntax in READABLE_SYNTAXES]) as sender:
        assert set(sender.results.values()) == {0}


def test_video_and_references_to_pixels_elsewhere_are_refused_for_images(receiver: ReceiverProcess) -> None:
    video, jpip = "1.2.840.10008.1.2.4.102", "1.2.840.10008.1.2.4.204"
    with Sender(receiver.port, [(CTImageStorage, s) for s in (video, jpip, ExplicitVRLittleEndian)]) as sender:
        assert sender.results == {
            (CTImageStorage, video): 4,
            (CTImageStorage, jpip): 4,
            (CTImageStorage, ExplicitVRLittleEndian): 0,
        }


def test_explicit_little_endian_is_preferred_where_the_sender_leaves_the_choice(receiver: ReceiverProcess) -> None:
    entity = AE("PACS")
    entity.add_requested_context(
        CTImageStorage, ["1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2", ExplicitVRLittleEndian]
    )
    association = entity.associate("127.0.0.1", receiver.port, ae_title="CRLM-NODE")
    assert association.accepted_contexts[0].transfer_syntax == [ExplicitVRLittleEndian]
    association.release()


def test_every_storage_class_that_may_come_is_accepted(receiver: ReceiverProcess) -> None:
    classes = sorted(storage_classes())
    assert len(classes) > 180
    for some in (classes[:120], classes[120:]):
        with Sender(receiver.port, [(sop_class, ExplicitVRLittleEndian) for sop_class in some]) as sender:
            assert set(sender.results.values()) == {0}


def test_a_report_of_the_scanner_does_not_abort_the_study(
    receiver: ReceiverProcess, storescu: Callable[..., Any], shared_data: Path, tmp_path: Path
) -> None:
    image = ct_slice()
    dose = ct_slice(SOPClassUID=RADIATION_DOSE_SR, PixelData=None, Rows=None, Columns=None, Modality="SR")
    phoenix = next((shared_data / "negatives" / "siemens-phoenix-sr").iterdir())
    states = sorted((shared_data / "negatives" / "presentation-states").iterdir())
    files = [phoenix, *states, save(dose, tmp_path / "dose.dcm"), save(image, tmp_path / "image.dcm")]
    run = storescu(receiver.port, *files)
    assert run.returncode == 0, run.stdout
    assert stored(receiver, image).exists()
    assert stored(receiver, dcmread(phoenix)).exists()
    assert not any(stored(receiver, dcmread(state)).exists() for state in states)


# --- who may


def rejection(receiver: ReceiverProcess, **options: Any) -> tuple[int, int, int] | None:
    sender = Sender(receiver.port, **options)
    sender.close()
    return sender.rejection


def test_another_called_title_is_rejected_as_such(receiver: ReceiverProcess) -> None:
    assert rejection(receiver, called="SOMEBODY") == (1, 1, 7)


def test_an_unknown_caller_is_rejected_as_such(receiver: ReceiverProcess) -> None:
    assert rejection(receiver, calling="STRANGER") == (1, 1, 3)


def test_a_known_caller_at_another_host_is_rejected(receiver: ReceiverProcess) -> None:
    assert rejection(receiver, calling="MOVED") == (1, 1, 3)


def test_a_peer_that_only_receives_may_report_commitment_but_store_nothing(receiver: ReceiverProcess) -> None:
    contexts = [(CTImageStorage, ExplicitVRLittleEndian), (COMMITMENT, ExplicitVRLittleEndian)]
    with Sender(receiver.port, contexts, calling="ARCHIVE") as sender:
        assert sender.results == {(CTImageStorage, ExplicitVRLittleEndian): 3, (COMMITMENT, ExplicitVRLittleEndian): 0}


def test_an_echo_is_answered(receiver: ReceiverProcess, require_peer: Callable[[str], Path]) -> None:
    program = require_peer("/usr/bin/echoscu")
    command = [str(program), "-aet", "PACS", "-aec", "CRLM-NODE", "127.0.0.1", str(receiver.port)]
    assert subprocess.run(command, timeout=30).returncode == 0


def test_one_association_too_many_is_rejected_for_the_moment(tmp_path: Path, wait_until: WaitUntil) -> None:
    with running_receiver(tmp_path, settings={"dicom__max_associations": 2}) as receiver:
        first, second = Sender(receiver.port), Sender(receiver.port)
        assert rejection(receiver) == (2, 3, 2)
        first.close()
        wait_until(lambda: rejection(receiver) is None, "the place of a released association is free again")
        second.close()


def test_an_association_that_brings_nothing_for_too_long_is_ended(tmp_path: Path, wait_until: WaitUntil) -> None:
    with running_receiver(tmp_path, settings={"dicom__network_timeout_s": 1}) as receiver:
        sender = Sender(receiver.port)
        wait_until(lambda: sender.association.is_aborted, "the idle association is aborted")
        sender.close()


# --- the same again, and our own


def test_the_same_instance_twice_is_kept_once(receiver: ReceiverProcess) -> None:
    dataset = ct_slice()
    with Sender(receiver.port) as sender:
        assert [sender.store_dataset(dataset) for _ in range(2)] == [SUCCESS, SUCCESS]
    key = SeriesKey(dataset.StudyInstanceUID, dataset.SeriesInstanceUID)
    assert len(receiver.spool.instances(key)) == 1
    assert not receiver.spool.repeats(key)


def test_another_content_under_the_same_uid_is_kept_beside_the_first(receiver: ReceiverProcess) -> None:
    dataset = ct_slice()
    with Sender(receiver.port) as sender:
        sender.store_dataset(dataset)
        first = stored(receiver, dataset).read_bytes()
        dataset.PatientName = "Corrected^Name"
        assert sender.store_dataset(dataset) == SUCCESS
    key = SeriesKey(dataset.StudyInstanceUID, dataset.SeriesInstanceUID)
    (repeat,) = receiver.spool.repeats(key)
    assert stored(receiver, dataset).read_bytes() == first
    assert dcmread(repeat).PatientName == "Corrected^Name"


def test_our_own_result_coming_back_is_dropped_with_success(receiver: ReceiverProcess) -> None:
    dataset = ct_slice()
    receiver.spool.mark_result([dataset.SOPInstanceUID])
    with Sender(receiver.port) as sender:
        assert sender.store_dataset(dataset) == SUCCESS
    assert not stored(receiver, dataset).exists()


# --- bad input


def test_a_path_for_a_uid_stays_inside_the_spool(receiver: ReceiverProcess, any_uid: None) -> None:
    evil = "../../../../../tmp/evil"
    dataset = ct_slice(StudyInstanceUID=evil, SeriesInstanceUID="/etc", SOPInstanceUID="..")
    with Sender(receiver.port) as sender:
        assert sender.store_dataset(dataset) == SUCCESS
    path = stored(receiver, dataset)
    assert path.resolve().is_relative_to(receiver.spool_path.resolve())
    assert all(part.startswith("x-") for part in path.parts[-3:])
    assert dcmread(path).StudyInstanceUID == evil


@pytest.mark.parametrize("uid", ["1." * 40 + "1", "Ünïcode", "1.2.3 4", ""])
def test_an_identifier_that_is_none_gets_an_answer(receiver: ReceiverProcess, any_uid: None, uid: str) -> None:
    data = encoded(ct_slice(SpecificCharacterSet="ISO_IR 100", SOPInstanceUID=uid))
    with Sender(receiver.port) as sender:
        assert sender.store(data, sop_instance=uid.encode("latin-1").decode("latin-1")) in (SUCCESS, DOES_NOT_MATCH)
        assert sender.store_dataset(ct_slice()) == SUCCESS


@pytest.mark.parametrize("data", [b"", None], ids=["an empty fragment", "no data set at all"])
def test_zero_bytes_are_quarantined_and_answered_with_success(receiver: ReceiverProcess, data: bytes | None) -> None:
    uid = new_uid()
    with Sender(receiver.port) as sender:
        assert sender.store(data, sop_instance=uid) == SUCCESS
        assert sender.store_dataset(ct_slice()) == SUCCESS
    reasons = {item.reason for item in receiver.spool.quarantined() if uid.encode() in item.path.read_bytes()}
    assert reasons == {"an empty data set"}


@pytest.mark.parametrize("cut", [1, 7, 20, 60, 200])
def test_a_truncated_header_is_quarantined_and_answered_with_success(receiver: ReceiverProcess, cut: int) -> None:
    dataset = ct_slice()
    data = encoded(dataset)[:cut]
    with Sender(receiver.port) as sender:
        assert sender.store(data, sop_instance=dataset.SOPInstanceUID) == SUCCESS
    assert len(quarantined(receiver, data)) == 1


def test_noise_is_quarantined_and_stops_nothing_else(receiver: ReceiverProcess) -> None:
    noise = bytes(range(256)) * 40
    good = ct_slice()
    with Sender(receiver.port) as sender:
        assert sender.store(noise, sop_instance=new_uid()) == SUCCESS
        assert sender.store_dataset(good) == SUCCESS
    assert quarantined(receiver, noise)
    assert stored(receiver, good).exists()


def test_a_series_without_identifiers_is_quarantined_with_the_reason(
    receiver: ReceiverProcess, shared_data: Path
) -> None:
    path = next((shared_data / "ct-liver" / "totalsegmentator-siemens-j2k").iterdir())
    meta = dcmread(path, stop_before_pixels=True).file_meta
    data = body_of(path)
    with Sender(receiver.port, [(CTImageStorage, meta.TransferSyntaxUID)]) as sender:
        assert sender.store(data, CTImageStorage, str(meta.MediaStorageSOPInstanceUID)) == SUCCESS
    assert quarantined(receiver, data) == ["no Study Instance UID and no Series Instance UID: it belongs to no series"]


def test_what_the_data_set_leaves_out_the_request_may_tell(receiver: ReceiverProcess) -> None:
    dataset = ct_slice()
    silent = ct_slice(dataset.StudyInstanceUID, dataset.SeriesInstanceUID, SOPClassUID="", SOPInstanceUID="")
    with Sender(receiver.port) as sender:
        assert sender.store(encoded(silent), CTImageStorage, dataset.SOPInstanceUID) == SUCCESS
    assert stored(receiver, dataset).exists()


@pytest.mark.parametrize(
    ("sop_class", "told_class", "told_instance"),
    [
        (MRImageStorage, CTImageStorage, None),
        (CTImageStorage, MRImageStorage, None),
        (CTImageStorage, "1.2.826.0.1.3680043.9999.1", None),
        (CTImageStorage, CTImageStorage, "1.2.3"),
    ],
    ids=["data set of another class", "request of another class", "request of a private class", "another instance"],
)
def test_a_contradiction_is_answered_by_a_warning_and_quarantined(
    receiver: ReceiverProcess, sop_class: str, told_class: str, told_instance: str | None
) -> None:
    dataset = ct_slice(SOPClassUID=sop_class)
    data = encoded(dataset)
    with Sender(receiver.port) as sender:
        assert sender.store(data, told_class, told_instance or dataset.SOPInstanceUID) == DOES_NOT_MATCH
        assert sender.store_dataset(ct_slice()) == SUCCESS
    assert len(quarantined(receiver, data)) == 1


def test_dcmtk_goes_on_after_the_warning(
    receiver: ReceiverProcess, storescu: Callable[..., Any], tmp_path: Path
) -> None:
    # one context of another class than the data set's: dcmtk proposes what the file meta says
    wrong, good = ct_slice(), ct_slice()
    save(wrong, tmp_path / "1.dcm")
    data = (tmp_path / "1.dcm").read_bytes()
    at = data.rindex(b"\x08\x00\x16\x00UI")
    (tmp_path / "1.dcm").write_bytes(data[:at] + data[at:].replace(b"5.1.4.1.1.2\0", b"5.1.4.1.1.4\0", 1))
    run = storescu(receiver.port, tmp_path / "1.dcm", save(good, tmp_path / "2.dcm"))
    assert run.returncode == 0, run.stdout
    assert stored(receiver, good).exists()


def test_each_real_oddity_gets_an_answer_and_stops_nothing(receiver: ReceiverProcess, shared_data: Path) -> None:
    answered = {}
    files = sorted((shared_data / "malformed" / "pydicom-test_files").iterdir())
    for path in files:
        try:
            meta = dcmread(path, stop_before_pixels=True, force=True).file_meta
            syntax, uid = UID(meta.TransferSyntaxUID), str(meta.MediaStorageSOPInstanceUID)
        except (AttributeError, ValueError):
            continue  # no file meta: it could not be sent
        if syntax not in READABLE_SYNTAXES:
            continue
        with Sender(receiver.port, [(CTImageStorage, syntax)]) as sender:
            answered[path.name] = sender.store(body_of(path), CTImageStorage, uid)
    assert len(answered) > 40
    assert set(answered.values()) <= {SUCCESS, DOES_NOT_MATCH}


def test_a_peer_that_vanishes_inside_a_message_leaves_nothing_behind(
    receiver: ReceiverProcess, wait_until: WaitUntil
) -> None:
    before = len(receiver.spool.studies())
    sender = Sender(receiver.port)
    # a P-DATA-TF that announces 64 kB and brings 100 bytes
    sender.socket.sendall(b"\x04\x00\x00\x01\x00\x00" + b"\0" * 100)
    sender.socket.shutdown(socket.SHUT_RDWR)
    with Sender(receiver.port) as other:
        assert other.store_dataset(ct_slice()) == SUCCESS
    wait_until(lambda: not list((receiver.spool_path / "incoming").glob("*.part")), "no part is left")
    assert len(receiver.spool.studies()) == before + 1
    sender.close()


def test_a_pdu_of_absurd_length_ends_its_association_only(receiver: ReceiverProcess, wait_until: WaitUntil) -> None:
    sender = Sender(receiver.port)
    sender.socket.sendall(b"\x04\x00\xff\xff\xff\xff" + b"\0" * 1000)
    wait_until(lambda: not sender.association.is_established, "the association is over")
    sender.close()
    with Sender(receiver.port) as other:
        assert other.store_dataset(ct_slice()) == SUCCESS


# --- the disk


def test_below_the_disks_floor_the_sender_keeps_its_images(tmp_path: Path, storescu: Callable[..., Any]) -> None:
    dataset = ct_slice()
    with running_receiver(tmp_path, settings={"spool__min_free_mb": 1 << 40}) as receiver:
        run = storescu(receiver.port, save(dataset, tmp_path / "image.dcm"))
        _, errors = receiver.end()
    assert run.returncode != 0
    assert re.search("a700|OutOfResources|Refused: OutOfResources", run.stdout + run.stderr, re.IGNORECASE)
    assert not stored(receiver, dataset).exists()
    assert "instance refused" in errors
    assert "status=A700" in errors


def test_when_the_disk_refuses_a_file_nothing_of_it_stays(tmp_path: Path) -> None:
    large, small = ct_slice(size=512), ct_slice(size=32)
    with running_receiver(tmp_path, max_file_bytes=100_000) as receiver:
        with Sender(receiver.port) as sender:
            assert sender.store_dataset(large) == OUT_OF_RESOURCES
            assert sender.store_dataset(small) == SUCCESS
        assert not stored(receiver, large).exists()
        assert not list((receiver.spool_path / "incoming").glob("*.part"))


# --- the end


@pytest.mark.parametrize("seed", range(2))
def test_an_acknowledged_instance_survives_kill_9(
    tmp_path: Path, require_peer: Callable[[str], Path], seed: int
) -> None:
    program = require_peer("/usr/bin/storescu")
    study, series = new_uid(), new_uid()
    datasets = [ct_slice(study, series, number, size=256) for number in range(1, 41)]
    files = {str(save(one, tmp_path / "send" / f"{one.InstanceNumber:03}.dcm")): one for one in datasets}
    with running_receiver(tmp_path) as receiver:
        command = [str(program), "-v", "-aet", "PACS", "-aec", "CRLM-NODE", "127.0.0.1", str(receiver.port), *files]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as run:
            assert run.stdout
            acknowledged: list[Dataset] = []
            lines: list[str] = []
            # after some answers, and then at no particular point of the next message
            for line in run.stdout:
                lines.append(line)
                if len(acknowledged_in(lines, files)) > 3 + 5 * seed:
                    time.sleep(0.0007 * seed)
                    break
            receiver.kill()
            lines += run.stdout.readlines()
        acknowledged = acknowledged_in(lines, files)
        assert 3 < len(acknowledged) < len(datasets)
        receiver.start()
        for dataset in acknowledged:
            assert bytes(split(stored(receiver, dataset).read_bytes())[1]) == encoded(dataset)
        # what was not acknowledged is whole, or is not there
        for path in receiver.spool.instances(SeriesKey(study, series)):
            assert len(dcmread(path).PixelData) == 256 * 256 * 2
        assert not list((receiver.spool_path / "incoming").glob("*.part"))
        assert SeriesKey(study, series) in receiver.spool.dirty()


def acknowledged_in(lines: list[str], files: dict[str, Dataset]) -> list[Dataset]:
    """Data sets whose success dcmtk has reported."""
    sent = [match[1] for line in lines if (match := re.match(r"I: Sending file: (.*)", line))]
    answers = sum("Received Store Response (Success)" in line for line in lines)
    return [files[path] for path in sent[:answers]]


def test_sigterm_ends_an_idle_receiver_with_0(tmp_path: Path) -> None:
    with running_receiver(tmp_path) as receiver:
        idle = Sender(receiver.port)
        code, errors = receiver.end()
        assert code == 0
        assert "Traceback" not in errors
        idle.close()


def test_sigterm_lets_a_running_message_end_and_be_answered(tmp_path: Path) -> None:
    dataset = ct_slice(size=512)
    has_begun = threading.Event()

    def slowly(event: Any) -> None:
        has_begun.set()
        time.sleep(0.02)

    with running_receiver(tmp_path, settings={"dicom__max_pdu_bytes": 16384}) as receiver:
        sender = Sender(receiver.port, evt_handlers=[(evt.EVT_PDU_SENT, slowly)])
        has_begun.clear()
        answers: list[int | None] = []
        sending = threading.Thread(target=lambda: answers.append(sender.store_dataset(dataset)))
        sending.start()
        has_begun.wait(10)
        time.sleep(0.1)
        code, _ = receiver.end()
        sending.join(20)
        assert (code, answers) == (0, [SUCCESS])
        assert bytes(split(stored(receiver, dataset).read_bytes())[1]) == encoded(dataset)
        sender.close()


def test_the_receiver_carries_nothing_that_it_does_not_need(tmp_path: Path) -> None:
    told = tmp_path / "modules.json"
    prelude = (
        "import atexit, json, pathlib, sys\n"
        f"atexit.register(lambda: pathlib.Path({str(told)!r}).write_text(json.dumps(sorted(sys.modules))))"
    )
    with running_receiver(tmp_path, prelude=prelude) as receiver:
        with Sender(receiver.port) as sender:
            sender.store_dataset(ct_slice())
        receiver.end()
    loaded = {name.partition(".")[0] for name in json.loads(told.read_text())}
    assert "pynetdicom" in loaded
    assert not loaded & {"torch", "dbos", "highdicom", "sqlalchemy", "scipy", "SimpleITK", "skimage", "typer", "rich"}


def test_the_log_names_no_patient(tmp_path: Path) -> None:
    with running_receiver(tmp_path) as receiver:
        with Sender(receiver.port) as sender:
            sender.store_dataset(ct_slice())
            sender.store(encoded(ct_slice())[:300], sop_instance=new_uid())
        _, errors = receiver.end()
    assert "stored=1" in errors
    assert "quarantined=1" in errors
    assert not re.search("secret", errors, re.IGNORECASE)


# --- storage commitment


def report(transaction: str, kept: str, lost: str) -> Dataset:
    told = Dataset()
    told.TransactionUID = transaction
    told.ReferencedSOPSequence = [Dataset()]
    told.ReferencedSOPSequence[0].ReferencedSOPClassUID = CTImageStorage
    told.ReferencedSOPSequence[0].ReferencedSOPInstanceUID = kept
    told.FailedSOPSequence = [Dataset()]
    told.FailedSOPSequence[0].ReferencedSOPClassUID = CTImageStorage
    told.FailedSOPSequence[0].ReferencedSOPInstanceUID = lost
    told.FailedSOPSequence[0].FailureReason = 0x0112
    return told


def send_report(port: int, content: Dataset) -> int:
    """As an archive does: on an association of its own, in the role of the commitment's provider."""
    entity = AE("ARCHIVE")
    entity.add_requested_context(COMMITMENT)
    role = build_role(COMMITMENT, scp_role=True)
    association = entity.associate("127.0.0.1", port, ae_title="CRLM-NODE", ext_neg=[role])
    assert association.is_established
    assert association.accepted_contexts[0].as_scp
    status, _ = association.send_n_event_report(content, 2, COMMITMENT, COMMITMENT_INSTANCE)
    association.release()
    return int(status.Status)


def test_a_commitment_report_is_on_disk_when_it_is_answered(tmp_path: Path) -> None:
    transaction, kept, lost = new_uid(), new_uid(), new_uid()
    with running_receiver(tmp_path) as receiver:
        assert send_report(receiver.port, report(transaction, kept, lost)) == SUCCESS
        receiver.kill()
        (received,) = receiver.spool.commitment_reports()
    assert received.calling_ae == "ARCHIVE"
    assert received.report["transaction_uid"] == transaction
    assert received.report["committed"] == [kept]
    assert received.report["failed"] == {lost: 0x0112}


def test_the_same_report_twice_is_one_and_another_is_another(receiver: ReceiverProcess) -> None:
    transaction, kept, lost = new_uid(), new_uid(), new_uid()
    for content in (report(transaction, kept, lost), report(transaction, kept, lost), report(transaction, lost, kept)):
        assert send_report(receiver.port, content) == SUCCESS
    received = [one for one in receiver.spool.commitment_reports() if one.report["transaction_uid"] == transaction]
    assert len(received) == 2


def test_a_report_without_a_transaction_is_answered_as_invalid(receiver: ReceiverProcess) -> None:
    content = report("", new_uid(), new_uid())
    assert send_report(receiver.port, content) == 0x0115
