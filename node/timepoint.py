"""Before or after chemotherapy: by whose word, or why nobody's. It is in no image header, and is never guessed.

The first that speaks decides: an operator, the called AE title, the therapy table, an administrator's tag rules,
their rules on earlier studies of the patient (node/timepoint_earlier.py). Between the windows of a therapy, and where
sources cannot be told apart, a person decides. Pure; the table of therapies lives in the database, and here only its
rows are understood.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from node.config import TimePointSettings
from node.domain import Reason, TimePoint, TimePointFinding
from node.errors import TherapyFileError
from node.evidence_facts import StudyHeader
from node.timepoint_earlier import Earlier, by_earlier_studies, unless_contradicted

CSV_COLUMNS = ("patient_id", "issuer", "name", "start", "end", "surgery", "source")
NOBODY = "nobody"
"""The source of a time point that no source tells."""
_REQUIRED_COLUMNS = frozenset({"patient_id", "start"})


@dataclass(frozen=True)
class Therapy:
    """One line of chemotherapy. `issuer` "" means the site's own; `end` None that it runs, or that nobody told."""

    patient_id: str
    issuer: str
    name: str
    start: date
    end: date | None = None
    surgery: date | None = None
    source: str = ""

    @classmethod
    def from_iso(
        cls,
        *,
        patient_id: str,
        issuer: str,
        name: str,
        start: str,
        end: str | None = None,
        surgery: str | None = None,
        source: str = "",
    ) -> Therapy:
        """From dates as tables keep them, 2026-01-31. Raises ValueError for another text."""
        return cls(
            patient_id=patient_id,
            issuer=issuer,
            name=name,
            start=date.fromisoformat(start),
            end=date.fromisoformat(end) if end else None,
            surgery=date.fromisoformat(surgery) if surgery else None,
            source=source,
        )


def time_point_of(
    study: StudyHeader,
    *,
    operator: TimePoint | None = None,
    called: TimePoint | None = None,
    therapies: Sequence[Therapy] = (),
    settings: TimePointSettings | None = None,
    site_issuer: str = "",
    earlier: Earlier | None = None,
) -> TimePointFinding:
    """The study's time point, its source and why; `hold_reason` where it is unknown.

    `called` is what the configuration says of the called AE title; `therapies` may be everybody's, those of the
    study's patient (identifier and issuer, the site's where none is told) are looked up here. `earlier` is heard
    only where the settings have rules for it.
    """
    settings, earlier = settings or TimePointSettings(), earlier or Earlier()
    if operator is not None:
        return _told(operator, "operator", "an operator said so", "operator")
    if called is not None:
        return _told(
            called,
            "called-ae",
            f"sent to {study.called_ae or 'an AE title'} of ours for such studies",
            "called AE title",
        )
    mine = [therapy for therapy in therapies if is_same_patient(therapy.patient_id, therapy.issuer, study, site_issuer)]
    if mine:
        return _by_therapies(study, mine, settings)
    rules = settings.earlier_studies
    found = by_tag_rules(study, settings) or by_earlier_studies(earlier, rules)
    if found is not None:
        return unless_contradicted(found, earlier, rules)
    reasons = [Reason(False, "no operator, AE title, therapy or rule tells the time point", "therapies")]
    if rules:
        known = f"no rule fits the {len(earlier.studies)} earlier studies that are known"
        reasons.append(Reason(False, known, "earlier studies"))
    return TimePointFinding(
        TimePoint.UNKNOWN, NOBODY, tuple(reasons), "nobody told whether this study is before or after chemotherapy"
    )


def _told(time_point: TimePoint, source: str, what: str, where: str) -> TimePointFinding:
    if time_point in (TimePoint.PRE, TimePoint.POST):
        return TimePointFinding(time_point, source, (Reason(True, f"{time_point.value}-treatment: {what}", where),))
    return _held(source, (Reason(False, what, where),), "the time point was set to unknown")


def _held(source: str, reasons: tuple[Reason, ...], why: str) -> TimePointFinding:
    return TimePointFinding(TimePoint.UNKNOWN, source, reasons, why)


def is_same_patient(patient_id: str, issuer: str, study: StudyHeader, site_issuer: str) -> bool:
    """An identifier is worth nothing without who issued it; where nobody is named the site itself is meant."""
    if not study.patient_id or patient_id != study.patient_id:
        return False
    return (issuer or site_issuer) == (study.issuer or site_issuer)


def _by_therapies(study: StudyHeader, therapies: Sequence[Therapy], settings: TimePointSettings) -> TimePointFinding:
    if study.study_date is None:
        reason = Reason(False, "a therapy is known, but the study has no date", "(0008,0020)")
        return _held("therapies", (reason,), "the study has no date to compare with the therapy's")
    day = study.study_date
    verdicts = {_window(therapy, day, settings) for therapy in therapies}
    speaking = verdicts - {_Window(None, _TOO_EARLY.format(days=settings.pre_days_before_start))} or verdicts
    points = {verdict.time_point for verdict in speaking}
    reasons = tuple(
        Reason(verdict.time_point is not None, verdict.why, "therapies")
        for verdict in sorted(speaking, key=lambda verdict: verdict.why)
    )
    if len(points) > 1:
        return _held("therapies", reasons, "several therapies of this patient disagree on this study's date")
    point = points.pop()
    if point is None:
        return _held("therapies", reasons, reasons[0].what)
    if point is TimePoint.PRE and any(therapy.start < day for therapy in therapies):
        again = Reason(False, "an earlier line of therapy lies before this study", "therapies")
        return _held("therapies", (*reasons, again), "before one line of therapy, but after another")
    return TimePointFinding(point, "therapies", reasons)


@dataclass(frozen=True)
class _Window:
    time_point: TimePoint | None
    why: str


_TOO_EARLY = "the study is more than {days} days before the start of the therapy"


def _window(therapy: Therapy, day: date, settings: TimePointSettings) -> _Window:
    """Where the day lies against one therapy; sentences carry distances in days, no dates."""
    if therapy.surgery is not None and day >= therapy.surgery:
        return _Window(None, "the study is on or after the day of surgery")
    before = (therapy.start - day).days
    if before > settings.pre_days_before_start:
        return _Window(None, _TOO_EARLY.format(days=settings.pre_days_before_start))
    if before >= 0:
        return _Window(TimePoint.PRE, f"{before} days before the start of the therapy")
    since = -before
    if since < settings.post_days_after_start:
        return _Window(None, f"on therapy for {since} days, fewer than {settings.post_days_after_start}")
    if therapy.end is not None and day > therapy.end + timedelta(days=settings.post_days_after_end):
        return _Window(None, f"more than {settings.post_days_after_end} days after the end of the therapy")
    if therapy.end is None and since > settings.days_without_end:
        return _Window(None, f"{since} days after the start of a therapy whose end is not entered")
    return _Window(TimePoint.POST, f"{since} days after the start of the therapy, and before surgery")


def by_tag_rules(study: StudyHeader, settings: TimePointSettings) -> TimePointFinding | None:
    """What the study's own header says by the tag rules. Every rule is asked, and two that disagree are nobody's word.

    An attribute may have several values, as where a series answers several requests: each is asked.
    """
    fitting = [
        rule
        for rule in settings.tag_rules
        if any(
            keyword == rule.keyword and re.search(rule.pattern, told, re.IGNORECASE)
            for keyword, told in study.attributes
        )
    ]
    if not fitting:
        return None
    reasons = tuple(
        Reason(True, f"{rule.time_point}-treatment by the rule on {rule.keyword}", "node.yaml time_point.tag_rules")
        for rule in fitting
    )
    points = {rule.time_point for rule in fitting}
    if len(points) > 1:
        return _held("tag-rule", reasons, "the tag rules disagree on this study")
    return TimePointFinding(TimePoint(points.pop()), "tag-rule", reasons)


def parse_therapies_csv(text: str, source: str = "csv") -> tuple[Therapy, ...]:
    """Rows of a CSV file with a header line; columns `patient_id` and `start` are needed, those of CSV_COLUMNS known.

    Comma or semicolon separate; dates are written 2026-01-31. Raises TherapyFileError with every fault.
    """
    lines = text.removeprefix("\ufeff")
    delimiter = ";" if lines.partition("\n")[0].count(";") > lines.partition("\n")[0].count(",") else ","
    reader = csv.DictReader(io.StringIO(lines), delimiter=delimiter, strict=True, skipinitialspace=True)
    try:
        columns = tuple(name.strip().lower() for name in reader.fieldnames or ())
        reader.fieldnames = columns
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise TherapyFileError(f"line {reader.line_num}: not a CSV file: {error}") from error
    if faults := [*_column_faults(columns)]:
        raise TherapyFileError("\n".join(faults))
    therapies = [_therapy(line, row, source, faults.append) for line, row in rows]
    if faults:
        raise TherapyFileError("\n".join(faults))
    return tuple(therapies)


def _column_faults(columns: tuple[str, ...]) -> Iterator[str]:
    for name in sorted(_REQUIRED_COLUMNS - set(columns)):
        yield f"line 1: the column {name} is missing"
    for name in columns:
        if name not in CSV_COLUMNS:
            yield f"line 1: there is no column {name!r}; known are {', '.join(CSV_COLUMNS)}"


def _therapy(line: int, row: dict[str, str | None], source: str, fault: Callable[[str], None]) -> Therapy:
    cells = {name: (row.get(name) or "").strip() for name in CSV_COLUMNS}
    dates = {name: _date(line, name, cells[name], fault) for name in ("start", "end", "surgery")}
    for name in sorted(_REQUIRED_COLUMNS):
        if not cells[name]:
            fault(f"line {line}: {name} is empty")
    start = dates["start"] or date.min
    for name in ("end", "surgery"):
        if (later := dates[name]) and later < start:
            fault(f"line {line}: {name} lies before start")
    return Therapy(
        patient_id=cells["patient_id"],
        issuer=cells["issuer"],
        name=cells["name"],
        start=start,
        end=dates["end"],
        surgery=dates["surgery"],
        source=cells["source"] or source,
    )


def _date(line: int, name: str, cell: str, fault: Callable[[str], None]) -> date | None:
    if not cell:
        return None
    try:
        return date.fromisoformat(cell)
    except ValueError:
        fault(f"line {line}: {name} is no date; write it as 2026-01-31")
        return None
