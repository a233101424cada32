"""What the present configuration would decide of studies that were decided before: `crlm-node route --dry-run`.

Reads headers in the spool and rows in the database; writes and sends nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from pydicom.dataset import Dataset

from node.config import Config
from node.database import Database, Rows, iso
from node.database_studies import SeriesRow, Study, series_of_study, studies_since
from node.dicom.header import read_header
from node.domain import SeriesKey
from node.errors import UnreadableInstance
from node.evidence import read_series
from node.evidence_study import volumes_of
from node.history import known_time_point
from node.orders import SeriesTold, told_of_series, waited_s
from node.routing import as_json, decide
from node.spool import Spool


@dataclass(frozen=True)
class Retrial:
    """One series: what was decided, and what would be. `after` is None where its images have left the spool."""

    study_uid: str
    series_uid: str
    before: SeriesTold
    after: SeriesTold | None

    @property
    def is_changed(self) -> bool:
        """Another decision or another condition; other words alone are no change."""
        if self.after is None:
            return False
        return (self.before.decision, self.before.condition) != (self.after.decision, self.after.condition)


def retry_since(config: Config, spool: Spool, database: Database, since: datetime) -> Iterator[Retrial]:
    """Every series of the studies whose last image came after `since`, decided anew. Raises DatabaseError."""
    with database.read() as rows:
        for study in studies_since(rows, iso(since)):
            yield from _retry(rows, study, config, spool)


def _retry(rows: Rows, study: Study, config: Config, spool: Spool) -> Iterator[Retrial]:
    known = series_of_study(rows, study.study_uid)
    headers = {row.marker: _headers(spool, SeriesKey.of_marker(row.marker)) for row in known}
    keywords = config.node.time_point.keywords
    evidence = {marker: read_series(found, keywords, config.trust) for marker, found in headers.items() if found}
    if not evidence:
        yield from (Retrial(study.study_uid, row.series_uid, _before(row), None) for row in known)
        return
    header = replace(
        next(iter(evidence.values())).header, called_ae=study.called_ae or "", calling_ae=study.calling_ae or ""
    )
    finding = known_time_point(rows, header, config)
    everything = {path: dataset for found in headers.values() for path, dataset in found.items()}
    volumes = volumes_of(list(evidence.values()), everything)
    explained = as_json(decide(volumes, config.routes, finding, waited_s=waited_s))
    for row in known:
        after = told_of_series(explained, row.series_uid) if row.marker in evidence else None
        yield Retrial(study.study_uid, row.series_uid, _before(row), after)


def _before(row: SeriesRow) -> SeriesTold:
    return SeriesTold(row.decision or "", row.condition, row.reason, row.explanation)


def _headers(spool: Spool, key: SeriesKey) -> dict[Path, Dataset]:
    headers = {}
    for path in spool.instances(key):
        try:
            headers[path] = read_header(path)
        except UnreadableInstance:
            continue  # it lies in quarantine by now, or will
    return headers
