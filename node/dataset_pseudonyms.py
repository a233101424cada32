"""Patient IDs → pseudonyms that are stable and that nobody without the key can turn back.

A plain digest of a hospital's number is no pseudonym: there are few enough numbers to try them all. The digest is
keyed (HMAC-SHA256), and the key is a file of its own beside the cases, which stays at home when they are handed on.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from node.errors import ConfigurationError

KEY_NAME = ".pseudonym-key"
KEY_BYTES = 32


@dataclass(frozen=True)
class Pseudonyms:
    """Names for patients and studies; without a key's file a Patient ID stays what it is, in letters for a folder."""

    key_path: Path | None

    def patient(self, patient_id: str, issuer: str, study_uid: str, *, is_pseudonym: bool) -> str:
        """`is_pseudonym`: the ID is one already and is kept. Without an ID a study is a patient of its own."""
        if (is_pseudonym or self.key_path is None) and patient_id:
            return plain_name(patient_id)
        return f"P-{self._digest(f'patient|{issuer}|{patient_id}' if patient_id else f'study|{study_uid}')}"

    def study(self, study_uid: str) -> str:
        """Eight letters that tell the studies of a patient apart."""
        return self._digest(f"study|{study_uid}")[:8]

    @cached_property
    def _key(self) -> bytes:
        """Made when it is first needed: a public collection never does."""
        return load_key(self.key_path) if self.key_path else b""

    def _digest(self, what: str) -> str:
        return hmac.new(self._key, what.encode(), hashlib.sha256).hexdigest()[:12]


def plain_name(found: str) -> str:
    """Letters, digits, dots, dashes and underscores of it, at most 40; what a case may be called."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", found).strip("-._")[:40] or "unnamed"


def load_key(path: Path) -> bytes:
    """The key in `path`, made and kept there where it is not. Raises ConfigurationError for a file that is none."""
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        key = path.read_bytes()
        if len(key) != KEY_BYTES:
            raise ConfigurationError(f"{path}: no key of {KEY_BYTES} bytes; name another file by --key") from None
        return key
    with os.fdopen(descriptor, "wb") as file:
        key = secrets.token_bytes(KEY_BYTES)
        file.write(key)
        file.flush()
        os.fsync(file.fileno())
    return key
