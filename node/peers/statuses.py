"""What a peer's DIMSE status or association reject means for us: is it stored, may we ask again, in which words.

Rows, not branches: PS3.4 B.2.3 and J.3.2, PS3.7 Annex C, PS3.8 9.3.4. A status that no row names is a failure
that is tried again, for the delivery gives up by the clock.
"""

from __future__ import annotations

from dataclasses import dataclass

from node.config_peers import DimsePeer
from node.errors import PeerError, PeerRefusal


@dataclass(frozen=True)
class Meaning:
    """What follows from a status. `is_done` means stored (C-STORE) or taken (N-ACTION)."""

    is_done: bool
    retry: bool
    words: str


_SUCCESS = Meaning(True, False, "success")
_UNKNOWN = Meaning(False, True, "a failure that the Standard does not name")

_GENERAL = {
    0x0105: Meaning(False, False, "no such attribute"),
    0x0106: Meaning(False, False, "invalid attribute value"),
    0x0110: Meaning(False, True, "processing failure at the peer; its log says more"),
    0x0112: Meaning(False, False, "no such SOP instance"),
    0x0115: Meaning(False, False, "invalid argument value"),
    0x0117: Meaning(False, False, "invalid SOP instance"),
    0x0118: Meaning(False, False, "no such SOP class"),
    0x0119: Meaning(False, False, "class and instance do not belong together"),
    0x0122: Meaning(False, False, "SOP class not supported; allow it at the peer"),
    0x0123: Meaning(False, False, "no such action"),
    0x0124: Meaning(False, False, "not authorised; allow our AE title to store at the peer"),
    0x0210: Meaning(False, True, "duplicate message id"),
    0x0211: Meaning(False, False, "operation not recognised"),
    0x0212: Meaning(False, False, "mistyped argument"),
    0x0213: Meaning(False, True, "resource limitation at the peer"),
    0x0131: Meaning(False, False, "duplicate transaction UID"),
}
_STORE = {
    0x0001: Meaning(True, False, "stored, requested optional attributes not supported"),
    0x0107: Meaning(True, False, "stored, attribute list error"),
    # we send one UID with one content only, so what the peer already has is ours
    0x0111: Meaning(True, False, "the peer already has it"),
    0x0116: Meaning(True, False, "stored, attribute value out of range"),
    # dcm4chee: the instance was rejected there by a rejection note
    0xA770: Meaning(False, False, "rejected at the peer before, by a rejection note"),
    0xA771: Meaning(False, False, "rejected at the peer before, by a rejection note"),
    0xB000: Meaning(True, False, "stored, elements coerced"),
    0xB006: Meaning(True, False, "stored, elements discarded"),
    0xB007: Meaning(True, False, "stored though the data set does not match its SOP class"),
}
_STORE_RANGES = (
    (range(0xA700, 0xA800), Meaning(False, True, "out of resources; is its disk full?")),
    (range(0xA900, 0xAA00), Meaning(False, False, "the data set does not match its SOP class")),
    (range(0xB000, 0xC000), Meaning(True, False, "stored with a warning")),
    (range(0xC000, 0xD000), Meaning(False, False, "cannot understand the data set; its log says more")),
)


def of_store(status: int) -> Meaning:
    """What a C-STORE status means (PS3.4 Table B.2-1)."""
    if status == 0:
        return _SUCCESS
    if status in _STORE:
        return _STORE[status]
    ranged = next((meaning for codes, meaning in _STORE_RANGES if status in codes), None)
    return ranged or _GENERAL.get(status, _UNKNOWN)


def of_action(status: int) -> Meaning:
    """What the status of a storage commitment request means (PS3.4 J.3.2)."""
    return _SUCCESS if status == 0 else _GENERAL.get(status, _UNKNOWN)


def of_find(status: int) -> Meaning:
    """What the final status of a C-FIND means (PS3.4 Table C.4-1)."""
    if status in (0x0000, 0xB001):
        return _SUCCESS
    if 0xA700 <= status < 0xA800:
        return Meaning(False, True, "out of resources")
    if status == 0xA900 or 0xC000 <= status < 0xD000:
        return Meaning(False, False, "the peer cannot answer this query")
    return _GENERAL.get(status, _UNKNOWN)


_PERMANENT = 1
_REJECTIONS = {
    # (source, diagnostic): PS3.8 Table 9-21
    (1, 1): "without a reason; ask its administrator whether our AE title {ours} may connect",
    (1, 2): "because it does not know the DICOM application context; is this a DICOM port?",
    (1, 3): "because it does not know our AE title {ours}: enter it there with this machine's address",
    (1, 7): "because no AE {title} listens there: correct ae_title in peers.yaml",
    (2, 1): "for a reason of its own; it may refuse our identity",
    (2, 2): "because it does not support our protocol version",
    (3, 1): "because it is congested",
    (3, 2): "because it has too many associations",
}


def rejection(peer: DimsePeer, our_ae_title: str, result: int, source: int, diagnostic: int) -> PeerError:
    """The error that an A-ASSOCIATE-RJ is: PeerRefusal when permanent, PeerError when transient."""
    why = _REJECTIONS.get((source, diagnostic), "for a reason that the Standard does not name")
    told = why.format(ours=our_ae_title, title=peer.ae_title)
    text = f"{name_of(peer)} rejected the association {told} ({result},{source},{diagnostic})"
    return PeerRefusal(text) if result == _PERMANENT else PeerError(text)


def name_of(peer: DimsePeer) -> str:
    """How a sentence names the peer: `PACS@10.1.2.3:104`."""
    return f"{peer.ae_title}@{peer.host}:{peer.port}"
