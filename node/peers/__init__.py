"""Remote systems by protocol. Adding a protocol is one file and one line in each of the dicts below."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from node.config_peers import AnyPeer, DimsePeer, QueriedPeer
from node.domain import Receipt, ResultObject
from node.peers import dimse, folder, orthanc
from node.peers.answers import CommitmentAnswer, EchoResult, StudyMatch, StudyQuery
from node.peers.dimse import accepted_classes, find_study, request_commitment

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

SENDERS: Mapping[str, Sender] = {
    "dimse": dimse.send,
    "folder": folder.send,
    "orthanc": orthanc.send,
}
ECHOES: Mapping[str, Echoer] = {
    "dimse": dimse.echo,
    "folder": folder.echo,
    "orthanc": orthanc.echo,
}
FINDERS: Mapping[str, Finder] = {
    "dimse": dimse.find_studies,
    "orthanc": orthanc.find_studies,
}
"""A folder has no studies to ask for."""


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
    """Why a late or repeated delivery must wait for a person; None where it may go. See `dimse.whereabouts`."""
    if not objects or not isinstance(peer, DimsePeer) or not peer.look_up_study:
        return None
    return dimse.whereabouts(peer, objects, our_ae_title)


def echo(peer: AnyPeer, our_ae_title: str) -> EchoResult:
    """Whether the peer answers, by C-ECHO, GET /system or a file that is written and removed."""
    return ECHOES[peer.protocol](peer, our_ae_title)


def find_studies(peer: QueriedPeer, query: StudyQuery, our_ae_title: str) -> list[StudyMatch]:
    """Studies that the peer has of these days, and maybe others. Raises PeerError where that is not all it has."""
    return FINDERS[peer.protocol](peer, query, our_ae_title)


def _file_fault(item: ResultObject) -> str | None:
    try:
        with item.path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return f"{item.kind}: {item.path.name} cannot be read ({error.strerror}); run the job again"
    if digest != item.sha256:
        return f"{item.kind}: {item.path.name} has changed since it was encoded and is not sent; run the job again"
    return None
