"""System (d)'s network: counts, shapes, the same answer without the autoencoder (models.md §4.2, §11 tests 1, 2, 8)."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from monai.networks.nets.segresnet import SegResNetVAE
from torch import Tensor, nn

from model.networks import build_network
from model.networks.segresnet import LIVER, TUMOUR, SegResNet, SegResNetConfig, serving_state_dict, with_vae
from model.training.losses_volume import with_vae_loss

TINY = SegResNetConfig(out_channels=3, init_filters=8, dropout=0.0)
TINY_PATCH = (16, 16, 32)


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("config", "patch_DHW", "served", "autoencoder"),
    [(LIVER, (16, 512, 512), 4_697_554, 12_657_185), (TUMOUR, (32, 256, 256), 4_697_571, 6_357_537)],
)
def test_liver_and_tumour_networks_have_exactly_the_published_numbers_of_parameters(
    config: SegResNetConfig, patch_DHW: tuple[int, int, int], served: int, autoencoder: int
) -> None:
    with torch.device("meta"):
        trained = parameters(with_vae(config, patch_DHW))
        assert parameters(SegResNet(config)) == served
        assert trained - served == autoencoder
        # patches written rows × columns × slices have as many
        assert parameters(with_vae(config, patch_DHW[1:] + patch_DHW[:1])) == trained


def test_group_norm_adds_its_weights() -> None:
    with torch.device("meta"):
        assert parameters(SegResNet(replace(LIVER, norm="group"))) == 4_700_914


def test_every_stage_halves_the_volume_and_doubles_the_channels() -> None:
    with torch.device("meta"):
        network = SegResNet(TUMOUR)
        deepest, stages = network.encode(torch.zeros(1, 1, 32, 256, 256))
    assert [tuple(s.shape[1:]) for s in stages] == [(16 * 2**i, 32 >> i, 256 >> i, 256 >> i) for i in range(4)]
    assert deepest.shape == stages[-1].shape


@pytest.mark.parametrize("norm", ["instance", "group"])
def test_without_the_autoencoder_the_logits_are_the_same(norm: str) -> None:
    torch.manual_seed(0)
    trained = with_vae(replace(TINY, norm=norm), TINY_PATCH).eval()
    served = build_network("segresnet", {"out_channels": 3, "init_filters": 8, "dropout": 0.0, "norm": norm}).eval()
    state = serving_state_dict(trained.state_dict())
    assert not any(name.startswith("vae_") for name in state)
    served.load_state_dict(state)
    images = torch.rand(1, 1, *TINY_PATCH)
    assert torch.equal(served(images), trained(images))


def test_training_gives_the_same_logits_and_monais_loss() -> None:
    torch.manual_seed(0)
    trained = with_vae(TINY, TINY_PATCH)
    theirs = SegResNetVAE(
        TINY_PATCH, init_filters=8, out_channels=3, dropout_prob=0.0, norm="instance", vae_estimate_std=False
    )
    theirs.load_state_dict(trained.state_dict())
    images = torch.rand(1, 1, *TINY_PATCH)
    torch.manual_seed(1)
    ours = trained.training_outputs(images)
    torch.manual_seed(1)
    logits, loss = theirs(images)
    assert torch.equal(ours.logits, logits)
    assert torch.equal(ours.logits, trained(images))
    assert torch.equal(ours.vae_loss, loss)


def test_the_autoencoder_takes_any_memory_layout() -> None:
    torch.manual_seed(0)
    trained = with_vae(SegResNetConfig(init_filters=8, norm="group"), TINY_PATCH)
    # torch's stub of Module.to lacks memory_format
    trained.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    assert bool(trained.training_outputs(torch.rand(2, 1, *TINY_PATCH)).vae_loss.isfinite())


def gradients(profile: str) -> dict[str, Tensor | None]:
    torch.manual_seed(0)
    trained = with_vae(TINY, TINY_PATCH)
    outputs = trained.training_outputs(torch.rand(1, 1, *TINY_PATCH))
    with_vae_loss(outputs.logits.square().mean(), outputs.vae_loss, profile).backward()
    return {name: p.grad for name, p in trained.named_parameters() if p.requires_grad}


def test_every_trained_parameter_has_a_gradient_and_as_coded_the_autoencoder_has_none() -> None:
    assert all(gradient is not None for gradient in gradients("published").values())
    coded = gradients("as-coded")
    assert {name for name, gradient in coded.items() if gradient is None} == {n for n in coded if n.startswith("vae_")}


def test_images_of_another_size_are_served_and_not_trained_on() -> None:
    trained = with_vae(TINY, TINY_PATCH)
    larger = torch.rand(1, 1, 24, 16, 40)
    assert trained(larger).shape == (1, 3, 24, 16, 40)
    with pytest.raises(ValueError, match=r"images of \(24, 16, 40\).*built for \(16, 16, 32\)"):
        trained.training_outputs(larger)


def test_a_patch_that_the_autoencoder_cannot_halve_is_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 16"):
        with_vae(TINY, (24, 32, 32))


def test_an_unknown_norm_is_refused() -> None:
    with pytest.raises(ValueError, match="norm is 'batch'; there are: instance, group"):
        build_network("segresnet", {"norm": "batch"})
