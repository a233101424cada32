"""The plain UNet is the baseline that CRLM-GAN compares itself with (models.md §1.2, §11 tests 1, 2 and 10)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from model.networks import build_network
from model.networks.unet import UNet, UNetConfig
from model.training.losses import generator_loss

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_published_width_has_exactly_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in UNet(UNetConfig()).parameters()) == 7_852_545


def test_every_depth_halves_the_image_and_every_step_up_doubles_it() -> None:
    network = UNet(UNetConfig(width=0.125))
    sizes: list[tuple[int, ...]] = []
    for block in (*network.down, *network.up):
        block.register_forward_hook(lambda _block, _inputs, output: sizes.append(tuple(output.shape[1:])))
    assert network(torch.zeros(2, 3, 32, 64)).shape == (2, 1, 32, 64)
    down = [(4, 32, 64), (8, 16, 32), (16, 8, 16), (32, 4, 8), (64, 2, 4)]
    assert sizes == [*down, *reversed(down[:-1])]


def test_every_parameter_takes_part_in_the_answer() -> None:
    network = build_network("unet", {"width": 0.125, "out_channels": 2})
    network(torch.rand(2, 3, 32, 32)).sum().backward()
    assert all(p.grad is not None for p in network.parameters())


@pytest.mark.parametrize("network_id", ["unet", "unetpp"])
def test_one_step_at_the_published_width_lowers_the_loss(network_id: str, one_step: Callable[..., list[float]]) -> None:
    images, truth = torch.randn(2, 3, 32, 32), torch.zeros(2, 1, 32, 32)
    network = build_network(network_id, {})
    before, after = one_step(network, lambda: generator_loss(network(images), truth))
    assert after < before


@pytest.mark.parametrize("network_id", ["unet", "unetpp"])
def test_eight_slices_are_learnt_by_heart(
    network_id: str,
    blobs: tuple[torch.Tensor, torch.Tensor],
    learn_by_heart: Callable[..., torch.nn.Module],
    batch_dice: Callable[..., float],
) -> None:
    images, truth = blobs
    network = build_network(network_id, {"width": 0.125})
    learn_by_heart(network, lambda: generator_loss(network(images), truth))
    assert batch_dice(network(images), truth) > 0.95
