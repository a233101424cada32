"""The generator's loss is the published one (models.md §1.4, §11 test 4)."""

from __future__ import annotations

import pytest
import torch

from model.training.losses import dice_loss, generator_loss


def some_logits_and_truth(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(4, 1, 17, 23, generator=generator)
    truth = (torch.rand(4, 1, 17, 23, generator=generator) > 0.8).float()
    truth[2] = 0
    return logits, truth


@pytest.mark.parametrize("seed", range(3))
def test_it_is_monais_dice_ce_loss_to_one_in_a_million(seed: int) -> None:
    losses = pytest.importorskip("monai.losses", reason="monai comes with the extra `train`")
    theirs = losses.DiceCELoss(sigmoid=True, lambda_dice=1.0, lambda_ce=0.5, smooth_nr=1e-5, smooth_dr=1e-5)
    logits, truth = some_logits_and_truth(seed)
    assert generator_loss(logits, truth).item() == pytest.approx(theirs(logits, truth).item(), abs=1e-6)


def test_dice_is_taken_per_image_and_then_averaged() -> None:
    """By hand: one image right (0), one with 1 of 2 answered pixels right out of 2 true (1 − 2·1/4)."""
    answer = torch.tensor([[[[1.0, 1.0, 0.0, 0.0]]], [[[1.0, 1.0, 0.0, 0.0]]]])
    truth = torch.tensor([[[[1.0, 1.0, 0.0, 0.0]]], [[[1.0, 0.0, 1.0, 0.0]]]])
    assert dice_loss(answer, truth).item() == pytest.approx((0 + 0.5) / 2, abs=1e-5)


def test_the_gradient_pushes_towards_the_truth() -> None:
    logits, truth = some_logits_and_truth()
    logits.requires_grad_()
    generator_loss(logits, truth).backward()
    assert logits.grad is not None
    assert (logits.grad[truth == 1] < 0).all()
    assert (logits.grad[2] > 0).all()


def test_a_half_precision_answer_is_judged_in_full_precision() -> None:
    logits, truth = some_logits_and_truth()
    assert generator_loss(logits.bfloat16(), truth).dtype == torch.float32
