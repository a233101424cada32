"""Remote systems by protocol. Adding a protocol is one file and one line in each of the dicts below."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from node.config_peers import AnyPeer, DicomwebPeer, DimsePeer, QueriedPeer
from node.dicom.header import read_header, text
from node.domain import Receipt, ResultObject
from node.errors import PeerRefusal
from node.peers import dicomweb, dimse, folder, orthanc
from node.peers.answers import CommitmentAnswer, EchoResult, StudyMatch, StudyQuery
from node.peers.dimse import accepted_classes, request_commitment
from node.peers.statuses import name_of

__all__ = [
    "ECHOES",
    "SENDERS",
    "CommitmentAnswer",
    "EchoResult",
    "StudyMatch",
    "StudyQuery",
    "accepted_classes",
    "echo",
    "find_studies",
    "find_study",
    "request_commitment",
    "send",
    "whereabouts",
]

# Any: each function takes the peer of its own protocol, which is its key here
Sender = Callable[[Any, Sequence[ResultObject], str], Receipt]
Echoer = Callable[[Any, str], EchoResult]
Finder = Callable[[Any, StudyQuery, str], list[StudyMatch]]
StudyFinder = Callable[[Any, str, str], list[StudyMatch]]

SENDERS: Mapping[str, Sender] = {
    "dicomweb": dicomweb.send,
    "dimse": dimse.send,
    "folder": folder.send,
    "orthanc": orthanc.send,
}
ECHOES: Mapping[str, Echoer] = {
    "dicomweb": dicomweb.echo,
    "dimse": dimse.echo,
    "folder": folder.echo,
    "orthanc": orthanc.echo,
}
FINDERS: Mapping[str, Finder] = {
    "dicomweb": dicomweb.find_studies,
    "dimse": dimse.find_studies,
    "orthanc": orthanc.find_studies,
}
"""A folder has no studies to ask for."""
STUDY_FINDERS: Mapping[str, StudyFinder] = {
    "dicomweb": dicomweb.find_study,
    "dimse": dimse.find_study,
}


def send(peer: AnyPeer, objects: Sequence[ResultObject], our_ae_title: str) -> Receipt:
    """One attempt to store the objects at the peer. Never raises for what a peer, a wire or a disk may do.

    Sends all that it is given: which objects a peer gets is the caller's decision. A file whose content is not
    the one that was encoded is never sent.
    """
    if not objects:
        return Receipt(True, False, "nothing to send")
    fault = next(filter(None, map(_file_fault, objects)), None)
    if fault:
        return Receipt(False, False, fault)
    return SENDERS[peer.protocol](peer, objects, our_ae_title)


def whereabouts(peer: AnyPeer, objects: Sequence[ResultObject], our_ae_title: str) -> str | None:
    """Why a late or repeated delivery must wait for a person: the study is gone from the peer, or another patient's.

    None where it may go, where the peer is not to be asked, and where it answers no queries of ours. Raises PeerError
    where it does not answer at all, and UnreadableInstance for an object whose file is gone.
    """
    if not objects or not isinstance(peer, DimsePeer | DicomwebPeer) or not peer.look_up_study:
        return None
    ours = read_header(objects[0].path)
    try:
        found = find_study(peer, text(ours, "StudyInstanceUID"), our_ae_title)
    except PeerRefusal:
        return None
    place = name_of(peer) if isinstance(peer, DimsePeer) else peer.url
    if not found:
        return f"the study is not (or no longer) at {place}"
    if text(ours, "PatientID") not in {match.patient_id.strip() for match in found}:
        return f"the study belongs to another patient at {place} than when it was analysed"
    return None


def echo(peer: AnyPeer, our_ae_title: str) -> EchoResult:
    """Whether the peer answers: C-ECHO, GET /system, a search for nothing, a file that is written and removed."""
    return ECHOES[peer.protocol](peer, our_ae_title)


def find_studies(peer: QueriedPeer, query: StudyQuery, our_ae_title: str) -> list[StudyMatch]:
    """Studies that the peer has of these days, and maybe others. Raises PeerError where that is not all it has."""
    return FINDERS[peer.protocol](peer, query, our_ae_title)


def find_study(peer: DimsePeer | DicomwebPeer, study_uid: str, our_ae_title: str) -> list[StudyMatch]:
    """The study as the peer holds it now, with whose it is there; empty when it is gone. Raises as `find_studies`."""
    return STUDY_FINDERS[peer.protocol](peer, study_uid, our_ae_title)


def _file_fault(item: ResultObject) -> str | None:
    try:
        with item.path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return f"{item.kind}: {item.path.name} cannot be read ({error.strerror}); run the job again"
    if digest != item.sha256:
        return f"{item.kind}: {item.path.name} has changed since it was encoded and is not sent; run the job again"
    return None
