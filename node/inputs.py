"""A volume that routing chose → the instances and frames that a network will read, each with its content's digest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from pydicom.dataset import Dataset

from node.dicom.header import text
from node.domain import InstanceRef, RoleInput
from node.evidence_facts import Member, VolumeFacts


def role_input(volume: VolumeFacts, headers: Mapping[Path, Dataset]) -> RoleInput:
    """The volume's instances and frames as a network's input, with the digest of each file's content."""
    # the directions of a mean may be frames of one and the same large file
    digests = {path: _sha256(path) for path in dict.fromkeys(path for path, _ in volume.every_member)}
    return RoleInput(
        series_uid=volume.series_uid,
        instances=_references(volume.members, headers, digests),
        b_value_s_mm2=volume.b_s_mm2,
        other_directions=tuple(_references(members, headers, digests) for members in volume.other_directions),
    )


def _references(
    members: Iterable[Member], headers: Mapping[Path, Dataset], digests: Mapping[Path, str]
) -> tuple[InstanceRef, ...]:
    return tuple(_reference(headers[path], path, frames, digests[path]) for path, frames in members)


def _reference(header: Dataset, path: Path, frames: tuple[int, ...], digest: str) -> InstanceRef:
    return InstanceRef(text(header, "SOPInstanceUID"), text(header, "SOPClassUID"), path, digest, frames)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
