"""Files that are there after a power cut, or not at all: write aside, fsync, then put in place in one step.

A file under construction is a `.part` that belongs to a writer; a writer is whoever holds a lock on its lock file.
The kernel lets go of that lock when the process dies, however it dies, so a `.part` without a locked writer is
known to be nobody's and may be swept.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import secrets
import threading
import time
from collections.abc import Iterable
from pathlib import Path

FILE_MODE = 0o600
FOLDER_MODE = 0o700
Bytes = bytes | bytearray | memoryview


def fsync_folder(folder: Path) -> None:
    """Make the entries of `folder` durable; costs almost nothing when none has changed."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path, root: Path) -> None:
    """Make `folder`, which lies under the existing `root`, and every folder between; durable when this returns.

    The parents are fsynced even if the folders were there: another process may have made them a moment ago.
    """
    between = [folder, *itertools.takewhile(lambda parent: parent != root, folder.parents)]
    for step in reversed(between):
        with contextlib.suppress(FileExistsError):
            step.mkdir(mode=FOLDER_MODE)
        fsync_folder(step.parent)


def touch(path: Path) -> None:
    """Make an empty file and make it durable; where it exists, nothing.

    Whoever made it has done so, or is about to: then the fsync of a file that the caller writes after this call
    commits it along, on file systems that keep one journal.
    """
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, FILE_MODE)
    except FileExistsError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    fsync_folder(path.parent)


def place_new(part: Path, final: Path) -> bool:
    """Give a finished part its name, unless a file has that name: then False, and the part stays.

    A hard link, because a rename would silently replace what another receiver put there in the meantime.
    """
    try:
        os.link(part, final)
    except FileExistsError:
        return False
    part.unlink()
    fsync_folder(final.parent)
    return True


def place(part: Path, final: Path) -> None:
    """Give a finished part its name, replacing what had it."""
    part.replace(final)
    fsync_folder(final.parent)


class Parts:
    """The parts of this process in one folder. Safe for threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._counter = itertools.count()
        self._lock = threading.Lock()
        self._writer = ""
        self._descriptor = -1

    def write(self, chunks: Iterable[Bytes]) -> Path:
        """A new part with these bytes, durable. Raises OSError, leaving nothing behind, where the disk refuses."""
        path = self._folder / f"{self._own_name()}.{next(self._counter)}.part"
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, FILE_MODE)
        try:
            for chunk in chunks:
                _write_all(descriptor, chunk)
            # the kernel's own stamp moves in steps of milliseconds: what follows at once would have the same age
            now_ns = time.time_ns()
            os.utime(descriptor, ns=(now_ns, now_ns))
            os.fsync(descriptor)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        return path

    def sweep(self) -> int:
        """Delete the parts whose writer is dead; how many there were."""
        parts: dict[str, list[Path]] = {}
        for path in self._folder.iterdir():
            parts.setdefault(path.name.split(".")[0], []).append(path)
        return sum(self._sweep_of(writer, left) for writer, left in parts.items() if writer != self._writer)

    def _sweep_of(self, writer: str, left: list[Path]) -> int:
        lock = self._folder / f"{writer}.lock"
        descriptor = _try_lock(lock)
        if descriptor is None:
            return 0
        try:
            swept = [path for path in left if path != lock]
            for path in swept:
                path.unlink(missing_ok=True)
            lock.unlink(missing_ok=True)
        finally:
            os.close(descriptor)
        return len(swept)

    def _own_name(self) -> str:
        with self._lock:
            while not self._writer:
                name = f"{os.getpid()}-{secrets.token_hex(4)}"
                path = self._folder / f"{name}.lock"
                descriptor = _try_lock(path)
                if descriptor is None:
                    continue
                if _is_still_at(path, descriptor):
                    self._writer, self._descriptor = name, descriptor
                else:
                    os.close(descriptor)
            return self._writer


def _is_still_at(path: Path, descriptor: int) -> bool:
    """False where a sweeper took the file away between our making and our locking it."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _try_lock(path: Path) -> int | None:
    """A descriptor that holds the lock on `path`, or None where another holds it."""
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, FILE_MODE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _write_all(descriptor: int, chunk: Bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[os.write(descriptor, view) :]
