"""How long do facts and decision take? Header reads included, one process, one core.

    python -m bench.routing [--instances 1000] [--json FILE] [--real FOLDER …]

Times are those of the processor: what else the machine does is hardly asked. Writes one series per dialect of the
simulator, as large as asked, and times reading its headers and deciding it. Real series are repeated up to the same
number of slices: those of `REAL` where they lie beside the checkout, and any that are named. A multi-frame instance
counts as its frames. Goal: 1,000 slices within 1.5 s.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
import tempfile
import time
import warnings
from pathlib import Path

from pydicom import dcmread
from pydicom.uid import generate_uid

from model.phantom import Geometry, make_phantom
from node.config import load_config
from node.dicom.header import frame_count, read_header
from node.domain import TimePoint, TimePointFinding
from node.evidence import read_series
from node.routing import decide
from simulator.modality import DIALECTS, write_series

GOAL_S = 1.5
ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = ROOT.parent / "shared" / "data"
REAL = (
    "ct-liver/crlm-ct-1004",
    "mr-liver/cmbcrc-toshiba-scan1-t2",
    "mr-body/siemens-prisma-kidney-dwi-b50-400-800-phantom",
    "mr-vendor-dwi/ge-signa-pioneer-b1000",
    "mr-vendor-dwi/philips-achieva-dstream-b2000",
    "mr-vendor-dwi/philips-enhanced-b0-1300",
    "mr-vendor-dwi/siemens-xa60-enhanced-b0-1000",
    "mr-vendor-dwi/uih-umr770",
)
"""One per vendor and per kind of header: short ones, CSA headers of 100 kB, long nested sequences, many frames."""
PRE = TimePointFinding(TimePoint.PRE, "operator")


def main() -> int:
    """Measure and print; exit code 1 where the goal was missed for 1,000 instances."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--real", type=Path, nargs="*", default=[])
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # pydicom's remarks on real files are not measured here
    real = [SHARED_DATA / name for name in REAL if (SHARED_DATA / name).is_dir()] + arguments.real
    rows = []
    print(
        f"{'series':<54}{'files':>6}{'slices':>7}{'read s':>8}{'facts s':>8}{'decide s':>9}{'sum s':>7}"
        f"{'of goal':>8}  decision"
    )
    with tempfile.TemporaryDirectory() as scratch:
        for name, template in [*_simulated(Path(scratch)), *((folder.name, folder) for folder in real)]:
            many = Path(scratch) / f"many-{name}"
            row = {"series": name, **_measure(_multiply(template, many, arguments.instances))}
            shutil.rmtree(many)
            rows.append(row)
            print(
                f"{name:<54}{row['files']:>6}{row['slices']:>7}{row['read_s']:>8.3f}{row['facts_s']:>8.3f}"
                f"{row['decide_s']:>9.3f}{row['sum_s']:>7.3f}{row['of_goal']:>8.2f}  {row['decision']}",
                flush=True,
            )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2))
    return int(any(row["of_goal"] > 1 for row in rows))


def _simulated(scratch: Path) -> list[tuple[str, Path]]:
    """One small series per dialect and modality; headers do not care for the size of the matrix."""
    made = []
    for condition, geometry in (
        ("ct-portal-venous", Geometry(16, 16, 40, (24.0, 24.0), 5.0)),
        ("pre-nact-dwi", Geometry(16, 16, 20, (24.0, 24.0), 6.0, 1.0)),
    ):
        phantom = make_phantom(condition, 900001, geometry=geometry)
        for dialect, known in DIALECTS.items():
            if condition.startswith("ct") and known.write_ct is None:
                continue
            folder = scratch / f"{dialect}-{condition}"
            write_series(phantom, folder, dialect=dialect, with_truth=False)
            made.append((folder.name, folder))
    return made


def _multiply(template: Path, folder: Path, slices: int) -> list[Path]:
    """So many slices of one series: the template's headers again and again, each slice at a place of its own."""
    folder.mkdir()
    sources = [path for path in sorted(template.iterdir()) if path.suffix not in (".json", ".npz")]
    span_mm = _span_mm(sources)
    paths = []
    for number in range(math.ceil(slices / frame_count(read_header(sources[0])))):
        turn, index = divmod(number, len(sources))
        path = folder / f"{number:05d}.dcm"
        if turn == 0:
            shutil.copyfile(sources[index], path)
        else:
            dataset = dcmread(sources[index])
            dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
            if "ImagePositionPatient" in dataset:
                x, y, z = map(float, dataset.ImagePositionPatient)
                dataset.ImagePositionPatient = [x, y, z + turn * span_mm]
            if not dataset.file_meta.TransferSyntaxUID.is_compressed:
                dataset.PixelData = b"\0\0"  # a gigabyte that nobody reads
            dataset.save_as(path)
        paths.append(path)
    return paths


def _span_mm(sources: list[Path]) -> float:
    """How far to move the next copy so that it goes on where this one ends."""
    heights = sorted(
        {float(h.ImagePositionPatient[2]) for h in map(read_header, sources) if "ImagePositionPatient" in h}
    )
    return (heights[-1] - heights[0]) * len(heights) / (len(heights) - 1) if len(heights) > 1 else 0.0


def _measure(files: list[Path]) -> dict[str, object]:
    """Seconds of each part, best of three: another process on the machine is not what is asked."""
    config = load_config(ROOT / "dicom_config", environment={})
    best: dict[str, object] = {}
    for _ in range(3):
        begin = time.process_time()
        headers = {path: read_header(path) for path in files}
        read = time.process_time()
        evidence = read_series(headers)
        facts = time.process_time()
        decision = decide(evidence.volumes, config.routes, PRE)
        end = time.process_time()
        told = sorted({str(volume.condition or volume.decision.value) for volume in decision.volumes})
        slices = sum(map(frame_count, headers.values()))
        if not best or end - begin < best["sum_s"]:  # type: ignore[operator]  # a float by construction
            best = {
                "files": len(files),
                "slices": slices,
                "read_s": read - begin,
                "facts_s": facts - read,
                "decide_s": end - facts,
                "sum_s": end - begin,
                "of_goal": (end - begin) / (GOAL_S * slices / 1000),
                "decision": ", ".join(told),
            }
    return best


if __name__ == "__main__":
    sys.exit(main())
