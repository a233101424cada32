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
from node.evidence_study import read_study
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
    keys = [SeriesKey.of_marker(row.marker) for row in known]
    headers = {key: found for key in keys if (found := _headers(spool, key))}
    if not headers:
        yield from (Retrial(study.study_uid, row.series_uid, _before(row), None) for row in known)
        return
    evidence = read_study(headers, config.node.time_point.keywords, config.trust)
    header = replace(
        next(iter(evidence.series.values())).header, called_ae=study.called_ae or "", calling_ae=study.calling_ae or ""
    )
    finding = known_time_point(rows, header, config)
    explained = as_json(decide(evidence.volumes, config.routes, finding, waited_s=waited_s))
    for row, key in zip(known, keys, strict=True):
        after = told_of_series(explained, row.series_uid) if key in headers else None
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
