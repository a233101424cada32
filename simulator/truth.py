"""The truth beside a written series: `truth.json` for people and tests, `truth_mask.npz` voxel by voxel."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from model.phantom import Phantom, TrueLesion
from model.volume import Float64, Labels

TRUTH_FILE = "truth.json"
MASK_FILE = "truth_mask.npz"


@dataclass(frozen=True)
class Truth:
    """What a written series really shows. `sop_instance_uids[d]` is the instance of `labels_DHW[d]`."""

    condition: str
    seed: int
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uids: tuple[str, ...]
    lesions: tuple[TrueLesion, ...]
    labels_DHW: Labels
    affine_lps_mm: Float64


def write_truth(folder: Path, phantom: Phantom, study_uid: str, series_uid: str, sop_uids: Sequence[str]) -> None:
    """Writes both files into `folder`."""
    told = {
        "what": "a synthetic phantom, no patient",
        "condition": phantom.condition,
        "seed": phantom.seed,
        "study_instance_uid": study_uid,
        "series_instance_uid": series_uid,
        "sop_instance_uids": list(sop_uids),
        "b_values_s_mm2": [float(b) for b in phantom.volumes],
        "lesions": [asdict(lesion) for lesion in phantom.lesions],
        "total_volume_ml": sum(lesion.volume_ml for lesion in phantom.lesions),
        "liver_volume_ml": float(phantom.liver_DHW.sum() * phantom.image.voxel_ml),
    }
    (folder / TRUTH_FILE).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    np.savez_compressed(
        folder / MASK_FILE, labels_DHW=phantom.labels_DHW, affine_lps_mm=phantom.image.affine_lps_mm
    )  # fmt: skip


def read_truth(folder: Path) -> Truth:
    """Reads what `write_truth` wrote. Raises FileNotFoundError where a series has no truth."""
    told = json.loads((folder / TRUTH_FILE).read_text(encoding="utf-8"))
    with np.load(folder / MASK_FILE) as mask:
        labels_DHW, affine = mask["labels_DHW"], mask["affine_lps_mm"]
    lesions = (TrueLesion(**{**item, "center_lps_mm": tuple(item["center_lps_mm"])}) for item in told["lesions"])
    return Truth(
        told["condition"],
        told["seed"],
        told["study_instance_uid"],
        told["series_instance_uid"],
        tuple(told["sop_instance_uids"]),
        tuple(lesions),
        labels_DHW,
        affine,
    )
