"""What the encoders are told beside image, mask and findings: which job, whose weights, in what words.

One frozen value for all result objects of a job, so that they agree on UIDs, times and wording.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from node.config import Term
from node.dicom.uids import derived_uid
from node.domain import TimePoint

Kind = Literal["seg", "sr"]

_SERIES_OFFSET: dict[Kind, int] = {"seg": 1, "sr": 2}
DEMO_WORDS = "DEMO WEIGHTS"
"""Stand in the series description and comments of every result of demo weights."""
_MAX_LONG_STRING = 64


@dataclass(frozen=True)
class BundleFacts:
    """What results say of the weights, as their card says it."""

    name: str
    version: str
    sha256: str
    is_demo: bool
    is_for_clinical_use: bool = False


@dataclass(frozen=True)
class Equipment:
    """This node, as results name it; an empty institution is left out."""

    manufacturer: str
    model: str
    software_version: str
    serial: str
    institution: str = ""


@dataclass(frozen=True)
class Predecessor:
    """The report that this one replaces, and which run it was."""

    run: int
    sr_series_uid: str
    sr_instance_uid: str


@dataclass(frozen=True)
class Tracking:
    """A lesion's name that survives runs and time points; minted once and kept in the lesion table."""

    identifier: str
    uid: str


@dataclass(frozen=True)
class EncodeContext:
    """See the fields. `weighting` decides what an intensity is called: ct, dwi, t2 or t1."""

    job_id: str
    condition: str
    title: str
    weighting: Literal["ct", "dwi", "t2", "t1"]
    time_point: TimePoint
    bundle: BundleFacts
    finding: str
    """Key of terminology.yaml: what a lesion is called."""
    terms: Mapping[str, Term]
    equipment: Equipment
    series_number: int
    """Of the first series; each kind of result takes the next: unique in the study and kept (90000 + 10·k)."""
    content_datetime: datetime
    """Aware, on the site's clock."""
    run: int = 1
    predecessor: Predecessor | None = None
    uid_root: str | None = None
    remarks: tuple[str, ...] = ()
    """Sentences on the analysis that a reader of the report should know."""

    def __post_init__(self) -> None:
        if self.content_datetime.tzinfo is None:
            raise ValueError("content_datetime needs a time zone: results say when by the site's clock")

    def uid(self, *parts: str) -> str:
        """A UID of this job's results: the same whenever the job is encoded again."""
        return derived_uid(self.job_id, *parts, root=self.uid_root)

    def series_uid(self, kind: Kind) -> str:
        """Series Instance UID of that result; each result object is its own series."""
        return self.uid(kind, "series")

    def instance_uid(self, kind: Kind) -> str:
        """SOP Instance UID of that result."""
        return self.uid(kind, "instance")

    def number_of_series(self, kind: Kind) -> int:
        """Series Number of that result."""
        return self.series_number + _SERIES_OFFSET[kind]

    @property
    def device_uid(self) -> str:
        """Identifies these weights (0018,1002): retrained weights are another device."""
        return derived_uid("bundle", self.bundle.sha256, root=self.uid_root)

    @property
    def observer_uid(self) -> str:
        """Identifies this node as the observer of a report."""
        node = self.equipment
        return derived_uid("node", node.manufacturer, node.model, node.serial, root=self.uid_root)

    @property
    def is_research(self) -> bool:
        """False only for weights whose card says clinical use."""
        return self.bundle.is_demo or not self.bundle.is_for_clinical_use

    @property
    def content_qualification(self) -> Literal["RESEARCH", "PRODUCT"]:
        """(0018,9004)."""
        return "RESEARCH" if self.is_research else "PRODUCT"

    @property
    def warning(self) -> str:
        """What a reader must know of the weights, at most 64 characters; empty for clinical use."""
        if self.bundle.is_demo:
            return f"RESEARCH USE ONLY - {DEMO_WORDS} trained on phantoms"
        return "RESEARCH USE ONLY - not for clinical decisions" if self.is_research else ""

    def series_description(self, kind: Kind) -> str:
        """Begins with AI, carries the wording, names a replaced version; the condition is cut to fit 64 characters."""
        mark = f"RESEARCH, {DEMO_WORDS}" if self.bundle.is_demo else "RESEARCH" if self.is_research else ""
        tail = f" ({mark})" if mark else ""
        if self.run > 1:
            replaced = self.predecessor.run if self.predecessor else self.run - 1
            tail += f" v{self.run} replaces v{replaced}"
        head = f"AI {kind.upper()} {self.condition}"
        return head[: _MAX_LONG_STRING - len(tail)] + tail
