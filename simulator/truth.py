"""The truth beside a written series: `truth.json` for people and tests, `truth_mask.npz` voxel by voxel.

Beside the lesions the mask file holds liver, portal vein and aorta, and, of an arterial phase, how the patient had
moved: `displacement_mm[i, j, k]` is what leads from a point here to the same tissue in the portal-venous phase, on a
lattice whose affine (LPS, mm) stands beside it.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.phantom import Phantom
from model.phantom_truth import TrueLesion
from model.volume import Float, Float64, Labels

TRUTH_FILE = "truth.json"
MASK_FILE = "truth_mask.npz"
_MASKS = ("liver", "portal-vein", "aorta")
_LATTICE_MM = 8.0


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
    masks: Mapping[str, NDArray[np.bool_]]
    motion_mm: float | None


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
    if phantom.motion is not None:
        told["motion_mm"] = phantom.motion.amplitude_mm
    (folder / TRUTH_FILE).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    arrays: dict[str, Any] = {
        "labels_DHW": phantom.labels_DHW,
        "affine_lps_mm": phantom.image.affine_lps_mm,
        "liver_DHW": phantom.liver_DHW,
        **{f"{name}_DHW": mask for name, mask in phantom.vessels.items()},
        **_displacement(phantom),
    }
    np.savez_compressed(folder / MASK_FILE, **arrays)


def read_truth(folder: Path) -> Truth:
    """Reads what `write_truth` wrote. Raises FileNotFoundError where a series has no truth."""
    told = json.loads((folder / TRUTH_FILE).read_text(encoding="utf-8"))
    with np.load(folder / MASK_FILE) as mask:
        labels_DHW, affine = mask["labels_DHW"], mask["affine_lps_mm"]
        masks = {name: mask[f"{name}_DHW"] for name in _MASKS}
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
        masks,
        told.get("motion_mm"),
    )


def _displacement(phantom: Phantom) -> dict[str, Float64 | Float]:
    """The movement on a lattice over the volume, where there is one."""
    if phantom.motion is None:
        return {}
    corners = np.array(list(itertools.product(*((0.0, n - 1.0) for n in phantom.geometry.shape))))
    corners = phantom.image.to_lps_mm(corners)
    low, high = corners.min(axis=0), corners.max(axis=0)
    counts = np.ceil((high - low) / _LATTICE_MM).astype(int) + 1
    affine = np.diag([_LATTICE_MM, _LATTICE_MM, _LATTICE_MM, 1.0])
    affine[:3, 3] = low
    points = np.stack(np.meshgrid(*map(np.arange, counts), indexing="ij"), axis=-1).reshape(-1, 3) * _LATTICE_MM + low
    moved = phantom.to_rest_lps_mm(points) - points
    return {"displacement_mm": moved.reshape(*counts, 3).astype(np.float32), "displacement_affine_lps_mm": affine}
