"""The losses of system (b) are means over its six logits (models.md §2.6)."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from model.networks.cmg import CMGOutputs, Phases
from model.training.losses_guided import guided_class_loss, guided_dice_loss, guided_loss, predicted_share


def outputs_and_targets(classes: int = 1, seed: int = 0) -> tuple[CMGOutputs, Phases]:
    generator = torch.Generator().manual_seed(seed)

    def logits(size: int) -> Phases:
        return Phases(*(3 * torch.randn(2, 2, classes, size, size, generator=generator)))

    labels = torch.randint(0, max(2, classes), (2, 2, 1, 64, 64), generator=generator)
    return CMGOutputs(logits(4), logits(8), logits(64)), Phases(*labels)


def certain(targets: Phases, classes: int) -> CMGOutputs:
    """Logits that are sure of the truth at every size."""

    def of(target: torch.Tensor, size: int) -> torch.Tensor:
        pooled = functional.adaptive_max_pool2d(target.float(), size)
        planes = pooled if classes == 1 else functional.one_hot(pooled[:, 0].long(), classes).movedim(-1, 1)
        return 200.0 * planes - 100

    return CMGOutputs(*(Phases(*(of(target, size) for target in targets)) for size in (4, 8, 64)))


def test_it_is_the_mean_of_six_cross_entropies_against_pooled_truths() -> None:
    outputs, targets = outputs_and_targets()
    by_hand = 0.0
    for phases, window in ((outputs.coarse, 16), (outputs.fine, 8), (outputs.final, 1)):
        for logits, target in zip(phases, targets, strict=True):
            pooled = functional.max_pool2d(target.float(), window)
            by_hand += functional.binary_cross_entropy_with_logits(logits, pooled).item() / 6
    assert guided_loss(outputs, targets).item() == pytest.approx(by_hand, rel=1e-6)


def test_a_lesion_of_one_pixel_is_wanted_at_every_size() -> None:
    targets = Phases(torch.zeros(1, 1, 64, 64), torch.zeros(1, 1, 64, 64))
    targets.portal_venous[0, 0, 33, 21] = 1
    logits = CMGOutputs(*(Phases(torch.zeros(1, 1, n, n), torch.zeros(1, 1, n, n)) for n in (4, 8, 64)))
    for phases in (logits.coarse, logits.fine, logits.final):
        phases.portal_venous.requires_grad_()
    guided_loss(logits, targets).backward()
    for phases, place in ((logits.coarse, (2, 1)), (logits.fine, (4, 2)), (logits.final, (33, 21))):
        assert (phases.portal_venous.grad < 0).nonzero().tolist() == [[0, 0, *place]]


@pytest.mark.parametrize("loss", [guided_loss, guided_dice_loss])
def test_a_perfect_answer_costs_nothing(loss: object) -> None:
    _, targets = outputs_and_targets()
    assert callable(loss)
    assert loss(certain(targets, 1), targets).item() == pytest.approx(0, abs=1e-6)


def test_best_is_bce_plus_dice_as_monai_takes_it_over_a_batch() -> None:
    losses = pytest.importorskip("monai.losses")
    theirs = losses.DiceCELoss(sigmoid=True, batch=True, smooth_nr=1.0, smooth_dr=1.0)
    outputs, targets = outputs_and_targets()
    expected = [
        theirs(logits, functional.adaptive_max_pool2d(target.float(), logits.shape[-2:])).item()
        for phases in (outputs.coarse, outputs.fine, outputs.final)
        for logits, target in zip(phases, targets, strict=True)
    ]
    assert guided_dice_loss(outputs, targets).item() == pytest.approx(sum(expected) / 6, abs=1e-6)


def test_several_classes_are_half_cross_entropy_and_half_dice() -> None:
    losses = pytest.importorskip("monai.losses")
    theirs = losses.DiceCELoss(softmax=True, to_onehot_y=True, lambda_dice=0.5, lambda_ce=0.5, smooth_nr=1, smooth_dr=1)
    outputs, targets = outputs_and_targets(classes=5)
    expected = [
        theirs(logits, functional.adaptive_max_pool2d(target.float(), logits.shape[-2:])).item()
        for phases in (outputs.coarse, outputs.fine, outputs.final)
        for logits, target in zip(phases, targets, strict=True)
    ]
    assert guided_class_loss(outputs, targets).item() == pytest.approx(sum(expected) / 6, abs=1e-6)


def test_as_coded_the_dice_of_a_perfect_answer_stays_near_a_half() -> None:
    """It counts what is shared once, and both sides of the quotient twice: (A + 1)/(2A + 1) for a class of area A."""
    _, targets = outputs_and_targets(classes=3)
    sure, by_hand = certain(targets, 3), 0.0
    for size in (4, 8, 64):
        for target in targets:
            pooled = functional.adaptive_max_pool2d(target.float(), size)
            area = torch.stack([(pooled == number).flatten(1).sum(1) for number in range(3)]).float()
            by_hand += 0.5 * (1 - (area + 1) / (2 * area + 1)).mean().item() / 6
    assert guided_class_loss(sure, targets).item() == pytest.approx(0, abs=1e-6)
    assert guided_class_loss(sure, targets, dice_factor=1.0).item() == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.parametrize("loss", [guided_loss, guided_dice_loss, guided_class_loss])
def test_half_precision_logits_are_judged_in_full_precision(loss: object) -> None:
    classes = 3 if loss is guided_class_loss else 1
    outputs, targets = outputs_and_targets(classes)
    half = (Phases(*(z.bfloat16() for z in phases)) for phases in (outputs.coarse, outputs.fine, outputs.final))
    assert callable(loss)
    assert loss(CMGOutputs(*half), targets).dtype == torch.float32


def test_the_networks_own_masks_take_over_half_of_the_images_by_the_end() -> None:
    assert [predicted_share(progress) for progress in (0, 0.5, 1, 2)] == [0, 0.25, 0.5, 0.5]
