"""SegAN has the reference's shape, and its critic compares alike with alike (models.md §3.2, §11 tests 1, 2 and 6)."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import nn

from model.networks import build_network
from model.networks.segan import CLIP, LEVEL_WEIGHTS, CriticConfig, SegANConfig, SegANCritic, SegANSegmentor

Bound = Literal["clip", "spectral"]
BOUNDS: tuple[Bound, ...] = ("clip", "spectral")


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def small_critic(bound: Bound = "clip", in_channels: int = 1) -> SegANCritic:
    torch.manual_seed(0)
    return SegANCritic(CriticConfig(in_channels, 0.125, bound))


def test_the_segmentor_has_exactly_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        assert parameters(SegANSegmentor(SegANConfig())) == 156_265_344


def test_the_norms_that_the_reference_never_applies_are_30_080_parameters() -> None:
    with torch.device("meta"):
        assert parameters(SegANSegmentor(SegANConfig(residual_norm=False))) == 156_265_344 - 30_080


def test_the_critic_has_exactly_the_parameters_that_the_reference_uses() -> None:
    with torch.device("meta"):
        assert parameters(SegANCritic(CriticConfig())) == 9_393_088


def test_with_spectral_norms_the_critic_has_biases_and_no_batch_norm() -> None:
    critic = SegANCritic(CriticConfig(bound="spectral"))
    assert not [layer for layer in critic.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert parameters(critic) == 9_389_248 + 64 + 128 + 256 + 3 * 512


def test_every_level_of_the_segmentor_has_the_published_shape() -> None:
    shapes: list[tuple[int, ...]] = []
    with torch.device("meta"):
        network = SegANSegmentor(SegANConfig())
        for level in (*network.encoder, network.squeeze, network.expand, *network.decoder):
            level.register_forward_hook(lambda _, __, answer: shapes.append(tuple(answer.shape[1:])))
        network(torch.zeros(2, 3, 128, 128))
    down = [(64, 64), (128, 32), (256, 16), (512, 8), (512, 4), (1024, 2), (2048, 1)]
    up = [(512, 1), (2048, 1), (1024, 2), (512, 4), (512, 8), (256, 16), (128, 32), (64, 64), (64, 128)]
    assert shapes == [(channels, side, side) for channels, side in down + up]


@pytest.mark.parametrize("is_training", [True, False])
def test_the_logits_have_the_size_of_the_image(is_training: bool) -> None:
    network = build_network("segan", {"in_channels": 1, "width": 0.0625, "out_channels": 2}).train(is_training)
    assert network(torch.zeros(2, 1, 64, 192)).shape == (2, 2, 64, 192)


def test_every_parameter_takes_part_in_the_answer() -> None:
    network = build_network("segan", {"in_channels": 1, "width": 0.0625, "head_bias": True})
    network(torch.rand(2, 1, 64, 64)).sum().backward()
    assert all(p.grad is not None for p in network.parameters())


def test_the_critics_vector_holds_the_input_and_six_levels() -> None:
    counts = [49_152, 262_144, 131_072, 65_536, 32_768, 8_192, 2_048]
    with torch.device("meta"):
        critic = SegANCritic(CriticConfig())
        masked = torch.zeros(2, 3, 128, 128)
        assert [level[0].numel() for level in critic.features(masked)] == counts
        assert critic(masked).shape == (2, sum(counts))


def test_deeper_levels_weigh_more_in_the_vector() -> None:
    critic = small_critic().eval()
    masked = torch.rand(2, 1, 64, 64)
    parts = critic(masked).split([level[0].numel() for level in critic.features(masked)], dim=1)
    for part, level, weight in zip(parts, critic.features(masked), LEVEL_WEIGHTS, strict=True):
        assert torch.equal(part, weight * level.flatten(1))
    assert LEVEL_WEIGHTS == (1, 1, 2, 2, 2, 2, 4)


@pytest.mark.parametrize("in_channels", [1, 3])
@pytest.mark.parametrize("bound", BOUNDS)
def test_an_answer_that_is_the_truth_has_exactly_the_truths_features(bound: Bound, in_channels: int) -> None:
    critic = small_critic(bound, in_channels)
    images, truth = torch.rand(2, in_channels, 64, 64), (torch.rand(2, 1, 64, 64) > 0.5).float()
    answered, true = critic.compare(images, truth, truth)
    assert all(torch.equal(a, t) for a, t in zip(answered, true, strict=True))


@pytest.mark.parametrize("bound", BOUNDS)
def test_the_critic_sees_where_the_answer_differs(bound: Bound) -> None:
    critic = small_critic(bound)
    images, truth = torch.rand(2, 1, 64, 64), (torch.rand(2, 1, 64, 64) > 0.5).float()
    answered, true = critic.compare(images, 1 - truth, truth)
    assert all(not torch.equal(a, t) for a, t in zip(answered, true, strict=True))


def test_clipping_bounds_every_weight() -> None:
    critic = small_critic()
    assert not all((weight.abs() <= CLIP).all() for weight in critic.parameters())
    critic.clip()
    assert all((weight.abs() <= CLIP).all() for weight in critic.parameters())


def test_spectral_norms_bound_every_kernel_and_nothing_is_clipped() -> None:
    critic = small_critic("spectral")
    before = [weight.clone() for weight in critic.parameters()]
    critic.clip()
    assert all(torch.equal(b, w) for b, w in zip(before, critic.parameters(), strict=True))
    for _ in range(20):  # each pass in training improves the estimate of the norm
        critic.features(torch.rand(1, 1, 64, 64))
    kernels = [layer.weight.detach().flatten(1) for layer in critic.modules() if isinstance(layer, nn.Conv2d)]
    norms = [torch.linalg.matrix_norm(kernel, 2).item() for kernel in kernels]
    assert norms == pytest.approx([1.0] * 6, abs=0.02)
