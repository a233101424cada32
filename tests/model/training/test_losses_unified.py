"""The losses of system (c) are their formulas (models.md §3.2–3.5, §11 test 7)."""

from __future__ import annotations

import math

import pytest
import torch

from model.training.losses_unified import (
    UnifiedWeights,
    cycle_terms,
    discriminator_terms,
    gradient_penalty,
    lesion_probability,
    multiscale_l1,
    ramp,
    segmentation_terms,
    squared_dice_loss,
    total,
    translation_terms,
    vector_l1,
    weighted_cross_entropy,
)

EQUAL = UnifiedWeights(background=0.5, lesion=0.5)


def test_every_level_counts_the_same_in_the_multi_scale_distance() -> None:
    """By hand: a level of 4 values that differ by 1, a level of 100 that differ by 3."""
    answered = [torch.ones(1, 1, 2, 2), torch.full((1, 1, 10, 10), 3.0)]
    true = [torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 10, 10)]
    assert multiscale_l1(answered, true).item() == pytest.approx((1 + 3) / 2)


def test_large_levels_count_more_in_the_references_distance() -> None:
    answered = torch.cat([torch.ones(1, 4), torch.full((1, 100), 3.0)], dim=1)
    assert vector_l1(answered, torch.zeros(1, 104)).item() == pytest.approx((4 * 1 + 100 * 3) / 104)


def test_segans_dice_squares_its_denominator() -> None:
    """By hand: ΣPY = 0.5, ΣP² = 0.5, ΣY² = 1 in one image, a right answer in the other."""
    answer = torch.tensor([[[[0.5, 0.5]]], [[[1.0, 0.0]]]])
    truth = torch.tensor([[[[1.0, 0.0]]], [[[1.0, 0.0]]]])
    assert squared_dice_loss(answer, truth).item() == pytest.approx((1 - 1 / 1.5 + 0) / 2, abs=1e-4)


def test_an_empty_answer_to_an_empty_image_costs_nothing() -> None:
    assert squared_dice_loss(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)).item() == 0


def test_cross_entropy_is_the_mean_weighted_by_class() -> None:
    """By hand: −log σ(1) on a lesion pixel of weight 0.98, −log σ(2) on a background pixel of weight 0.02."""
    logits, truth = torch.tensor([[[[1.0, -2.0]]]]), torch.tensor([[[[1.0, 0.0]]]])
    expected = 0.98 * math.log1p(math.exp(-1)) + 0.02 * math.log1p(math.exp(-2))
    assert weighted_cross_entropy(logits, truth, UnifiedWeights()).item() == pytest.approx(expected)


def test_one_logit_and_two_say_the_same() -> None:
    one = 3 * torch.randn(2, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    two, truth = torch.cat([-one / 2, one / 2], dim=1), (one > 1).float()
    assert torch.allclose(lesion_probability(one), lesion_probability(two), atol=1e-6)
    costs = [weighted_cross_entropy(logits, truth, UnifiedWeights()).item() for logits in (one, two)]
    assert costs[0] == pytest.approx(costs[1], rel=1e-5)


@pytest.mark.parametrize(("length", "penalty"), [(1.0, 0.0), (3.0, 4.0)])
def test_the_penalty_is_the_squared_distance_of_the_gradients_length_from_one(length: float, penalty: float) -> None:
    """D(x) = ⟨w, x⟩ has the gradient w everywhere."""
    direction = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    direction *= length / direction.norm()
    real, drawn, share = torch.rand(3, 1, 8, 8), torch.rand(3, 1, 8, 8), torch.rand(3, 1, 1, 1)
    found = gradient_penalty(lambda images: (images * direction).sum((1, 2, 3)), real, drawn, share)
    assert found.item() == pytest.approx(penalty, abs=1e-5)


def test_the_penalty_is_taken_between_the_real_image_and_the_drawn() -> None:
    seen: list[torch.Tensor] = []

    def realness(images: torch.Tensor) -> torch.Tensor:
        seen.append(images.detach())
        return images.square()

    gradient_penalty(
        realness, torch.ones(2, 1, 1, 1), torch.zeros(2, 1, 1, 1), torch.tensor([0.25, 1.0])[:, None, None, None]
    )
    assert seen[0].flatten().tolist() == [0.25, 1.0]


def test_the_penalty_teaches_the_discriminator() -> None:
    discriminator = torch.nn.Conv2d(1, 1, 3)
    share = torch.full((2, 1, 1, 1), 0.5)
    gradient_penalty(discriminator, torch.rand(2, 1, 6, 6), torch.rand(2, 1, 6, 6), share).backward()
    assert discriminator.weight.grad is not None
    assert discriminator.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0.0), (0.3, 50.0), (0.6, 100.0), (1.0, 100.0)])
def test_the_segmentation_of_redrawn_images_gains_weight_over_the_first_three_fifths(
    share: float, expected: float
) -> None:
    assert ramp(share, full_at=0.6, top=100.0) == pytest.approx(expected)


def test_a_ramp_of_no_length_is_at_its_top_at_once() -> None:
    assert ramp(0.0, full_at=0.0, top=100.0) == 100.0


def test_the_discriminator_minimises_the_published_sum() -> None:
    real = (torch.tensor([2.0, 4.0]), torch.tensor([[0.0, 0.0], [0.0, 0.0]]))
    terms = discriminator_terms(
        real, torch.tensor([1.0, 0.0]), torch.tensor([0, 1]), torch.tensor(0.3), UnifiedWeights()
    )
    assert total(terms).item() == pytest.approx((0.5 - 3.0) + 10 * 0.3 + math.log(2))


def test_the_generator_minimises_the_published_sum() -> None:
    """With logits of zero CE_w is log 2, P is one half, and half of the pixels are lesion: Dice² = 1 − ½/¾."""
    logits, truth = torch.zeros(1, 2, 1, 2), torch.tensor([[[[1.0, 0.0]]]])
    drawn = (torch.tensor([5.0]), torch.zeros(1, 2))
    images, returned = torch.tensor([[[[0.5, -0.5]]]]), torch.tensor([[[[0.0, -0.25]]]])
    weights = UnifiedWeights()
    terms = segmentation_terms(logits, truth, torch.tensor(0.2), weights)
    assert total(terms).item() == pytest.approx(100 * math.log(2) + 10 * 0.2 + (1 - 1 / 1.5), rel=1e-4)
    assert total(translation_terms(drawn, torch.tensor([1]), weights)).item() == pytest.approx(-5 + math.log(2))
    back = cycle_terms(images, returned, logits, truth, 0.3, weights)
    assert total(back).item() == pytest.approx(10 * 0.375 + 50 * math.log(2))


def test_a_half_precision_answer_is_judged_in_full_precision() -> None:
    logits, truth = torch.randn(1, 2, 4, 4).bfloat16(), torch.ones(1, 1, 4, 4)
    assert total(segmentation_terms(logits, truth, torch.tensor(0.0), EQUAL)).dtype == torch.float32
