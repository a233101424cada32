"""What peers said when they were asked for a patient's earlier studies: rows, one per study and peer.

A row holds distances in days and what rules may ask, no identity. `reason` is empty where the peer answered; else it
says why it did not, and the row stays until the peer is asked again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete, insert, select

from node.database import Rows, iso, utc_now
from node.tables import earlier_lookups, studies


@dataclass(frozen=True)
class Lookup:
    """A row of `earlier_lookups`. `found` are (days before the study, keyword → value)."""

    question: str
    """Of whom and which days; an answer to another question is none."""
    reason: str = ""
    found: tuple[tuple[int, dict[str, str]], ...] = ()

    @property
    def is_answer(self) -> bool:
        """Whether the peer said what it has, be it nothing."""
        return not self.reason


@dataclass(frozen=True)
class OpenLookup:
    """A peer that could not be asked about a study."""

    study_uid: str
    spool_key: str
    peer: str


def record_lookup(rows: Rows, study_uid: str, peer: str, lookup: Lookup) -> None:
    """Write what the peer said, or why it said nothing; replaces what it said before."""
    forget_lookup(rows, study_uid, peer)
    rows.execute(
        insert(earlier_lookups).values(
            study_uid=study_uid,
            peer=peer,
            question=lookup.question,
            reason=lookup.reason,
            found=[[days, attributes] for days, attributes in lookup.found],
            asked_at=iso(utc_now()),
        )
    )


def forget_lookup(rows: Rows, study_uid: str, peer: str) -> None:
    """As if the peer had not been asked."""
    rows.execute(
        delete(earlier_lookups).where(earlier_lookups.c.study_uid == study_uid, earlier_lookups.c.peer == peer)
    )


def lookups_of(rows: Rows, study_uid: str) -> dict[str, Lookup]:
    """What is known of the study by asking: peer → its word."""
    query = select(earlier_lookups).where(earlier_lookups.c.study_uid == study_uid)
    return {
        row.peer: Lookup(row.question, row.reason, tuple((days, attributes) for days, attributes in row.found))
        for row in rows.execute(query)
    }


def open_lookups(rows: Rows) -> Sequence[OpenLookup]:
    """Every question that no answer came to."""
    query = (
        select(earlier_lookups.c.study_uid, studies.c.spool_key, earlier_lookups.c.peer)
        .join(studies, studies.c.study_uid == earlier_lookups.c.study_uid)
        .where(earlier_lookups.c.reason > "")
        .order_by(earlier_lookups.c.asked_at)
    )
    return [OpenLookup(row.study_uid, row.spool_key, row.peer) for row in rows.execute(query)]
