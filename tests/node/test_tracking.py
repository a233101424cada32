"""A lesion keeps its name from one result to the next, and no name ever comes to mean another lesion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from model.volume import Mask
from node.dicom.context import Tracking
from node.dicom.uids import mint_tracking_uid
from node.job_files import MASK_NAME, write_mask
from node.tracking import Previous, name_lesions

Box = tuple[slice, slice, slice]

SHAPE_DHW = (6, 20, 20)
AFFINE_LPS_MM = np.diag([5.0, 1.5, 1.25, 1.0])

UPPER: Box = (slice(1, 4), slice(2, 8), slice(2, 8))
LOWER: Box = (slice(2, 5), slice(12, 18), slice(2, 8))
ASIDE: Box = (slice(0, 3), slice(2, 6), slice(14, 18))
FAR: Box = (slice(4, 6), slice(14, 18), slice(14, 18))


def mask_of(*boxes: Box, affine_lps_mm: NDArray[np.float64] = AFFINE_LPS_MM) -> Mask:
    """Label n fills the n-th box."""
    labels_DHW = np.zeros(SHAPE_DHW, np.uint16)
    for number, box in enumerate(boxes, start=1):
        labels_DHW[box] = number
    return Mask(labels_DHW, affine_lps_mm)


@pytest.fixture
def result_of(tmp_path: Path) -> Callable[..., Previous]:
    """A delivered result with these lesions, named as given or "Lesion 1", "Lesion 2", …"""

    def make(mask: Mask, names: Sequence[str] = ()) -> Previous:
        write_mask(tmp_path / MASK_NAME, mask)
        chosen = names or [f"Lesion {number}" for number in range(1, mask.count + 1)]
        tracking = tuple(Tracking(name, mint_tracking_uid()) for name in chosen)
        return Previous(1, "1.2.3", "1.2.4", tmp_path, tracking)

    return make


def names_of(tracking: Sequence[Tracking]) -> list[str]:
    return [item.identifier for item in tracking]


def test_lesions_of_a_first_result_are_numbered_from_one() -> None:
    named = name_lesions(mask_of(UPPER, LOWER, ASIDE), None)
    assert names_of(named) == ["Lesion 1", "Lesion 2", "Lesion 3"]
    assert len({item.uid for item in named}) == 3


def test_a_lesion_inherits_name_and_uid_of_the_lesion_that_it_overlaps(result_of: Callable[..., Previous]) -> None:
    previous = result_of(mask_of(UPPER, LOWER))
    first, second = previous.tracking
    grown: Box = (LOWER[0], LOWER[1], slice(2, 10))
    assert name_lesions(mask_of(grown, UPPER), previous) == [second, first]


def test_of_two_lesions_on_one_earlier_lesion_the_larger_overlap_has_its_name(
    result_of: Callable[..., Previous],
) -> None:
    previous = result_of(mask_of(UPPER))
    smaller_part: Box = (UPPER[0], slice(2, 4), UPPER[2])
    larger_part: Box = (UPPER[0], slice(5, 8), UPPER[2])
    named = name_lesions(mask_of(smaller_part, larger_part), previous)
    assert named[1] == previous.tracking[0]
    assert named[0].identifier == "Lesion 2"


def test_of_two_earlier_lesions_under_one_lesion_the_larger_overlap_gives_the_name(
    result_of: Callable[..., Previous],
) -> None:
    smaller_part: Box = (UPPER[0], slice(2, 4), UPPER[2])
    larger_part: Box = (UPPER[0], slice(5, 8), UPPER[2])
    previous = result_of(mask_of(smaller_part, larger_part))
    assert name_lesions(mask_of(UPPER), previous) == [previous.tracking[1]]


def test_a_new_lesion_gets_a_name_that_no_inherited_one_has(result_of: Callable[..., Previous]) -> None:
    previous = result_of(mask_of(UPPER, LOWER))
    named = name_lesions(mask_of(LOWER, ASIDE, UPPER, FAR), previous)
    assert names_of(named) == ["Lesion 2", "Lesion 3", "Lesion 1", "Lesion 4"]
    assert len({item.uid for item in named}) == 4


def test_the_name_of_a_lesion_that_is_gone_is_not_given_again(result_of: Callable[..., Previous]) -> None:
    previous = result_of(mask_of(UPPER, LOWER))
    named = name_lesions(mask_of(UPPER, ASIDE), previous)
    assert names_of(named) == ["Lesion 1", "Lesion 3"]
    assert named[1].uid not in {item.uid for item in previous.tracking}


def test_new_names_go_on_from_the_highest_number_and_not_from_the_count(result_of: Callable[..., Previous]) -> None:
    previous = result_of(mask_of(UPPER, LOWER), names=["Lesion 12", "Lesion 3"])
    assert names_of(name_lesions(mask_of(UPPER, ASIDE, FAR), previous)) == ["Lesion 12", "Lesion 13", "Lesion 14"]


def test_a_name_without_a_number_is_inherited_and_counts_for_nothing(result_of: Callable[..., Previous]) -> None:
    previous = result_of(mask_of(UPPER), names=["Segment VIII"])
    assert names_of(name_lesions(mask_of(UPPER, ASIDE), previous)) == ["Segment VIII", "Lesion 1"]


@pytest.mark.parametrize("difference", ["moved", "coarser", "another shape"])
def test_on_another_grid_nothing_is_inherited(result_of: Callable[..., Previous], difference: str) -> None:
    mask = mask_of(UPPER, LOWER)
    affine = np.array(AFFINE_LPS_MM)
    if difference == "moved":
        affine[2, 3] = 5.0
    elif difference == "coarser":
        affine[0, 0] = 7.0
    else:
        mask = Mask(mask.labels_DHW[:, :, :-1], AFFINE_LPS_MM)
    previous = result_of(Mask(mask.labels_DHW, affine))
    named = name_lesions(mask_of(UPPER, LOWER), previous)
    assert names_of(named) == ["Lesion 3", "Lesion 4"]
    assert not {item.uid for item in named} & {item.uid for item in previous.tracking}


def test_without_any_overlap_every_lesion_is_new(result_of: Callable[..., Previous]) -> None:
    previous = result_of(mask_of(UPPER))
    assert names_of(name_lesions(mask_of(LOWER, FAR), previous)) == ["Lesion 2", "Lesion 3"]


def test_after_a_result_without_a_lesion_names_begin_at_one(result_of: Callable[..., Previous]) -> None:
    previous = result_of(mask_of())
    assert names_of(name_lesions(mask_of(UPPER, LOWER), previous)) == ["Lesion 1", "Lesion 2"]
