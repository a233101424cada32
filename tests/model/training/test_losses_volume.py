"""Losses of system (d), of the nnU-Net recipe and of `best` (models.md §1.11, §4.2, §4.3)."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from model.training.losses_volume import (
    deep_supervision_loss,
    dice_ce_loss,
    dice_focal_loss,
    smoothed_target,
    supervision_weights,
    with_vae_loss,
)


def some_logits_and_truth(classes: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two volumes (2, classes, 4, 6, 8), and one-hot labels of which the second has no last class."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(2, classes, 4, 6, 8, generator=generator)
    labels = torch.randint(0, classes, (2, 4, 6, 8), generator=generator)
    labels[1] = labels[1].clamp(max=classes - 2)
    return logits, functional.one_hot(labels, classes).movedim(-1, 1).float()


def test_dice_focal_is_what_its_formula_says() -> None:
    """Dice of the softmax; focal (1 − p_t)²·BCE of the sigmoid; both over classes 1 and 2."""
    logits, truth = some_logits_and_truth()
    p, y = logits.softmax(1)[:, 1:], truth[:, 1:]
    over = (2, 3, 4)
    dice = 1 - (2 * (p * y).sum(over) + 1e-5) / (p.sum(over) + y.sum(over) + 1e-5)
    bce = functional.binary_cross_entropy_with_logits(logits[:, 1:], y, reduction="none")
    focal = (1 - torch.exp(-bce)) ** 2 * bce
    assert dice_focal_loss(logits, truth).item() == pytest.approx((dice.mean() + focal.mean()).item(), rel=1e-5)


@pytest.mark.parametrize(("profile", "weight"), [("published", 0.1), ("best", 0.1), ("as-coded", 0.0)])
def test_the_autoencoder_weighs_a_tenth_and_nothing_as_coded(profile: str, weight: float) -> None:
    segmentation, vae = torch.tensor(2.0), torch.tensor(30.0, requires_grad=True)
    assert with_vae_loss(segmentation, vae, profile).item() == pytest.approx(2.0 + weight * 30.0)


def test_without_its_loss_the_autoencoder_is_not_even_reached() -> None:
    assert with_vae_loss(torch.tensor(2.0), torch.tensor(math.nan), "as-coded").item() == 2.0


def test_a_perfect_answer_costs_nothing_and_a_wrong_one_more() -> None:
    _, truth = some_logits_and_truth()
    sure = 40 * truth - 20
    for loss in (dice_focal_loss, lambda a, b: dice_ce_loss(a, b, batch_dice=True)):
        assert loss(sure, truth).item() < 1e-3
        assert loss(-sure, truth).item() > 1


def test_dice_over_the_batch_pools_voxels_and_dice_per_image_does_not() -> None:
    """By hand: image 1 answers 2 of 2 right, image 2 answers 0 of 2; no background class in either sum."""
    truth = functional.one_hot(torch.tensor([[[1, 1, 0, 0]], [[1, 1, 0, 0]]]), 2).movedim(-1, 1).float()
    answer = functional.one_hot(torch.tensor([[[1, 1, 0, 0]], [[0, 0, 0, 0]]]), 2).movedim(-1, 1).float()
    logits = 60 * answer - 30
    entropy = functional.cross_entropy(logits, truth).item()
    assert dice_ce_loss(logits, truth, batch_dice=False).item() - entropy == pytest.approx(0.5, abs=1e-4)
    assert dice_ce_loss(logits, truth, batch_dice=True).item() - entropy == pytest.approx(1 - 4 / 6, abs=1e-4)


def test_one_channel_is_a_lesions_sigmoid() -> None:
    logits, truth = some_logits_and_truth(classes=2)
    as_one = dice_ce_loss(logits[:, 1:] - logits[:, :1], truth[:, 1:], batch_dice=True)
    assert as_one.item() == pytest.approx(dice_ce_loss(logits, truth, batch_dice=True).item(), rel=1e-5)


def test_heads_weigh_half_as_much_with_each_stage_and_the_lowest_nothing() -> None:
    assert supervision_weights(4) == pytest.approx((4 / 7, 2 / 7, 1 / 7, 0))
    assert supervision_weights(2) == (1.0, 0.0)
    assert supervision_weights(1) == (1.0,)


def test_deep_supervision_asks_each_head_for_the_target_at_its_resolution() -> None:
    """A lesion in one half: each head that answers it at its own resolution costs nothing."""
    truth = torch.zeros(1, 1, 16, 16)
    truth[..., 8:] = 1
    heads = [60 * truth[..., ::step, ::step] - 30 for step in (1, 2, 4)]

    def loss(logits: Tensor, target: Tensor) -> Tensor:
        return dice_ce_loss(logits, target, batch_dice=True)

    assert deep_supervision_loss(heads, truth, loss).item() == pytest.approx(0, abs=1e-4)
    wrong = deep_supervision_loss([heads[0], -heads[1], heads[2]], truth, loss).item()
    assert wrong == pytest.approx(loss(-heads[1], truth[..., ::2, ::2]).item() / 3, rel=1e-4)


def test_the_lowest_head_is_not_computed() -> None:
    truth = torch.zeros(1, 1, 8, 8)
    heads = [torch.zeros(1, 1, 8, 8), torch.full((1, 1, 4, 4), math.nan)]
    assert deep_supervision_loss(heads, truth, lambda a, b: dice_ce_loss(a, b, batch_dice=True)).isfinite()


def test_smoothing_mixes_the_expected_share_into_liver_and_tumour_only() -> None:
    labels = torch.tensor([[[0, 1, 2]]])
    truth = functional.one_hot(labels, 3).movedim(-1, 1).float()
    smoothed = smoothed_target(truth, torch.tensor([0.3]), epsilon=0.1)[0, :, 0].T
    assert smoothed[0].tolist() == [1, 0, 0]
    assert smoothed[1].tolist() == pytest.approx([0, 0.9 + 0.07, 0.03])
    assert smoothed[2].tolist() == pytest.approx([0, 0.07, 0.9 + 0.03])


def test_a_patient_without_an_expected_share_is_not_smoothed() -> None:
    _, truth = some_logits_and_truth()
    smoothed = smoothed_target(truth, torch.tensor([math.nan, 0.5]))
    assert torch.equal(smoothed[0], truth[0])
    assert torch.allclose(smoothed[1].sum(0), torch.ones(4, 6, 8))
    assert not torch.equal(smoothed[1], truth[1])


def test_half_precision_answers_are_judged_in_full_precision() -> None:
    logits, truth = some_logits_and_truth()
    half = logits.bfloat16()
    assert dice_focal_loss(half, truth).dtype == torch.float32
    assert dice_ce_loss(half, truth, batch_dice=True).dtype == torch.float32
