"""Which lesion of a result is which of the result that it replaces: tracking identities, inherited or new."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model.volume import Mask
from node.dicom.context import Tracking
from node.dicom.uids import mint_tracking_uid
from node.errors import ObjectError
from node.job_files import MASK_NAME, read_mask


@dataclass(frozen=True)
class Previous:
    """The delivered result that a new one replaces."""

    version: int
    sr_series_uid: str
    sr_instance_uid: str
    folder: Path
    tracking: tuple[Tracking, ...]


def name_lesions(mask: Mask, previous: Previous | None) -> list[Tracking]:
    """A tracking identity per lesion: the predecessor's where most of a lesion's overlap lies in one of its
    lesions and they share a grid, else a new one. Two lesions never share an identity: the larger overlap has it.

    New ones are numbered on from the highest number of the predecessor, also above those that nobody inherits: in
    one study the name of a lesion that is gone must not come to mean another one.
    """
    inherited = _inherited(mask, previous) if previous else {}
    unused = itertools.count(1 + max((_number_in(item) for item in previous.tracking), default=0) if previous else 1)
    return [
        inherited.get(number) or Tracking(identifier=f"Lesion {next(unused)}", uid=mint_tracking_uid())
        for number in range(1, mask.count + 1)
    ]


def _number_in(tracking: Tracking) -> int:
    """The number that an identifier ends in, 0 where it ends in none."""
    digits = re.search(r"[0-9]+$", tracking.identifier)
    return int(digits.group()) if digits else 0


def _inherited(mask: Mask, previous: Previous) -> dict[int, Tracking]:
    try:
        earlier = read_mask(previous.folder / MASK_NAME)
    except ObjectError:
        return {}  # its folder is gone: no overlap can be seen any more
    if earlier.labels_DHW.shape != mask.labels_DHW.shape or not np.allclose(
        earlier.affine_lps_mm, mask.affine_lps_mm, atol=1e-3
    ):
        return {}
    both = (mask.labels_DHW > 0) & (earlier.labels_DHW > 0)
    pairs, counts = np.unique(np.stack([mask.labels_DHW[both], earlier.labels_DHW[both]]), axis=1, return_counts=True)
    given: dict[int, Tracking] = {}
    taken: set[int] = set()
    for index in np.argsort(-counts, kind="stable"):
        new, old = int(pairs[0, index]), int(pairs[1, index])
        if new not in given and old not in taken and old <= len(previous.tracking):
            given[new] = previous.tracking[old - 1]
            taken.add(old)
    return given
