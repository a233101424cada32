"""An image unlike those of the training is analysed, and the answer says in what it differs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from model.bundle import Bundle
from model.card import Card
from model.input_check import measure, remarks_on, seen_in
from model.volume import Volume


def card_that_saw(bundle: Bundle, volumes: list[Volume]) -> Card:
    seen = seen_in([measure(volume, bundle.card.input) for volume in volumes])
    statement = bundle.card.training.model_copy(update={"inputs_seen": {"image": seen}})
    return bundle.card.model_copy(update={"training": statement})


def test_what_is_like_the_training_images_gets_no_remark(
    untrained_bundle: Bundle, axial_volume: Callable[..., Volume]
) -> None:
    card = card_that_saw(untrained_bundle, [axial_volume(), axial_volume((8, 80, 96), (5.0, 1.8, 1.6))])
    assert remarks_on(axial_volume((7, 80, 96), (5.5, 1.9, 1.5)), card.input, card) == []


def test_other_spacing_and_field_of_view_are_told_with_both_numbers(
    untrained_bundle: Bundle, axial_volume: Callable[..., Volume]
) -> None:
    card = card_that_saw(untrained_bundle, [axial_volume()])
    remarks = remarks_on(axial_volume((6, 80, 96), (12.0, 2.0, 1.5)), card.input, card)
    assert remarks == [
        "unlike the training images: distance of slices 12 mm, trained on 6 to 6",
        "unlike the training images: length of the stack 60 mm, trained on 30 to 30",
    ]


def test_values_that_are_no_hounsfield_units_are_told(
    untrained_ct_bundle: Bundle, axial_volume: Callable[..., Volume]
) -> None:
    card = card_that_saw(untrained_ct_bundle, [axial_volume()])
    brighter = axial_volume()
    (remark,) = remarks_on(brighter.with_array(brighter.array_DHW + 900), card.input, card)
    assert remark.startswith("unlike the training images: median of the body 1")


def test_the_scale_of_mr_is_no_difference(untrained_bundle: Bundle, axial_volume: Callable[..., Volume]) -> None:
    card = card_that_saw(untrained_bundle, [axial_volume()])
    scaled = axial_volume()
    assert remarks_on(scaled.with_array(scaled.array_DHW * np.float32(31)), card.input, card) == []


def test_a_card_that_tells_nothing_of_its_training_images_gets_no_remark(
    untrained_bundle: Bundle, axial_volume: Callable[..., Volume]
) -> None:
    assert (
        remarks_on(axial_volume((6, 80, 96), (12.0, 2.0, 1.5)), untrained_bundle.card.input, untrained_bundle.card)
        == []
    )
