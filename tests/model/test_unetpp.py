"""The generator has the published shape (models.md §1.2, §11 tests 1 and 2)."""

from __future__ import annotations

import pytest
import torch

from model.networks import NETWORKS, build_network
from model.networks.unetpp import UNetPlusPlus, UNetPlusPlusConfig


def parameters(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_the_published_width_has_exactly_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        assert parameters(UNetPlusPlus(UNetPlusPlusConfig())) == 9_163_329


def test_a_quarter_width_network_fits_a_demo_bundle() -> None:
    network = build_network("unetpp", {"width": 0.25})
    assert UNetPlusPlusConfig(width=0.25).filters == (8, 16, 32, 64, 128)
    assert parameters(network) * 2 < 1_200_000


def test_the_logits_have_the_size_of_the_image() -> None:
    network = build_network("unetpp", {"width": 0.125, "out_channels": 2}).eval()
    assert network(torch.zeros(2, 3, 32, 64)).shape == (2, 2, 32, 64)


def test_a_node_takes_all_earlier_nodes_of_its_row_and_the_one_below() -> None:
    network = UNetPlusPlus(UNetPlusPlusConfig(width=0.25))
    f = network.config.filters
    for i in range(5):
        for j in range(1, 5 - i):
            first = network.nodes[f"x{i}{j}"][0]
            assert (first.in_channels, first.out_channels) == (j * f[i] + f[i + 1], f[i])


def test_every_parameter_takes_part_in_the_answer() -> None:
    network = build_network("unetpp", {"width": 0.125})
    network(torch.rand(2, 3, 32, 32)).sum().backward()
    assert all(p.grad is not None for p in network.parameters())


def test_an_unknown_network_is_named_together_with_the_known_ones() -> None:
    with pytest.raises(KeyError, match="unetpp"):
        build_network("unetppp", {})
    assert "unetpp" in NETWORKS
