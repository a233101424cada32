"""A patient's earlier studies, as a real Orthanc tells them both ways, and as peers tell them that misunderstand."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from io import BytesIO
from typing import Any, cast

import pytest
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from pynetdicom import evt

from node.config_peers import DicomwebPeer, DimsePeer, OrthancPeer, QueriedPeer
from node.errors import PeerError, PeerRefusal
from node.peers import StudyMatch, StudyQuery, find_studies
from node.peers.answers import MAX_MATCHES

OURS = "CRLM-NODE"
STUDY_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
QUERY = StudyQuery("P-4711", date(2026, 1, 1), date(2026, 3, 31))
EXPLICIT = [ExplicitVRLittleEndian]

MakePeer = Callable[..., DimsePeer]


def upload(orthanc: Any, study_uid: str, **tags: Any) -> None:
    """One instance of a study lies in Orthanc."""
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, generate_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study_uid, generate_uid()
    dataset.PatientID, dataset.PatientName, dataset.StudyDate = "P-4711", "Test^Peers", "20260201"
    dataset.StudyDescription, dataset.Modality = "Leber präoperativ", "CT"
    for keyword, told in tags.items():
        setattr(dataset, keyword, told)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = BytesIO()
    dcmwrite(file, dataset, enforce_file_format=True)
    orthanc.client.post_instances(file.getvalue())


@pytest.fixture(params=["dimse", "orthanc", "dicomweb"])
def archive(
    request: pytest.FixtureRequest, orthanc: Any, peer: MakePeer, monkeypatch: pytest.MonkeyPatch
) -> QueriedPeer:
    """The real Orthanc, by C-FIND, by its REST interface, and by QIDO-RS."""
    if request.param == "dicomweb":
        return cast(DicomwebPeer, request.getfixturevalue("dicomweb"))
    if request.param == "dimse":
        orthanc.register(OURS, 104)
        return peer(orthanc.dicom_port, ae_title=orthanc.ae_title)
    monkeypatch.setenv("CRLM_TEST_ORTHANC_PASSWORD", orthanc.password)
    settings = {"protocol": "orthanc", "url": orthanc.url, "username": orthanc.username, "timeout_s": 5}
    return OrthancPeer.model_validate({**settings, "password_variable": "CRLM_TEST_ORTHANC_PASSWORD"})


def test_orthanc_tells_a_study_of_these_days_with_all_that_rules_may_ask(archive: QueriedPeer, orthanc: Any) -> None:
    for modality in ("CT", "SEG"):
        upload(orthanc, "1.2.3", Modality=modality)
    (match,) = find_studies(archive, QUERY, OURS)
    assert replace(match, modalities=tuple(sorted(match.modalities))) == StudyMatch(
        "1.2.3",
        "P-4711",
        study_date="20260201",
        description="Leber präoperativ",
        modalities=("CT", "SEG"),
    )
    assert "P-4711" not in repr(match)


@pytest.mark.parametrize("other", [{"PatientID": "P-4712"}, {"StudyDate": "20260401"}, {"StudyDate": "20251231"}])
def test_orthanc_tells_no_other_patient_and_no_other_day(
    archive: QueriedPeer, orthanc: Any, other: dict[str, str]
) -> None:
    upload(orthanc, "1.2.3", **other)
    assert find_studies(archive, QUERY, OURS) == []


def test_orthanc_over_dicomweb_tells_who_issued_the_patient_id(dicomweb: DicomwebPeer, orthanc: Any) -> None:
    upload(orthanc, "1.2.3", IssuerOfPatientID="ANOTHER-HOSPITAL")
    (match,) = find_studies(dicomweb, QUERY, OURS)
    assert match.issuer_of_patient_id == "ANOTHER-HOSPITAL"


def test_orthanc_over_rest_tells_who_issued_the_patient_id(orthanc: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    upload(orthanc, "1.2.3", IssuerOfPatientID="ANOTHER-HOSPITAL")
    monkeypatch.setenv("CRLM_TEST_ORTHANC_PASSWORD", orthanc.password)
    settings = {"protocol": "orthanc", "url": orthanc.url, "username": orthanc.username}
    rest = OrthancPeer.model_validate({**settings, "password_variable": "CRLM_TEST_ORTHANC_PASSWORD"})
    (match,) = find_studies(rest, QUERY, OURS)
    assert match.issuer_of_patient_id == "ANOTHER-HOSPITAL"


def test_an_orthanc_that_is_not_there_is_an_error_and_not_an_empty_answer(free_port: int) -> None:
    away = OrthancPeer.model_validate({"protocol": "orthanc", "url": f"http://127.0.0.1:{free_port}"})
    with pytest.raises(PeerError, match="not reachable"):
        find_studies(away, QUERY, OURS)


def test_a_peer_that_is_not_there_is_an_error_and_not_an_empty_answer(free_port: int, peer: MakePeer) -> None:
    with pytest.raises(PeerError, match="not reachable"):
        find_studies(peer(free_port), QUERY, OURS)


@pytest.fixture
def answering(scp: Any, peer: MakePeer) -> Callable[..., DimsePeer]:
    """`answering((status, identifier), …)`: a peer that answers every query so."""

    def start(*answers: tuple[int, Dataset | None]) -> DimsePeer:
        def find(event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
            yield from answers

        return peer(scp(contexts={STUDY_FIND: EXPLICIT}, handlers=[(evt.EVT_C_FIND, find)]).port)

    return start


def study(number: int = 0) -> Dataset:
    dataset = Dataset()
    dataset.QueryRetrieveLevel, dataset.StudyInstanceUID, dataset.PatientID = "STUDY", f"1.2.{number}", "P-4711"
    return dataset


def test_a_peer_that_returns_little_is_taken_as_it_is(answering: Callable[..., DimsePeer]) -> None:
    assert find_studies(answering((0xFF00, study())), QUERY, OURS) == [StudyMatch("1.2.0", "P-4711")]


def test_a_peer_that_has_more_than_it_tells_has_not_answered(answering: Callable[..., DimsePeer]) -> None:
    with pytest.raises(PeerRefusal, match="B001: it has more than it tells"):
        find_studies(answering((0xFF00, study()), (0xB001, None)), QUERY, OURS)


def test_a_peer_that_tells_everybodys_studies_is_stopped(answering: Callable[..., DimsePeer]) -> None:
    everything = [(0xFF00, study(number)) for number in range(MAX_MATCHES + 50)]
    with pytest.raises(PeerRefusal, match="more than 500 studies of one patient"):
        find_studies(answering(*everything), QUERY, OURS)


def test_a_peer_that_never_comes_to_the_end_of_its_answer_is_given_up(scp: Any, peer: MakePeer) -> None:
    never = threading.Event()

    def find(event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        for number in range(MAX_MATCHES):
            never.wait(0.1)  # each answer in time, all of them a minute
            yield 0xFF00, study(number)

    slow = peer(scp(contexts={STUDY_FIND: EXPLICIT}, handlers=[(evt.EVT_C_FIND, find)]).port, timeout_s=0.3)
    with pytest.raises(PeerError, match="did not end its answer within 1 s"):
        find_studies(slow, QUERY, OURS)


@pytest.mark.parametrize(("status", "error"), [(0xA700, PeerError), (0xC000, PeerRefusal)])
def test_a_query_that_fails_midway_is_no_answer(
    status: int, error: type[PeerError], answering: Callable[..., DimsePeer]
) -> None:
    with pytest.raises(error, match=f"{status:04X}"):
        find_studies(answering((0xFF00, study()), (status, None)), QUERY, OURS)
