"""The spool: what was received, as files; what moved, as markers. One machine's local disk.

    spool.json                                   the spool's id
    incoming/                                    parts under construction and their writers' locks
    series/<study>/<series>/<instance>.dcm       one file per SOP Instance UID: what counts
    repeats/<marker>/<instance>~<digest>.dcm     the same SOP Instance UID again with other bytes, to be judged
    versions/ aside/                             what the judgement put away: older versions, images that contradict
    dirty/<marker> claimed/<marker>              series that moved; claimed while the assembler looks at them
    quarantine/<id>.dcm .json                    durable but unusable, with the reason
    commitments/ results/ jobs/                  commitment reports, SOP UIDs of our own results, folders of jobs

An instance is acknowledged when `keep_instance` or `quarantine` has returned: from then on it survives `kill -9`
and a power cut. The order of its steps is the protocol; each step is where it is because a slice was lost without it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from node.dicom.commitment import CommitmentReport
from node.dicom.part10 import FileMeta, split
from node.domain import SeriesKey
from node.durable import Bytes, Parts, fsync_folder, make_folder, place, place_new, touch
from node.errors import ConfigurationError, SpoolFull

LAYOUT = 1
_IDENTITY_NAME = "spool.json"
FOLDERS = (
    "incoming",
    "series",
    "repeats",
    "versions",
    "aside",
    "dirty",
    "claimed",
    "quarantine",
    "commitments",
    "results",
    "jobs",
    "scratch",
)
_UID = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))*")
_DIGEST_LENGTH = 12
_REMEMBERED_FOLDERS = 4096


def folder_name(uid: str) -> str:
    """A UID as a file name: itself where it is valid (PS3.5 section 9.1), else a digest of it.

    Path-like, empty, over-long and non-ASCII identifiers thus never reach the file system.
    """
    if len(uid) <= 64 and _UID.fullmatch(uid):
        return uid
    return "x-" + hashlib.sha256(uid.encode("utf-8", "surrogatepass")).hexdigest()[:32]


@dataclass(frozen=True)
class Arrival:
    """What is known of an instance when it arrives, beside its encoded data set."""

    study_uid: str
    series_uid: str
    meta: FileMeta

    @property
    def key(self) -> SeriesKey:
        return SeriesKey(folder_name(self.study_uid), folder_name(self.series_uid))


class Outcome(StrEnum):
    """What became of an instance that was received. Each is durable, and answered with success."""

    STORED = "stored"
    IDENTICAL = "identical"
    REPEAT = "repeat"
    """The SOP Instance UID was there with other bytes; kept beside it until somebody judges."""


@dataclass(frozen=True)
class Kept:
    """The outcome, and the file that now holds the bytes."""

    outcome: Outcome
    path: Path


@dataclass(frozen=True)
class Quarantined:
    """An instance that could not be used, and why. `facts` say where it came from, never whose it is."""

    id: str
    path: Path
    reason: str
    received_at: str
    facts: Mapping[str, str]


@dataclass(frozen=True)
class ReceivedReport:
    """A commitment report that waits to be taken in; whoever has done so deletes its file."""

    path: Path
    calling_ae: str
    received_at: str
    report: CommitmentReport


class Spool:
    """One folder and its protocol. Readers and writers in any number of threads and processes."""

    def __init__(self, path: Path, spool_id: str, parts: Parts, min_free_bytes: int) -> None:
        self.path = path
        self.spool_id = spool_id
        self._min_free_bytes = min_free_bytes
        self._parts = parts
        self._made: set[SeriesKey] = set()

    @classmethod
    def open(cls, path: Path, min_free_bytes: int = 0) -> Self:
        """The spool at `path`, made where there is none.

        Raises ConfigurationError where it cannot be written or is of another layout.
        """
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            for name in FOLDERS:
                (path / name).mkdir(mode=0o700, exist_ok=True)
            fsync_folder(path)
            parts = Parts(path / "incoming")
            spool_id = _identity(path, parts)
        except OSError as error:
            raise ConfigurationError(
                f"spool.path = {path}: cannot be used as spool ({error.strerror}); name a folder on a local disk "
                "that the node may write"
            ) from error
        return cls(path, spool_id, parts, min_free_bytes)

    @classmethod
    def of_node(cls, path: Path) -> Self:
        """The spool of a node that has run. Raises ConfigurationError where there is none.

        For whoever asks or tells a node something: a relative path, taken from another working folder than the
        node's, must not pass for a node that has received nothing.
        """
        if not (path / _IDENTITY_NAME).exists():
            raise ConfigurationError(
                f"spool.path = {path}: no spool is there; run this where the node runs, name the folder by "
                "CRLM_NODE_SPOOL__PATH, or start the node a first time by `crlm-node serve`"
            )
        return cls.open(path)

    # --- receiving

    def keep_instance(self, arrival: Arrival, dataset: Bytes) -> Kept:
        """Make an instance durable and its series known as moved.

        Raises SpoolFull below the disk's floor and OSError where the disk refuses: then nothing was kept.
        """
        self.require_room(len(dataset))
        final = self._instance_path(arrival)
        if final.exists():
            return self._keep_again(arrival, dataset, final)
        # Marker before name: a crash between the two leaves a marker too many, never a slice that nobody looks at.
        touch(self._marker(arrival.key))
        part = self._parts.write((arrival.meta.encode(), dataset))
        if not self._place_in_series(part, arrival.key, final):
            part.unlink()
            return self._keep_again(arrival, dataset, final)
        # And again after it: an assembler that claimed the marker in between has listed the series without this slice.
        touch(self._marker(arrival.key))
        return Kept(Outcome.STORED, final)

    def _keep_again(self, arrival: Arrival, dataset: Bytes, first: Path) -> Kept:
        """The SOP Instance UID is known. Equal content is counted only; other content waits to be judged."""
        digest = hashlib.sha256(f"{arrival.meta.called_ae}\0{arrival.meta.transfer_syntax_uid}\0".encode())
        digest.update(dataset)
        name = f"{first.stem}~{digest.hexdigest()[:_DIGEST_LENGTH]}.dcm"
        repeat = self.path / "repeats" / arrival.key.marker / name
        for known in (repeat, first):
            if known.exists() and (known is repeat or _has_content(known, arrival.meta, dataset)):
                touch(self._marker(arrival.key))
                # the other process that wrote it may not have come to its own fsync yet, and we acknowledge now
                fsync_folder(known.parent)
                return Kept(Outcome.IDENTICAL, known)
        touch(self._marker(arrival.key))
        part = self._parts.write((arrival.meta.encode(), dataset))
        make_folder(repeat.parent, self.path / "repeats")
        place(part, repeat)
        touch(self._marker(arrival.key))
        return Kept(Outcome.REPEAT, repeat)

    def _place_in_series(self, part: Path, key: SeriesKey, final: Path) -> bool:
        if key not in self._made:
            make_folder(final.parent, self.path / "series")
            if len(self._made) >= _REMEMBERED_FOLDERS:
                self._made.clear()
            self._made.add(key)
        try:
            return place_new(part, final)
        except FileNotFoundError:
            # retention took the emptied folder away since we made it
            make_folder(final.parent, self.path / "series")
            return place_new(part, final)

    def quarantine(self, chunks: Sequence[Bytes], reason: str, facts: Mapping[str, str] | None = None) -> str:
        """Keep bytes that are of no use, with the reason; returns their id, which is their content's digest.

        Raises SpoolFull and OSError as `keep_instance`.
        """
        self.require_room(sum(len(chunk) for chunk in chunks))
        digest = hashlib.sha256()
        for chunk in chunks:
            digest.update(chunk)
        return self._put_in_quarantine(self._parts.write(chunks), digest.hexdigest()[:32], reason, facts or {})

    def quarantine_file(self, path: Path, reason: str, facts: Mapping[str, str] | None = None) -> str:
        """Take a stored instance out of its series, as `quarantine` does with bytes."""
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:32]
        name = self._put_in_quarantine(path, digest, reason, facts or {})
        fsync_folder(path.parent)
        return name

    def _put_in_quarantine(self, file: Path, name: str, reason: str, facts: Mapping[str, str]) -> str:
        note = {"reason": reason, "received_at": _now(), "facts": dict(facts)}
        folder = self.path / "quarantine"
        # the note first: bytes without a reason would be a riddle
        place(self._parts.write([json.dumps(note).encode()]), folder / f"{name}.json")
        place(file, folder / f"{name}.dcm")
        return name

    def quarantined(self) -> list[Quarantined]:
        """All that lies in quarantine, oldest first."""
        found = []
        for path in (self.path / "quarantine").glob("*.dcm"):
            note = json.loads(path.with_suffix(".json").read_text())
            found.append(Quarantined(path.stem, path, note["reason"], note["received_at"], note["facts"]))
        return sorted(found, key=lambda item: item.received_at)

    def sweep_parts(self) -> int:
        """Delete what dead writers left unfinished; how many files."""
        return self._parts.sweep()

    @property
    def free_bytes(self) -> int:
        """What the disk has left for us."""
        stat = os.statvfs(self.path)
        return stat.f_bavail * stat.f_frsize

    def require_room(self, size_bytes: int) -> None:
        """Raises SpoolFull when keeping so many bytes would take the disk below its floor."""
        if self.free_bytes - size_bytes < self._min_free_bytes:
            raise SpoolFull(f"the spool's disk has less than {self._min_free_bytes >> 20} MiB free (spool.min_free_mb)")

    def scratch(self, worker: int) -> Path:
        """A worker's own folder for what need not outlive a step."""
        folder = self.path / "scratch" / str(worker)
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    # --- series

    def series_folder(self, key: SeriesKey) -> Path:
        """Where the instances of a series lie."""
        return self.path / "series" / key.study / key.series

    def studies(self) -> list[str]:
        """Keys of all studies."""
        return sorted(entry.name for entry in os.scandir(self.path / "series") if entry.is_dir())

    def series_of(self, study_key: str) -> list[SeriesKey]:
        """All series of a study; none where the study is not here."""
        try:
            with os.scandir(self.path / "series" / study_key) as entries:
                names = sorted(entry.name for entry in entries if entry.is_dir())
        except FileNotFoundError:
            return []
        return [SeriesKey(study_key, name) for name in names]

    def instances(self, key: SeriesKey) -> tuple[Path, ...]:
        """Files of the series' instances, by name."""
        return _instance_files(self.series_folder(key))

    def has_instances(self, study_key: str) -> bool:
        """Whether any image of a study is here; empty folders are none."""
        return any(self.instances(key) for key in self.series_of(study_key))

    def repeats(self, key: SeriesKey) -> tuple[Path, ...]:
        """Files that came under a SOP Instance UID that was there already, not yet judged; in order of arrival."""
        files = _instance_files(self.path / "repeats" / key.marker)
        return tuple(sorted(files, key=lambda path: (path.stat().st_mtime_ns, path.name)))

    def aside(self, key: SeriesKey) -> tuple[Path, ...]:
        """Files whose pixels contradict the stored instance of the same SOP Instance UID."""
        return _instance_files(self.path / "aside" / key.marker)

    def original_of(self, repeat: Path, key: SeriesKey) -> Path:
        """Where the instance lies, or would lie, whose SOP Instance UID this repeat or clash has."""
        return self.series_folder(key) / f"{repeat.stem.rpartition('~')[0]}.dcm"

    def set_aside(self, repeat: Path, key: SeriesKey) -> Path:
        """The judgement on a repeat: other pixels. A person must say which holds."""
        final = self.path / "aside" / key.marker / repeat.name
        make_folder(final.parent, self.path / "aside")
        place(repeat, final)
        fsync_folder(repeat.parent)
        return final

    def supersede(self, repeat: Path, key: SeriesKey) -> Path:
        """The judgement on a repeat: same pixels, newer header. It takes the place, the older goes to `versions/`."""
        current = self.original_of(repeat, key)
        if current.exists():
            digest = hashlib.sha256(current.read_bytes()).hexdigest()[:_DIGEST_LENGTH]
            older = self.path / "versions" / key.marker / f"{current.stem}~{digest}.dcm"
            make_folder(older.parent, self.path / "versions")
            with contextlib.suppress(FileExistsError):  # a judgement that a crash cut off here
                os.link(current, older)
            fsync_folder(older.parent)
        place(repeat, current)
        fsync_folder(repeat.parent)
        return current

    # --- what moved

    def mark_dirty(self, key: SeriesKey) -> None:
        """Have a series looked at again."""
        touch(self._marker(key))

    def mark_study(self, study_key: str) -> bool:
        """Have all series of a study looked at again; False where the study is not here."""
        keys = self.series_of(study_key)
        for key in keys:
            self.mark_dirty(key)
        return bool(keys)

    def dirty(self) -> list[SeriesKey]:
        """Series that moved and are not claimed."""
        return _markers(self.path / "dirty")

    def claim(self, key: SeriesKey) -> bool:
        """Take a marker. Only what is listed after a claim is known to be all that came before it."""
        try:
            self._marker(key).replace(self.path / "claimed" / key.marker)
        except FileNotFoundError:
            return False
        return True

    def drop_claim(self, key: SeriesKey) -> None:
        """The series was dealt with; a marker that came meanwhile stays."""
        (self.path / "claimed" / key.marker).unlink(missing_ok=True)

    def return_claims(self) -> None:
        """What a former assembler claimed and did not finish is dirty again."""
        for key in _markers(self.path / "claimed"):
            (self.path / "claimed" / key.marker).replace(self._marker(key))

    # --- the node's own

    def job_folder(self, job_id: str) -> Path:
        """Where the files of a job lie; made where there is none."""
        folder = self.path / "jobs" / job_id
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    def mark_result(self, sop_uids: Iterable[str]) -> None:
        """Know these SOP Instance UIDs as ours from now on: what comes back under them is dropped."""
        for uid in sop_uids:
            touch(self.path / "results" / folder_name(uid))

    def is_our_result(self, sop_uid: str) -> bool:
        """Whether this very SOP Instance UID is of a result of ours."""
        return (self.path / "results" / folder_name(sop_uid)).exists()

    def write_commitment_report(self, report: CommitmentReport, calling_ae: str, received_at: datetime) -> Path:
        """Keep a commitment report; durable when this returns. The same one again is the same file."""
        told = json.dumps([calling_ae, report], sort_keys=True).encode()
        digest = hashlib.sha256(told).hexdigest()[:_DIGEST_LENGTH]
        final = self.path / "commitments" / f"{folder_name(report['transaction_uid'])}~{digest}.json"
        content = {"calling_ae": calling_ae, "received_at": received_at.isoformat(), "report": report}
        place(self._parts.write([json.dumps(content).encode()]), final)
        return final

    def commitment_reports(self) -> list[ReceivedReport]:
        """Reports not yet taken in, oldest first."""
        files = (self.path / "commitments").glob("*.json")
        return sorted(
            (ReceivedReport(path, **json.loads(path.read_text())) for path in files), key=lambda one: one.received_at
        )

    def _marker(self, key: SeriesKey) -> Path:
        return self.path / "dirty" / key.marker

    def _instance_path(self, arrival: Arrival) -> Path:
        return self.series_folder(arrival.key) / f"{folder_name(arrival.meta.sop_instance_uid)}.dcm"


def _identity(path: Path, parts: Parts) -> str:
    """The id in spool.json, written by the first of any number of processes."""
    file = path / _IDENTITY_NAME
    if not file.exists():
        content: dict[str, Any] = {"spool_id": uuid.uuid4().hex, "layout": LAYOUT}
        part = parts.write([json.dumps(content).encode()])
        if not place_new(part, file):
            part.unlink()
    known = json.loads(file.read_text())
    if known["layout"] != LAYOUT:
        raise ConfigurationError(
            f"spool.path = {path}: this spool has layout {known['layout']}, this node reads {LAYOUT}; "
            "name another folder, or run the version that wrote it"
        )
    return str(known["spool_id"])


def _has_content(path: Path, meta: FileMeta, dataset: Bytes) -> bool:
    """Whether the stored file tells the same: data set, encoding and called AE title.

    Who sent it makes no difference, since archives pass on what scanners sent before. Which of our titles was
    called does: sending a study once more to another title is how a site corrects its time point.
    """
    stored, stored_dataset = split(path.read_bytes())
    return (stored.transfer_syntax_uid, stored.called_ae, stored_dataset) == (
        meta.transfer_syntax_uid,
        meta.called_ae,
        dataset,
    )


def _instance_files(folder: Path) -> tuple[Path, ...]:
    try:
        with os.scandir(folder) as entries:
            return tuple(sorted(Path(entry.path) for entry in entries if entry.name.endswith(".dcm")))
    except FileNotFoundError:
        return ()


def _markers(folder: Path) -> list[SeriesKey]:
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.name.count("~") == 1)
    return [SeriesKey.of_marker(name) for name in names]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
