"""What routing may know of a volume: frozen, of plain types, and without anything that names a patient.

A fact is rarely certain: each is kept with its signs, and a sign says what it says, by what kind of source, and
where it stands, so that a decision can be explained and so that two sources count as two and one as one.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import NamedTuple

from node.domain import Reason

# what a volume is; the values of `weighting` in `crlm-node route --json`
CT, T1, T2, DWI, DWI_TRACE, DWI_COMPUTED = "ct", "t1", "t2", "dwi", "dwi-trace", "dwi-computed"
ADC, FA, LOCALIZER, OTHER, NOT_AN_IMAGE = "adc", "fa", "localizer", "other", "not-an-image"
DIFFUSION_WEIGHTED = frozenset({DWI, DWI_TRACE})

ISOTROPIC, DIRECTIONAL, UNWEIGHTED, UNTOLD = "isotropic", "directional", "none", "unknown"
"""Directionality of a diffusion volume, in the words of (0018,9075) and for what it leaves unsaid."""
DERIVED_MEAN = "derived-mean"
"""That of a geometric mean over directions, which the node itself derives (node/evidence_mean.py)."""

SOUND = "sound"
"""What a sign about the kind of image says when it has nothing against an analysis."""
UNSURE = "unsure"
"""What it says when a person should look."""


IMAGE_TYPE_PLACES = ("(0008,0008)", "(0008,9007)", "(0021,xx75) SIEMENS MR SDI 02")
"""Image Type, Frame Type of a multi-frame image, and Siemens' own: any of them may vouch for an image as acquired."""

SEVERAL_IN_SERIES, SEVERAL_IN_STUDY = "several in this series", "several in this study"
"""Whose the images are, where the Patient IDs of one series or one study differ."""


class Member(NamedTuple):
    """An instance of a volume and, of a multi-frame one, the 1-based numbers of the frames that belong to it."""

    path: Path
    frames: tuple[int, ...]


@dataclass(frozen=True)
class Sign:
    """`says` is what it speaks for ("liver", "portal-venous", "yes"); `by` is tag, text, timing, order, geometry."""

    says: str
    what: str
    where: str
    by: str = "tag"

    def reason(self, *, is_for: bool) -> Reason:
        """The sign as a line of an explanation."""
        return Reason(is_for, self.what, self.where)


@dataclass(frozen=True)
class Geometry:
    """Where the slices lie. `fault` is why they form no volume, None when they do."""

    slices: int
    rows: int
    columns: int
    normal: tuple[float, float, float] | None
    is_axial: bool
    spacing_mm: float | None
    """Median distance between neighbours along the normal."""
    extent_mm: float
    """Covered length along the normal: number of positions × spacing."""
    first_mm: float | None
    """Position of the lowest slice along the normal."""
    tilt_degrees: float
    fault: str | None
    frame_of_reference_uid: str = ""


@dataclass(frozen=True)
class VolumeFacts:
    """One volume of one series: everything a route may ask, each with its signs."""

    study_uid: str
    series_uid: str
    series_number: int | None
    source: str
    """Folder of its files."""
    sop_class_uid: str
    modality: str
    manufacturer: str
    weighting: str
    weighting_signs: tuple[Sign, ...]
    kind_signs: tuple[Sign, ...]
    """What speaks for (`SOUND`) or against taking it for an image as acquired: localizer, map, projection …"""
    image_type: tuple[str, ...]
    geometry: Geometry
    members: tuple[Member, ...]
    """In the order of their positions along the normal."""
    other_directions: tuple[tuple[Member, ...], ...] = ()
    """Of a mean over directions: the members of all but the first direction, which `members` are."""
    b_values_s_mm2: tuple[int, ...] = ()
    """Nominal b-values of the whole series, sorted; () where it is not diffusion-weighted."""
    b_s_mm2: int | None = None
    b_signs: tuple[Sign, ...] = ()
    b_disputed_s_mm2: tuple[int, ...] = ()
    """What other places tell instead of `b_s_mm2`."""
    is_b_certain: bool = True
    """False where the b-value stands in a private element that lost its creator, or in words only."""
    directionality: str = UNTOLD
    direction_signs: tuple[Sign, ...] = ()
    fat_suppressed: bool | None = None
    fat_signs: tuple[Sign, ...] = ()
    echo_time_ms: float | None = None
    repetition_time_ms: float | None = None
    contrast_given: bool | None = None
    contrast_signs: tuple[Sign, ...] = ()
    phase_signs: tuple[Sign, ...] = ()
    """Votes on the contrast phase, at most one per kind of source."""
    region: str = "unknown"
    region_signs: tuple[Sign, ...] = ()
    kernel: str = ""
    kernel_kind: str = "unknown"
    """soft | sharp | unknown"""
    acquired: datetime | None = None
    """When the lowest slice was acquired, by the scanner's clock."""
    study_date: date | None = None
    patients: str = "one"
    """one, or what `SEVERAL_IN_SERIES` and `SEVERAL_IN_STUDY` say."""
    rejection: Sign | None = None
    """The key object note that takes one of its instances back."""

    @property
    def every_member(self) -> tuple[Member, ...]:
        """Of all directions; a multi-frame instance once for each direction that it holds."""
        return tuple(member for members in (self.members, *self.other_directions) for member in members)

    @property
    def contrast_phase(self) -> str | None:
        """The phase on which all votes agree."""
        return agreed_phase(self.phase_signs)


def agreed_phase(votes: tuple[Sign, ...]) -> str | None:
    """The phase that every vote names; None where there is none or they differ."""
    phases = {vote.says for vote in votes}
    return phases.pop() if len(phases) == 1 else None


@dataclass(frozen=True)
class StudyHeader:
    """What the time point of a study is decided from; the only fact here that names a patient, kept apart."""

    study_uid: str
    patient_id: str
    issuer: str
    study_date: date | None
    attributes: tuple[tuple[str, str], ...] = ()
    """Keyword → value of what an administrator's tag rules may ask."""
    called_ae: str = ""
    calling_ae: str = ""


@dataclass(frozen=True)
class SeriesEvidence:
    """One series: its study's header, and its volumes in a fixed order."""

    header: StudyHeader
    series_uid: str
    source: str
    volumes: tuple[VolumeFacts, ...]
