"""What the segments of a data set are: by their labels as the collection writes them, else by their codes.

Each public collection is one value of `CONVENTIONS`, from its own description (models.md §6); everything else is read
by `LOCAL`, by words and by the codes of any writer. A label is matched without regard to case, and a segment's number
never means anything.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from node.dicom.seg_file import Segment

LESION, LIVER, REMNANT = "lesion", "liver", "liver-remnant"
PORTAL_VEIN, HEPATIC_VEIN, AORTA = "portal-vein", "hepatic-vein", "aorta"
PORTAL_VENOUS, ARTERIAL, NON_CONTRAST = "portal-venous", "arterial", "non-contrast"
LEAST_INSIDE = 0.98
"""So much of liver and lesions must lie inside the images, or images and segmentation are not of one another."""

Words = tuple[tuple[str, re.Pattern[str]], ...]


@dataclass(frozen=True)
class Convention:
    """How one collection labels its segments, and what is known of all its images."""

    name: str
    collection: str
    licence: str
    words: Words
    """Role → labels that mean it; the first that matches counts."""
    reads_codes: bool = False
    patient_ids: re.Pattern[str] | None = None
    """Patient IDs of the collection: pseudonyms already, which are kept, and by which `auto` knows it."""
    needs: tuple[str, ...] = ()
    """Roles without which a segmentation is not the collection's own, but somebody's later work on it."""
    doubtful: re.Pattern[str] | None = None
    """Labels that the collection's description does not know, and that would change what a lesion is."""
    phase: str | None = None
    lesions: Literal["segments", "components", "either"] = "either"
    """Whether each segment is one lesion, or each connected component of all; `either`: of a single segment."""
    takes_automatic: bool = False
    takes_siblings: bool = False
    """Whether the other acquisitions of the segmented series become images of the case."""
    is_case_a_patient: bool = False

    def role(self, segment: Segment) -> str | None:
        """What a segment is: the name of a label in a case; None where that is not known."""
        label = " ".join(re.split(r"[\s_-]+", segment.label.strip()))
        spoken = next((role for role, pattern in self.words if pattern.search(label)), None)
        role = spoken or (_role_by_code(segment.kind) if self.reads_codes else None)
        return None if role == LESION and _lies_elsewhere(segment.region) else role


def convention_of(wish: str, patient_id: str) -> Convention:
    """The convention of that name; for `auto` the one whose patients have such IDs, else `LOCAL`."""
    if wish != "auto":
        return CONVENTIONS[wish]
    named = (item for item in CONVENTIONS.values() if item.patient_ids and item.patient_ids.fullmatch(patient_id))
    return next(named, LOCAL)


def missing_roles(convention: Convention, roles: Sequence[str]) -> tuple[str, ...]:
    """What of the convention's needs is not among the roles."""
    return tuple(role for role in convention.needs if role not in roles)


def _words(**patterns: str) -> Words:
    return tuple(
        (role.replace("_", "-"), re.compile(pattern, re.IGNORECASE | re.UNICODE)) for role, pattern in patterns.items()
    )


_ROLE_CODES: tuple[tuple[str, tuple[Code, ...]], ...] = (
    (LIVER, (codes.SCT.Liver,)),
    (PORTAL_VEIN, (codes.SCT.PortalVein,)),
    (HEPATIC_VEIN, (codes.SCT.HepaticVein,)),
    (AORTA, (codes.SCT.AbdominalAorta, codes.SCT.Aorta)),
    (
        LESION,
        (
            codes.SCT.Lesion,
            codes.SCT.Mass,
            codes.SCT.Neoplasm,
            codes.SCT.NeoplasmPrimary,
            codes.SCT.NeoplasmSecondary,
            codes.SCT.Metastasis,
            Code("86049000", "SCT", "Neoplasm, Primary"),
        ),
    ),
    ("spleen", (codes.SCT.Spleen,)),
)


def _role_by_code(kind: Code | None) -> str | None:
    """By the coded property type; the older SRT codes compare equal to the SNOMED CT ones that replaced them."""
    return next((role for role, known in _ROLE_CODES if any(kind == code for code in known)), None) if kind else None


def _lies_elsewhere(region: Code | None) -> bool:
    """Whether an anatomic region is told that is no part of the liver."""
    return region is not None and region != codes.SCT.Liver and not re.search("liver|hepat", region.meaning, re.I)


LOCAL = Convention(
    name="auto",
    collection="local",
    licence="not stated",
    words=_words(
        liver_remnant=r"\bremnant\b|\bflr\b",
        liver=r"\bliver\b.*\bwithout\b|^liver$|^whole liver$|^liver parenchyma$",
        lesion=r"tumou?r|\bmass(?:es)?\b|lesion|metasta|neoplasm|\bhcc\b|\bcrlm\b",
        portal_vein=r"^portal(?: veins?| venous.*)?$",
        hepatic_vein=r"^hepatic(?: veins?)?$",
        aorta=r"^(?:abdominal )?aorta$",
        spleen=r"^spleen$",
        right_kidney=r"^(?:right kidney|kidney right)$",
        left_kidney=r"^(?:left kidney|kidney left)$",
    ),
    reads_codes=True,
)

CONVENTIONS: Mapping[str, Convention] = {
    "crlm-ct": Convention(
        name="crlm-ct",
        collection="Colorectal-Liver-Metastases",
        licence="CC BY 4.0, doi:10.7937/QXK2-QG03",
        words=_words(
            lesion=r"tumor",
            liver_remnant=r"^liver remnant$",
            liver=r"^liver$",
            hepatic_vein=r"^hepatic$",
            portal_vein=r"^portal$",
        ),
        patient_ids=re.compile(r"CRLM-CT-\d{4}"),
        needs=(LIVER, LESION),
        phase=PORTAL_VENOUS,
        lesions="segments",
        takes_automatic=True,
        is_case_a_patient=True,
    ),
    "hcc-tace": Convention(
        name="hcc-tace",
        collection="HCC-TACE-Seg",
        licence="CC BY 4.0, doi:10.7937/TCIA.5FNA-0924",
        words=_words(
            liver=r"^liver$", lesion=r"^mass$", portal_vein=r"^portal veins?$", aorta=r"^(?:abdominal )?aorta$"
        ),
        patient_ids=re.compile(r"HCC_\d{3}"),
        needs=(LIVER, LESION, PORTAL_VEIN, AORTA),
        doubtful=re.compile(r"necro", re.IGNORECASE),
        lesions="components",
        takes_automatic=True,
        takes_siblings=True,
        is_case_a_patient=True,
    ),
    "auto": LOCAL,
}
