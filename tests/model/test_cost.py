"""Multiply-accumulates, by hand and against the figures of models.md §4.7."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from model.networks.cost import cost, macs
from model.networks.segresnet import LIVER, TUMOUR, SegResNet, SegResNetConfig
from model.networks.unetpp import UNetPlusPlus, UNetPlusPlusConfig


def test_a_convolution_costs_its_kernel_at_every_output_voxel() -> None:
    assert macs(nn.Conv2d(3, 8, 3, stride=2, padding=1), (2, 3, 16, 10)) == 2 * 8 * 5 * (3 * 3 * 3) * 8


def test_unetpp_costs_what_the_design_says() -> None:
    with torch.device("meta"):
        network = UNetPlusPlus(UNetPlusPlusConfig())
    assert macs(network, (1, 3, 224, 224)) / 1e9 == pytest.approx(26.4, abs=0.05)


@pytest.mark.parametrize(("config", "patch_DHW", "gmac"), [(LIVER, (16, 512, 512), 291), (TUMOUR, (32, 256, 256), 145)])
def test_segresnet_costs_what_the_design_says(
    config: SegResNetConfig, patch_DHW: tuple[int, int, int], gmac: float
) -> None:
    with torch.device("meta"):
        network = SegResNet(config)
    assert macs(network, (1, 1, *patch_DHW)) / 1e9 == pytest.approx(gmac, abs=0.6)


def test_counting_leaves_the_network_as_it_was() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).train()
    cost(network, (1, 1, 9, 9))
    assert network.training
    assert network[0].weight.device.type == "cpu"
    assert int(network[1].num_batches_tracked) == 0


def test_a_network_of_two_inputs_is_given_two_shapes() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Conv2d(1, 4, 1), nn.Linear(3, 4)

        def forward(self, images: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.left(images) + self.right(codes)[..., None, None]
            return result

    assert str(cost(Sum(), (1, 1, 1000, 1000), (1, 3))) == "0.004 GMAC for 1×1×1000×1000 + 1×3, 0.00 M parameters"
    assert macs(Sum(), (1, 1, 1000, 1000), (1, 3)) == 4_000_000 + 12
