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


def test_deep_supervision_costs_three_heads() -> None:
    with torch.device("meta"):
        assert parameters(UNetPlusPlus(UNetPlusPlusConfig(deep_supervision=True))) == 9_163_428


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


def test_supervised_heads_come_last_column_first_each_at_full_size() -> None:
    network = UNetPlusPlus(UNetPlusPlusConfig(width=0.125, deep_supervision=True)).eval()
    images = torch.rand(2, 3, 32, 64)
    tops = {}
    for j in range(5):
        network.nodes[f"x0{j}"].register_forward_hook(lambda _n, _i, output, j=j: tops.update({j: output}))
    heads = network.heads(images)
    layers = (network.head, network.side_heads["x03"], network.side_heads["x02"], network.side_heads["x01"])
    assert [head.shape for head in heads] == [(2, 1, 32, 64)] * 4
    for head, layer, column in zip(heads, layers, (4, 3, 2, 1), strict=True):
        assert torch.equal(head, layer(tops[column]))


def test_the_last_head_alone_is_served() -> None:
    network = UNetPlusPlus(UNetPlusPlusConfig(width=0.125, deep_supervision=True))
    images = torch.rand(2, 3, 32, 32)
    network(images).sum().backward()
    assert all(p.grad is None for p in network.side_heads.parameters())
    assert torch.equal(network.eval()(images), network.heads(images)[0])


def test_without_deep_supervision_there_is_one_head_and_no_other_weight() -> None:
    torch.manual_seed(3)
    plain = UNetPlusPlus(UNetPlusPlusConfig(width=0.125)).eval()
    torch.manual_seed(3)
    deep = UNetPlusPlus(UNetPlusPlusConfig(width=0.125, deep_supervision=True)).eval()
    images = torch.rand(1, 3, 32, 32)
    assert len(plain.heads(images)) == 1
    assert deep.state_dict().keys() - plain.state_dict().keys() == {
        f"side_heads.x0{j}.{kind}" for j in (1, 2, 3) for kind in ("weight", "bias")
    }
    assert torch.equal(plain(images), deep(images))


def test_an_unknown_network_is_named_together_with_the_known_ones() -> None:
    with pytest.raises(KeyError, match="unetpp"):
        build_network("unetppp", {})
    assert {"unet", "unetpp"} <= NETWORKS.keys()
