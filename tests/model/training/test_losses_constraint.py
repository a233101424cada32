"""The feature constraint reaches the generator as published, and does not as coded (models.md §1.4, §11 test 3)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from model.networks import build_network
from model.networks.resnet50_features import ResNet50Features
from model.training.demo import he_normal
from model.training.losses import generator_loss
from model.training.losses_constraint import (
    AS_CODED,
    PUBLISHED,
    ConstraintConfig,
    feature_constraint,
    on_stages,
    row_name,
    stage_terms,
    terms_at_start,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Images (4, 3, 64, 64) and their truth."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.zeros(4, 1, 64, 64)
    truth[..., 16:40, 20:48] = 1
    return 0.5 * torch.randn(4, 3, 64, 64, generator=generator) + truth, truth


@pytest.fixture(scope="module")
def extractor(batch: tuple[torch.Tensor, torch.Tensor]) -> ResNet50Features:
    torch.manual_seed(0)
    extractor = ResNet50Features()
    extractor.calibrate([batch[0].repeat(4, 1, 1, 1).roll(7, 2)])
    return extractor


@pytest.fixture
def generator() -> torch.nn.Module:
    torch.manual_seed(1)
    return build_network("unetpp", {"width": 0.125}).train()


def gradient(network: torch.nn.Module, loss: Callable[[], torch.Tensor]) -> torch.Tensor:
    """Of every parameter, end to end; the network's statistics are as before each time."""
    state = {name: value.clone() for name, value in network.state_dict().items()}
    network.zero_grad()
    loss().backward()
    network.load_state_dict(state)
    return torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])


def test_a_perfect_prediction_costs_nothing(
    extractor: ResNet50Features, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    images, truth = batch
    certain = 400 * truth - 200
    assert torch.equal(torch.sigmoid(certain), truth)
    assert feature_constraint(extractor, images, certain, truth).item() == 0


def test_a_prediction_that_misses_a_lesion_costs_more_than_one_that_misses_its_rim(
    extractor: ResNet50Features, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    images, truth = batch
    rim = torch.nn.functional.max_pool2d(-truth, 3, 1, 1).neg()
    costs = [
        feature_constraint(extractor, images, 400 * mask - 200, truth).item() for mask in (rim, torch.zeros_like(truth))
    ]
    assert 0 < costs[0] < costs[1]


def test_published_it_reaches_every_weight_of_the_generator(
    extractor: ResNet50Features, batch: tuple[torch.Tensor, torch.Tensor], generator: torch.nn.Module
) -> None:
    images, truth = batch
    feature_constraint(extractor, images, generator(images), truth).backward()
    for name, parameter in generator.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    assert sum(p.grad.abs().sum() for p in generator.parameters() if p.grad is not None) > 0


def test_published_it_changes_the_step_and_as_coded_it_does_not(
    extractor: ResNet50Features, batch: tuple[torch.Tensor, torch.Tensor], generator: torch.nn.Module
) -> None:
    images, truth = batch

    def loss(config: ConstraintConfig) -> torch.Tensor:
        logits = generator(images)
        return generator_loss(logits, truth) + feature_constraint(extractor, images, logits, truth, config)

    alone = gradient(generator, lambda: generator_loss(generator(images), truth))
    assert torch.equal(gradient(generator, lambda: loss(AS_CODED)), alone)
    assert not torch.allclose(gradient(generator, lambda: loss(PUBLISHED)), alone)


def test_as_coded_it_has_a_value_that_no_gradient_comes_from(
    extractor: ResNet50Features, batch: tuple[torch.Tensor, torch.Tensor], generator: torch.nn.Module
) -> None:
    images, truth = batch
    constraint = feature_constraint(extractor, images, generator(images), truth, AS_CODED)
    assert constraint.item() > 0
    assert not constraint.requires_grad


def test_a_generator_that_follows_nothing_but_the_constraint_finds_the_lesions(
    extractor: ResNet50Features, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    """With random features, each stage's term normalised at step 0."""
    images, truth = batch
    network = he_normal(build_network("unet", {"width": 0.125}), seed=0).train()
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    scales = terms_at_start(extractor, images, network(images), truth)
    for _ in range(20):
        optimiser.zero_grad()
        feature_constraint(extractor, images, network(images), truth, scales=scales).backward()
        optimiser.step()
    probability = network(images).sigmoid()
    assert probability[truth == 1].mean() > 0.8
    assert probability[truth == 0].mean() < 0.3


def test_three_steps_leave_the_frozen_judge_bit_identical(
    extractor: ResNet50Features, batch: tuple[torch.Tensor, torch.Tensor], generator: torch.nn.Module
) -> None:
    images, truth = batch
    before = {name: value.clone() for name, value in extractor.state_dict().items()}
    optimiser = torch.optim.SGD(generator.parameters(), lr=0.1)
    extractor.train()
    for _ in range(3):
        optimiser.zero_grad()
        feature_constraint(extractor, images, generator(images), truth).backward()
        optimiser.step()
    assert all(torch.equal(value, before[name]) for name, value in extractor.state_dict().items())


def test_what_is_masked_is_the_normalised_image_by_the_probability(
    extractor: ResNet50Features, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    """The published form and the coded one, put together by hand from the stages."""
    images, truth = batch
    logits = torch.randn(4, 1, 64, 64, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        expected = extractor(images * truth)
        of_probability = [(a - b).abs() for a, b in zip(extractor(images * logits.sigmoid()), expected, strict=True)]
        of_logits = [(a - b).abs() for a, b in zip(extractor(images * logits), expected, strict=True)]
        published = feature_constraint(extractor, images, logits, truth).item()
        as_coded = feature_constraint(extractor, images, logits, truth, AS_CODED).item()
    assert published == pytest.approx(sum(stage.mean().item() for stage in of_probability) / 4, rel=1e-5)
    assert as_coded == pytest.approx(torch.cat([stage.flatten() for stage in of_logits]).mean().item(), rel=1e-5)


def test_stages_that_are_left_out_are_not_computed(
    extractor: ResNet50Features, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    images, truth = batch
    logits = torch.zeros_like(truth)
    terms = stage_terms(extractor, images, logits.sigmoid(), truth).tolist()
    hook = extractor.trunk.layer3.register_forward_hook(lambda *_: pytest.fail("stage 3 was computed"))
    try:
        second = feature_constraint(extractor, images, logits, truth, on_stages(2)).item()
        both = feature_constraint(extractor, images, logits, truth, on_stages(1, 2)).item()
    finally:
        hook.remove()
    assert second == pytest.approx(terms[1], rel=1e-6)
    assert both == pytest.approx((terms[0] + terms[1]) / 2, rel=1e-6)


def test_normalised_at_step_0_every_stage_starts_at_one(
    extractor: ResNet50Features, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    images, truth = batch
    logits = torch.zeros_like(truth)
    scales = terms_at_start(extractor, images, logits, truth)
    assert len(scales) == 4
    for stage in (1, 2, 3, 4):
        assert feature_constraint(extractor, images, logits, truth, on_stages(stage), scales).item() == pytest.approx(1)


def test_a_batch_without_disagreement_normalises_nothing(
    extractor: ResNet50Features, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    images, truth = batch
    with pytest.raises(ValueError, match="stage 1 is 0"):
        terms_at_start(extractor, images, 400 * truth - 200, truth)


def test_the_constraint_is_scaled_by_its_strength(
    extractor: ResNet50Features, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    images, truth = batch
    logits = torch.zeros_like(truth)
    once = feature_constraint(extractor, images, logits, truth).item()
    thrice = feature_constraint(extractor, images, logits, truth, ConstraintConfig(strength=3)).item()
    assert thrice == pytest.approx(3 * once, rel=1e-6)


def test_several_classes_are_refused(extractor: ResNet50Features, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    images, truth = batch
    with pytest.raises(ValueError, match="3 channels"):
        feature_constraint(extractor, images, torch.zeros(4, 3, 64, 64), truth)


@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.0, 0.0, 0.0, 0.0), (1.0, -1.0, 1.0, 1.0)])
def test_weights_that_are_no_weights_are_refused(weights: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="stage_weights"):
        ConstraintConfig(weights)


@pytest.mark.parametrize("stages", [(), (0,), (1, 5)])
def test_only_stages_that_there_are_can_be_constrained(stages: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="1 to 4"):
        on_stages(*stages)


def test_random_features_are_never_called_crlm_gan(extractor: ResNet50Features) -> None:
    assert row_name(extractor.weights) == "constraint (random features)"
    assert row_name("imagenet") == "CRLM-GAN"
