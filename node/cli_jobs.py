"""`crlm-node jobs …` and `crlm-node therapies …`: what became of studies, and what only a person can say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import date, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from node.cli_print import DEFAULT_CONFIG, ConfigOption, JsonOption, coloured, console, plain, print_json, print_table
from node.config import Config, load_config
from node.database import Database, moment_of
from node.database_jobs import Job
from node.database_studies import list_refused_series, list_therapies, study_of
from node.domain import JobState, TimePoint
from node.errors import NodeError
from node.jobs_client import JobsClient, JobStory
from node.operator import confirm_job, enter_therapies, retry_job, withdraw_therapy
from node.spool import Spool
from node.timepoint import Therapy, parse_therapies_csv

jobs_app = typer.Typer(no_args_is_help=True, help="What became of each study: list, show, confirm, retry, cancel.")
therapies_app = typer.Typer(
    no_args_is_help=True, help="Chemotherapy dates: they tell pre- from post-treatment studies, which no header does."
)
JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="A job's id, or enough of its beginning.")]


class ToldTimePoint(StrEnum):
    """What a person may say of a study."""

    PRE = "pre"
    POST = "post"


@dataclass(frozen=True)
class Room:
    """What these verbs work on."""

    config: Config
    spool: Spool
    database: Database
    jobs: JobsClient

    def job_id(self, beginning: str) -> str:
        """The one job whose id begins so. Raises NodeError where there is none, or more than one."""
        # lists show `6dd5f966-2`: the beginning of the content's digest, and the run
        digest, _, run = beginning.partition("-")
        found = [
            job.job_id
            for job in self.jobs.list()
            if job.job_id.startswith(digest) and (not run or job.job_id.rpartition("-")[2] == run)
        ]
        if len(found) > 1 and beginning not in found:
            raise NodeError(f"{len(found)} jobs begin with {beginning!r}; write more of the id")
        if not found:
            raise NodeError(f"no job begins with {beginning!r}; `crlm-node jobs list` shows them")
        return beginning if beginning in found else found[0]


@contextmanager
def _room(config_folder: Path) -> Iterator[Room]:
    config = load_config(config_folder)
    spool = Spool.of_node(config.spool_path)
    database = Database.open(config)
    try:
        with JobsClient(config, database) as jobs:
            yield Room(config, spool, database, jobs)
    finally:
        database.close()


@jobs_app.command("list")
def list_all(
    config: ConfigOption = DEFAULT_CONFIG,
    state: Annotated[list[JobState] | None, typer.Option(help="Only jobs in this state; may be repeated.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """Jobs, newest first; below them the series that wait, that no route took, and what lies in quarantine."""
    with _room(config) as room:
        found = room.jobs.list(states=state or (), limit=limit)
        with room.database.read() as rows:
            refused = [] if state else list_refused_series(rows, limit)
        waiting = [] if state else _waiting(room.spool)
        quarantined = [] if state else room.spool.quarantined()[-limit:]
        if as_json:
            print_json(
                {
                    "jobs": [_job_json(job) for job in found],
                    "waiting": waiting,
                    "refused": [
                        {
                            "study_uid": s.study_uid,
                            "series_uid": s.series_uid,
                            "instances": s.instance_count,
                            "reason": s.reason,
                        }
                        for s in refused
                    ],
                    "quarantined": [
                        {"id": q.id, "reason": q.reason, "received_at": q.received_at, **q.facts} for q in quarantined
                    ],
                }
            )
            return
        if not (found or waiting or refused or quarantined):
            console.print("Nothing has come yet. Send a study to the node, or try: crlm-node demo")
            return
        if found:
            print_table(
                ("job", "condition", "state", "lesions", "since", "reason"),
                [
                    (
                        f"{job.job_id[:8]}-{job.run}",
                        plain(job.condition),
                        coloured(job.state.value),
                        _lesions(job),
                        _ago(job.updated_at),
                        plain(job.reason),
                    )
                    for job in found
                ],
            )
        if waiting:
            print_table(
                ("series", "instances", "why it waits"),
                [(plain(_short(w["series"])), str(w["instances"]), plain(w["why"])) for w in waiting],
                title="[bold]arriving[/]",
            )
        if refused:
            print_table(
                ("series", "instances", "why no route takes it"),
                [(plain(_short(s.series_uid)), str(s.instance_count), plain(s.reason)) for s in refused],
                title="[bold]not analysed[/]",
            )
        if quarantined:
            print_table(
                ("id", "since", "why"),
                [(plain(q.id[:8]), _ago(q.received_at), plain(q.reason)) for q in quarantined],
                title="[bold]quarantine[/]",
            )


@jobs_app.command()
def show(job: JobArgument, config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """One job: its story, its evidence, its objects, and each peer's answers."""
    with _room(config) as room:
        story = room.jobs.show(room.job_id(job))
        explanation = _explanation(room, story.job)
        if as_json:
            print_json(
                {
                    **_job_json(story.job),
                    "events": [asdict(event) for event in story.events],
                    "objects": [asdict(item) for item in story.objects],
                    "deliveries": [asdict(item) for item in story.deliveries],
                    "receipts": [asdict(item) for item in story.receipts],
                    "commitments": [asdict(item) for item in story.commitments],
                    "evidence": explanation,
                }
            )
            return
        _print_story(story, explanation, room.spool.path / "jobs" / story.job.job_id)


@jobs_app.command()
def confirm(
    job: JobArgument,
    condition: Annotated[str | None, typer.Option(help="Which condition it is, where several are possible.")] = None,
    time_point: Annotated[ToldTimePoint | None, typer.Option(help="Where that is the question.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Release a held job by saying what nobody knew: pre or post, or that the series is what it seems to be."""
    with _room(config) as room:
        point = TimePoint(time_point) if time_point else None
        told = confirm_job(
            room.config, room.spool, room.database, room.job_id(job), condition=condition, time_point=point
        )
    console.print(plain(told))


@jobs_app.command()
def retry(job: JobArgument, config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Run an ended job again, with result UIDs of its own; decided anew where weights or routes have changed."""
    with _room(config) as room:
        told = retry_job(room.config, room.spool, room.database, room.jobs, room.job_id(job))
    console.print(plain(told))


@jobs_app.command()
def release(job: JobArgument, config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Send the results of a job that was held at the door, once what held it is mended (a peer's permission, say)."""
    with _room(config) as room:
        released = room.jobs.release(room.job_id(job))
    console.print(f"job {released.job_id} goes on")


@jobs_app.command()
def cancel(job: JobArgument, config: ConfigOption = DEFAULT_CONFIG) -> None:
    """End a job and what is open of its deliveries."""
    with _room(config) as room:
        job_id = room.job_id(job)
        room.jobs.cancel(job_id)
    console.print(f"job {job_id} is cancelled")


@therapies_app.command("list")
def list_them(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """All therapies. Shows patient ids: mind who is looking."""
    with _room(config) as room, room.database.read() as rows:
        found = list_therapies(rows)
    if as_json:
        print_json([asdict(item) for item in found])
        return
    print_table(
        ("number", "patient", "issuer", "therapy", "start", "end", "surgery", "source"),
        [
            tuple(
                plain(cell or "")
                for cell in (
                    t.therapy_id, t.patient_id, t.issuer, t.name, t.start_date, t.end_date, t.surgery_date, t.source,
                )
            )
            for t in found
        ],
    )  # fmt: skip


@therapies_app.command()
def add(
    patient_id: Annotated[str, typer.Argument(help="Patient ID (0010,0020).")],
    start: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="First day of chemotherapy.")],
    end: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Last day, if known.")] = None,
    surgery: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Day of resection, if known.")] = None,
    issuer: Annotated[str, typer.Option(help="Issuer of Patient ID; the site's own when empty.")] = "",
    name: Annotated[str, typer.Option(help="What it is, for example FOLFOX.")] = "chemotherapy",
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Enter a therapy; the patient's studies that are known are decided anew."""
    therapy = Therapy(patient_id, issuer, name, start.date(), _day(end), _day(surgery), "command line")
    _enter(config, [therapy])


@therapies_app.command("import")
def import_csv(
    path: Annotated[
        Path, typer.Argument(help="CSV with the columns patient_id, issuer, name, start, end, surgery, source.")
    ],
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Enter many therapies from a CSV file; dates as 2026-01-31."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise NodeError(f"{path}: cannot be read ({type(error).__name__}); name a UTF-8 text file") from error
    _enter(config, list(parse_therapies_csv(text, source=path.name)))


@therapies_app.command()
def remove(
    number: Annotated[int, typer.Argument(help="As `therapies list` shows it.")], config: ConfigOption = DEFAULT_CONFIG
) -> None:
    """Remove a therapy; the patient's studies are decided anew."""
    with _room(config) as room:
        count = withdraw_therapy(room.spool, room.database, number)
    console.print(f"removed; {count} studies are looked at again")


def _enter(config: Path, therapies: list[Therapy]) -> None:
    with _room(config) as room:
        issuer = room.config.node.site.patient_id_issuer
        count, studies = enter_therapies(room.spool, room.database, therapies, default_issuer=issuer)
    console.print(f"{count} therapies entered; {studies} known studies are looked at again")


def _day(moment: datetime | None) -> date | None:
    return moment.date() if moment else None


def _waiting(spool: Spool) -> list[dict[str, Any]]:
    path = spool.path / "waiting.json"
    return list(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else []


def _lesions(job: Job) -> str:
    return "not analysed" if "not_analysed" in job.summary else str(job.summary.get("lesion_count", ""))


def _job_json(job: Job) -> dict[str, Any]:
    return {
        "job_id": job.job_id,
        "run": job.run,
        "study_uid": job.study_uid,
        "series_uids": sorted({given.series_uid for given in job.order.inputs.values()}),
        "condition": job.condition,
        "time_point": job.order.time_point.value,
        "state": job.state.value,
        "reason": job.reason,
        "bundle": job.bundle,
        "is_demo": job.is_demo,
        "predecessor_job_id": job.predecessor_job_id,
        "summary": job.summary,
        "created_at": job.created_at,
        "updated_at": job.updated_at,
    }


def _explanation(room: Room, job: Job) -> list[dict[str, Any]]:
    from node.database_studies import series_of_study

    """Of the job's own series first, then of its siblings in the study: why they were not chosen."""
    used = {given.series_uid for given in job.order.inputs.values()}
    with room.database.read() as rows:
        if study_of(rows, job.study_uid) is None:
            return []
        known = sorted(series_of_study(rows, job.study_uid), key=lambda row: row.series_uid not in used)
        return [told for row in known for told in row.explanation]


def _print_story(story: JobStory, explanation: list[dict[str, Any]], folder: Path) -> None:
    job = story.job
    console.print(
        f"[bold]job {job.job_id}[/]  {plain(job.condition)}  {coloured(job.state.value)}  {plain(job.reason)}"
    )
    console.print(
        f"study {job.study_uid}, series {', '.join(sorted({i.series_uid for i in job.order.inputs.values()}))}"
    )
    console.print(f"bundle {job.bundle or '-'}{' (demo weights)' if job.is_demo else ''}; files in {plain(folder)}")
    print_table(("when", "state", "reason"), [(e.at, coloured(e.state.value), plain(e.reason)) for e in story.events])
    for told in explanation:
        if told["condition"] == job.condition or told["candidates"]:
            print_table(
                ("", "evidence", "where"),
                [
                    ("[green]+[/]" if r["for"] else "[red]−[/]", plain(r["what"]), plain(r["where"]))
                    for r in told["reasons"]
                ],
                title="[bold]why[/]" + (f", margin {told['margin']:+d}" if "margin" in told else ""),
            )
            break
    losers = [told for told in explanation if told["loser_of"]]
    for told in losers:
        against = next((r["what"] for r in told["reasons"] if not r["for"]), "")
        console.print(f"[dim]not chosen:[/] series {told['series_number']}, {told['series_uid']}: {plain(against)}")
    for delivery in story.deliveries:
        console.print(
            f"[bold]{delivery.peer}[/]: {delivery.state.value}, {delivery.attempts} attempts. {plain(delivery.reason)}"
        )
    for record in story.receipts:
        console.print(f"  {record.at} attempt {record.attempt}: {plain(record.receipt.reason)}")


def _short(uid: str) -> str:
    return uid if len(uid) <= 20 else f"…{uid[-18:]}"


def _ago(at: str) -> str:
    seconds = max(0, int((datetime.now().astimezone() - moment_of(at)).total_seconds()))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
