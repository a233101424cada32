"""The small PACS against real clients: dcmtk where it is installed, pynetdicom always."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pynetdicom import AE, build_role, evt

from model.phantom import Phantom
from simulator.archive import STUDY_ROOT_FIND, STUDY_ROOT_GET, Archive
from simulator.commitment import STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE, CommitmentBehaviour
from simulator.modality import send, study_of, write_series
from simulator.sending import SendFailed

CT, SEG, SR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.88.34"
LABELMAP = "1.2.840.10008.5.1.4.1.1.66.7"
PhantomOf = Callable[[str], Phantom]
Wait = Callable[..., None]


@pytest.fixture(scope="session")
def ct_files(phantom_of: PhantomOf, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_series(phantom_of("ct-portal-venous"), tmp_path_factory.mktemp("ct"), dialect="siemens")[:6]


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with Archive(tmp_path / "archive") as running:
        yield running


@pytest.fixture
def dcmtk(require_peer: Callable[[str], Path]) -> Callable[..., str]:
    def run(program: str, *arguments: object) -> str:
        command = [str(require_peer(f"/usr/bin/{program}")), *map(str, arguments)]
        environment = {**os.environ, "TCP_NODELAY": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    return run


class Requestor:
    """An AE that asks for commitment and listens for the report."""

    def __init__(self, title: str = "NODE") -> None:
        self.title = title
        self.reports: list[tuple[int | None, Dataset]] = []
        self.heard = threading.Event()
        ae = AE(ae_title=title)
        ae.add_supported_context(STORAGE_COMMITMENT, scu_role=True, scp_role=True)
        handlers: list[Any] = [(evt.EVT_N_EVENT_REPORT, self._on_report)]
        self._server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        assert self._server is not None
        self.address = ("127.0.0.1", int(self._server.server_address[1]))

    def _on_report(self, event: evt.Event) -> tuple[int, None]:
        self.reports.append((event.event_type, event.event_information))
        self.heard.set()
        return 0x0000, None

    def ask(self, port: int, references: list[tuple[str, str]], stay_s: float = 0.0) -> int:
        """Sends N-ACTION; keeps the association for `stay_s` or until a report came on it. Returns the status."""
        ae = AE(ae_title=self.title)
        ae.add_requested_context(STORAGE_COMMITMENT)
        handlers: list[Any] = [(evt.EVT_N_EVENT_REPORT, self._on_report)]
        association = ae.associate("127.0.0.1", port, ae_title="ARCHIVE", evt_handlers=handlers)
        information = Dataset()
        information.TransactionUID = "2.25.1234"
        information.ReferencedSOPSequence = Items([_reference(*pair) for pair in references])
        status, _ = association.send_n_action(information, 1, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE)
        if stay_s:
            self.heard.wait(stay_s)
        association.release()
        return int(status.Status)

    def close(self) -> None:
        assert self._server is not None
        self._server.shutdown()


def _reference(sop_class: str, sop_instance: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, sop_instance
    return item


@pytest.fixture
def requestor() -> Iterator[Requestor]:
    asking = Requestor()
    yield asking
    asking.close()


def references_to(paths: list[Path]) -> list[tuple[str, str]]:
    headers = [dcmread(path, stop_before_pixels=True) for path in paths]
    return [(str(ds.SOPClassUID), str(ds.SOPInstanceUID)) for ds in headers]


def ask_for(archive: Archive, model: str, **keys: str) -> list[Dataset]:
    ae = AE(ae_title="ASKER")
    ae.add_requested_context(model)
    association = ae.associate("127.0.0.1", archive.port, ae_title="ARCHIVE")
    identifier = Dataset()
    for keyword, value in keys.items():
        setattr(identifier, keyword, value)
    answers = list(association.send_c_find(identifier, model))
    association.release()
    assert answers[-1][0].Status == 0x0000
    return [answer for _, answer in answers[:-1] if answer is not None]


def test_what_is_sent_is_kept_byte_for_byte(archive: Archive, ct_files: list[Path]) -> None:
    result = send(ct_files, "127.0.0.1", archive.port, "ARCHIVE")
    assert result.is_accepted
    for path, instance in zip(ct_files, archive.instances(), strict=True):
        sent, kept = dcmread(path), dcmread(instance.path)
        assert kept == sent
        assert instance.path.stem == sent.SOPInstanceUID
        assert instance.Modality == "CT"


def test_the_folder_is_the_memory(tmp_path: Path, ct_files: list[Path]) -> None:
    with Archive(tmp_path) as first:
        send(ct_files, "127.0.0.1", first.port, "ARCHIVE")
    assert {i.uid for i in Archive(tmp_path).instances()} == {uid for _, uid in references_to(ct_files)}


def test_storescu_findscu_and_getscu_are_served(
    archive: Archive, ct_files: list[Path], tmp_path: Path, dcmtk: Callable[..., str]
) -> None:
    dcmtk("echoscu", "-aec", "ARCHIVE", "127.0.0.1", archive.port)
    dcmtk("storescu", "-aec", "ARCHIVE", "127.0.0.1", archive.port, *ct_files)
    study = study_of("ct-portal-venous", 5)
    keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"PatientID={study.patient_id}", "-k", "StudyInstanceUID"]
    assert study.study_instance_uid in dcmtk("findscu", "-S", "-aec", "ARCHIVE", *keys, "127.0.0.1", archive.port)
    (tmp_path / "got").mkdir()
    dcmtk("getscu", "-S", "-aec", "ARCHIVE", "-od", tmp_path / "got", "-k", "QueryRetrieveLevel=STUDY",
          "-k", f"StudyInstanceUID={study.study_instance_uid}", "127.0.0.1", archive.port)  # fmt: skip
    got = {str(dcmread(path).SOPInstanceUID) for path in (tmp_path / "got").iterdir()}
    assert got == {uid for _, uid in references_to(ct_files)}


def test_queries_match_wild_cards_ranges_and_lists_at_every_level(archive: Archive, ct_files: list[Path]) -> None:
    send(ct_files, "127.0.0.1", archive.port, "ARCHIVE")
    uids = [uid for _, uid in references_to(ct_files)]
    found = [
        len(ask_for(archive, STUDY_ROOT_FIND, **keys))
        for keys in (
            {"QueryRetrieveLevel": "STUDY", "PatientName": "phantom*"},
            {"QueryRetrieveLevel": "STUDY", "StudyDate": "20240101-20241231", "ModalitiesInStudy": "CT"},
            {"QueryRetrieveLevel": "STUDY", "StudyDate": "20250101-"},
            {"QueryRetrieveLevel": "STUDY", "ModalitiesInStudy": "MR"},
            {"QueryRetrieveLevel": "SERIES", "Modality": "C?"},
            {"QueryRetrieveLevel": "IMAGE", "SOPInstanceUID": "\\".join(uids[:2])},
        )
    ]
    assert found == [1, 1, 0, 0, 1, 2]
    (series,) = ask_for(
        archive, STUDY_ROOT_FIND, QueryRetrieveLevel="SERIES", NumberOfSeriesRelatedInstances="", SeriesDescription=""
    )
    assert series.NumberOfSeriesRelatedInstances == len(ct_files)
    assert series.SeriesDescription == "Abdomen portalvenös 5.0 B30f"


def test_c_get_brings_one_series_back(archive: Archive, ct_files: list[Path]) -> None:
    send(ct_files, "127.0.0.1", archive.port, "ARCHIVE")
    got: list[str] = []

    def on_store(event: evt.Event) -> int:
        got.append(str(event.dataset.SOPInstanceUID))
        return 0x0000

    ae = AE(ae_title="GETTER")
    ae.add_requested_context(STUDY_ROOT_GET)
    ae.add_requested_context(CT)
    roles: list[Any] = [build_role(CT, scp_role=True)]
    handlers: list[Any] = [(evt.EVT_C_STORE, on_store)]
    association = ae.associate("127.0.0.1", archive.port, ae_title="ARCHIVE", ext_neg=roles, evt_handlers=handlers)
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "SERIES"
    identifier.SeriesInstanceUID = str(dcmread(ct_files[0]).SeriesInstanceUID)
    statuses = [status.Status for status, _ in association.send_c_get(identifier, STUDY_ROOT_GET)]
    association.release()
    assert statuses[-1] == 0x0000
    assert sorted(got) == sorted(uid for _, uid in references_to(ct_files))


@pytest.mark.parametrize("sop_class", [SEG, SR, LABELMAP])
def test_results_of_every_kind_are_negotiated(archive: Archive, sop_class: str) -> None:
    ae = AE()
    ae.add_requested_context(sop_class)
    association = ae.associate("127.0.0.1", archive.port, ae_title="ARCHIVE")
    assert [context.abstract_syntax for context in association.accepted_contexts] == [sop_class]
    association.release()


def test_a_refused_class_gets_no_context(archive: Archive, ct_files: list[Path]) -> None:
    archive.refuse([CT])
    with pytest.raises(SendFailed):
        send(ct_files, "127.0.0.1", archive.port, "ARCHIVE")


def test_a_failing_status_keeps_nothing_and_a_warning_keeps_it(archive: Archive, ct_files: list[Path]) -> None:
    archive.status_for[CT] = 0xA700
    assert not send(ct_files[:1], "127.0.0.1", archive.port, "ARCHIVE").is_accepted
    assert archive.instances() == []
    archive.status_for[CT] = 0xB000
    assert send(ct_files[:1], "127.0.0.1", archive.port, "ARCHIVE").is_accepted
    assert [arrival.status for arrival in archive.arrivals] == [0xA700, 0xB000]
    assert len(archive.instances()) == 1


def test_off_line_nobody_answers_and_on_line_again_the_port_is_the_same(archive: Archive, ct_files: list[Path]) -> None:
    port = archive.port
    archive.offline = True
    with pytest.raises(SendFailed):
        send(ct_files[:1], "127.0.0.1", port, "ARCHIVE")
    archive.offline = False
    assert archive.port == port
    assert send(ct_files[:1], "127.0.0.1", port, "ARCHIVE").is_accepted


def test_another_called_ae_title_is_rejected(archive: Archive, ct_files: list[Path]) -> None:
    with pytest.raises(SendFailed):
        send(ct_files[:1], "127.0.0.1", archive.port, "SOMEONE")


def test_commitment_is_reported_on_a_new_association(
    archive: Archive, ct_files: list[Path], requestor: Requestor
) -> None:
    archive.peers["NODE"] = requestor.address
    send(ct_files, "127.0.0.1", archive.port, "ARCHIVE")
    assert requestor.ask(archive.port, references_to(ct_files)) == 0x0000
    assert requestor.heard.wait(10)
    ((event_type, information),) = requestor.reports
    assert event_type == 1
    assert information.TransactionUID == "2.25.1234"
    assert len(information.ReferencedSOPSequence) == len(ct_files)
    assert "FailedSOPSequence" not in information


def test_what_is_not_here_is_not_committed(archive: Archive, ct_files: list[Path], requestor: Requestor) -> None:
    archive.peers["NODE"] = requestor.address
    send(ct_files[:2], "127.0.0.1", archive.port, "ARCHIVE")
    archive.commitment.failures[references_to(ct_files)[1][1]] = 0x0213
    wrong_class = (SEG, references_to(ct_files)[0][1])
    requestor.ask(archive.port, [*references_to(ct_files[:3]), wrong_class])
    assert requestor.heard.wait(10)
    ((event_type, information),) = requestor.reports
    assert event_type == 2
    assert [item.FailureReason for item in information.FailedSOPSequence] == [0x0213, 0x0112, 0x0119]
    assert len(information.ReferencedSOPSequence) == 1


def test_a_report_can_come_on_the_same_association(tmp_path: Path, ct_files: list[Path], requestor: Requestor) -> None:
    with Archive(tmp_path, commitment=CommitmentBehaviour(is_on_same_association=True)) as archive:
        send(ct_files, "127.0.0.1", archive.port, "ARCHIVE")
        requestor.ask(archive.port, references_to(ct_files), stay_s=10)
        assert [event_type for event_type, _ in requestor.reports] == [1]


def test_a_report_waits_as_long_as_it_is_told(
    archive: Archive, ct_files: list[Path], requestor: Requestor, wait_until: Wait
) -> None:
    archive.peers["NODE"] = requestor.address
    archive.commitment.delay_s = 0.6
    requestor.ask(archive.port, references_to(ct_files))
    assert not requestor.heard.wait(0.3)
    wait_until(lambda: archive.commitments[0].outcome == "reported", "the report", deadline_s=10)


def test_a_requestor_without_an_address_is_not_called(
    archive: Archive, ct_files: list[Path], requestor: Requestor, wait_until: Wait
) -> None:
    requestor.ask(archive.port, references_to(ct_files))
    wait_until(lambda: "no address" in archive.commitments[0].outcome, "the archive to give up")
    assert requestor.reports == []


def test_as_a_process_it_says_when_it_is_ready_and_ends_on_sigterm(tmp_path: Path, ct_files: list[Path]) -> None:
    command = [sys.executable, "-m", "simulator.archive", "--folder", str(tmp_path), "--peer", "NODE=127.0.0.1:11112"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        ready = process.stdout.readline()
        port = int(ready.split("127.0.0.1:")[1].split(",")[0])
        assert send(ct_files[:1], "127.0.0.1", port, "ARCHIVE").is_accepted
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
    assert len(list(tmp_path.rglob("*.dcm"))) == 1
