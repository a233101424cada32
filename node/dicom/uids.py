"""Unique identifiers: results derive theirs from content, lesions get theirs once.

Derived: the same job, run and kind give the same UID, so encoding twice is encoding once. Minted: a lesion's
tracking UID must survive a re-run and the next time point, so it is drawn once, kept in the lesion table and
inherited from there.
"""

from __future__ import annotations

import hashlib
import re
import uuid

UUID_ROOT = "2.25"
"""UUID-derived UIDs need no registered root (PS3.5 B.2); 2.25 plus 39 digits stays within the 64 characters."""

_MAX_LENGTH = 64
_VALID_ROOT = re.compile(r"[0-2](\.(0|[1-9]\d*)){1,10}")


def derived_uid(*parts: str, root: str | None = None) -> str:
    """A UID that is a function of `parts`, under `root` (a site's own) or 2.25.

    128 bits of SHA-256 as one component; under a long root as many digits of it as fit, at least 20 (66 bits).
    Raises ValueError for a root that is none or leaves less room.
    """
    root = root or UUID_ROOT
    digits_left = _MAX_LENGTH - len(root) - 1
    if not _VALID_ROOT.fullmatch(root) or digits_left < 20:
        raise ValueError(f"{root!r} is no UID root of at most 43 characters")
    digest = hashlib.sha256("\0".join(parts).encode()).digest()
    number = int.from_bytes(digest[:16], "big")
    return f"{root}.{number % 10 ** min(digits_left, 39)}"


def mint_tracking_uid() -> str:
    """A new lesion's tracking UID: random, to be kept and never derived again."""
    return f"{UUID_ROOT}.{uuid.uuid4().int}"
