"""A folder as a peer: one folder per job, the objects as files in it, each whole or not there.

The folder may be a share: files are placed by rename, since many shares have no hard links, and an fsync of a
directory that the share cannot do is not a failure.
"""

from __future__ import annotations

import errno
import hashlib
import os
import time
from collections.abc import Sequence
from pathlib import Path

from node.config_peers import FolderPeer
from node.domain import Receipt, ResultObject
from node.peers.answers import EchoResult, in_sending_order

STORED = 200
"""The status that stands in a receipt for a stored object, as HTTP would give it."""
# what an administrator must change first; everything else (disk full, share away) may pass by itself
_LASTING = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EINVAL})


def send(peer: FolderPeer, objects: Sequence[ResultObject], our_ae_title: str) -> Receipt:
    """Copy the objects to `<path>/<job>/`, durable when this returns; doing it twice is doing it once.

    A job's folder is named as the one that the objects lie in. A file of that name with other content is left
    as it is, and is the reason of a refusal.
    """
    root = peer.path.expanduser()
    told: dict[str, int] = {}
    try:
        for item in in_sending_order(objects):
            target = _job_folder(root, item.path.resolve().parent.name) / item.path.name
            if target.exists() and _sha256(target) != item.sha256:
                reason = f"{target} is there with other content; move it away, then retry"
                return Receipt(False, False, reason, told, tuple(told))
            _place(item.path, target)
            told[item.sop_instance_uid] = STORED
    except OSError as error:
        return Receipt(False, error.errno not in _LASTING, _fault(root, error), told, tuple(told))
    return Receipt(True, False, f"stored in {root}", told, tuple(told))


def echo(peer: FolderPeer, our_ae_title: str) -> EchoResult:
    """Whether a file can be made in the folder (in the one above, while it is not there), and how fast."""
    began_s = time.monotonic()
    root = peer.path.expanduser()
    standing = root if root.exists() else root.parent
    probe = standing / f".crlm-node-probe-{os.getpid()}"
    try:
        _write(probe, b"probe")
        probe.unlink()
    except OSError as error:
        return EchoResult(False, (time.monotonic() - began_s) * 1000, _fault(root, error))
    return EchoResult(True, (time.monotonic() - began_s) * 1000, f"{standing.resolve()} is writable")


def _job_folder(root: Path, job: str) -> Path:
    _make(root)
    folder = root / job
    _make(folder)
    return folder


def _make(folder: Path) -> None:
    """One level only: a share that is not mounted must not be replaced by a folder on our own disk."""
    try:
        folder.mkdir()
    except FileExistsError:
        return
    _fsync_folder(folder.parent)


def _place(source: Path, target: Path) -> None:
    if target.exists():
        _fsync_folder(target.parent)
        return
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    _write(part, source.read_bytes())
    part.replace(target)
    _fsync_folder(target.parent)


def _write(path: Path, content: bytes) -> None:
    try:
        with path.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        path.unlink(missing_ok=True)
        raise


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fault(root: Path, error: OSError) -> str:
    fixes = {
        errno.EACCES: "let the node's user write there",
        errno.EPERM: "let the node's user write there",
        errno.EROFS: "it is mounted read-only",
        errno.ENOSPC: "free space on that disk",
        errno.EDQUOT: "raise the quota of the node's user",
        errno.ENOENT: "make the folder above it, or mount the share",
        errno.ENOTDIR: "something that is no folder is in the way",
    }
    fix = fixes.get(error.errno or 0, "look at that disk or share")
    return f"{root}: {error.strerror or type(error).__name__}; {fix}"
