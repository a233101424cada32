"""When is a study complete, and if not, why not yet.

A series is complete when no new instance came for a while and nothing says that one is missing; a study when all
its series are. A suspected gap delays, it does not refuse: after its patience the series goes on, and says so.

The assembler claims a marker, and only then lists the series: what it lists is all that came before the claim, and
what comes later makes a new marker. Time is its own monotonic clock, never a file's, which another host may set.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from pydicom.dataset import Dataset

from node import logs
from node.assembly_completeness import missing_from
from node.assembly_repeats import judge_repeats, reason_to_hold
from node.config import AssemblySettings
from node.dicom.header import read_header
from node.domain import SeriesKey
from node.errors import UnreadableInstance
from node.spool import Spool

log = logging.getLogger("node.assembly")
Stamp = tuple[int, int]
"""Size and modification time (ns): a file that was replaced under its name has another stamp."""


@dataclass(frozen=True)
class SeriesReady:
    """A series as it was when its study was found complete."""

    key: SeriesKey
    headers: Mapping[Path, Dataset]
    """Every instance, by name, with its header as `read_header` gives it: read once, not to be read again."""
    generation: str
    """Digest of names, sizes and times: another generation is another series, whatever its UID."""
    incomplete: str | None
    """What still seems to be missing after all patience."""
    held: str | None
    """Why a person must look before this series is used."""

    @property
    def files(self) -> tuple[Path, ...]:
        """The instances, by name."""
        return tuple(self.headers)


@dataclass(frozen=True)
class StudyReady:
    """All series of a study that are in the spool, those that had come before included."""

    study_key: str
    series: tuple[SeriesReady, ...]
    claims: Mapping[SeriesKey, int]
    """Which claims this stands on: `done` settles these and no later ones."""


@dataclass(frozen=True)
class WaitingSeries:
    """A series that moved and is not handed on yet, and why."""

    key: SeriesKey
    instance_count: int
    reason: str


@dataclass
class _Series:
    """What is known of one series; RAM only, everything in it can be read from the spool again."""

    key: SeriesKey
    changed_at_s: float
    stamps: dict[Path, Stamp] = field(default_factory=dict)
    repeats: tuple[Path, ...] = ()
    headers: dict[Path, Dataset] = field(default_factory=dict)
    claims: int = 0
    claims_handed_out: int = -1
    missing: str | None = None
    is_weighed: bool = False

    @property
    def is_handed_out(self) -> bool:
        return self.claims == self.claims_handed_out


class Assembler:
    """One per spool. `step` often, `done` when what followed from a ready study is durable. For one thread."""

    def __init__(self, spool: Spool, settings: AssemblySettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._spool = spool
        self._settings = settings
        self._clock = clock
        self._moving: dict[SeriesKey, _Series] = {}
        spool.return_claims()

    def step(self) -> list[StudyReady]:
        """Take in what moved; the studies that are complete now."""
        now = self._clock()
        for key in self._spool.dirty():
            if self._spool.claim(key):
                series = self._moving.setdefault(key, _Series(key, now))
                series.claims += 1
                self._list(series, now)
        open_studies = {series.key.study for series in self._moving.values() if not series.is_handed_out}
        return [ready for study in sorted(open_studies) if (ready := self._ready(study, now))]

    def done(self, ready: StudyReady) -> None:
        """The decision on this study is durable. Series that moved again meanwhile stay with us."""
        for key, claims in ready.claims.items():
            if key in self._moving and self._moving[key].claims == claims:
                self._spool.drop_claim(key)
                del self._moving[key]

    def put_back(self, ready: StudyReady) -> None:
        """No decision came about; look at the study again after a quiet period."""
        for key in self._of_study(ready.study_key):
            self._moving[key].claims_handed_out = -1
            self._moving[key].changed_at_s = self._clock()

    def waiting(self) -> list[WaitingSeries]:
        """Every series that moved and is not handed on, with the reason in words."""
        now = self._clock()
        return [
            WaitingSeries(key, len(series.stamps), self._why_waiting(series, now))
            for key, series in sorted(self._moving.items(), key=lambda item: item[0].marker)
            if not series.is_handed_out
        ]

    # --- deciding

    def _ready(self, study: str, now: float) -> StudyReady | None:
        moving = [self._moving[key] for key in self._of_study(study)]
        # every one is looked at, though the first may decide: the reasons are shown
        if not self._is_quiet(moving, now) or [series for series in moving if not self._is_settled(series, now)]:
            return None
        claims = {series.key: series.claims for series in moving}
        ready = StudyReady(study, tuple(self._series_of(study, now)), claims)
        if not ready.series:  # whatever came was unusable, and lies in quarantine
            self.done(ready)
            return None
        for series in moving:
            series.claims_handed_out = series.claims
        counts = {"series": len(ready.series), "instances": sum(len(series.headers) for series in ready.series)}
        logs.event(log, "study complete", study=logs.pseudonym(study), **counts)
        return ready

    def _is_settled(self, series: _Series, now: float) -> bool:
        """Nothing came since it fell silent, and nothing is waited for. Settles repeats and looks for gaps."""
        # a last look: a receiver that was killed may have left a file without its second marker
        if self._list(series, now):
            return False
        self._weigh(series, now)
        return not self._is_waited_for(series, now)

    def _is_quiet(self, moving: list[_Series], now: float) -> bool:
        quiet_s = now - max(series.changed_at_s for series in moving)
        return quiet_s >= max(self._settings.series_quiet_s, self._settings.study_quiet_s)

    def _is_waited_for(self, series: _Series, now: float) -> bool:
        return series.missing is not None and now - series.changed_at_s < self._settings.gap_patience_s

    def _why_waiting(self, series: _Series, now: float) -> str:
        silent_s = now - series.changed_at_s
        if silent_s < self._settings.series_quiet_s:
            return f"quiet for {silent_s:.0f} of {self._settings.series_quiet_s:g} s"
        if series.missing is not None and silent_s < self._settings.gap_patience_s:
            return f"{series.missing}; waits for {silent_s:.0f} of {self._settings.gap_patience_s:g} s"
        siblings = [self._moving[key] for key in self._of_study(series.key.study)]
        if any(self._is_waited_for(other, now) for other in siblings):
            return "waits for another series of its study"
        study_silent_s = now - max(other.changed_at_s for other in siblings)
        return f"study quiet for {study_silent_s:.0f} of {self._settings.study_quiet_s:g} s"

    # --- looking

    def _of_study(self, study: str) -> list[SeriesKey]:
        return [key for key in self._moving if key.study == study]

    def _list(self, series: _Series, now: float) -> bool:
        """See what files there are, and read the headers of new ones while more are arriving. True if any changed."""
        stamps = {path: stamp for path in self._spool.instances(series.key) if (stamp := _stamp(path))}
        repeats = self._spool.repeats(series.key)
        if (stamps, repeats) == (series.stamps, series.repeats):
            return False
        for path in [path for path, stamp in stamps.items() if series.stamps.get(path) != stamp]:
            if (header := self._header(path)) is None:
                del stamps[path]
            else:
                series.headers[path] = header
        series.headers = {path: series.headers[path] for path in stamps}
        series.stamps, series.repeats = stamps, repeats
        series.changed_at_s, series.is_weighed = now, False
        return True

    def _header(self, path: Path) -> Dataset | None:
        """The header; None where the instance is unusable, and out of the series from now on."""
        try:
            return read_header(path)
        except UnreadableInstance as error:
            name = self._spool.quarantine_file(path, str(error))
            logs.event(log, "instance quarantined", level=logging.WARNING, quarantine_id=name, reason=str(error))
        except FileNotFoundError:
            pass  # retention was faster
        return None

    def _weigh(self, series: _Series, now: float) -> None:
        """Once per silence: settle repeats, look for what is missing."""
        if series.is_weighed:
            return
        if series.repeats:
            silent_since_s = series.changed_at_s
            judge_repeats(self._spool, series.key)
            self._list(series, now)
            series.changed_at_s = silent_since_s  # our own doing is no arrival
        series.missing = missing_from(series.headers)
        series.is_weighed = True

    def _series_of(self, study: str, now: float) -> Iterator[SeriesReady]:
        for key in self._spool.series_of(study):
            series = self._moving.get(key)
            if series is None:  # it came before, and is read once more for the study's sake
                series = _Series(key, now)
                self._list(series, now)
                series.missing = missing_from(series.headers)
            if series.stamps:
                headers = MappingProxyType(dict(series.headers))
                held = reason_to_hold(self._spool, key)
                yield SeriesReady(key, headers, _generation(series.stamps), series.missing, held)


def _stamp(path: Path) -> Stamp | None:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_size, stat.st_mtime_ns


def generation_of(files: Iterable[Path]) -> str:
    """Digest of names, sizes and times of a series' files as they are now."""
    return _generation({path: stamp for path in files if (stamp := _stamp(path))})


def _generation(stamps: Mapping[Path, Stamp]) -> str:
    digest = hashlib.sha256()
    for path in sorted(stamps):
        size, modified = stamps[path]
        digest.update(f"{path.name} {size} {modified}\n".encode())
    return digest.hexdigest()[:32]
