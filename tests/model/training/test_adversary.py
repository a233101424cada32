"""The adversarial option: the judge ascends what the generator descends, within bounds (models.md §1.5)."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from model.networks.resnet50_features import ResNet50Features
from model.training.adversary import AdversaryConfig, Judge, adversary_optimiser, step_adversary
from model.training.losses_constraint import feature_constraint, on_stages

pytestmark = pytest.mark.usefixtures("one_thread")
UNBOUND = AdversaryConfig(learning_rate=1e-4, penalty_weight=0)


@pytest.fixture(scope="module")
def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images (2, 3, 32, 32), logits and truth."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.zeros(2, 1, 32, 32)
    truth[..., 8:20, 10:24] = 1
    images = torch.randn(2, 3, 32, 32, generator=generator) + truth
    return images, torch.randn(2, 1, 32, 32, generator=generator), truth


@pytest.fixture(scope="module")
def calibrated() -> ResNet50Features:
    torch.manual_seed(0)
    extractor = ResNet50Features()
    extractor.calibrate([torch.randn(16, 3, 64, 64)])
    return extractor


@pytest.fixture
def extractor(calibrated: ResNet50Features) -> ResNet50Features:
    return copy.deepcopy(calibrated)


@pytest.mark.parametrize("bound", ["gradient-penalty", "weight-clip"])
def test_a_step_of_the_judge_raises_the_constraint(
    extractor: ResNet50Features, batch: tuple[torch.Tensor, torch.Tensor, torch.Tensor], bound: str
) -> None:
    config = AdversaryConfig(learning_rate=1e-4, penalty_weight=0, bound=bound, clip=math.inf)  # type: ignore[arg-type]  # the parameters are the literals
    optimiser = adversary_optimiser(extractor, config)
    values = [step_adversary(Judge(extractor), optimiser, *batch, config) for _ in range(3)]
    with torch.no_grad():
        values.append(feature_constraint(extractor, *batch).item())
    assert values == sorted(values)
    assert values[0] < values[-1]


def test_the_value_told_is_the_one_before_the_step(
    extractor: ResNet50Features, batch: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
) -> None:
    before = feature_constraint(extractor, *batch).item()
    assert step_adversary(Judge(extractor), adversary_optimiser(extractor, UNBOUND), *batch, UNBOUND) == pytest.approx(
        before
    )


def test_only_convolutions_of_the_four_stages_learn(
    extractor: ResNet50Features, batch: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
) -> None:
    before = {name: value.clone() for name, value in extractor.state_dict().items()}
    step_adversary(Judge(extractor), adversary_optimiser(extractor, UNBOUND), *batch, UNBOUND)
    changed = {name for name, value in extractor.state_dict().items() if not torch.equal(value, before[name])}
    convolutions = {
        f"{name}.weight"
        for name, layer in extractor.named_modules()
        if isinstance(layer, torch.nn.Conv2d) and name.startswith("trunk.layer")
    }
    assert len(convolutions) == 52
    assert changed == convolutions


def test_between_its_steps_the_judge_is_frozen_for_the_generator(
    extractor: ResNet50Features, batch: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
) -> None:
    images, logits, truth = batch
    logits = logits.clone().requires_grad_()
    step_adversary(Judge(extractor), adversary_optimiser(extractor, UNBOUND), images, logits, truth, UNBOUND)
    assert logits.grad is None
    feature_constraint(extractor, images, logits, truth).backward()
    assert logits.grad is not None
    assert not any(p.requires_grad or p.grad is not None for p in extractor.parameters())


def test_clipped_weights_stay_within_the_bound(
    extractor: ResNet50Features, batch: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
) -> None:
    config = AdversaryConfig(bound="weight-clip")
    norm = extractor.trunk.layer1[0].bn1.weight.clone()
    step_adversary(Judge(extractor), adversary_optimiser(extractor, config), *batch, config)
    assert max(p.abs().max().item() for p in extractor.adversarial_parameters()) <= 0.05 + 1e-8
    assert torch.equal(extractor.trunk.layer1[0].bn1.weight, norm)


def test_the_steepness_is_the_change_of_the_constraint_per_root_mean_square_of_the_image(
    calibrated: ResNet50Features, batch: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
) -> None:
    """Measured by small steps along the slope, from the very place where it is taken."""
    images, logits, truth = (part[:1] for part in batch)
    judge = Judge(calibrated, on_stages(1))
    seen, expected = images * logits.sigmoid(), images * truth
    torch.manual_seed(1)
    told = judge.steepness(seen, expected)
    torch.manual_seed(1)
    place = torch.lerp(expected, seen, torch.rand(1, 1, 1, 1)).requires_grad_()
    (slope,) = torch.autograd.grad(judge.distance(place, expected), place)
    step = 1e-3 * slope / slope.square().mean().sqrt()
    with torch.no_grad():
        change = judge.distance(place + step, expected) - judge.distance(place - step, expected)
    assert told.shape == (1,)
    assert change.item() / 2e-3 == pytest.approx(told.item(), rel=0.05)


def test_the_penalty_is_the_square_of_what_the_steepness_is_too_much(
    calibrated: ResNet50Features, batch: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
) -> None:
    images, logits, truth = batch
    seen, expected = images * logits.sigmoid(), images * truth
    torch.manual_seed(1)
    at_start = Judge(calibrated).steepness(seen, expected).detach()
    bounds = (at_start.max().item(), at_start.min().item() / 3)
    penalties = []
    for steepest in bounds:
        torch.manual_seed(1)
        penalties.append(Judge(calibrated, steepest=steepest).penalty(seen, expected).item())
    assert penalties[0] == 0
    assert penalties[1] == pytest.approx((at_start / bounds[1] - 1).square().mean().item(), rel=1e-4)


def test_the_gradient_penalty_holds_back_a_judge_that_is_too_steep(
    calibrated: ResNet50Features, batch: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
) -> None:
    """Allowed a hundredth of the steepness it has, it is pulled down against its ascent."""
    constraint, reached = on_stages(1), {}
    for weight in (0.0, 10.0):
        judge = Judge(copy.deepcopy(calibrated), constraint, steepest=0.08)
        config = AdversaryConfig(learning_rate=1e-4, penalty_weight=weight)
        optimiser = adversary_optimiser(judge.extractor, config)
        torch.manual_seed(1)
        for _ in range(3):
            step_adversary(judge, optimiser, *batch, config)
        reached[weight] = feature_constraint(judge.extractor, *batch, constraint).item()
    start = feature_constraint(calibrated, *batch, constraint).item()
    assert reached[10.0] < start < reached[0.0]


def test_the_judge_waits_for_the_generator_to_warm_up() -> None:
    config = AdversaryConfig()
    assert [epoch for epoch in range(12) if config.learns(epoch)] == [10, 11]
