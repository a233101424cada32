"""How long does a series take in the engine? Seconds per step for 30×256² MR and 100×512² CT, per precision.

    python -m bench.forward [--bundles model/bundles] [--out bench/results/forward.json]

Turnaround is reported without these forward seconds; here they are.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model.bundle import load_bundle
from model.engine import Engine
from model.volume import Volume

SERIES = {
    "MR 30×256²": ((30, 256, 256), 7.0, 1.48, "demo-pre-nact-dwi"),
    "CT 100×512²": ((100, 512, 512), 3.0, 0.8, "demo-ct-portal-venous"),
}
REPEATS = 5


def series_of(shape: tuple[int, int, int], slice_mm: float, pixel_mm: float) -> Volume:
    """A noisy ellipse in air: what is in the picture does not change the time."""
    rows, columns = np.mgrid[-1 : 1 : shape[1] * 1j, -1 : 1 : shape[2] * 1j]
    body = np.where((rows / 0.7) ** 2 + (columns / 0.9) ** 2 < 1, 100.0, -900.0)
    noise = np.random.default_rng(0).normal(0, 12, shape)
    affine = np.zeros((4, 4))
    affine[[2, 1, 0], [0, 1, 2]] = (slice_mm, pixel_mm, pixel_mm)
    affine[3, 3] = 1.0
    return Volume((body + noise).astype(np.float32), affine)


def measure(engine: Engine, volume: Volume) -> dict[str, float]:
    """Median seconds of each step over the repeats; the first run is not counted."""
    engine.segment(volume)
    runs = [engine.segment(volume).seconds for _ in range(REPEATS)]
    return {step: round(statistics.median(run[step] for run in runs), 4) for step in runs[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundles", type=Path, default=Path("model/bundles"))
    parser.add_argument("--out", type=Path, default=Path("bench/results/forward.json"))
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name, (shape, slice_mm, pixel_mm, bundle) in SERIES.items():
        engine = Engine(load_bundle(arguments.bundles / bundle))
        volume = series_of(shape, slice_mm, pixel_mm)
        for precision in dict.fromkeys((engine.precision, torch.float32)):
            engine.precision = precision
            seconds = measure(engine, volume)
            where = f"{engine.device.type}, {torch.get_num_threads()} threads"
            rows.append(
                {"series": name, "device": where, "precision": str(precision).removeprefix("torch."), **seconds}
            )
            print(*(f"{key} {value}" for key, value in rows[-1].items()), sep="  ")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
