"""`crlm-node segment`: the whole analysis of files on disk, without spool, database or peers.

The same evidence, engine and encoders as the node that serves; only the person at the keyboard may say what the
node would have to ask: the condition, and with it the time point.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from node.analysis import Analysis, OfflineLedger
from node.bundles import BundleCard, bundle_card
from node.config import Config
from node.config_routes import Route
from node.dicom.header import read_header
from node.domain import Decision, JobOrder, TimePoint
from node.errors import ConfigurationError, NodeError
from node.inference import EngineProcess
from node.inputs import role_input
from node.routing import Pick, StudyDecision, VolumeDecision
from node.survey import SurveyResult, survey


class UnknownCondition(ConfigurationError):
    """routes.yaml has no such condition."""


@dataclass(frozen=True)
class Answer:
    """What became of one volume that was found."""

    source: str
    series_uid: str
    condition: str | None
    is_segmented: bool
    reason: str
    folder: Path | None = None
    summary: Mapping[str, Any] | None = None
    is_demo: bool = False

    def as_json(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "series_uid": self.series_uid,
            "condition": self.condition,
            "segmented": self.is_segmented,
            "reason": self.reason,
            "folder": str(self.folder) if self.folder else None,
            "summary": dict(self.summary) if self.summary else None,
            "demo_weights": self.is_demo,
        }


def segment_files(paths: Sequence[Path], out: Path, config: Config, condition: str | None) -> Iterator[Answer]:
    """One answer per volume found under `paths`, refusals among them; results lie in folders under `out`.

    `condition` is the caller's word for what the series is: it settles the time point and thin evidence, and
    overrules no contradiction. Raises UnknownCondition, or BundleError where a needed bundle cannot be read.
    """
    route = _route(config, condition)
    operator = TimePoint(route.time_point) if route and route.time_point in ("pre", "post") else None
    found = survey(paths, config, operator=operator)
    yield from (Answer(str(item.path), "", None, False, item.reason) for item in found.unreadable)
    out.mkdir(parents=True, exist_ok=True)
    compute = config.node.compute
    cards: dict[str, BundleCard] = {}
    with (
        tempfile.TemporaryDirectory(prefix="crlm-node-") as scratch,
        EngineProcess(
            device=compute.device, threads=compute.threads, timeout_s=compute.timeout_s, backend=compute.backend
        ) as engine,
    ):
        analysis = Analysis(config, cards, engine, OfflineLedger(datetime.now(config.zone)), Path(scratch))
        for study in found.studies:
            yield from _answers(study, found, out, config, condition, analysis, cards)


def _route(config: Config, condition: str | None) -> Route | None:
    if condition is None:
        return None
    route = config.route(condition)
    if route is None:
        known = ", ".join(item.condition for item in config.routes)
        raise UnknownCondition(f"routes.yaml has no condition {condition!r}; it has: {known}")
    return route


def _answers(
    study: StudyDecision,
    found: SurveyResult,
    out: Path,
    config: Config,
    condition: str | None,
    analysis: Analysis,
    cards: dict[str, BundleCard],
) -> Iterator[Answer]:
    for decided in study.volumes:
        pick = _pick_of(study, decided)
        refusal = _refusal(decided, pick, condition)
        if pick is None or refusal is not None or pick.condition is None:
            yield _refused(decided, refusal or "nobody told which condition it is")
            continue
        yield _segment(decided, pick, pick.condition, out, config, analysis, cards)


def _pick_of(study: StudyDecision, decided: VolumeDecision) -> Pick | None:
    return next((pick for pick in study.picks if any(v == decided.volume for _, v in pick.inputs)), None)


def _refusal(decided: VolumeDecision, pick: Pick | None, condition: str | None) -> str | None:
    """Why this volume is not segmented; None where it is."""
    if pick is None or decided.decision is Decision.REFUSE:
        against = [reason.what for reason in decided.reasons if not reason.is_for]
        return "; ".join(against) or "no route takes it"
    if condition is not None:
        return None if pick.condition == condition else f"it is {pick.condition or ' or '.join(pick.candidates)}"
    if pick.hold_reason:
        return f"{pick.hold_reason}; say which by --condition"
    if decided.decision is Decision.CONFIRM:
        doubts = "; ".join(reason.what for reason in decided.reasons if not reason.is_for)
        return f"needs a person's confirmation: {doubts}; if it is, say --condition {pick.condition}"
    return None


def _refused(decided: VolumeDecision, reason: str) -> Answer:
    volume = decided.volume
    return Answer(volume.source, volume.series_uid, decided.condition, False, reason)


def _segment(
    decided: VolumeDecision,
    pick: Pick,
    condition: str,
    out: Path,
    config: Config,
    analysis: Analysis,
    cards: dict[str, BundleCard],
) -> Answer:
    volume = decided.volume
    route = config.route(condition)
    assert route is not None  # picks are made of routes
    try:
        card = cards.setdefault(route.bundle, bundle_card(config.bundle_path(route.bundle)))
        order = JobOrder(
            study_uid=volume.study_uid,
            condition=condition,
            route_revision=route.revision,
            bundle=route.bundle,
            bundle_sha256=card.sha256,
            time_point=pick.time_point,
            inputs={
                role: role_input(member, {path: read_header(path) for path, _ in member.every_member})
                for role, member in pick.inputs
            },
            deliver_to=(),
            # each run off-line is a new result with its own UIDs: nothing remembers the identities of an earlier one
            run=time.time_ns() // 1_000_000,
        )
    except NodeError as error:
        return _refused(decided, str(error))
    folder = out / f"{condition}-{volume.series_number or 0}-{order.content_key[:8]}"
    outcome = analysis.segment(order, folder)
    if outcome["status"] == "done":
        outcome = analysis.encode(order, folder)
    is_done = outcome["status"] == "done"
    if is_done:
        (folder / "mask.npz").unlink(missing_ok=True)
    elif folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
    return Answer(
        source=volume.source,
        series_uid=volume.series_uid,
        condition=condition,
        is_segmented=is_done,
        reason=outcome["reason"],
        folder=folder if is_done else None,
        summary=outcome.get("summary"),
        is_demo=card.card.is_demo,
    )


def write_summary(out: Path, answers: Sequence[Answer]) -> None:
    """`segment.json` beside the results: what was found, what was made of it, and why not."""
    content = [answer.as_json() for answer in answers]
    (out / "segment.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
