"""The main job on this machine in one command: phantoms through a real node into a real archive.

A small PACS of ours takes the results, six studies travel by C-STORE, and what comes back is judged against the
phantoms' truth. Nothing is simulated inside the node: it is `crlm-node serve` with short quiet periods.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text
from ruamel.yaml import YAML

from node.config import Config, load_config
from node.database import Database, moment_of
from node.database_deliveries import DeliveryState, deliveries_of
from node.database_jobs import Job, events_of, list_jobs, objects_of
from node.database_studies import series_of_study, study_of
from node.demo_results import Result, print_results, result_of
from node.domain import JobState
from node.errors import NodeError

STAGES = ("received", "complete", "routed", "segmented", "encoded", "sent", "committed")
PATIENCE_S = 240.0
SHIPPED_CONFIG = Path(__file__).resolve().parent.parent / "dicom_config"
_REACHED = {
    JobState.QUEUED: 3,
    JobState.SEGMENTING: 3,
    JobState.ENCODING: 4,
    JobState.SENDING: 5,
    JobState.COMMITTED: len(STAGES),
}


@dataclass(frozen=True)
class Play:
    """One study of the demo: which phantom, written in which vendor's dialect, sent to which AE title of ours."""

    name: str
    condition: str
    dialect: str
    called_ae: str
    lesions: int = 3
    """Before chemotherapy; after it the smallest may have gone."""


PLAYS = (
    Play("pre-NACT DWI", "pre-nact-dwi", "ge", "CRLM-PRE"),
    Play("pre-NACT T2WI", "pre-nact-t2wi", "siemens", "CRLM-PRE"),
    Play("post-NACT DWI", "post-nact-dwi", "philips", "CRLM-POST"),
    Play("post-NACT T2WI", "post-nact-t2wi", "canon", "CRLM-POST"),
    Play("portal-venous CT", "ct-portal-venous", "siemens", "CRLM-NODE"),
    Play("portal-venous CT, no lesion", "ct-portal-venous", "ge", "CRLM-NODE", lesions=0),
)


@dataclass
class Show:
    """One study while the demo runs."""

    play: Play
    folder: Path
    study_uid: str = ""
    total: int = 0
    received: int = 0
    stage: int = 0
    word: str = "is made"
    is_over: bool = False
    job_id: str = ""
    files: list[Path] = field(default_factory=list)


def run(out: Path, *, keep: bool, seed: int, console: Console) -> int:
    """Play the demo into a new folder under `out`; returns the exit code: 0 where every study was committed."""
    began_s = time.monotonic()
    folder = (out / datetime.now().strftime("%Y%m%d-%H%M%S")).resolve()
    work = folder / "work"
    work.mkdir(parents=True)
    console.print(
        "[bold]crlm-node demo[/]: six phantom studies, a real node and a real archive, on this machine only.\n"
        "[yellow]The networks are demo weights, trained on phantoms. Their findings mean nothing for a patient.[/]"
    )
    shows = [Show(play, work / "phantoms" / f"{number}-{play.condition}") for number, play in enumerate(PLAYS, start=1)]
    with _archive(work) as archive, ProcessPoolExecutor(max_workers=2) as makers:
        made = [makers.submit(_make, show.play, show.folder, seed + index) for index, show in enumerate(shows)]
        config = _write_config(work, archive.port)
        with _node(config, work) as port:
            archive.peers["CRLM-NODE"] = ("127.0.0.1", port)
            console.print(
                f"node: AE CRLM-NODE, CRLM-PRE, CRLM-POST on 127.0.0.1:{port}   archive: AE ARCHIVE on "
                f"127.0.0.1:{archive.port}",
                highlight=False,
            )
            database = Database.open(config)
            try:
                _play(shows, made, port, config, database, console)
                results = [_result(show, config, database, archive.folder, folder) for show in shows]
            finally:
                database.close()
            print_results(results, console)
            _print_next(folder, config, console, time.monotonic() - began_s, keep=keep)
            if keep:
                _wait_for_interrupt()
    if not keep:
        # the objects lie beside; the spool of a demo is worth nothing
        shutil.rmtree(config.spool_path, ignore_errors=True)
    return 0 if all(show.stage == len(STAGES) for show in shows) else 1


# --- the parts of the scene


def _make(play: Play, folder: Path, seed: int) -> tuple[str, list[Path]]:
    """One phantom as DICOM files; its study UID and files. Runs in a process of its own."""
    from model.phantom import make_phantom
    from simulator.identity import study_of as identity_of
    from simulator.modality import write_series

    phantom = make_phantom(play.condition, seed, lesion_count=play.lesions)
    files = write_series(phantom, folder, dialect=play.dialect)
    return identity_of(play.condition, seed).study_instance_uid, files


@contextmanager
def _archive(work: Path) -> Iterator[Any]:
    from simulator.archive import Archive

    with Archive(work / "archive", ae_title="ARCHIVE", port=0, peers={}) as archive:
        yield archive


def _write_config(work: Path, archive_port: int) -> Config:
    """The shipped routes and terms; peers, ports and patience of a demo."""
    folder = work / "dicom_config"
    shutil.copytree(SHIPPED_CONFIG, folder)
    yaml = YAML()
    routes = yaml.load((folder / "routes.yaml").read_text(encoding="utf-8"))
    for route in routes["routes"]:
        route["deliver_to"] = ["archive"]
    archive = {
        "ae_title": "ARCHIVE",
        "host": "127.0.0.1",
        "port": archive_port,
        "may_receive": True,
        "accepts_demo_results": True,
        # it is sent results only, so a repeated delivery would not find the phantoms' studies there
        "look_up_study": False,
    }
    sender = {"ae_title": "PHANTOM1", "host": "127.0.0.1", "port": 11113, "may_send": True, "storage_commitment": False}
    node = {
        "dicom": {
            "host": "127.0.0.1",
            "port": 0,
            "called_ae_titles": {"CRLM-PRE": {"time_point": "pre"}, "CRLM-POST": {"time_point": "post"}},
        },
        "spool": {"path": str(work / "spool"), "min_free_mb": 200},
        "assembly": {"series_quiet_s": 1.0, "study_quiet_s": 1.5},
        "bundles": str((SHIPPED_CONFIG.parent / "model" / "bundles").resolve()),
    }
    contents = {
        "routes.yaml": routes,
        "peers.yaml": {"peers": {"archive": archive, "scanner": sender}},
        "node.yaml": node,
    }
    for name, content in contents.items():
        with (folder / name).open("w", encoding="utf-8") as file:
            yaml.dump(content, file)
    return load_config(folder, environment={})


@contextmanager
def _node(config: Config, work: Path) -> Iterator[int]:
    """`crlm-node serve` in a process of its own; yields its port. Its log lies beside."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CRLM_NODE_")}
    log_path = work / "node.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "node", "serve", "--config", str(config.folder)],
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
        )
        try:
            assert process.stdout is not None  # opened with a pipe
            if not process.stdout.readline():
                raise NodeError(f"the node did not start; its log says why: {log_path}")
            ready = json.loads((config.spool_path / "ready.json").read_text(encoding="utf-8"))
            yield int(ready["port"])
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


# --- the play


def _play(
    shows: Sequence[Show],
    made: Sequence[Future[tuple[str, list[Path]]]],
    port: int,
    config: Config,
    database: Database,
    console: Console,
) -> None:
    """Send each study as soon as it is made, and show all of them until they are over."""
    from concurrent.futures import ThreadPoolExecutor

    give_up_s = time.monotonic() + PATIENCE_S
    with ThreadPoolExecutor(max_workers=1) as sender, Live(console=console, refresh_per_second=8) as live:
        sending = [sender.submit(_send, show, future, port) for show, future in zip(shows, made, strict=True)]
        while not all(show.is_over for show in shows) and time.monotonic() < give_up_s:
            for show, sent in zip(shows, sending, strict=True):
                if sent.done():
                    sent.result()  # what a phantom or its writing raises is our fault and ends the demo
                _look(show, config, database)
            live.update(_board(shows))
            time.sleep(0.1)
        live.update(_board(shows))


def _send(show: Show, made: Future[tuple[str, list[Path]]], port: int) -> None:
    from simulator.sending import SendFailed, is_accepted, send

    study_uid, files = made.result()
    show.files, show.total, show.word = files, len(files), "is sent"
    show.study_uid = study_uid
    try:
        answers = send(files, "127.0.0.1", port, called_ae=show.play.called_ae, calling_ae="PHANTOM1")
    except SendFailed as failure:
        show.word, show.is_over = f"not sent: {failure}", True
        return
    refused = next((status for _, status in answers.statuses if not is_accepted(status)), None)
    if refused is not None:
        show.word, show.is_over = f"not sent whole: the node answered {refused:04X}", True


def _look(show: Show, config: Config, database: Database) -> None:
    """How far the node has come with a study: its spool says what came, its database what followed."""
    if not show.study_uid or show.is_over:
        return
    folder = config.spool_path / "series" / show.study_uid
    show.received = sum(1 for _ in folder.glob("*/*.dcm")) if folder.is_dir() else 0
    if show.received < show.total:
        show.word = f"{show.received} of {show.total} received"
        return
    show.stage, show.word = max(show.stage, 1), "waits for silence"
    with database.read() as rows:
        if study_of(rows, show.study_uid) is None:
            return
        jobs = list_jobs(rows, study_uid=show.study_uid, limit=1)
        refused = [row.reason for row in series_of_study(rows, show.study_uid)]
        is_sent = bool(jobs) and any(
            delivery.state in (DeliveryState.SENT, DeliveryState.COMMITTED)
            for delivery in deliveries_of(rows, jobs[0].job_id)
        )
    show.stage = max(show.stage, 2)
    if jobs:
        _follow(show, jobs[0], is_sent)
    elif refused:
        show.word, show.is_over = f"no route: {refused[0]}", True


def _follow(show: Show, job: Job, is_sent: bool) -> None:
    show.job_id = job.job_id
    show.stage = max(show.stage, _REACHED.get(job.state, 3))
    if is_sent:
        show.stage = max(show.stage, 6)
    show.word = (
        job.state.value if not job.reason or job.state is JobState.COMMITTED else f"{job.state.value}: {job.reason}"
    )
    show.is_over = job.state.is_final or job.state is JobState.HELD


def _board(shows: Sequence[Show]) -> Group:
    table = Table.grid(padding=(0, 1))
    for show in shows:
        share = show.received / show.total if show.total and not show.stage else 1.0
        done = show.stage if show.stage else share
        colour = "green" if show.stage == len(STAGES) else "yellow" if show.is_over else "cyan"
        sign = (
            Text("✓", "green")
            if show.stage == len(STAGES)
            else Text("!", "yellow")
            if show.is_over
            else Spinner("dots")
        )
        stage = STAGES[show.stage - 1] if show.stage else ""
        bar = ProgressBar(total=len(STAGES), completed=done, width=28, complete_style=colour, finished_style=colour)
        table.add_row(
            sign, show.play.name, bar, Text(stage, colour), Text(show.word if show.word != stage else "", "dim")
        )
    return Group(Text(" → ".join(STAGES), "dim"), table)


# --- what came of it


def _result(show: Show, config: Config, database: Database, archive: Path, folder: Path) -> Result:
    """Judge a study by the objects that lie in the archive, and lay them into a folder of their own."""
    seconds: float | None = None
    objects: Mapping[str, Path] = {}
    reasons: list[Mapping[str, Any]] = []
    job_folder = config.spool_path / "jobs" / show.job_id
    if show.job_id:
        with database.read() as rows:
            study = study_of(rows, show.study_uid)
            committed = [e for e in events_of(rows, show.job_id) if e.state is JobState.COMMITTED]
            kept = {item.sop_instance_uid: item.kind for item in objects_of(rows, show.job_id)}
            reasons = [told for row in series_of_study(rows, show.study_uid) for told in row.explanation]
        if study and committed:
            seconds = (moment_of(committed[0].at) - moment_of(study.last_instance_at)).total_seconds()
        objects = {kept[path.stem]: path for path in archive.rglob("*.dcm") if path.stem in kept}
    return result_of(
        name=show.play.name,
        out=folder / show.folder.name,
        phantom=show.folder,
        objects=objects,
        job_folder=job_folder,
        explanation=reasons,
        word=show.word,
        seconds=seconds,
    )


def _print_next(folder: Path, config: Config, console: Console, seconds: float, *, keep: bool) -> None:
    console.print(
        f"\nAll of it took {seconds:.0f} s. SEG, SR and an overlay.png per study: [bold]{folder}[/]", highlight=False
    )
    lines = [
        "look       open an overlay.png, or load a phantom's files and its seg.dcm into OHIF, 3D Slicer or Weasis",
        "explain    crlm-node route " + str(folder / "work" / "phantoms"),
        "off-line   crlm-node phantom --condition ct-portal-venous --out p && crlm-node segment p --out r",
        "for real   edit dicom_config/, then crlm-node check-config, crlm-node doctor, crlm-node serve",
    ]
    if keep:
        lines.insert(0, f"jobs       crlm-node jobs list --config {config.folder}   (Ctrl-C ends node and archive)")
    for line in lines:
        console.print(f"  {line}", highlight=False, soft_wrap=True)


def _wait_for_interrupt() -> None:
    try:
        signal.pause()
    except KeyboardInterrupt:
        return
