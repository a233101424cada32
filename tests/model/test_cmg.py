"""System (b) has the published shape, and guidance means what it says (models.md §2, §11 tests 1, 2, 5 and 10)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from model.networks import build_network
from model.networks.cmg import CMG, CMGConfig, Guidance, Phases, prototypes, similarity
from model.training.losses_guided import guided_dice_loss, guided_loss

SMALL = CMGConfig(width=0.125)
pytestmark = pytest.mark.usefixtures("one_thread")


def parameters(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.fixture(scope="module")
def published() -> CMG:
    """The full width, without memory."""
    with torch.device("meta"):
        return CMG(CMGConfig()).eval()


@pytest.fixture
def small() -> CMG:
    torch.manual_seed(0)
    return CMG(SMALL).eval()


def two_phases(size: int = 64, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    both = torch.randn(2, batch, 3, size, size, generator=generator)
    return both[0], both[1]


def squares(batch: int = 2, size: int = 64) -> Phases:
    """A lesion per image, elsewhere in the other phase."""
    masks = Phases(torch.zeros(batch, 1, size, size), torch.zeros(batch, 1, size, size))
    masks.portal_venous[..., 4:20, 8:30] = 1
    masks.arterial[..., 10:26, 2:24] = 1
    return masks


def test_every_part_has_exactly_the_published_number_of_parameters(published: CMG) -> None:
    assert parameters(published) == 65_013_824
    assert [parameters(block) for block in published.fusion] == [457_152, 2_250_112, 8_989_440]
    assert [parameters(module) for module in published.guidance] == [2_820_608, 771_328]
    assert parameters(published.arterial.encoder) == 21_284_672


def test_the_variant_for_five_classes_has_its_published_number_too() -> None:
    with torch.device("meta"):
        assert parameters(CMG(CMGConfig(classes=5))) == 65_676_628


def test_every_stage_has_the_published_shape(published: CMG) -> None:
    shapes: dict[str, tuple[int, ...]] = {}
    path = published.portal_venous
    stages = {"c1": path.encoder.bn1, "c2": path.encoder.layer1, "m6": path.decode_16, "m7": path.decode_8}
    stages |= {"m8": path.decode_4, "m9": path.decode_2, "logits": path.head, "u5": published.fusion[2].fuse}
    for name, layer in stages.items():
        layer.register_forward_hook(lambda _l, _i, output, name=name: shapes.update({name: tuple(output.shape[1:])}))
    with torch.device("meta"):
        answer = published(torch.zeros(1, 3, 512, 512), torch.zeros(1, 3, 512, 512))
    assert answer.shape == (1, 1, 512, 512)
    assert shapes == {
        "c1": (64, 256, 256),
        "c2": (64, 128, 128),
        "u5": (512, 16, 16),
        "m6": (256, 32, 32),
        "m7": (128, 64, 64),
        "m8": (64, 128, 128),
        "m9": (64, 256, 256),
        "logits": (1, 256, 256),
    }


@pytest.mark.parametrize("classes", [1, 3])
def test_six_logits_are_supervised_at_a_sixteenth_an_eighth_and_full_size(classes: int) -> None:
    network = build_network("cmg", {"width": 0.125, "classes": classes})
    outputs = network.training_outputs(*two_phases(), squares())
    for phases, size in ((outputs.coarse, 4), (outputs.fine, 8), (outputs.final, 64)):
        assert [logits.shape for logits in phases] == [(2, classes, size, size)] * 2


@pytest.mark.parametrize("classes", [1, 3])
def test_every_parameter_learns_from_the_six_logits(classes: int) -> None:
    network = CMG(CMGConfig(width=0.125, classes=classes))
    masks = squares()
    masks.portal_venous[..., 40:56, 40:56] = classes - 1
    outputs = network.training_outputs(*two_phases(), masks)
    torch.stack(
        [logits.square().mean() for p in (outputs.coarse, outputs.fine, outputs.final) for logits in p]
    ).sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


def test_serving_needs_no_masks_and_gives_the_portal_venous_logits_of_training(small: CMG) -> None:
    images = two_phases()
    with torch.inference_mode():
        assert torch.equal(small(*images), small.training_outputs(*images).final.portal_venous)


def test_the_other_phase_takes_part_in_the_answer(small: CMG) -> None:
    portal_venous, arterial = two_phases()
    with torch.inference_mode():
        assert not torch.allclose(small(portal_venous, arterial), small(portal_venous, arterial.flip(3)))


def test_given_masks_guide_and_images_marked_as_predicted_are_guided_by_their_own(small: CMG) -> None:
    images, masks = two_phases(), squares()
    with torch.inference_mode():
        own = small.training_outputs(*images).fine.portal_venous
        taught = small.training_outputs(*images, masks).fine.portal_venous
        mixed = small.training_outputs(*images, masks, torch.tensor([True, False])).fine.portal_venous
    assert not torch.allclose(own, taught)
    torch.testing.assert_close(mixed, torch.stack([own[0], taught[1]]))


@pytest.fixture
def guidance() -> Guidance:
    torch.manual_seed(0)
    return Guidance(24, 16, SMALL).eval()


def merged_and_skips() -> tuple[Phases, Phases]:
    generator = torch.Generator().manual_seed(2)
    merged = Phases(*torch.randn(2, 2, 24, 8, 8, generator=generator))
    return merged, Phases(*torch.randn(2, 2, 16, 8, 8, generator=generator))


def test_an_empty_mask_changes_nothing(guidance: Guidance) -> None:
    merged, skips = merged_and_skips()
    nothing = Phases(torch.zeros(2, 1, 64, 64), torch.zeros(2, 1, 64, 64))
    guided, _ = guidance(merged, skips, nothing, None)
    assert torch.equal(guided.portal_venous, guidance.portal_venous.features(merged.portal_venous))
    assert torch.equal(guided.arterial, guidance.arterial.features(merged.arterial))


def test_an_empty_mask_gives_finite_gradients(guidance: Guidance) -> None:
    merged, skips = merged_and_skips()
    skips = Phases(*(skip.requires_grad_() for skip in skips))
    nothing = Phases(torch.zeros(2, 1, 64, 64), torch.zeros(2, 1, 64, 64))
    guided, _ = guidance(merged, skips, nothing, None)
    (guided.portal_venous.sum() + guided.arterial.sum()).backward()
    assert all(skip.grad.isfinite().all() for skip in skips)


def test_where_in_its_lesions_the_other_phase_has_a_feature_does_not_matter(guidance: Guidance) -> None:
    """That is how much misregistration is tolerated: any that stays within the mask."""
    merged, skips = merged_and_skips()
    masks = Phases(squares().portal_venous, squares().arterial)
    inside = torch.nn.functional.adaptive_max_pool2d(masks.arterial, 8)[0, 0].bool()
    shuffled = skips.arterial.clone()
    order = torch.randperm(int(inside.sum()), generator=torch.Generator().manual_seed(3))
    shuffled[:, :, inside] = shuffled[:, :, inside][:, :, order]
    assert not torch.equal(shuffled, skips.arterial)
    before, _ = guidance(merged, skips, masks, None)
    after, _ = guidance(merged, Phases(skips.portal_venous, shuffled), masks, None)
    torch.testing.assert_close(after.portal_venous, before.portal_venous)
    assert not torch.allclose(after.arterial, before.arterial)


def test_features_outside_the_other_phases_lesions_do_not_matter(guidance: Guidance) -> None:
    merged, skips = merged_and_skips()
    masks = squares()
    outside = torch.nn.functional.adaptive_max_pool2d(masks.arterial, 8) == 0
    before, _ = guidance(merged, skips, masks, None)
    elsewhere = Phases(skips.portal_venous, skips.arterial + 9 * outside)
    after, _ = guidance(merged, elsewhere, masks, None)
    torch.testing.assert_close(after.portal_venous, before.portal_venous)


def test_similarity_is_the_cosine_to_the_mean_feature_under_the_mask() -> None:
    """By hand: two features under the mask, (3, 0) and (1, 0), have the mean (2, 0)."""
    features = torch.tensor([[[[3.0, 1.0], [0.0, -1.0]], [[0.0, 0.0], [5.0, 0.0]]]])
    mask = torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]])
    mean = prototypes(features, mask)
    torch.testing.assert_close(mean, torch.tensor([[[2.0, 0.0]]]), atol=2e-4, rtol=0)
    expected = torch.tensor([[[[1.0, 1.0], [0.0, -1.0]]]])
    torch.testing.assert_close(similarity(features, mean), expected)


def test_similarity_is_what_torch_calls_the_cosine() -> None:
    features, looks = torch.randn(2, 5, 4, 4), torch.randn(2, 3, 5)
    expected = torch.nn.functional.cosine_similarity(features[:, None], looks[..., None, None], dim=2)
    torch.testing.assert_close(similarity(features, looks), expected)


def test_each_class_other_than_background_has_a_prototype_of_its_own() -> None:
    config = CMGConfig(width=0.125, classes=3)
    module = Guidance(24, 16, config).eval()
    merged, skips = merged_and_skips()
    labels = Phases(*(2 * mask for mask in squares()))
    seen: list[torch.Tensor] = []
    module.portal_venous.reduce.register_forward_pre_hook(lambda _layer, inputs: seen.append(inputs[0]))
    module(merged, skips, labels, None)
    features = module.portal_venous.features(merged.portal_venous)
    assert seen[0].shape == (2, 32, 8, 8)
    assert torch.equal(seen[0][:, :16], features)
    assert not torch.allclose(seen[0][:, 16:], features)


def test_guidance_is_computed_in_full_precision_within_half_precision() -> None:
    network = CMG(SMALL).train()
    with torch.autocast("cpu", torch.bfloat16):
        outputs = network.training_outputs(*two_phases(), squares())
    assert outputs.final.portal_venous.dtype == torch.bfloat16
    features, mask = torch.randn(1, 4, 64, 64) + 100, torch.ones(1, 1, 64, 64)
    mean = prototypes(features.bfloat16(), mask)
    torch.testing.assert_close(mean[0, 0], features.bfloat16().float().mean((0, 2, 3)), rtol=1e-5, atol=0)


def test_one_step_at_the_published_width_lowers_the_loss(one_step: Callable[..., list[float]]) -> None:
    network, images, masks = CMG(CMGConfig()), two_phases(), squares()
    before, after = one_step(network, lambda: guided_loss(network.training_outputs(*images, masks), masks))
    assert after < before


def test_eight_pairs_of_slices_are_learnt_by_heart(
    blobs: tuple[torch.Tensor, torch.Tensor],
    learn_by_heart: Callable[..., torch.nn.Module],
    batch_dice: Callable[..., float],
) -> None:
    """The arterial phase is shifted by four pixels; half the images are guided by the network's own masks."""
    images, truth = blobs
    arterial, arterial_truth = images.roll(4, 3), truth.roll(4, 3)
    network, own = CMG(SMALL), torch.arange(8) % 2 == 0

    def loss() -> torch.Tensor:
        masks = Phases(truth, arterial_truth)
        return guided_dice_loss(network.training_outputs(images, arterial, masks, own), masks)

    learn_by_heart(network, loss)
    assert batch_dice(network(images, arterial), truth) > 0.95
