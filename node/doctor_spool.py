"""Is the spool's disk one to promise on? An instance is acknowledged when it is durable there."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from node.durable import fsync_folder

SLOW_MS = 100.0
"""Above this an image of a 500-slice CT waits longer for the disk than for the network."""
SKEW_S = 2.0
PROBES = 5
PROBE_BYTES = 512 * 1024
_IN_MEMORY = frozenset({"tmpfs", "ramfs"})
_OF_A_CONTAINER = frozenset({"overlay", "aufs"})
_NETWORK = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "glusterfs", "lustre", "fuse.sshfs", "fuse.glusterfs"}
)


@dataclass(frozen=True)
class Durability:
    """What a folder's file system was seen to do. Times are medians."""

    write_ms: float
    """Write of an image, fsync, rename, fsync of the folder: what stands before every acknowledgement."""
    has_locks: bool
    has_hard_links: bool
    skew_s: float
    """File times minus our clock."""


def standing_folder(path: Path) -> Path:
    """The folder itself, or the nearest above it that is there. Raises NotADirectoryError for a file in the way."""
    nearest = next(place for place in (path, *path.parents) if place.exists())
    if not nearest.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(nearest))
    return nearest


def measure(folder: Path) -> Durability:
    """Write, lock, link and time files in `folder`, and leave nothing. Raises OSError where it cannot be written."""
    with _workbench(folder) as bench:
        times = [_write_durably(bench, number) for number in range(PROBES)]
        (bench / "now").touch()
        skew_s = (bench / "now").stat().st_mtime - time.time()
        return Durability(statistics.median(times), _has_locks(bench / "0"), _has_hard_links(bench), skew_s)


def file_system_of(folder: Path) -> str:
    """Type of the file system that holds `folder`, as the kernel names it; empty where it does not tell."""
    try:
        mounts = [line.split() for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()]
    except OSError:
        return ""
    resolved = folder.resolve()
    holding = [(point, kind) for _, point, kind, *_ in mounts if resolved.is_relative_to(_unescaped(point))]
    # of equal mount points the last one covers the others
    return max(enumerate(holding), key=lambda found: (len(found[1][0]), found[0]))[1][1] if holding else ""


def file_system_fault(kind: str, *, is_sqlite_on_it: bool) -> tuple[str, str] | None:
    """Why a file system of this type must not hold the spool, and what to do; None where it may."""
    if kind in _IN_MEMORY:
        return f"{kind} is memory: a restart loses what was acknowledged", "set spool.path to a folder on a disk"
    if kind in _OF_A_CONTAINER:
        return f"{kind} goes when the container is replaced", "mount a volume, and set spool.path to a folder on it"
    if kind in _NETWORK and is_sqlite_on_it:
        return (
            f"{kind} is a network share, where SQLite is not safe",
            "set spool.path to a local disk, or use PostgreSQL",
        )
    return None


def room_bytes(folder: Path) -> tuple[int, int]:
    """Free bytes for us, and free inodes."""
    return shutil.disk_usage(folder).free, os.statvfs(folder).f_favail


@contextmanager
def _workbench(folder: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix=".crlm-doctor-", dir=folder) as bench:
        yield Path(bench)


def _write_durably(bench: Path, number: int) -> float:
    content = os.urandom(PROBE_BYTES)
    began_s = time.perf_counter()
    part = bench / f"{number}.part"
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.rename(bench / str(number))
    fsync_folder(bench)
    return (time.perf_counter() - began_s) * 1000


def _has_locks(path: Path) -> bool:
    """A second lock on a locked file must be refused: writers and workers are told apart by it."""
    with path.open("r+b") as first, path.open("r+b") as second:
        try:
            fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        try:
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def _has_hard_links(bench: Path) -> bool:
    try:
        os.link(bench / "0", bench / "linked")
    except OSError:
        return False
    return True


def _unescaped(mount_point: str) -> str:
    """The kernel writes space, tab, newline and backslash in octal (proc(5))."""
    return mount_point.encode("ascii", "backslashreplace").decode("unicode_escape")
