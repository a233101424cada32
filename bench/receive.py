"""How many instances a second can be received, durably, compared with dcmtk's storescp in the same run?

    python bench/receive.py [--instances 200] [--size 512] [--senders 1 2 4 8] [--receivers 1 2] [--rounds 3]

Both are fed by dcmtk's storescu over loopback with the same files. storescp writes without fsync and answers from
one process a connection (--fork); the node fsyncs file, marker and folder before it answers. Needs storescu and
storescp. Prints a table; writes bench/results/receive.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

ROOT = Path(__file__).resolve().parent.parent
STORESCU, STORESCP = "/usr/bin/storescu", "/usr/bin/storescp"
PDU_BYTES = 131072
# without it the small writes of dcmtk wait for acknowledgements, 40 ms each
DCMTK_ENVIRONMENT = {**os.environ, "TCP_NODELAY": "1", "TCP_BUFFER_LENGTH": "262144"}


def write_series(folder: Path, count: int, size: int) -> list[Path]:
    """A CT series of noise: `count` slices of size × size, 16 bits."""
    folder.mkdir(parents=True)
    study, series = generate_uid(), generate_uid()
    paths = []
    for number in range(count):
        image = Dataset()
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, generate_uid()
        image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
        image.StudyInstanceUID, image.SeriesInstanceUID = study, series
        image.Modality, image.PatientID, image.InstanceNumber = "CT", "BENCH", number
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        image.Rows = image.Columns = size
        image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 0
        image.PixelData = os.urandom(2 * size * size)
        paths.append(folder / f"{number:04}.dcm")
        image.save_as(paths[-1], enforce_file_format=True)
    return paths


@contextmanager
def node(folder: Path, receivers: int) -> Iterator[tuple[int, list[int]]]:
    """The node's receivers as a site runs them: port and process ids."""
    spool = folder / "spool"
    environment = {
        **os.environ,
        "CRLM_NODE_SPOOL__PATH": str(spool),
        "CRLM_NODE_SPOOL__MIN_FREE_MB": "1",
        "CRLM_NODE_DICOM__PORT": "0",
        "CRLM_NODE_DICOM__RECEIVERS": str(receivers),
        "CRLM_NODE_DICOM__ACCEPT_UNKNOWN_CALLERS": "true",
        "CRLM_NODE_LOG_LEVEL": "warning",
    }
    command = [sys.executable, "-c", "from node.cli import main; main()", "serve", "--role", "receive"]
    with subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        process.stdout.readline()
        ready = json.loads((spool / "ready.json").read_text())
        yield ready["port"], list(ready["pids"].values())
        process.terminate()


@contextmanager
def storescp(folder: Path) -> Iterator[tuple[int, list[int]]]:
    """dcmtk's receiver."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    folder.mkdir(parents=True)
    command = [STORESCP, "--fork", "-pdu", str(PDU_BYTES), "-od", str(folder), "+B", str(port)]
    with subprocess.Popen(command, env=DCMTK_ENVIRONMENT, stderr=subprocess.DEVNULL) as process:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield port, [process.pid]
        process.terminate()


def instances_per_s(port: int, series: list[list[Path]]) -> float:
    """All series at once, one sender each, until the last is acknowledged."""
    command = [STORESCU, "-aec", "CRLM-NODE", "-pdu", str(PDU_BYTES), "127.0.0.1", str(port)]
    begin = time.perf_counter()
    senders = [subprocess.Popen([*command, *map(str, paths)], env=DCMTK_ENVIRONMENT) for paths in series]
    codes = [sender.wait() for sender in senders]
    seconds = time.perf_counter() - begin
    if any(codes):
        raise SystemExit(f"a sender failed: {codes}")
    return sum(map(len, series)) / seconds


def measure(options: argparse.Namespace, folder: Path) -> list[dict[str, object]]:
    """One row for each number of senders and receivers: medians of alternating rounds."""
    rows: list[dict[str, object]] = []
    for senders in options.senders:
        each = options.instances // senders
        rates: dict[str, list[float]] = {}
        peak_mb: dict[str, float] = {}
        for round_ in range(options.rounds):
            place = folder / f"{senders}-{round_}"
            series = [write_series(place / f"send-{number}", each, options.size) for number in range(senders)]
            with storescp(place / "storescp") as (port, _):
                rates.setdefault("storescp", []).append(instances_per_s(port, series))
            for receivers in options.receivers:
                name = f"node ×{receivers}"
                with node(place / name, receivers) as (port, pids):
                    rates.setdefault(name, []).append(instances_per_s(port, series))
                    peak = max(psutil.Process(pid).memory_info().rss for pid in pids) / 1e6
                    peak_mb[name] = max(peak, peak_mb.get(name, 0.0))
            shutil.rmtree(place)
        reference = statistics.median(rates["storescp"])
        for name, measured in rates.items():
            rate = statistics.median(measured)
            rows.append(
                {
                    "receiver": name,
                    "senders": senders,
                    "instances_per_s": round(rate, 1),
                    "ratio_to_storescp": round(rate / reference, 2),
                    "peak_mb_each": round(peak_mb[name]) if name in peak_mb else None,
                }
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", type=int, default=200)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--senders", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--receivers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-receive-") as folder:
        rows = measure(options, Path(folder))
    print(f"{options.instances} instances of {options.size}², median of {options.rounds} rounds")
    print(f"{'receiver':12}{'senders':>8}{'instances/s':>13}{'ratio':>8}{'peak MB':>9}")
    for row in rows:
        print(
            f"{row['receiver']:12}{row['senders']:>8}{row['instances_per_s']:>13}"
            f"{row['ratio_to_storescp']:>8}{row['peak_mb_each'] or '':>9}"
        )
    results = ROOT / "bench" / "results"
    results.mkdir(exist_ok=True)
    (results / "receive.json").write_text(json.dumps({"options": vars(options), "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
