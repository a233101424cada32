"""The residual-encoder U-Net: counts, shapes and heads in 2-D and 3-D (models.md §9.2, §11 tests 1, 2)."""

from __future__ import annotations

from dataclasses import asdict

import pytest
import torch
from torch import nn

from model.networks import build_network
from model.networks.resenc import PRESETS, ResEncConfig, ResEncUNet

TINY = ResEncConfig(features=(4, 8, 16), blocks=(1, 2, 2))


# as many as nnU-Net's own ResidualEncoderUNet of the same features, blocks, strides and kernels has, its biases
# before norms left out and those of its transposed convolutions counted
@pytest.mark.parametrize(
    ("name", "in_channels", "count"),
    [
        ("2d", 3, 71_799_306),
        ("2d-cpu", 3, 2_721_162),
        ("cpu", 1, 5_137_000),
        ("m", 1, 101_844_618),
        ("l", 1, 141_380_300),
    ],
)
def test_every_preset_has_exactly_its_number_of_parameters(name: str, in_channels: int, count: int) -> None:
    with torch.device("meta"):
        network = ResEncUNet(PRESETS[name].config(in_channels, out_channels=2))
    assert sum(p.numel() for p in network.parameters()) == count


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_answers_its_own_patch_at_its_size(name: str) -> None:
    preset = PRESETS[name]
    config = preset.config(in_channels=1, out_channels=3)
    assert all(side % stride == 0 for side, stride in zip(preset.patch, config.axis_strides, strict=True))
    with torch.device("meta"):
        network, images = ResEncUNet(config), torch.zeros(2, 1, *preset.patch)
        assert network(images).shape == (2, 3, *preset.patch)
        assert len(network.heads(images)) == len(config.features) - 1


def test_the_encoder_shrinks_and_widens_by_stage() -> None:
    network = ResEncUNet(TINY)
    features = network.stem(torch.rand(1, 3, 32, 16))
    shapes = []
    for stage in network.encoder:
        features = stage(features)
        shapes.append(tuple(features.shape[1:]))
    assert shapes == [(4, 32, 16), (8, 16, 8), (16, 8, 4)]
    assert [len(list(stage.children())) for stage in network.encoder] == [1, 2, 2]


def test_the_heads_come_finest_first_and_the_first_is_the_answer() -> None:
    network = ResEncUNet(TINY)
    images = torch.rand(2, 3, 32, 16)
    heads = network.heads(images)
    assert [tuple(h.shape) for h in heads] == [(2, 1, 32, 16), (2, 1, 16, 8)]
    assert torch.equal(network.train()(images), heads[0])
    assert torch.equal(network.eval()(images), heads[0])


def test_serving_computes_no_other_head_and_training_leaves_no_parameter_out() -> None:
    network = ResEncUNet(TINY)
    network(torch.rand(1, 3, 16, 16)).sum().backward()
    assert {name for name, p in network.named_parameters() if p.grad is None} == {"head.1.weight", "head.1.bias"}
    torch.stack([head.sum() for head in network.heads(torch.rand(1, 3, 16, 16))]).sum().backward()
    assert all(p.grad is not None for p in network.parameters())


def test_flat_strides_and_kernels_leave_the_slices_alone() -> None:
    config = ResEncConfig(
        in_channels=1,
        dimensions=3,
        features=(4, 8, 8),
        blocks=(1, 1, 1),
        strides=((1, 1, 1), (1, 2, 2), (2, 2, 2)),
        kernels=((1, 3, 3), (3, 3, 3), (3, 3, 3)),
    )
    assert config.axis_strides == (2, 4, 4)
    network = ResEncUNet(config).eval()
    volume = torch.rand(1, 1, 4, 16, 16)
    assert [tuple(h.shape[2:]) for h in network.heads(volume)] == [(4, 16, 16), (4, 8, 8)]
    first = network.stem[0]
    assert isinstance(first, nn.Conv3d)
    assert first.kernel_size == (1, 3, 3)


def test_a_block_begins_as_its_skip() -> None:
    network = ResEncUNet(TINY)
    block = network.encoder[1].get_submodule("1")
    features = torch.rand(1, 8, 8, 8)
    assert torch.equal(block(features), features)


def test_a_cards_lists_build_the_same_network_as_the_presets_tuples() -> None:
    config = PRESETS["cpu"].config(1, 2)
    as_json = {
        name: [list(x) if isinstance(x, tuple) else x for x in value] if isinstance(value, tuple) else value
        for name, value in asdict(config).items()
    }
    with torch.device("meta"):
        network = build_network("resenc", as_json)
    assert isinstance(network, ResEncUNet)
    assert network.config == config


def test_the_same_seed_gives_the_same_network() -> None:
    networks = []
    for _ in range(2):
        torch.manual_seed(5)
        networks.append(ResEncUNet(TINY).state_dict())
    assert all(torch.equal(value, networks[1][name]) for name, value in networks[0].items())


def test_width_multiplies_the_channels() -> None:
    assert ResEncConfig(width=0.25).channels == (8, 16, 32, 64, 128, 128)


@pytest.mark.parametrize(
    ("kwargs", "reason"),
    [
        ({"features": (4, 8), "blocks": (1, 1, 1)}, "one entry per stage"),
        ({"features": (4,), "blocks": (1,)}, "two stages at least"),
        ({"dimensions": 4}, "there are 2 and 3"),
        ({"features": (4, 8), "blocks": (1, 1), "strides": ((2, 2), (2, 2))}, "full resolution"),
    ],
)
def test_a_shape_that_cannot_be_is_refused(kwargs: dict[str, object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        build_network("resenc", kwargs)
