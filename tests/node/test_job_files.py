"""What one step of a job leaves in its folder is what the next one reads, or an error that says what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from model.volume import Mask
from node.errors import ObjectError
from node.job_files import FINDINGS_NAME, MASK_NAME, read_findings, read_mask, summarise, write_mask

AFFINE_LPS_MM = np.diag([5.0, 1.5, 1.25, 1.0])


def mask_of(*boxes: tuple[slice, slice, slice]) -> Mask:
    labels_DHW = np.zeros((6, 20, 20), np.uint16)
    for number, box in enumerate(boxes, start=1):
        labels_DHW[box] = number
    return Mask(labels_DHW, AFFINE_LPS_MM)


@pytest.mark.parametrize(
    "mask",
    [
        mask_of((slice(1, 4), slice(2, 8), slice(2, 8)), (slice(5, 6), slice(19, 20), slice(0, 1))),
        mask_of((slice(0, 6), slice(0, 20), slice(0, 20))),
        mask_of(),
    ],
    ids=["two lesions", "everything", "no lesion"],
)
def test_a_mask_comes_back_as_it_was_written(mask: Mask, tmp_path: Path) -> None:
    write_mask(tmp_path / MASK_NAME, mask)
    back = read_mask(tmp_path / MASK_NAME)
    assert np.array_equal(back.labels_DHW, mask.labels_DHW)
    assert np.array_equal(back.affine_lps_mm, mask.affine_lps_mm)
    assert [path.name for path in tmp_path.iterdir()] == [MASK_NAME]


@pytest.mark.parametrize(
    "damage", [lambda all_: all_[:100], lambda all_: all_[:60] + b"?" * 40 + all_[100:], lambda _: b""]
)
def test_a_mask_that_was_cut_short_or_damaged_asks_for_another_run(
    damage: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    path = tmp_path / MASK_NAME
    write_mask(path, mask_of((slice(1, 4), slice(2, 8), slice(2, 8))))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ObjectError, match=r"mask\.npz of the job cannot be read .*; retry the job"):
        read_mask(path)


@pytest.mark.parametrize("content", ["", "{}", '{"findings": [{"number": 1}]}'], ids=["empty", "other", "half"])
def test_findings_of_another_form_ask_for_another_run(content: str, tmp_path: Path) -> None:
    path = tmp_path / FINDINGS_NAME
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ObjectError, match=r"findings\.json of the job cannot be read .*; retry the job"):
        read_findings(path)


def test_a_result_without_a_lesion_has_a_summary_of_zeros() -> None:
    assert summarise([]) == {"lesion_count": 0, "total_volume_ml": 0, "longest_axis_mm": 0.0}
