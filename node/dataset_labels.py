"""Placed segments and their roles → the labels of a case: lesions numbered, the liver whole. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from model.findings import label_lesions
from model.volume import Labels
from node.dataset_conventions import LESION, LIVER, Convention
from node.dicom.seg_place import PlacedSegment


@dataclass(frozen=True)
class RoleSegment:
    """A segment on the grid with its role and the label that its writer gave it."""

    role: str
    label: str
    placed: PlacedSegment


@dataclass(frozen=True)
class LabelSet:
    """The labels of one image by name, and what a person should know of how they came to be."""

    labels: Mapping[str, Labels]
    remarks: tuple[str, ...]

    @property
    def lesion_count(self) -> int:
        return int(self.labels[LESION].max(initial=0)) if LESION in self.labels else 0


def labels_of(segments: Sequence[RoleSegment], convention: Convention) -> LabelSet:
    """`lesion` 1..N in the order of the segments' labels (components: largest first); every other role 0 or 1.

    The liver is the whole organ, its lesions included. Where lesions overlap a voxel is the smaller lesion's, so that
    one inside another survives; of two that are equally large, the later one's.
    """
    shape_DHW = segments[0].placed.shape_DHW
    by_role: dict[str, list[RoleSegment]] = {}
    for segment in segments:
        by_role.setdefault(segment.role, []).append(segment)
    labels = {role: _union(found, shape_DHW) for role, found in by_role.items() if role != LESION}
    remarks: tuple[str, ...] = ()
    if lesions := by_role.get(LESION):
        are_components = convention.lesions == "components" or (convention.lesions == "either" and len(lesions) == 1)
        if are_components:
            labels[LESION] = label_lesions(_union(lesions, shape_DHW) > 0)
        else:
            labels[LESION], remarks = _numbered(sorted(lesions, key=_natural_order), shape_DHW)
        if LIVER in labels:
            labels[LIVER] |= labels[LESION] > 0
    return LabelSet(labels, remarks)


def inside_part(segments: Sequence[RoleSegment]) -> float:
    """Which part of the voxels of liver and lesions lies on the grid; 1 where there is none at all."""
    counted = [segment.placed for segment in segments if segment.role in (LIVER, LESION)]
    inside, outside = (sum(getattr(placed, name) for placed in counted) for name in ("voxels", "outside"))
    return inside / (inside + outside) if inside + outside else 1.0


def _union(segments: Sequence[RoleSegment], shape_DHW: tuple[int, int, int]) -> Labels:
    labels_DHW = np.zeros(shape_DHW, np.uint16)
    for segment in segments:
        for d, plane_HW in segment.placed.planes.items():
            labels_DHW[d] |= plane_HW
    return labels_DHW


def _numbered(lesions: Sequence[RoleSegment], shape_DHW: tuple[int, int, int]) -> tuple[Labels, tuple[str, ...]]:
    """One number a segment, without a gap."""
    labels_DHW = np.zeros(shape_DHW, np.uint16)
    shared = 0
    by_size = sorted(enumerate(lesions, start=1), key=lambda item: (-item[1].placed.voxels, item[0]))
    for number, segment in by_size:
        for d, plane_HW in segment.placed.planes.items():
            shared += int(np.count_nonzero(labels_DHW[d][plane_HW]))
            labels_DHW[d][plane_HW] = number
    remarks = [f"lesions overlap in {shared} voxels; each is counted to the smaller lesion"] if shared else []
    counts = np.bincount(labels_DHW.ravel(), minlength=len(lesions) + 1)[1:]
    if gone := int((counts == 0).sum()):
        remarks.append(f"{gone} of {len(lesions)} lesion segments have no voxel of their own and were left out")
    renumbered = np.zeros(len(lesions) + 1, np.uint16)
    renumbered[1:][counts > 0] = np.arange(1, len(lesions) - gone + 1)
    return renumbered[labels_DHW], tuple(remarks)


def _natural_order(segment: RoleSegment) -> tuple[tuple[int, str], ...]:
    """Tumor_2 before Tumor_10."""
    parts = re.findall(r"\d+|\D+", segment.label.casefold())
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in parts)
