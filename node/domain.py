"""The nouns that travel from stage to stage, in the order of the walk. Frozen, stdlib only.

Instance → Series → JobOrder (role → series) → Volume → Mask → Finding → ResultObject → Delivery.
Volume, Mask and Finding live in `model`, which knows nothing of DICOM.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

PIPELINE_VERSION = "1"
"""Bumped by hand when a job begun by an older node could not be finished by this one (see node/jobs.py)."""


class TimePoint(StrEnum):
    """When, relative to chemotherapy. It is in no image header (see node/timepoint.py)."""

    PRE = "pre"
    POST = "post"
    UNKNOWN = "unknown"
    NOT_APPLICABLE = "not-applicable"
    """For a condition that does not ask (portal-venous CT)."""


class JobState(StrEnum):
    """Where a job stands. Each change is a row with its time and reason."""

    HELD = "held"
    QUEUED = "queued"
    SEGMENTING = "segmenting"
    ENCODING = "encoding"
    SENDING = "sending"
    COMMITTED = "committed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"

    @property
    def is_final(self) -> bool:
        """No further change will come by itself."""
        return self in (JobState.COMMITTED, JobState.FAILED, JobState.CANCELLED, JobState.SUPERSEDED)


class Decision(StrEnum):
    """What routing says of one volume."""

    ACCEPT = "accept"
    CONFIRM = "confirm"
    REFUSE = "refuse"


@dataclass(frozen=True)
class Reason:
    """One piece of evidence: `where` is a tag such as `(0018,0087)`, a configuration place or a source's name."""

    is_for: bool
    what: str
    where: str

    def as_json(self) -> dict[str, Any]:
        return {"for": self.is_for, "what": self.what, "where": self.where}


@dataclass(frozen=True)
class TimePointFinding:
    """What is known of a study's time point and by whose word; `hold_reason` says why a person must decide."""

    time_point: TimePoint
    source: str
    """operator | called-ae | therapies | tag-rule | earlier-study | nobody"""
    reasons: tuple[Reason, ...] = ()
    hold_reason: str | None = None

    @property
    def word(self) -> TimePoint | None:
        """Pre or post; None where it is held."""
        return self.time_point if self.time_point in (TimePoint.PRE, TimePoint.POST) else None


@dataclass(frozen=True)
class InstanceRef:
    """A stored instance: where it lies and what its content is. `sha256` is of the whole stored file.

    `frames` is empty for a classic instance (all of it is one slice); of an enhanced multi-frame instance it lists
    the 1-based numbers of the frames that belong to the chosen volume, and where it is empty all of them do.
    """

    sop_instance_uid: str
    sop_class_uid: str
    path: Path
    sha256: str
    frames: tuple[int, ...] = ()


@dataclass(frozen=True)
class SeriesKey:
    """Folder names of a series in the spool: the UIDs themselves where they are valid, a digest where not."""

    study: str
    series: str

    @property
    def marker(self) -> str:
        """File name of the series' marker in `spool/dirty/`."""
        return f"{self.study}~{self.series}"

    @classmethod
    def of_marker(cls, name: str) -> SeriesKey:
        """Inverse of `marker`. Raises ValueError for another kind of file name."""
        study, series = name.split("~")
        return cls(study, series)


@dataclass(frozen=True)
class RoleInput:
    """Which instances of one series, and which of their frames, fill one input of a network.

    Where `other_directions` are named, `instances` are only the first of several diffusion directions at the same
    positions: the input is the geometric mean of all.
    """

    series_uid: str
    instances: tuple[InstanceRef, ...]
    b_value_s_mm2: float | None = None
    other_directions: tuple[tuple[InstanceRef, ...], ...] = ()

    @property
    def directions(self) -> tuple[tuple[InstanceRef, ...], ...]:
        """The volumes that are read, of which there is one unless a mean is made; the first gives the grid."""
        return self.instances, *self.other_directions

    @property
    def every_instance(self) -> Iterator[InstanceRef]:
        """Of all directions; a multi-frame instance once for each direction that it holds."""
        return (instance for direction in self.directions for instance in direction)

    @property
    def content(self) -> list[Any]:
        """What decides the voxels, whatever the order of files. Without a mean the form of older jobs' keys."""
        first, *others = (sorted((i.sop_instance_uid, i.sha256, list(i.frames)) for i in d) for d in self.directions)
        return [first, *sorted(others)] if others else first


@dataclass(frozen=True)
class JobOrder:
    """The decision to analyse: which series of a study fill which role of which route's bundle."""

    study_uid: str
    condition: str
    route_revision: str
    bundle: str
    bundle_sha256: str
    time_point: TimePoint
    inputs: dict[str, RoleInput]
    deliver_to: tuple[str, ...]
    run: int = 1

    @property
    def content_key(self) -> str:
        """Digest of everything that can change the result but the run number: doing it twice is doing it once."""
        content = {
            "route": self.route_revision,
            "bundle": self.bundle_sha256,
            "pipeline": PIPELINE_VERSION,
            "time_point": self.time_point.value,
            "inputs": {role: given.content for role, given in sorted(self.inputs.items())},
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]

    @property
    def job_id(self) -> str:
        """Content key and run number; result UIDs are derived from it."""
        return f"{self.content_key}-{self.run}"


@dataclass(frozen=True)
class GivenImage:
    """One role's volume file for the engine, and what kind of image it is in the words of the bundle's card."""

    volume: Path
    weighting: str
    phase: str | None = None


@dataclass(frozen=True)
class Inference:
    """What the engine tells of a run beside the probabilities: seconds per step, and sentences for the reader."""

    seconds: dict[str, float]
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class ResultObject:
    """An encoded DICOM result awaiting delivery. Written once, sent byte for byte, however often."""

    kind: str
    sop_class_uid: str
    sop_instance_uid: str
    path: Path
    sha256: str


@dataclass(frozen=True)
class Receipt:
    """A peer's answer to one attempt: the status per object, as told, and what follows from it."""

    is_stored: bool
    retry: bool
    reason: str
    statuses: dict[str, int] = field(default_factory=dict)
    """SOP Instance UID → DIMSE status (or HTTP status) as the peer gave it."""
    stored: tuple[str, ...] = ()
    """SOP Instance UIDs that the peer has now by its own word, whatever became of the rest."""

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Receipt:
        """Inverse of `dataclasses.asdict`, also after a passage through JSON."""
        return cls(**{**data, "stored": tuple(data["stored"])})
