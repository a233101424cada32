"""What the demo shows at its end: each study's objects, as found in the archive, judged against the phantom's truth."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from model.metrics import Overlap
from model.metrics_lesions import match_lesions
from node.dicom.seg_read import read_seg_labels
from node.job_files import FINDINGS_NAME, OVERLAY_NAME, read_findings


@dataclass(frozen=True)
class Result:
    """A line of the closing table."""

    name: str
    condition: str
    why: str
    found: int | None
    true: int
    hit: int | None
    dice: float | None
    volume_ml: float | None
    longest_axis_mm: float | None
    seconds: float | None
    word: str


def result_of(
    *,
    name: str,
    out: Path,
    phantom: Path,
    objects: Mapping[str, Path],
    job_folder: Path,
    explanation: Sequence[Mapping[str, Any]],
    word: str,
    seconds: float | None,
) -> Result:
    """Lay a study's objects, overlay and truth into `out` and measure them."""
    from simulator.truth import read_truth

    out.mkdir(parents=True)
    truth = read_truth(phantom)
    for kind, path in objects.items():
        shutil.copyfile(path, out / f"{kind}.dcm")
    for file in (job_folder / OVERLAY_NAME, job_folder / FINDINGS_NAME, phantom / "truth.json"):
        if file.exists():
            shutil.copyfile(file, out / file.name)
    chosen = next((told for told in explanation if told["decision"] != "refuse"), None)
    true = len(truth.lesions)
    if "sr" not in objects:
        return Result(name, "", "", None, true, None, None, None, None, seconds, word)
    findings = read_findings(job_folder / FINDINGS_NAME)
    truth_DHW = truth.labels_DHW
    found_DHW = np.zeros_like(truth_DHW)
    if "seg" in objects:
        found_DHW = read_seg_labels(objects["seg"], truth_DHW.shape, truth.affine_lps_mm)
    return Result(
        name=name,
        condition=str(chosen["condition"]) if chosen else "",
        why=_why(chosen) if chosen else "",
        found=len(findings),
        true=true,
        hit=len(match_lesions(found_DHW, truth_DHW).pairs),
        dice=Overlap.of(found_DHW > 0, truth_DHW > 0).dice,
        volume_ml=sum(finding.volume_ml for finding in findings),
        longest_axis_mm=max((finding.long_axis_mm for finding in findings), default=None),
        seconds=seconds,
        word=word,
    )


_USUAL = ("names no map", "axial slices", "abdomen", "names the liver", "kernel", "computed tomography")
"""Words of the evidence that every good series gives: true, and of no news in a short table."""


def _why(told: Mapping[str, Any]) -> str:
    """The evidence that tells this condition from the others, in a few words."""
    words = [str(reason["what"]) for reason in told["reasons"] if reason["for"]]
    telling = [word for word in words if not any(usual in word for usual in _USUAL)]
    return "; ".join(telling[-4:])


def print_results(results: Sequence[Result], console: Console) -> None:
    """The closing table; a study that did not get through says where it stands. Reads well from 80 columns on."""
    table = Table(
        title="what came back from the archive, judged against the truth",
        title_justify="left",
        show_lines=True,
    )
    table.add_column("study: condition, and why", ratio=1)
    for heading in ("lesions\nfound/true", "Dice", "volume\nml", "longest\nmm", "committed\nafter s"):
        table.add_column(heading, justify="right", no_wrap=True)
    for item in results:
        if item.found is None:
            table.add_row(f"{item.name}\n[red]{escape(item.word)}[/]", *[""] * 5)
            continue
        is_exact = item.hit == item.true == item.found
        table.add_row(
            f"{item.name}: [bold]{item.condition}[/]\n[dim]{escape(item.why)}[/]",
            f"{item.found} / {item.true}" + ("" if is_exact else f"\n[dim]{item.hit} hit[/]"),
            f"{item.dice:.2f}",
            f"{item.volume_ml:.1f}",
            "" if item.longest_axis_mm is None else f"{item.longest_axis_mm:.0f}",
            "" if item.seconds is None else f"{item.seconds:.1f}",
        )
    console.print(table)
