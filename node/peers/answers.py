"""What the node learns from a peer besides a Receipt: an echo, a study it holds, a commitment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date

from node.dicom.commitment import CommitmentReport
from node.domain import Receipt, ResultObject


@dataclass(frozen=True)
class EchoResult:
    """Whether a peer answers, how fast, and what it said or why not."""

    is_ok: bool
    milliseconds: float
    what: str


@dataclass(frozen=True)
class StudyQuery:
    """A patient's studies from the first day to the last. The identity does not show in a repr."""

    patient_id: str = field(repr=False)
    since: date
    until: date

    @property
    def study_date(self) -> str:
        """The days as a range of DICOM (PS3.4 C.2.2.2.5)."""
        return f"{self.since:%Y%m%d}-{self.until:%Y%m%d}"


MAX_MATCHES = 500
"""No patient has more studies in ten years; a peer that answers more has not understood whose were asked for."""


@dataclass(frozen=True)
class StudyMatch:
    """A study that a peer holds, and whose it is there. The identity does not show in a repr.

    A peer may answer more than was asked: whose it is and of which day is the asker's to check.
    """

    study_uid: str
    patient_id: str = field(repr=False)
    issuer_of_patient_id: str = field(default="", repr=False)
    accession_number: str = field(default="", repr=False)
    study_date: str = ""
    description: str = ""
    modalities: tuple[str, ...] = ()


@dataclass(frozen=True)
class CommitmentAnswer:
    """What came of asking for commitment: `receipt.is_stored` says that the request was taken, not yet kept.

    `report` is there when the peer reported at once on the same association.
    """

    receipt: Receipt
    report: CommitmentReport | None = None


_RANK = {"seg": 0, "sr": 2}
"""An SR points at its SEG, so the SEG goes first and the SR last; every other kind stands between."""


def in_sending_order(objects: Sequence[ResultObject]) -> list[ResultObject]:
    """The objects so that none is sent before one that it refers to."""
    return sorted(objects, key=lambda item: _RANK.get(item.kind, 1))
