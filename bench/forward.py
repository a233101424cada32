"""How long does a series take in the engine, and how much quicker is each way of computing than eager fp32?

    python -m bench.forward [--bundles model/bundles] [--out bench/results/forward.json]

Seconds per step for 30×256² MR and 100×512² CT. Turnaround is reported without these forward seconds; here they are.
`forward_ratio` is the median over rounds of eager fp32's forward seconds to the row's of the same round: a machine
that is busy with something else slows both, so the ratio says more than the seconds do.
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
from model.ways import EXACT, Way, ways_for

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


def ways_of(engine: Engine) -> list[Way]:
    """Everything that runs here, the exact way first; whether the probe admits it stands in the row."""
    wish = "auto" if engine.device.type == "cpu" else "cuda-graph"
    return [EXACT, *ways_for(wish, engine.device, may_round=True)]


def measure(engine: Engine, volume: Volume, ways: list[Way]) -> dict[Way, list[dict[str, float]]]:
    """Seconds of each step, per way one entry a round; the ways take turns, and their first runs are not counted."""
    runs: dict[Way, list[dict[str, float]]] = {way: [] for way in ways}
    for _ in range(1 + REPEATS):
        for way in ways:
            engine.way = way
            runs[way].append(engine.segment(volume).seconds)
    return {way: each[1:] for way, each in runs.items()}


def row_of(way: Way, runs: dict[Way, list[dict[str, float]]]) -> dict[str, Any]:
    """Median seconds of each step, and how many times quicker than eager fp32 the forward step is."""
    steps = {step: round(statistics.median(run[step] for run in runs[way]), 4) for step in runs[way][0]}
    ratios = [exact["forward"] / run["forward"] for exact, run in zip(runs[EXACT], runs[way], strict=True)]
    return {"way": str(way), **steps, "forward_ratio": round(statistics.median(ratios), 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundles", type=Path, default=Path("model/bundles"))
    parser.add_argument("--out", type=Path, default=Path("bench/results/forward.json"))
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name, (shape, slice_mm, pixel_mm, bundle) in SERIES.items():
        engine = Engine(load_bundle(arguments.bundles / bundle))
        volume = series_of(shape, slice_mm, pixel_mm)
        taken, where = engine.way, f"{engine.device.type}, {torch.get_num_threads()} threads"
        runs = measure(engine, volume, ways_of(engine))
        for way in runs:
            rows.append({"series": name, "device": where, **row_of(way, runs), "is_taken": way == taken})
            print(*(f"{key} {value}" for key, value in rows[-1].items()), sep="  ")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
