"""A volume that routing chose → the instances and frames that a network will read, each with its content's digest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from pydicom.dataset import Dataset

from node.dicom.header import text
from node.domain import InstanceRef, RoleInput
from node.evidence_facts import VolumeFacts


def role_input(volume: VolumeFacts, headers: Mapping[Path, Dataset]) -> RoleInput:
    """The volume's instances and frames as a network's input, with the digest of each file's content."""
    return RoleInput(
        series_uid=volume.series_uid,
        instances=tuple(_reference(headers[path], path, frames) for path, frames in volume.members),
        b_value_s_mm2=volume.b_s_mm2,
    )


def _reference(header: Dataset, path: Path, frames: tuple[int, ...]) -> InstanceRef:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return InstanceRef(text(header, "SOPInstanceUID"), text(header, "SOPClassUID"), path, digest, frames)
