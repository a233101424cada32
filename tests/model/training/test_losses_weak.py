"""The weak loss on the share of tumour in the liver (models.md §4.3, §4.4, §11 test 8)."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from model.training.losses_weak import WeakLabels, as_coded_weak_ratio_loss, tumour_share, weak_ratio_loss


def logits_with(tumour_voxels: list[int], liver_voxels: int = 100, size: int = 200) -> Tensor:
    """Sure logits (B, 3, 1, 1, size): so many voxels tumour, so many liver with the tumour, the rest background."""
    logits = torch.full((len(tumour_voxels), 3, 1, 1, size), -20.0)
    for image, tumour in zip(logits, tumour_voxels, strict=True):
        image[2, ..., :tumour] = 20
        image[1, ..., tumour:liver_voxels] = 20
        image[0, ..., liver_voxels:] = 20
    return logits


def labels(expected: list[float], patient: list[int] | None = None, share: list[float] | None = None) -> WeakLabels:
    count = len(expected)
    return WeakLabels(
        torch.tensor(expected), torch.tensor(patient or list(range(count))), torch.tensor(share or [1.0] * count)
    )


def test_the_share_is_a_share_whatever_the_logits_are() -> None:
    logits = 50 * torch.randn(6, 3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    share = tumour_share(logits.softmax(1))
    assert ((share >= 0) & (share <= 1)).all()
    assert tumour_share(logits_with([30]).softmax(1)).item() == pytest.approx(0.3, abs=1e-5)


def test_a_share_within_the_margin_costs_nothing_and_beyond_it_the_squared_excess() -> None:
    logits = logits_with([30])
    assert weak_ratio_loss(logits, labels([0.25]), margin=0.06).item() == 0
    assert weak_ratio_loss(logits, labels([0.10]), margin=0.05).item() == pytest.approx(0.5 * 0.15**2, rel=1e-3)
    assert weak_ratio_loss(logits, labels([0.50]), margin=0.05).item() == pytest.approx(0.5 * 0.15**2, rel=1e-3)


@pytest.mark.parametrize(("expected", "sign"), [(0.9, -1), (0.05, 1)])
def test_the_gradient_pushes_the_share_towards_what_is_expected(expected: float, sign: int) -> None:
    """Too little tumour: its logits must rise, so their gradient is negative; and the other way round."""
    logits = torch.zeros(1, 3, 2, 4, 4, requires_grad=True)
    weak_ratio_loss(logits, labels([expected]), margin=0.01).backward()
    assert logits.grad is not None
    assert (sign * logits.grad[:, 2] > 0).all()
    assert (sign * logits.grad[:, 1] < 0).all()


def test_the_order_of_the_samples_does_not_matter() -> None:
    logits, expected = logits_with([10, 50, 80]), [0.2, 0.1, 0.9]
    straight = weak_ratio_loss(logits, labels(expected), margin=0.0)
    shuffled = weak_ratio_loss(logits[[2, 0, 1]], labels([expected[i] for i in (2, 0, 1)]), margin=0.0)
    mistaken = weak_ratio_loss(logits, labels(expected[1:] + expected[:1]), margin=0.0)
    assert shuffled.item() == pytest.approx(straight.item())
    assert mistaken.item() != pytest.approx(straight.item(), rel=0.1)


def test_a_crop_of_a_part_of_the_liver_is_not_judged_by_the_whole_livers_share() -> None:
    logits = logits_with([30]).requires_grad_()
    loss = weak_ratio_loss(logits, labels([0.9], share=[0.79]), margin=0.0)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_crops_that_hold_most_of_the_liver_together_are_judged_together() -> None:
    """Two half livers with 10 and 50 of 100 voxels tumour are one patient with a share of 0.3."""
    logits = logits_with([10, 50])
    weak = labels([0.3, 0.3], patient=[7, 7], share=[0.45, 0.45])
    assert weak_ratio_loss(logits, weak, margin=0.001).item() == 0
    alone = labels([0.3, 0.3], patient=[7, 8], share=[1.0, 1.0])
    assert weak_ratio_loss(logits, alone, margin=0.001).item() > 0.01


def test_a_patient_without_a_row_in_the_table_is_left_out_of_the_mean() -> None:
    logits = logits_with([30, 30])
    both = weak_ratio_loss(logits, labels([0.1, math.nan]), margin=0.0)
    assert both.item() == pytest.approx(weak_ratio_loss(logits[:1], labels([0.1]), margin=0.0).item())
    assert weak_ratio_loss(logits[1:], labels([math.nan]), margin=0.0).item() == 0


def test_as_coded_the_share_of_logits_is_none_and_the_patient_is_the_next() -> None:
    logits = torch.zeros(1, 3, 1, 1, 4)
    logits[:, 1], logits[:, 2] = 3.0, -1.0
    # the first step of the epoch shows patient 0 and takes patient 1's share
    loss = as_coded_weak_ratio_loss(logits, torch.tensor([0.1, 0.4]), step=1)
    assert loss.item() == pytest.approx(0.5 * (-1 / (3 - 1) - 0.4) ** 2)
