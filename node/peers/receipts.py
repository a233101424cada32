"""What the statuses of a delivery come to: the receipt, for every protocol whose peers answer object by object.

A status is that of C-STORE (PS3.4 B.2.3), which STOW-RS uses too as Failure and Warning Reason (PS3.18 Annex I).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from node.config_peers import ResultProfile
from node.domain import Receipt, ResultObject
from node.errors import NodeError
from node.peers import statuses

_NOT_SENT = statuses.Meaning(False, False, "not sent")


def is_required(profile: ResultProfile, item: ResultObject) -> bool:
    """Optional is only what the peer's profile lists and does not require; other objects were asked for by name.

    A report of refusal comes alone: where it is not stored, nothing is.
    """
    return item.kind not in profile.objects or item.kind in profile.required or item.kind == "refusal"


def judge(name: str, profile: ResultProfile, objects: Sequence[ResultObject], told: Mapping[str, int]) -> Receipt:
    """The receipt for these statuses: stored when every required object is, and no optional one may still come.

    `name` is how a sentence names the peer, `told` SOP Instance UID → status of what was sent.
    """
    meanings = {
        item: statuses.of_store(told[item.sop_instance_uid]) for item in objects if item.sop_instance_uid in told
    }
    is_whole = all(meanings.get(item, _NOT_SENT).is_done for item in objects if is_required(profile, item))
    is_refused = any(is_required(profile, item) and not (m.is_done or m.retry) for item, m in meanings.items())
    retry = not is_refused and any(meaning.retry for meaning in meanings.values())
    is_stored = is_whole and not retry and any(meaning.is_done for meaning in meanings.values())
    remarks = Counter(f"{item.kind} {_remark(told.get(item.sop_instance_uid))}" for item in objects)
    reason = "; ".join(f"{count} × {remark}" if count > 1 else remark for remark, count in remarks.items())
    return Receipt(is_stored, retry, f"{name}: {reason}", dict(told), _stored(told))


def broken_off(error: NodeError, objects: Sequence[ResultObject], told: Mapping[str, int]) -> Receipt:
    """The receipt for an attempt that this error ended, with what was stored before it."""
    stored = [item.kind for item in objects if item.sop_instance_uid in _stored(told)]
    kinds = ", ".join(dict.fromkeys(stored))
    progress = f"; {len(stored)} of {len(objects)} objects ({kinds}) were stored before that" if stored else ""
    return Receipt(False, error.retry, f"{error}{progress}", dict(told), _stored(told))


def _stored(told: Mapping[str, int]) -> tuple[str, ...]:
    return tuple(uid for uid, status in told.items() if statuses.of_store(status).is_done)


def _remark(status: int | None) -> str:
    if status is None:
        return "not sent"
    return "stored" if status == 0 else f"{statuses.of_store(status).words} ({status:04X})"
