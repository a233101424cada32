"""The judge of the feature constraint: published shapes, nothing that drifts (models.md §1.3, §1.5, §11 test 2)."""

from __future__ import annotations

import pytest
import torch

from model.networks.resnet50_features import ResNet50Features

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def features() -> ResNet50Features:
    torch.manual_seed(0)
    return ResNet50Features()


def snapshot(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def test_the_four_stages_have_the_published_shapes() -> None:
    with torch.device("meta"):
        stages = ResNet50Features().stages(torch.zeros(2, 3, 224, 224))
    assert [stage.shape for stage in stages] == [(2, 256, 56, 56), (2, 512, 28, 28), (2, 1024, 14, 14), (2, 2048, 7, 7)]


def test_stages_behind_the_last_one_asked_for_are_not_computed(features: ResNet50Features) -> None:
    features.trunk.layer3.register_forward_hook(lambda *_: pytest.fail("stage 3 was computed"))
    images = torch.rand(1, 3, 32, 32)
    first, second = features.stages(images, last=2)
    assert (first.shape, second.shape) == ((1, 256, 8, 8), (1, 512, 4, 4))


def test_batch_norm_stays_frozen_even_in_training_mode(features: ResNet50Features) -> None:
    before = snapshot(features)
    features.train()
    features(5 * torch.randn(2, 3, 32, 32))
    assert features.training
    assert all(torch.equal(value, before[name]) for name, value in features.state_dict().items())


def test_no_parameter_takes_a_gradient_but_the_images_do(features: ResNet50Features) -> None:
    images = torch.rand(1, 3, 32, 32, requires_grad=True)
    torch.stack([stage.sum() for stage in features(images)]).sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
    assert all(p.grad is None for p in features.parameters())


def test_it_says_where_its_weights_are_from(features: ResNet50Features) -> None:
    assert features.weights == "random"
    assert ResNet50Features(features.trunk.state_dict()).weights == "imagenet"


def test_weights_of_another_network_are_refused(features: ResNet50Features) -> None:
    weights = features.trunk.state_dict()
    del weights["layer4.2.conv3.weight"]
    with pytest.raises(RuntimeError, match=r"layer4\.2\.conv3"):
        ResNet50Features(weights)


def test_calibration_gives_every_norm_the_statistics_of_its_inputs(features: ResNet50Features) -> None:
    images = 3 + 2 * torch.randn(16, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    features.calibrate([images])
    outputs: list[torch.Tensor] = []
    for norm in (features.trunk.bn1, features.trunk.layer1[0].bn3, features.trunk.layer2[1].bn2):
        norm.register_forward_hook(lambda _norm, _inputs, output: outputs.append(output.clone()))
    features(images)
    for output in outputs:
        torch.testing.assert_close(output.mean((0, 2, 3)), torch.zeros(output.shape[1]), atol=1e-2, rtol=0)
        torch.testing.assert_close(output.std((0, 2, 3)), torch.ones(output.shape[1]), atol=2e-2, rtol=0)


def test_several_batches_are_averaged(features: ResNet50Features) -> None:
    batches = [torch.randn(16, 3, 64, 64) + shift for shift in (0.0, 4.0)]
    means = [features.trunk.conv1(batch).mean((0, 2, 3)) for batch in batches]
    features.calibrate(batches)
    torch.testing.assert_close(features.trunk.bn1.running_mean, (means[0] + means[1]) / 2, atol=1e-4, rtol=1e-4)


def test_calibrated_statistics_are_frozen_again(features: ResNet50Features) -> None:
    features.calibrate([torch.randn(16, 3, 64, 64)])
    before = snapshot(features)
    features.train()
    features(torch.randn(2, 3, 32, 32))
    assert all(torch.equal(value, before[name]) for name, value in features.state_dict().items())
    assert features.trunk.bn1.momentum == 0.1


def test_imagenet_weights_are_never_calibrated(features: ResNet50Features) -> None:
    with pytest.raises(ValueError, match="ImageNet"):
        ResNet50Features(features.trunk.state_dict()).calibrate([torch.zeros(1, 3, 32, 32)])


def test_calibration_needs_images(features: ResNet50Features) -> None:
    with pytest.raises(ValueError, match="no batch"):
        features.calibrate([])


def test_calibration_needs_enough_values_for_a_variance(features: ResNet50Features) -> None:
    with pytest.raises(ValueError, match="leaves 60 values"):
        features.calibrate([torch.zeros(15, 3, 64, 64)])
