"""The liver is one piece without holes, and keeps its lesions (models.md §4.5)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model.liver_mask import dilated, whole_liver

Bools = NDArray[np.bool_]


def block(*sides: slice) -> Bools:
    mask = np.zeros((8, 12, 12), bool)
    mask[sides] = True
    return mask


LIVER = block(slice(1, 7), slice(1, 9), slice(1, 9))


def test_only_the_largest_piece_stays() -> None:
    speck = block(slice(0, 2), slice(10, 12), slice(10, 12))
    assert np.array_equal(whole_liver(LIVER | speck), LIVER)


def test_holes_are_filled_also_where_they_open_through_the_last_slice() -> None:
    inside = block(slice(3, 4), slice(4, 6), slice(4, 6))
    open_above = block(slice(5, 7), slice(3, 5), slice(3, 5))
    assert np.array_equal(whole_liver(LIVER & ~inside & ~open_above), LIVER)


def test_a_lesion_at_the_capsule_belongs_to_the_liver_and_one_elsewhere_does_not() -> None:
    at_capsule = block(slice(3, 5), slice(8, 11), slice(3, 5))
    elsewhere = block(slice(3, 5), slice(11, 12), slice(10, 12))
    assert np.array_equal(whole_liver(LIVER, at_capsule | elsewhere), LIVER | at_capsule)


def test_no_liver_stays_none() -> None:
    empty = np.zeros((3, 4, 5), bool)
    assert not whole_liver(empty, ~empty).any()
    assert not dilated(empty, 5.0, (2.0, 1.0, 1.0)).any()


def test_a_margin_is_in_millimetres_along_every_axis() -> None:
    point = block(slice(4, 5), slice(6, 7), slice(6, 7))
    reached = np.argwhere(dilated(point, 5.0, (2.5, 1.0, 2.0)))
    assert (reached.max(0) - reached.min(0)).tolist() == [4, 10, 4]
