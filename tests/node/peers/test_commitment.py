"""Storage commitment and queries: what a peer keeps, as it says itself."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pynetdicom import evt

from node.config_peers import DimsePeer
from node.dicom.commitment import CommitmentReport, report_of
from node.errors import PeerError, PeerRefusal, UnreadableInstance
from node.peers import find_study, request_commitment, send, whereabouts

COMMITMENT = "1.2.840.10008.1.20.1"
COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1.1"
STUDY_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
OURS = "CRLM-NODE"
EXPLICIT = [ExplicitVRLittleEndian]

MakePeer = Callable[..., DimsePeer]


class Listener:
    """Our side of a report that comes on a new association."""

    def __init__(self) -> None:
        self.reports: list[CommitmentReport] = []
        self.has_come = threading.Event()

    def take(self, event: evt.Event) -> tuple[int, None]:
        self.reports.append(report_of(event.event_information))
        self.has_come.set()
        return 0x0000, None


@pytest.fixture
def listener(scp: Any, orthanc: Any) -> Listener:
    """An SCP that takes commitment reports under our AE title, known to Orthanc."""
    listening = Listener()
    server = scp(
        contexts={COMMITMENT: EXPLICIT},
        # the reporting peer opens the association and is its SCP
        roles={COMMITMENT: {"scu_role": False, "scp_role": True}},
        handlers=[(evt.EVT_N_EVENT_REPORT, listening.take)],
    )
    orthanc.register(OURS, server.port)
    return listening


@pytest.fixture
def archive(orthanc: Any, peer: MakePeer) -> DimsePeer:
    """The real Orthanc as a peer, which knows our AE title."""
    orthanc.register(OURS, 104)
    return peer(orthanc.dicom_port, ae_title=orthanc.ae_title)


def test_orthanc_stores_seg_and_sr_and_pyorthanc_finds_them_there(
    results: Any, archive: DimsePeer, orthanc: Any
) -> None:
    receipt = send(archive, results.objects, OURS)
    assert receipt.is_stored, receipt.reason
    (study,) = orthanc.find("Study", StudyInstanceUID=results.study_uid)
    assert study["PatientMainDicomTags"]["PatientID"] == results.patient_id
    series = orthanc.find("Series", StudyInstanceUID=results.study_uid)
    assert {found["MainDicomTags"]["Modality"] for found in series} == {"SEG", "SR"}
    for item in results.objects:
        assert item.path.read_bytes()[-1000:] == orthanc.file_of(item.sop_instance_uid)[-1000:]


def test_orthanc_reports_on_a_new_association_that_it_keeps_what_was_stored(
    results: Any, orthanc: Any, peer: MakePeer, listener: Listener
) -> None:
    archive = peer(orthanc.dicom_port, ae_title=orthanc.ae_title)
    assert send(archive, results.objects, OURS).is_stored
    transaction_uid = generate_uid()
    answer = request_commitment(
        archive, results.objects, OURS, transaction_uid, linger_s=5, has_report=listener.has_come.is_set
    )
    assert answer.receipt.is_stored, answer.receipt.reason
    assert answer.report is None
    assert listener.has_come.wait(10)
    (report,) = listener.reports
    assert report["transaction_uid"] == transaction_uid
    assert sorted(report["committed"]) == sorted(item.sop_instance_uid for item in results.objects)
    assert report["failed"] == {}


def test_orthanc_reports_what_it_does_not_keep_with_the_reason(
    results: Any, orthanc: Any, peer: MakePeer, listener: Listener
) -> None:
    archive = peer(orthanc.dicom_port, ae_title=orthanc.ae_title)
    assert send(archive, [results.of("seg")], OURS).is_stored
    request_commitment(archive, results.objects, OURS, generate_uid(), linger_s=5, has_report=listener.has_come.is_set)
    assert listener.has_come.wait(10)
    (report,) = listener.reports
    assert report["committed"] == [results.of("seg").sop_instance_uid]
    assert report["failed"] == {results.of("sr").sop_instance_uid: 0x0112}


@pytest.fixture
def reporting(scp: Any) -> Callable[..., Any]:
    """An SCP that answers N-ACTION with `status` and reports on the same association what `tell` makes of it."""

    def start(status: int = 0x0000, tell: Callable[[Dataset], Dataset] = lambda asked: asked) -> Any:
        def act(event: evt.Event) -> tuple[int, None]:
            information = tell(event.action_information)
            if status == 0:
                threading.Thread(target=report, args=(event.assoc, information), daemon=True).start()
            return status, None

        def report(association: Any, information: Dataset) -> None:
            association.send_n_event_report(information, 1, COMMITMENT, COMMITMENT_INSTANCE)

        return scp(contexts={COMMITMENT: EXPLICIT}, handlers=[(evt.EVT_N_ACTION, act)])

    return start


def test_a_report_on_the_same_association_is_given_back(results: Any, reporting: Any, peer: MakePeer) -> None:
    transaction_uid = generate_uid()
    answer = request_commitment(peer(reporting().port), results.objects, OURS, transaction_uid, linger_s=5)
    assert answer.receipt.is_stored, answer.receipt.reason
    assert answer.report == {
        "transaction_uid": transaction_uid,
        "committed": [item.sop_instance_uid for item in results.objects],
        "failed": {},
    }


def test_a_report_of_another_transaction_is_not_taken_for_ours(results: Any, reporting: Any, peer: MakePeer) -> None:
    def other(asked: Dataset) -> Dataset:
        asked.TransactionUID = generate_uid()
        return asked

    answer = request_commitment(peer(reporting(tell=other).port), results.objects, OURS, generate_uid(), linger_s=0.3)
    assert answer.receipt.is_stored
    assert answer.report is None


@pytest.mark.parametrize(("status", "retry"), [(0x0110, True), (0x0213, True), (0x0124, False), (0x0118, False)])
def test_a_refused_commitment_request_says_whether_to_ask_again(
    status: int, retry: bool, results: Any, reporting: Any, peer: MakePeer
) -> None:
    answer = request_commitment(peer(reporting(status).port), results.objects, OURS, generate_uid())
    assert (answer.receipt.is_stored, answer.receipt.retry) == (False, retry)
    assert f"{status:04X}" in answer.receipt.reason


def test_a_peer_without_storage_commitment_is_told_with_the_setting(results: Any, scp: Any, peer: MakePeer) -> None:
    answer = request_commitment(peer(scp().port), results.objects, OURS, generate_uid())
    assert (answer.receipt.is_stored, answer.receipt.retry) == (False, False)
    assert "storage_commitment: false" in answer.receipt.reason


def test_an_unreachable_peer_is_asked_for_commitment_again(results: Any, free_port: int, peer: MakePeer) -> None:
    answer = request_commitment(peer(free_port), results.objects, OURS, generate_uid())
    assert (answer.receipt.is_stored, answer.receipt.retry) == (False, True)


def test_a_study_is_found_with_whose_it_is_there(results: Any, archive: DimsePeer) -> None:
    assert send(archive, results.objects, OURS).is_stored
    (match,) = find_study(archive, results.study_uid, OURS)
    assert (match.study_uid, match.patient_id, match.accession_number) == (results.study_uid, "P-4711", "A-1")
    assert "P-4711" not in repr(match)


def test_a_study_that_is_gone_is_found_nowhere(results: Any, archive: DimsePeer) -> None:
    assert find_study(archive, results.study_uid, OURS) == []


def test_a_study_that_lies_at_the_peer_as_it_was_may_get_its_results(results: Any, archive: DimsePeer) -> None:
    assert send(archive, [results.of("seg")], OURS).is_stored
    assert whereabouts(archive, results.objects, OURS) is None


def test_results_do_not_follow_a_study_that_is_gone(results: Any, archive: DimsePeer) -> None:
    assert "the study is not (or no longer) at" in str(whereabouts(archive, results.objects, OURS))


def test_results_do_not_follow_a_study_to_another_patient(results: Any, archive: DimsePeer, tmp_path: Path) -> None:
    assert send(archive, [results.of("seg")], OURS).is_stored
    other = dcmread(results.of("sr").path)
    other.PatientID = "P-4712"
    other.save_as(path := tmp_path / "sr.dcm")
    doubt = str(whereabouts(archive, [replace(results.of("sr"), path=path)], OURS))
    assert "another patient" in doubt
    assert "P-471" not in doubt


def test_a_peer_that_answers_no_queries_cannot_be_asked_where_a_study_is(
    results: Any, scp: Any, peer: MakePeer
) -> None:
    assert whereabouts(peer(scp().port), results.objects, OURS) is None


def test_a_peer_that_is_configured_so_is_not_asked_where_a_study_is(
    results: Any, free_port: int, peer: MakePeer
) -> None:
    assert whereabouts(peer(free_port, look_up_study=False), results.objects, OURS) is None
    with pytest.raises(PeerError):
        whereabouts(peer(free_port), results.objects, OURS)


@pytest.mark.parametrize(("status", "error"), [(0xA700, PeerError), (0xC000, PeerRefusal), (0xA900, PeerRefusal)])
def test_a_query_that_fails_is_an_error_and_not_an_empty_answer(
    status: int, error: type[PeerError], scp: Any, peer: MakePeer
) -> None:
    def fail(event: evt.Event) -> Iterator[tuple[int, None]]:
        yield status, None

    archive = scp(contexts={STUDY_FIND: EXPLICIT}, handlers=[(evt.EVT_C_FIND, fail)])
    with pytest.raises(error, match=f"{status:04X}") as caught:
        find_study(peer(archive.port), "1.2.3", OURS)
    assert type(caught.value) is error


def test_a_peer_that_does_not_answer_queries_is_a_refusal(scp: Any, peer: MakePeer) -> None:
    with pytest.raises(PeerRefusal, match="Study Root Query/Retrieve Information Model - FIND"):
        find_study(peer(scp().port), "1.2.3", OURS)


def test_a_report_without_its_transaction_is_none() -> None:
    with pytest.raises(UnreadableInstance, match="Transaction UID"):
        report_of(Dataset())
