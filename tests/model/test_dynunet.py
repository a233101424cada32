"""The nnU-Net baseline has the planned layers and answers as MONAI's DynUNet does (models.md §1.11, §11 tests 1, 2)."""

from __future__ import annotations

import pytest
import torch
from monai.networks.nets.dynunet import DynUNet as MonaiDynUNet

from model.networks import build_network
from model.networks.dynunet import DynUNet, DynUNetConfig

TINY = DynUNetConfig(patch=(32, 48), width=0.125)


def theirs(config: DynUNetConfig) -> MonaiDynUNet:
    planned = config.plan
    return MonaiDynUNet(
        config.dimensions,
        config.in_channels,
        config.out_channels,
        planned.kernels,
        planned.strides,
        planned.strides[1:],
        filters=config.features,
        deep_supervision=True,
        deep_supr_num=planned.stages - 2,
    )


@pytest.mark.parametrize(
    ("config", "count"),
    [
        # 20,613,674 and 30,698,858 are what nnU-Net's own PlainConvUNet has, its biases before norms left out
        (DynUNetConfig(patch=(224, 224), out_channels=2), 20_613_674),
        (DynUNetConfig(patch=(512, 512), out_channels=2), 46_314_030),
        # in 3-D MONAI's decoder has a full kernel where nnU-Net's is flat: 64·32·27 + 32·32·27 for 64·32·9 + 32·32·9
        (DynUNetConfig((48, 192, 192), (2.5, 0.8, 0.8), 1, 2), 30_698_858 + (64 * 32 + 32 * 32) * (27 - 9)),
    ],
)
def test_the_planned_network_has_exactly_its_number_of_parameters(config: DynUNetConfig, count: int) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in DynUNet(config).parameters()) == count


def test_the_answer_is_that_of_monais_dynunet() -> None:
    torch.manual_seed(0)
    ours = DynUNet(TINY).eval()
    torch.manual_seed(0)
    monais = theirs(TINY).eval()
    images = torch.rand(2, 3, 32, 48)
    assert torch.equal(ours(images), monais(images))


def test_the_heads_are_those_that_monai_blows_up_and_stacks() -> None:
    torch.manual_seed(0)
    ours = DynUNet(TINY)
    torch.manual_seed(0)
    monais = theirs(TINY).train()
    images = torch.rand(2, 3, 32, 48)
    heads = ours.heads(images)
    assert [tuple(h.shape[1:]) for h in heads] == [(1, 32, 48), (1, 16, 24), (1, 8, 12)]
    for head, stacked in zip(heads, monais(images).unbind(1), strict=True):
        assert torch.equal(torch.nn.functional.interpolate(head, (32, 48)), stacked)


def test_forward_is_the_finest_head_in_training_and_in_serving() -> None:
    network = build_network("dynunet", {"patch": [32, 48], "width": 0.125})
    assert isinstance(network, DynUNet)
    images = torch.rand(1, 3, 32, 48)
    assert torch.equal(network.train()(images), network.heads(images)[0])
    assert torch.equal(network.eval()(images), network.heads(images)[0])


def test_serving_computes_no_other_head() -> None:
    network = DynUNet(TINY)
    network(torch.rand(1, 3, 32, 48)).sum().backward()
    without = {name.split(".")[0] + name.split(".")[1] for name, p in network.named_parameters() if p.grad is None}
    assert without == {"head1", "head2"}


def test_every_parameter_has_one_name() -> None:
    state = DynUNet(TINY).state_dict()
    assert len({value.data_ptr() for value in state.values()}) == len(state)


def test_a_volume_gets_a_volume() -> None:
    network = DynUNet(DynUNetConfig((8, 32, 32), (3.0, 1.0, 1.0), in_channels=1, out_channels=3, width=0.125))
    assert network(torch.rand(1, 1, 8, 32, 32)).shape == (1, 3, 8, 32, 32)
    assert network.config.plan.kernels[0] == (1, 3, 3)
    assert (network.config.axis_strides, network.config.stride) == ((2, 8, 8), 8)


def test_a_patch_that_does_not_fit_its_strides_is_answered_with_one_that_does() -> None:
    with pytest.raises(ValueError, match=r"patch \(100, 60\).*is \(112, 64\)"):
        DynUNetConfig(patch=(100, 60))


def test_a_patch_that_is_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match="too small"):
        DynUNetConfig(patch=(8, 8))
