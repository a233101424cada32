"""What peers are to be asked of a patient's earlier studies, and what they said: rows, one per study and peer.

A row holds distances in days and what rules may ask, no identity. `wanted_at` stands while the peer is to be asked:
the question is the row, so it outlives whoever asks. `reason` says why there is no answer; "" where there is one,
which stands until a newer one takes its place.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, delete, insert, select, update

from node.database import Rows, iso
from node.tables import earlier_lookups, patients, studies

NOT_YET_ANSWERED = "it has not answered yet"


@dataclass(frozen=True)
class Lookup:
    """A row of `earlier_lookups`. `found` are (days before the study, keyword → value)."""

    question: str
    """Of whom and which days; an answer to another question is none."""
    reason: str = ""
    found: tuple[tuple[int, dict[str, str]], ...] = ()
    asked_at: str = field(default="", compare=False)
    """When the peer last answered, or was found not to."""
    wanted_at: str | None = field(default=None, compare=False)

    @property
    def is_answer(self) -> bool:
        """Whether the peer said what it has, be it nothing."""
        return not self.reason


@dataclass(frozen=True)
class WantedLookup:
    """A question that is to be put to a peer, with whose study it is about. The identity does not show in a repr."""

    study_uid: str
    spool_key: str
    peer: str
    lookup: Lookup
    study_date: str | None
    patient_id: str = field(repr=False)
    issuer: str = field(repr=False)


def lookups_of(rows: Rows, study_uid: str) -> dict[str, Lookup]:
    """What is known of the study by asking: peer → its word."""
    query = select(earlier_lookups).where(earlier_lookups.c.study_uid == study_uid)
    return {
        row.peer: Lookup(row.question, row.reason, _found(row.found), row.asked_at, row.wanted_at)
        for row in rows.execute(query)
    }


def want_lookup(rows: Rows, study_uid: str, peer: str, question: str, at: datetime, reason: str) -> None:
    """Have a question put to the peer; what it said to another one is forgotten. `reason` says why none answers yet."""
    _forget(rows, study_uid, peer)
    told = {"question": question, "reason": reason, "found": [], "asked_at": iso(at), "wanted_at": iso(at)}
    rows.execute(insert(earlier_lookups).values(study_uid=study_uid, peer=peer, **told))


def renew_lookup(rows: Rows, study_uid: str, peer: str, at: datetime) -> None:
    """Have a question put once more whose answer stands meanwhile."""
    rows.execute(update(earlier_lookups).where(*_is(study_uid, peer)).values(wanted_at=iso(at)))


def withdraw_questions(rows: Rows, study_uid: str) -> None:
    """Nothing about the study is to be asked any more; answers stay."""
    of_study = earlier_lookups.c.study_uid == study_uid
    rows.execute(delete(earlier_lookups).where(of_study, earlier_lookups.c.reason > ""))
    rows.execute(update(earlier_lookups).where(of_study).values(wanted_at=None))


def withdraw_peers(rows: Rows, spool_id: str, asked: Collection[str]) -> list[str]:
    """Take back what is to be asked of peers other than those; returns the studies that such a question held."""
    of_others = (
        earlier_lookups.c.peer.not_in(asked),
        earlier_lookups.c.reason > "",
        earlier_lookups.c.study_uid.in_(_of_spool(spool_id)),
    )
    held = rows.execute(select(earlier_lookups.c.study_uid).where(*of_others).distinct()).scalars().all()
    rows.execute(delete(earlier_lookups).where(*of_others))
    return sorted(held)


def is_wanted(rows: Rows, study_uid: str, peers: Collection[str]) -> bool:
    """Whether one of the peers is still to be asked about the study."""
    query = select(earlier_lookups.c.peer).where(
        earlier_lookups.c.study_uid == study_uid,
        earlier_lookups.c.peer.in_(peers),
        earlier_lookups.c.wanted_at.is_not(None),
    )
    return rows.execute(query).first() is not None


def wanted_lookups(rows: Rows, spool_id: str, peer: str, limit: int) -> Sequence[WantedLookup]:
    """What the peer is to be asked about studies of this spool, the longest wanted first."""
    query = (
        select(earlier_lookups, studies.c.spool_key, studies.c.study_date, patients.c.patient_id, patients.c.issuer)
        .join(studies, studies.c.study_uid == earlier_lookups.c.study_uid)
        .join(patients, patients.c.patient_key == studies.c.patient_key)
        .where(earlier_lookups.c.peer == peer, earlier_lookups.c.wanted_at.is_not(None))
        .where(studies.c.spool_id == spool_id)
        .order_by(earlier_lookups.c.wanted_at)
        .limit(limit)
    )
    return [
        WantedLookup(
            study_uid=row.study_uid,
            spool_key=row.spool_key,
            peer=row.peer,
            lookup=Lookup(row.question, row.reason, _found(row.found), row.asked_at, row.wanted_at),
            study_date=row.study_date,
            patient_id=row.patient_id,
            issuer=row.issuer,
        )
        for row in rows.execute(query)
    ]


def answer_lookup(rows: Rows, wanted: WantedLookup, found: Sequence[tuple[int, dict[str, str]]], at: datetime) -> bool:
    """Keep what the peer said; returns whether that is news. Where another question took its place, nothing is kept."""
    said = [[days, attributes] for days, attributes in found]
    kept = rows.execute(
        update(earlier_lookups)
        .where(*_is_still(wanted))
        .values(reason="", found=said, asked_at=iso(at), wanted_at=None)
    )
    is_same = wanted.lookup.is_answer and wanted.lookup.found == _found(said)
    return kept.rowcount == 1 and not is_same


def fail_lookups(rows: Rows, spool_id: str, wanted: WantedLookup, reason: str, at: datetime) -> list[str]:
    """Keep why the peer gave no answer to `wanted`, and so to none of the questions that are open at it.

    They stay open, `wanted` behind the others; what it said before stands and is not asked for again. Returns the
    studies for which the reason is news.
    """
    rows.execute(update(earlier_lookups).where(*_is_still(wanted)).values(wanted_at=iso(at)))
    open_at_peer = (
        earlier_lookups.c.peer == wanted.peer,
        earlier_lookups.c.wanted_at.is_not(None),
        earlier_lookups.c.study_uid.in_(_of_spool(spool_id)),
    )
    unanswered = (*open_at_peer, earlier_lookups.c.reason > "", earlier_lookups.c.reason != reason)
    news = rows.execute(select(earlier_lookups.c.study_uid).where(*unanswered)).scalars().all()
    rows.execute(update(earlier_lookups).where(*unanswered).values(reason=reason, asked_at=iso(at)))
    rows.execute(update(earlier_lookups).where(*open_at_peer, earlier_lookups.c.reason == "").values(wanted_at=None))
    return sorted(news)  # two threads that lock the same rows lock them in one order


def forget_wanted(rows: Rows, wanted: WantedLookup) -> None:
    """Take a question back that nobody needs an answer to any more."""
    rows.execute(delete(earlier_lookups).where(*_is_still(wanted)))


def _forget(rows: Rows, study_uid: str, peer: str) -> None:
    rows.execute(delete(earlier_lookups).where(*_is(study_uid, peer)))


def _is(study_uid: str, peer: str) -> tuple[ColumnElement[bool], ...]:
    return earlier_lookups.c.study_uid == study_uid, earlier_lookups.c.peer == peer


def _is_still(wanted: WantedLookup) -> tuple[ColumnElement[bool], ...]:
    """The row as it was read: an answer must not be kept as that to a question which was put meanwhile."""
    lookup = wanted.lookup
    return (
        *_is(wanted.study_uid, wanted.peer),
        earlier_lookups.c.question == lookup.question,
        earlier_lookups.c.wanted_at == lookup.wanted_at,
    )


def _of_spool(spool_id: str) -> Select[tuple[str]]:
    return select(studies.c.study_uid).where(studies.c.spool_id == spool_id)


def _found(kept: Sequence[Sequence[Any]]) -> tuple[tuple[int, dict[str, str]], ...]:
    return tuple((days, attributes) for days, attributes in kept)
