"""What earlier studies of a patient say of a study: only as far as an administrator's rule lets them say it.

That there was an earlier study proves nothing: it may have been before the same chemotherapy, or before another. So
without rules nothing here speaks, rules that disagree are nobody's word, and a peer that should have been asked and
was not leaves the question open. Pure; who was asked, and what is kept of it, stands in node/history.py.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from node.config import EarlierStudyRule
from node.domain import Reason, TimePoint, TimePointFinding

EARLIER_STUDY = "earlier-study"
_PLACE = "node.yaml time_point.earlier_studies"


@dataclass(frozen=True)
class EarlierStudy:
    """Another study of the same patient, on the same day or before. It has neither date nor name here."""

    days_before: int
    known_to: str
    """This node, or a peer's name."""
    attributes: tuple[tuple[str, str], ...] = ()
    """Keyword → value, several values joined by a backslash; absent what is not known."""
    was: TimePoint | None = None
    """Pre or post by a word (operator, AE title, therapy, tag rule), never by another earlier study."""


@dataclass(frozen=True)
class Earlier:
    """All that is known of a patient's earlier studies; `open_questions` are peers that gave no answer, and why."""

    studies: tuple[EarlierStudy, ...] = ()
    open_questions: tuple[Reason, ...] = ()


def by_earlier_studies(earlier: Earlier, rules: Sequence[EarlierStudyRule]) -> TimePointFinding | None:
    """What the rules make of the earlier studies; None where none of them fits. Every rule is asked."""
    if not rules:
        return None
    fitting = [
        (number, rule, study)
        for number, rule in enumerate(rules)
        for study in sorted(earlier.studies, key=lambda study: (study.days_before, study.known_to))
        if _fits(rule, study)
    ]
    reasons = tuple(dict.fromkeys(_reason(number, rule, study) for number, rule, study in fitting))
    if earlier.open_questions:
        # what has not been heard may contradict what has
        why = f"earlier studies could not be looked up: {earlier.open_questions[0].what}"
        return _held((*reasons, *earlier.open_questions), why)
    points = {rule.time_point for _, rule, _ in fitting}
    if len(points) > 1:
        return _held(reasons, "the rules on earlier studies disagree on this study")
    return TimePointFinding(TimePoint(points.pop()), EARLIER_STUDY, reasons) if points else None


def unless_contradicted(
    found: TimePointFinding, earlier: Earlier, rules: Sequence[EarlierStudyRule]
) -> TimePointFinding:
    """A rule's `pre` is held where an earlier study was `post`, for a study does not go back before a chemotherapy.

    Unless a rule says of just such an earlier study that the next one is `pre`, as before a second line. Only where
    earlier studies may speak at all.
    """
    if found.time_point is not TimePoint.PRE or not rules:
        return found
    taken_as_pre = [rule for rule in rules if rule.was == "post" and rule.time_point == "pre"]
    against = [
        study.days_before
        for study in earlier.studies
        if study.was is TimePoint.POST and not any(_fits(rule, study) for rule in taken_as_pre)
    ]
    if not against:
        return found
    why = Reason(False, f"an earlier study, {min(against)} days before, was post-treatment", "earlier studies")
    return TimePointFinding(
        TimePoint.UNKNOWN,
        found.source,
        (*found.reasons, why),
        "a rule says pre-treatment, but an earlier study of this patient was post-treatment",
    )


def _fits(rule: EarlierStudyRule, study: EarlierStudy) -> bool:
    low, high = rule.days_before
    if not low <= study.days_before <= high:
        return False
    if rule.keyword is None or rule.pattern is None:
        return study.was is not None and study.was.value == rule.was
    told = dict(study.attributes).get(rule.keyword, "")
    return any(re.search(rule.pattern, part, re.IGNORECASE) for part in told.split("\\") if part)


def _reason(number: int, rule: EarlierStudyRule, study: EarlierStudy) -> Reason:
    asked = f"was {rule.was}-treatment" if rule.was else f"has such a {rule.keyword}"
    what = f"{rule.time_point}-treatment: an earlier study, {study.days_before} days before, {asked}"
    return Reason(True, f"{what} (known to {study.known_to})", f"{_PLACE}.{number}")


def _held(reasons: tuple[Reason, ...], why: str) -> TimePointFinding:
    return TimePointFinding(TimePoint.UNKNOWN, EARLIER_STUDY, reasons, why)
