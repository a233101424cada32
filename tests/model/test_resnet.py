"""The trunks are torchvision's: same names, same numbers, same arithmetic (models.md §1.3, §2.2, §8)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from model.networks.cmg import CMG, CMGConfig
from model.networks.resnet import LEVELS, Depth, level, load_trunk, resnet

STATISTICS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def torchvision_names(depth: Depth) -> Iterator[str]:
    """The state dict's keys as torchvision writes them, without the classifier's."""

    def unit(convolution: str, norm: str) -> Iterator[str]:
        yield f"{convolution}.weight"
        yield from (f"{norm}.{name}" for name in STATISTICS)

    yield from unit("conv1", "bn1")
    for stage, blocks in enumerate((3, 4, 6, 3), start=1):
        for block in range(blocks):
            here = f"layer{stage}.{block}"
            for number in range(1, 4 if depth == 50 else 3):
                yield from unit(f"{here}.conv{number}", f"{here}.bn{number}")
            if block == 0 and (depth == 50 or stage > 1):
                yield from unit(f"{here}.downsample.0", f"{here}.downsample.1")


def by_hand(weights: Mapping[str, Tensor], images: Tensor, depth: Depth) -> list[Tensor]:
    """The four stages by torch's functions alone."""

    def unit(x: Tensor, convolution: str, norm: str, stride: int = 1) -> Tensor:
        kernel = weights[f"{convolution}.weight"]
        x = functional.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)
        mean, var, weight, bias = (weights[f"{norm}.{n}"] for n in ("running_mean", "running_var", "weight", "bias"))
        return functional.batch_norm(x, mean, var, weight, bias)

    x = functional.max_pool2d(functional.relu(unit(images, "conv1", "bn1", 2)), 3, 2, 1)
    strided = 2 if depth == 50 else 1  # the convolution of a block that carries its stride
    stages = []
    for stage, blocks in enumerate((3, 4, 6, 3), start=1):
        for block in range(blocks):
            here, stride, kept = f"layer{stage}.{block}", 2 if block == 0 and stage > 1 else 1, x
            if f"{here}.downsample.0.weight" in weights:
                kept = unit(x, f"{here}.downsample.0", f"{here}.downsample.1", stride)
            last = 3 if depth == 50 else 2
            for number in range(1, last + 1):
                x = unit(x, f"{here}.conv{number}", f"{here}.bn{number}", stride if number == strided else 1)
                x = functional.relu(x + kept if number == last else x)
        stages.append(x)
    return stages


def random_weights(depth: Depth) -> dict[str, Tensor]:
    """As a file of torchvision has them: statistics that are not those of a new network, and a classifier."""
    torch.manual_seed(5)
    weights = resnet(depth).state_dict()
    for name, value in weights.items():
        if name.endswith("running_mean"):
            value.normal_(std=0.1)
        elif name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
    return {**weights, "fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}


@pytest.mark.parametrize(("depth", "count"), [(34, 21_284_672), (50, 23_508_032)])
def test_names_and_number_of_the_parameters_are_torchvisions(depth: Depth, count: int) -> None:
    with torch.device("meta"):
        trunk = resnet(depth)
    assert sorted(trunk.state_dict()) == sorted(torchvision_names(depth))
    assert sum(p.numel() for p in trunk.parameters()) == count


def test_both_encoders_of_system_b_take_torchvisions_weights() -> None:
    with torch.device("meta"):
        network = CMG(CMGConfig())
    for path in (network.portal_venous, network.arterial):
        assert sorted(path.encoder.state_dict()) == sorted(torchvision_names(34))


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("depth", [34, 50])
def test_every_stage_is_what_the_weights_say_by_hand(depth: Depth) -> None:
    weights, trunk = random_weights(depth), resnet(depth).eval()
    load_trunk(trunk, weights)
    images = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(6))
    with torch.inference_mode():
        features = level(trunk, 0, images)
        for number, expected in enumerate(by_hand(weights, images, depth), start=1):
            features = level(trunk, number, features)
            assert features.shape[-2:] == (64 >> number + 1, 96 >> number + 1)
            torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-4)
    assert number == len(LEVELS) - 1


def test_older_files_without_the_count_of_batches_load_too() -> None:
    weights = {name: value for name, value in random_weights(34).items() if "num_batches" not in name}
    load_trunk(resnet(34), weights)


@pytest.mark.parametrize("change", ["missing", "unexpected"])
def test_anything_but_the_classifier_must_fit(change: str) -> None:
    weights = random_weights(34)
    if change == "missing":
        del weights["layer3.5.conv2.weight"]
    else:
        weights["fc2.weight"] = torch.zeros(1)
    with pytest.raises(RuntimeError, match=change.capitalize()):
        load_trunk(resnet(34), weights)
