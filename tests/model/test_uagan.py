"""UAGAN and its discriminator have the published shape, and its streams meet where they should (models.md §3.4)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from model.networks import build_network
from model.networks.uagan import UAGAN, Discriminator, DiscriminatorConfig, UAGANConfig, modality_code


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def small(translation: bool = True, **kwargs: bool | float) -> UAGAN:
    torch.manual_seed(0)
    return UAGAN(UAGANConfig(modalities=3, width=0.0625, translation=translation, **kwargs)).eval()


def some_images(count: int = 2, side: int = 32) -> Tensor:
    return 2 * torch.rand(count, 1, side, side, generator=torch.Generator().manual_seed(1)) - 1


def labels(*modalities: int) -> Tensor:
    return torch.cat([modality_code(m, 3) for m in modalities])


def calls_of(*modules: nn.Module | None) -> list[int]:
    """Grows by the index of a module each time that it is called."""
    calls: list[int] = []

    def noted(index: int) -> Callable[..., None]:
        return lambda *_: calls.append(index)

    for index, module in enumerate(modules):
        assert module is not None
        module.register_forward_hook(noted(index))
    return calls


def test_the_generator_for_three_modalities_has_exactly_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        assert parameters(UAGAN(UAGANConfig(modalities=3))) == 60_442_755


def test_the_discriminator_has_exactly_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        assert parameters(Discriminator(DiscriminatorConfig(modalities=3, side=128))) == 44_743_616


def test_in_colour_and_for_five_labels_it_is_stargans() -> None:
    with torch.device("meta"):
        assert parameters(Discriminator(DiscriminatorConfig(modalities=5, side=128, in_channels=3))) == 44_762_048


def test_an_eighth_of_the_width_fits_a_demo_bundle() -> None:
    assert UAGANConfig(width=0.125).filters == (8, 16, 32, 64)
    assert parameters(build_network("uagan", {"width": 0.125})) * 2 < 2_000_000


def test_every_level_has_the_published_shape() -> None:
    with torch.device("meta"):
        network = UAGAN(UAGANConfig())
        deepest, skips = network.encoder(torch.zeros(1, 1, 128, 128))
        assert [tuple(s.shape[1:]) for s in skips] == [(64, 128, 128), (128, 64, 64), (256, 32, 32), (512, 16, 16)]
        assert network.bottleneck(deepest).shape == (1, 1024, 8, 8)


@pytest.mark.parametrize("is_training", [True, False])
def test_the_logits_have_the_size_of_the_image(is_training: bool) -> None:
    network = build_network("uagan", {"modalities": 3, "width": 0.0625}).train(is_training)
    assert network(torch.zeros(2, 1, 32, 48), labels(0, 2)).shape == (2, 2, 32, 48)


def test_one_label_serves_a_batch_of_any_size() -> None:
    network, images = small(), some_images(3)
    assert torch.equal(network(images, modality_code(1, 3)), network(images, labels(1, 1, 1)))


def test_serving_answers_what_training_sees_without_drawing_the_translation() -> None:
    network, images = small(), some_images()
    trained = network.training_outputs(images, labels(2, 0)).logits_B2HW
    calls = calls_of(network.translation_decoder)
    assert torch.equal(network(images, labels(2, 0)), trained)
    assert not calls


def test_both_streams_pass_through_one_bottleneck() -> None:
    network = small()
    calls = calls_of(network.bottleneck)
    outputs = network.training_outputs(some_images(), labels(0, 1))
    assert calls == [0, 0]
    first = network.bottleneck[0].weight
    for answer in (outputs.logits_B2HW, outputs.translated_B1HW):
        (gradient,) = torch.autograd.grad(answer.square().sum(), first, retain_graph=True)
        assert gradient.abs().sum() > 0
    assert sum(module is network.bottleneck for module in network.modules()) == 1


def test_another_label_changes_the_skips_of_the_translation_only() -> None:
    network, images = small(), some_images()
    seen: dict[str, list[Tensor]] = {"own": [], "other": []}
    assert network.translation_encoder is not None
    network.encoder.register_forward_hook(lambda _, __, made: seen["own"].extend(made.skips))
    network.translation_encoder.register_forward_hook(lambda _, __, made: seen["other"].extend(made.skips))
    one, permuted = network(images, labels(0, 1)), network(images, labels(1, 0))
    assert all(torch.equal(a, b) for a, b in zip(seen["own"][:4], seen["own"][4:], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(seen["other"][:4], seen["other"][4:], strict=True))
    assert not torch.equal(one, permuted)


def test_each_decoder_attends_to_the_other_streams_encoder() -> None:
    network, images = small(), some_images()
    outputs = network.training_outputs(images, labels(0, 1))
    assert network.translation_encoder is not None
    for answer, other in (
        (outputs.logits_B2HW, network.translation_encoder),
        (outputs.translated_B1HW, network.encoder),
    ):
        (gradient,) = torch.autograd.grad(answer.square().sum(), other.levels[0][0].weight, retain_graph=True)
        assert gradient.abs().sum() > 0


def test_a_translated_image_keeps_to_the_range_of_images_where_tanh_is_on() -> None:
    bounded, free = small(tanh=True), small(tanh=False)
    drawn = bounded.training_outputs(some_images(), labels(0, 1)).translated_B1HW
    linear = free.training_outputs(some_images(), labels(0, 1)).translated_B1HW
    assert torch.equal(drawn, torch.tanh(linear))


def test_every_parameter_takes_part_in_training() -> None:
    network = small().train()
    outputs = network.training_outputs(some_images(), labels(0, 1))
    (outputs.logits_B2HW.sum() + outputs.translated_B1HW.sum()).backward()
    assert all(p.grad is not None for p in network.parameters())


def test_the_deepest_skip_is_dropped_out_in_training_only() -> None:
    encoder = small().train().encoder
    deepest, skips = encoder(some_images())
    assert [(skip == 0).float().mean().item() > 0.3 for skip in skips] == [False, False, False, True]
    assert (deepest == 0).float().mean().item() < 0.3
    assert torch.equal(encoder.eval()(some_images()).skips[-1], encoder(some_images()).skips[-1])


def test_the_untrained_network_expects_lesions_to_be_rare() -> None:
    network = small(lesion_prior=0.02)
    with torch.no_grad():
        network.decoder.head.weight.zero_()
        logits = network(some_images(), labels(0, 1))
    assert torch.softmax(logits, 1)[:, 1].mean().item() == pytest.approx(0.02)


@pytest.mark.parametrize("prior", [0.0, 1.0])
def test_a_prior_that_is_certain_is_refused(prior: float) -> None:
    with pytest.raises(ValueError, match="lesion_prior"):
        UAGANConfig(lesion_prior=prior)


def test_without_translation_one_stream_reads_image_and_label() -> None:
    network = small(translation=False)
    calls = calls_of(network.bottleneck)
    assert not torch.equal(network(some_images(), labels(0, 1)), network(some_images(), labels(1, 0)))
    assert calls == [0, 0]
    assert not [name for name, _ in network.named_parameters() if "translation" in name or "fusion" in name]
    with pytest.raises(ValueError, match="translation=True"):
        network.training_outputs(some_images(), labels(0, 1))


def test_a_label_is_one_hot_and_an_unknown_modality_is_refused() -> None:
    assert modality_code(1, 3).tolist() == [[0, 1, 0]]
    with pytest.raises(ValueError, match="from 0 to 2"):
        modality_code(3, 3)


@pytest.mark.parametrize(("side", "patches"), [(64, 1), (128, 2)])
def test_the_discriminator_judges_patches_and_names_one_modality_an_image(side: int, patches: int) -> None:
    discriminator = Discriminator(DiscriminatorConfig(modalities=3, side=side, width=0.0625))
    realness, modality = discriminator(some_images(2, side))
    assert realness.shape == (2, 1, patches, patches)
    assert modality.shape == (2, 3)


def test_a_side_that_the_class_head_cannot_cover_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 64"):
        DiscriminatorConfig(side=96)
