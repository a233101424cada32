"""The files in a job's folder that one step leaves for the next: the lesions' mask, and what was measured of them.

Each is written beside its name and then put in its place, so that a step which is asked again after a crash finds a
whole file or none.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from model.findings import Finding, bounding_box
from model.volume import Labels, Mask
from node.bundles import BundleCard
from node.dicom.volume import SourceVolume
from node.domain import JobOrder
from node.errors import ObjectError

MASK_NAME = "mask.npz"
FINDINGS_NAME = "findings.json"
OVERLAY_NAME = "overlay.png"


def write_mask(path: Path, mask: Mask) -> None:
    """The mask, compressed. Only the box that holds lesions is written: most of a mask is nothing."""
    box = bounding_box(mask.labels_DHW > 0) or (slice(0, 0),) * 3
    draft = path.with_suffix(".part")
    with draft.open("wb") as file:
        np.savez_compressed(
            file,
            labels=mask.labels_DHW[box],
            low=np.array([axis.start for axis in box]),
            shape=np.array(mask.labels_DHW.shape),
            affine_lps_mm=mask.affine_lps_mm,
        )
    draft.replace(path)


def read_mask(path: Path) -> Mask:
    """The mask that `write_mask` left. Raises ObjectError where it is missing or cut short."""
    try:
        # opened here: np.load leaves a file open that is no archive
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            labels_DHW: Labels = np.zeros(tuple(stored["shape"]), np.uint16)
            box = tuple(slice(int(a), int(a) + n) for a, n in zip(stored["low"], stored["labels"].shape, strict=True))
            labels_DHW[box] = stored["labels"]
            return Mask(labels_DHW, stored["affine_lps_mm"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ObjectError(f"{path.name} of the job cannot be read ({type(error).__name__}); retry the job") from error


def write_findings(
    path: Path,
    order: JobOrder,
    bundle: BundleCard,
    source: SourceVolume,
    findings: Sequence[Finding],
    remarks: Sequence[str],
    seconds: Mapping[str, float],
) -> None:
    """What was measured of each lesion, with what it was measured on and by; `seconds` are of each step."""
    content = {
        "condition": order.condition,
        "time_point": order.time_point.value,
        "series_uid": source.series_uid,
        "b_value_s_mm2": source.b_value_s_mm2,
        "derivation": source.derivation or None,
        "bundle": {
            "name": bundle.card.name,
            "version": bundle.card.version,
            "sha256": bundle.card.sha256,
            "is_demo": bundle.card.is_demo,
        },
        "warning": "demo weights trained on phantoms; for no clinical use" if bundle.card.is_demo else "research use",
        "remarks": list(remarks),
        "seconds": {step: round(value, 4) for step, value in seconds.items()},
        **summarise(findings),
        "findings": [asdict(finding) for finding in findings],
    }
    draft = path.with_suffix(".part")
    draft.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    draft.replace(path)


def read_findings(path: Path) -> tuple[Finding, ...]:
    """The findings that `write_findings` left. Raises ObjectError where they are missing or of another form."""
    try:
        items = _content(path)["findings"]
        return tuple(Finding(**{name: _tuples(value) for name, value in item.items()}) for item in items)
    except (ValueError, KeyError, TypeError) as error:
        raise ObjectError(f"{path.name} of the job cannot be read ({type(error).__name__}); retry the job") from error


def read_remarks(path: Path) -> tuple[str, ...]:
    """What the engine had to say of the run. Raises ObjectError where the file is missing or no JSON."""
    # a file of an earlier version has none
    return tuple(map(str, _content(path).get("remarks", ())))


def _content(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ObjectError(f"{path.name} of the job cannot be read ({type(error).__name__}); retry the job") from error


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def summarise(findings: Sequence[Finding]) -> dict[str, Any]:
    """What lists show of a result: how many lesions, how much, how long the longest."""
    return {
        "lesion_count": len(findings),
        "total_volume_ml": round(sum(finding.volume_ml for finding in findings), 3),
        "longest_axis_mm": round(max((finding.long_axis_mm for finding in findings), default=0.0), 1),
    }
