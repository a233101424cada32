"""One step of system (c): who learns from whom, and that a resumed run is the same run (models.md §3.5, §11)."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import replace
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from model.networks import build_network
from model.networks.segan import CLIP
from model.networks.uagan import UAGAN
from model.training.losses_unified import SEGAN_WEIGHTS, UnifiedWeights, lesion_probability
from model.training.schemes.unified import (
    SEGAN_REFERENCE,
    Mode,
    UnifiedBatch,
    UnifiedScheme,
    UnifiedSettings,
    balanced_indices,
    decayed_rate,
)

MODES: tuple[Mode, ...] = ("full", "unified", "segan")
TINY = UnifiedSettings(modalities=3, side=64, width=0.03125)
# liver and lesion of three modalities
GREYS = ((0.2, -0.3), (-0.1, 0.6), (0.0, 0.4))


def slices(count: int, side: int = 64, seed: int = 0) -> UnifiedBatch:
    """Round livers with two round lesions each, in the grey levels of three modalities in turn, with noise."""
    chance = torch.Generator().manual_seed(seed)
    modality = torch.arange(count) % 3
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    lesion = torch.zeros(count, side, side, dtype=torch.bool)
    for image in range(count):
        for _ in range(2):
            row, column, size = torch.rand(3, generator=chance).tolist()
            away = (rows - side * (0.3 + 0.4 * row)) ** 2 + (columns - side * (0.3 + 0.4 * column)) ** 2
            lesion[image] |= away < (3 + 4 * size) ** 2
    liver = (rows - side / 2) ** 2 + (columns - side / 2) ** 2 < (0.42 * side) ** 2
    grey = torch.tensor(GREYS)[modality][:, :, None, None]
    images = torch.where(lesion, grey[:, 1], torch.where(liver, grey[:, 0], torch.tensor(-0.9)))
    images = (images + 0.05 * torch.randn(images.shape, generator=chance)).clamp(-1, 1)
    return UnifiedBatch(images[:, None], lesion[:, None].float(), modality)


def part(batch: UnifiedBatch, indices: tuple[int, ...]) -> UnifiedBatch:
    chosen = list(indices)
    return UnifiedBatch(batch.images_B1HW[chosen], batch.targets_B1HW[chosen], batch.modality_B[chosen])


def weights_of(*networks: nn.Module | None) -> list[Tensor]:
    return [p.detach().clone() for network in networks if network is not None for p in network.parameters()]


def state_of(scheme: UnifiedScheme) -> list[Tensor]:
    """Weights, running statistics and estimates of norms of all networks."""
    return [tensor for state in scheme.state_dict()["networks"].values() for tensor in state.values()]


def equal(some: list[Tensor], others: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(some, others, strict=True))


def served_dice(scheme: UnifiedScheme, batch: UnifiedBatch) -> float:
    """Dice of all pixels at one half, by the serving call with each image's own label."""
    scheme.generator.eval()
    code = () if scheme.settings.mode == "segan" else (nn.functional.one_hot(batch.modality_B, 3).float(),)
    with torch.no_grad():
        answer = lesion_probability(scheme.generator(batch.images_B1HW, *code)) > 0.5
    truth = batch.targets_B1HW > 0.5
    return (2 * (answer & truth).sum() / (answer.sum() + truth.sum())).item()


@pytest.mark.parametrize("bound", ["clip", "spectral"])
def test_the_critic_raises_the_distance_and_the_segmentor_lowers_it(bound: Literal["clip", "spectral"]) -> None:
    weights = replace(SEGAN_WEIGHTS, dice=0.0)
    scheme = UnifiedScheme(replace(TINY, mode="segan", bound=bound, weights=weights, generator_rate=1e-3))
    batch = slices(4)

    def distance() -> float:
        with torch.no_grad():
            return scheme.distance(batch, lesion_probability(scheme.generator(batch.images_B1HW))).item()

    start = distance()
    for _ in range(5):
        scheme.critic_step(batch, lesion_probability(scheme.generator(batch.images_B1HW)))
    raised = distance()
    for _ in range(5):
        scheme.generator_step(batch, batch.modality_B, 0.0)
    assert raised > start
    assert distance() < raised


def test_the_references_critic_is_clipped_from_the_start_and_after_every_step() -> None:
    scheme = UnifiedScheme(replace(SEGAN_REFERENCE, side=64, width=TINY.width))
    for step in range(2):
        assert all((weight.abs() <= CLIP).all() for weight in scheme.critic.parameters())
        scheme.step(slices(2), step / 2)


def test_the_critic_learns_nothing_in_the_generators_step_nor_the_generator_in_the_critics() -> None:
    scheme, batch = UnifiedScheme(TINY), slices(3)
    others = weights_of(scheme.critic, scheme.discriminator)
    scheme.generator_step(batch, batch.modality_B.flip(0), 0.5)
    assert equal(others, weights_of(scheme.critic, scheme.discriminator))
    generator = weights_of(scheme.generator)
    before = scheme.answer(batch, batch.modality_B)
    scheme.critic_step(batch, lesion_probability(before.logits_BKHW))
    scheme.discriminator_step(batch, before)
    assert equal(generator, weights_of(scheme.generator))
    assert not equal(others, weights_of(scheme.critic, scheme.discriminator))


def test_one_step_moves_every_network_and_tells_every_term() -> None:
    scheme = UnifiedScheme(TINY)
    before = [weights_of(n) for n in (scheme.generator, scheme.critic, scheme.discriminator)]
    terms = scheme.step(slices(3), 0.5)
    after = [weights_of(n) for n in (scheme.generator, scheme.critic, scheme.discriminator)]
    assert not any(equal(b, a) for b, a in zip(before, after, strict=True))
    assert set(terms) == {
        *(f"discriminator/{name}" for name in ("realness", "gradient_penalty", "modality")),
        "critic/multiscale",
        *(f"generator/{name}" for name in ("segmentation", "multiscale", "dice", "realness", "modality")),
        *(f"generator/{name}" for name in ("cycle", "translated_segmentation")),
    }


def test_a_step_redraws_the_images_in_each_others_modalities() -> None:
    """The labels that the translation is asked for are those of the batch, in an order that each step draws anew."""
    scheme, batch = UnifiedScheme(TINY), slices(8)
    planes: list[Tensor] = []
    assert isinstance(scheme.generator, UAGAN)
    assert scheme.generator.translation_encoder is not None
    scheme.generator.translation_encoder.register_forward_pre_hook(lambda _, given: planes.append(given[0][:, 1:]))
    scheme.step(batch, 0.0)
    scheme.step(batch, 0.0)
    asked = [plane.mean((2, 3)).argmax(1) for plane in planes]
    assert len(asked) == 2 * 3  # for critic and discriminator, there, and back again
    for first, there, back in (asked[:3], asked[3:]):
        assert torch.equal(first, there)
        assert torch.equal(back, batch.modality_B)
        assert torch.equal(there.sort().values, batch.modality_B.sort().values)
    assert not torch.equal(asked[1], asked[4])


def test_the_segmentation_learns_from_the_critic_alone() -> None:
    """With every other weight at zero the distance still moves the generator."""
    silent = UnifiedWeights(0, 0, 0, 0, 0, 0, 0, multiscale=1.0, dice=0.0)
    scheme = UnifiedScheme(replace(TINY, mode="unified", weights=silent))
    before = weights_of(scheme.generator)
    scheme.generator_step(slices(3), slices(3).modality_B, 0.0)
    assert not equal(before, weights_of(scheme.generator))


@pytest.mark.parametrize("mode", MODES)
def test_a_resumed_run_has_bit_identical_weights(mode: Mode) -> None:
    settings, batch, file = replace(TINY, mode=mode), slices(3), io.BytesIO()
    whole, torn = UnifiedScheme(settings), UnifiedScheme(settings)
    for step in range(4):
        whole.step(batch, step / 4)
    for step in range(2):
        torn.step(batch, step / 4)
    torch.save(torn.state_dict(), file)
    file.seek(0)
    torch.manual_seed(99)
    resumed = UnifiedScheme(settings)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for step in range(2, 4):
        resumed.step(batch, step / 4)
    assert resumed.step_number == 4
    assert equal(state_of(whole), state_of(resumed))


def test_a_state_of_another_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="discriminator"):
        UnifiedScheme(TINY).load_state_dict(UnifiedScheme(replace(TINY, mode="unified")).state_dict())


def test_another_seed_takes_another_way() -> None:
    schemes = [UnifiedScheme(replace(TINY, mode="unified", seed=seed)) for seed in (0, 1)]
    assert not equal(weights_of(schemes[0].generator), weights_of(schemes[1].generator))


def test_a_step_leaves_the_callers_chance_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    UnifiedScheme(TINY).step(slices(3), 0.0)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("mode", MODES)
def test_the_generator_is_named_as_a_card_names_it(mode: Mode) -> None:
    scheme = UnifiedScheme(replace(TINY, mode=mode))
    rebuilt = build_network(*scheme.network)
    rebuilt.load_state_dict(scheme.generator.state_dict())
    assert equal(weights_of(rebuilt), weights_of(scheme.generator))


def test_a_batch_whose_shapes_disagree_is_refused() -> None:
    with pytest.raises(ValueError, match="do not make a batch"):
        UnifiedBatch(torch.zeros(2, 1, 64, 64), torch.zeros(2, 1, 64, 32), torch.zeros(2, dtype=torch.long))


@pytest.mark.parametrize(("share", "rate"), [(0.0, 1e-4), (0.5, 1e-4), (0.75, 5.05e-5), (1.0, 1e-6)])
def test_the_rate_is_flat_and_then_falls_to_its_last(share: float, rate: float) -> None:
    assert decayed_rate(share, 1e-4, flat_share=0.5, last_rate=1e-6) == pytest.approx(rate)


def test_a_batch_holds_every_modality_as_often_as_every_other() -> None:
    modality = [0] * 90 + [1] * 9 + [2]
    for step in range(20):
        drawn = Counter(modality[i] for i in balanced_indices(modality, 8, seed=0, step=step))
        assert sorted(drawn.values()) == [2, 3, 3]


def test_no_image_comes_twice_while_its_modality_has_others() -> None:
    indices = balanced_indices([0, 0, 0, 1, 1, 1], 6, seed=3, step=1)
    assert sorted(indices) == [0, 1, 2, 3, 4, 5]


def test_no_modality_is_always_the_one_that_is_left_out() -> None:
    modality = [0, 1, 2] * 5
    batches = [balanced_indices(modality, 2, 0, step) for step in range(30)]
    assert {min({0, 1, 2} - {modality[i] for i in batch}) for batch in batches} == {0, 1, 2}


def test_the_same_seed_and_step_draw_the_same_batch() -> None:
    batches = [balanced_indices([0, 1] * 20, 8, seed, step) for seed, step in ((0, 4), (0, 4), (0, 5), (1, 4))]
    assert batches[0] == batches[1]
    assert len(set(batches)) == 3


def test_there_is_no_batch_without_an_image() -> None:
    with pytest.raises(ValueError, match="no image"):
        balanced_indices([], 4, 0, 0)


@pytest.mark.parametrize(("mode", "rate", "seed"), [("full", 4e-3, 1), ("unified", 4e-3, 1), ("segan", 2e-3, 1)])
def test_eight_slices_of_three_modalities_are_learnt_by_heart(mode: Mode, rate: float, seed: int) -> None:
    """At an eighth of the width; classes weighted alike, so that one half is the threshold."""
    weights = SEGAN_WEIGHTS if mode == "segan" else UnifiedWeights(background=0.5, lesion=0.5)
    settings = UnifiedSettings(mode, 3, 64, 0.125, seed=seed, weights=weights, generator_rate=rate, last_rate=3e-4)
    scheme, batch, steps, dice = UnifiedScheme(settings), slices(8), 80, 0.0
    for step in range(steps):
        drawn = range(8) if mode == "segan" else balanced_indices(batch.modality_B.tolist(), 4, seed, step)
        scheme.step(part(batch, tuple(drawn)), step / steps)
        if step % 10 == 9 and (dice := served_dice(scheme, batch)) > 0.95:
            break
    assert dice > 0.95
