"""How long does a study take from its last acknowledged slice to committed, beyond quiet period and network?

    python -m bench.turnaround [--rounds 3] [--json FILE]

Two studies, 30 × 256² MR (T2) and 100 × 512² CT, through a real `crlm-node serve` into an archive of ours that
commits. Told is: committed − last slice acknowledged − quiet period − the network's forward time. Beside it the
plain way in the same run: the same reading, encoding, checking and sending called one after the other in one process,
without queue, database or durability; the ratio is the price of durability. Also each role's peak memory.
Prints a table; exit code 1 where the goal is missed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from model.phantom import Geometry, make_phantom
from node.analysis import Analysis, OfflineLedger
from node.bundles import cards_of
from node.config import Config
from node.database import Database, moment_of
from node.database_jobs import list_jobs
from node.domain import JobState, ResultObject
from node.inference import EngineProcess
from node.peers import send as send_objects
from simulator.archive import Archive
from simulator.identity import StudyIdentity, study_of, uid
from simulator.modality import write_series
from simulator.sending import send
from tests.serving import DEMO_BUNDLES, ServedNode, serving, write_config

QUIET_S = 1.0
GOAL_S = 1.5


@dataclass(frozen=True)
class Load:
    """A study to time."""

    name: str
    condition: str
    called_ae: str
    geometry: Geometry


LOADS = (
    Load("30 × 256² MR", "pre-nact-t2wi", "CRLM-PRE", Geometry(256, 256, 30, (1.48, 1.48), 6.0, 1.0)),
    Load("100 × 512² CT", "ct-portal-venous", "CRLM-NODE", Geometry(512, 512, 100, (0.8, 0.8), 2.5)),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = measure(Path(folder), options.rounds)
    slowest_s = _print(report)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if slowest_s > GOAL_S:
        sys.exit(1)


def measure(folder: Path, rounds: int) -> dict[str, Any]:
    """All rounds of both loads, and the peak memory of each role."""
    with Archive(folder / "archive", peers={}) as archive:
        peer = {
            "ae_title": archive.ae_title,
            "host": "127.0.0.1",
            "port": archive.port,
            "may_receive": True,
            "accepts_demo_results": True,
        }
        config = write_config(
            folder / "node", peers={"archive": peer}, bundles=DEMO_BUNDLES, deliver_to=["archive"], quiet_s=QUIET_S
        )
        with serving(config) as node:
            archive.peers["CRLM-NODE"] = ("127.0.0.1", node.port)
            rows = []
            for load in LOADS:
                phantom = make_phantom(load.condition, 990000, geometry=load.geometry)
                for number in range(rounds):
                    identity = study_of(load.condition, 990000).with_(
                        study_instance_uid=uid("bench", load.name, number)
                    )
                    files = write_series(phantom, folder / f"{load.condition}-{number}", study=identity)
                    rows.append({"load": load.name, **_served(load, identity, files, node, config)})
            memory = _peak_memory(node.process.pid)
        for load in LOADS:
            plain_s = _plain(load, folder, config, rounds)
            for row in rows:
                if row["load"] == load.name:
                    row["plain_s"] = plain_s
    return {"goal_s": GOAL_S, "rows": rows, "peak_rss_mb": memory, "cpus": psutil.cpu_count()}


def _served(load: Load, identity: StudyIdentity, files: list[Path], node: ServedNode, config: Config) -> dict[str, Any]:
    acknowledged: list[datetime] = []
    send(
        files,
        "127.0.0.1",
        node.port,
        load.called_ae,
        "STORESCU",
        heard=lambda uid, status: acknowledged.append(datetime.now().astimezone()),
    )
    (job,) = node.wait_for_job(identity.study_instance_uid, {JobState.COMMITTED}, deadline_s=180)
    committed = next(e for e in node.events(job.job_id) if e.state is JobState.COMMITTED)
    told = json.loads((config.spool_path / "jobs" / job.job_id / "findings.json").read_text())
    whole_s = (moment_of(committed.at) - acknowledged[-1]).total_seconds()
    forward_s = told["seconds"]["forward"]
    events = {event.state.value: moment_of(event.at) for event in node.events(job.job_id)}
    return {
        "whole_s": whole_s,
        "forward_s": forward_s,
        "node_s": whole_s - QUIET_S - forward_s,
        "seconds": told["seconds"],
        "ordered_s": (events["queued"] - acknowledged[-1]).total_seconds() - QUIET_S,
        "segmented_s": (events["encoding"] - events["segmenting"]).total_seconds() - forward_s,
        "encoded_s": (events["sending"] - events["encoding"]).total_seconds(),
        "delivered_s": (events["committed"] - events["sending"]).total_seconds(),
    }


def _plain(load: Load, folder: Path, config: Config, rounds: int) -> float:
    """Median seconds of the same analysis and sending, called in this process one after the other."""
    with Database.open(config).read() as rows:
        job = next(job for job in list_jobs(rows) if job.condition == load.condition)
    seconds = []
    with EngineProcess(device="cpu", threads=None, timeout_s=600) as engine:
        cards = cards_of(config)
        engine.warm([cards[job.bundle].path])
        analysis = Analysis(config, cards, engine, OfflineLedger(datetime.now().astimezone()), folder)
        for number in range(rounds):
            out = folder / f"plain-{load.condition}-{number}"
            began_s = time.monotonic()
            segmented = analysis.segment(job.order, out)
            encoded = analysis.encode(job.order, out)
            objects = [ResultObject(**{**item, "path": Path(item["path"])}) for item in encoded["objects"]]
            send_objects(config.peers["archive"], objects, "CRLM-NODE")
            seconds.append(time.monotonic() - began_s - segmented["seconds"]["forward"])
    return statistics.median(seconds)


def _peak_memory(pid: int) -> dict[str, float]:
    """Peak resident memory in MB of the supervisor and each process under it, by what it is."""
    found = {}
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        words = " ".join(process.cmdline())
        name = next((n for n in ("roles.receive", "roles.work", "model.server", "node serve") if n in words), words)
        status = Path(f"/proc/{process.pid}/status").read_text()
        peak_kb = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
        found[name] = round(int(peak_kb) / 1024, 1)
    return found


def _print(report: dict[str, Any]) -> float:
    """The table; returns the slower load's median."""
    slowest_s = 0.0
    print(
        f"{'load':16}{'node s':>9}{'ordered':>9}{'segment':>9}{'encode':>9}{'deliver':>9}{'forward':>9}{'÷ plain':>9}"
    )
    for load in LOADS:
        rows = [row for row in report["rows"] if row["load"] == load.name]

        def median(key: str, rows: list[dict[str, Any]] = rows) -> float:
            return statistics.median(row[key] for row in rows)

        cells = [median(key) for key in ("node_s", "ordered_s", "segmented_s", "encoded_s", "delivered_s", "forward_s")]
        ratio = median("node_s") / rows[0]["plain_s"]
        slowest_s = max(slowest_s, median("node_s"))
        print(f"{load.name:16}" + "".join(f"{cell:9.2f}" for cell in cells) + f"{ratio:9.2f}")
    print(f"goal: node s ≤ {GOAL_S}; peak memory MB: {report['peak_rss_mb']}")
    return slowest_s


if __name__ == "__main__":
    main()
