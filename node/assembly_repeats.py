"""One SOP Instance UID, two contents: which of them counts? The Standard says that this cannot be; archives do it.

Same pixels: a corrected header or another transfer syntax, and the newer one takes the place. Other pixels: nobody
but a person can say which image is meant, so both are kept and the series is held.
"""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

from node import logs
from node.dicom.pixels import pixel_sha256
from node.domain import SeriesKey
from node.errors import UnreadableInstance
from node.spool import Spool

TWO_IMAGES = "two images under one SOP Instance UID"

log = logging.getLogger("node.assembly")


def judge_repeats(spool: Spool, key: SeriesKey) -> None:
    """Judge all that repeats an instance of this series, in order of arrival. A crash in between loses nothing."""
    verdicts: Counter[str] = Counter()
    for repeat in spool.repeats(key):
        current = spool.original_of(repeat, key)
        if not current.exists() or _have_same_pixels(current, repeat):
            spool.supersede(repeat, key)
            verdicts["newer_header"] += 1
        else:
            spool.set_aside(repeat, key)
            verdicts["other_pixels"] += 1
    if verdicts:
        logs.event(log, "repeats judged", series=logs.pseudonym(key.series), **verdicts)


def reason_to_hold(spool: Spool, key: SeriesKey) -> str | None:
    """Why a person must look before this series is used; None when there is no reason."""
    clashes = {spool.original_of(path, key) for path in spool.aside(key)}
    if not clashes:
        return None
    return f"{TWO_IMAGES} ({len(clashes)} of the series' instances)"


def _have_same_pixels(one: Path, other: Path) -> bool:
    try:
        return pixel_sha256(one) == pixel_sha256(other)
    except UnreadableInstance:
        # what cannot be decoded cannot be called the same
        return False
