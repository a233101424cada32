"""The baselines and `best` learn a few images by heart in seconds, each with its own loss (models.md §11 test 10)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from model.networks import build_network
from model.networks.dynunet import DynUNet
from model.networks.resenc import ResEncUNet
from model.networks.segresnet import SegResNetConfig, SegResNetWithVae, with_vae
from model.training.losses_volume import deep_supervision_loss, dice_ce_loss, dice_focal_loss, with_vae_loss

ENOUGH = 0.95
MOST_STEPS = 140


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tests run side by side: threads that wait for one another's core take twenty times as long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def some_slices() -> tuple[Tensor, Tensor]:
    """Eight slices (8, 3, 64, 64) of noise with one to three discs, twice the noise brighter; and their masks."""
    generator = torch.Generator().manual_seed(0)
    rows, columns = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    masks = torch.zeros(8, 1, 64, 64)
    for index, mask in enumerate(masks):
        for _ in range(1 + index % 3):
            row, column = torch.randint(10, 54, (2,), generator=generator)
            radius = torch.randint(4, 9, (1,), generator=generator)
            mask[0][(rows - row) ** 2 + (columns - column) ** 2 <= radius**2] = 1
    images = 0.6 * masks + 0.3 * torch.randn(8, 1, 64, 64, generator=generator)
    return images.repeat(1, 3, 1, 1), masks


def some_volumes() -> tuple[Tensor, Tensor]:
    """Two volumes (2, 1, 16, 32, 32) with a liver and a tumour in it, and one-hot masks of three classes."""
    generator = torch.Generator().manual_seed(0)
    d, h, w = torch.meshgrid(*(torch.arange(n) for n in (16, 32, 32)), indexing="ij")
    labels = torch.zeros(2, 16, 32, 32, dtype=torch.long)
    for i, volume in enumerate(labels):
        volume[((d - 8) / 7) ** 2 + ((h - 16) / 13) ** 2 + ((w - 15) / 13) ** 2 < 1] = 1
        volume[2 * (d - 6 - 2 * i) ** 2 + (h - 12 - 6 * i) ** 2 + (w - 18 + 5 * i) ** 2 < 25] = 2
    images = torch.tensor([0.0, 1.0, 0.3])[labels] + 0.3 * torch.randn(labels.shape, generator=generator)
    return images[:, None], functional.one_hot(labels, 3).movedim(-1, 1).float()


def steps_to_learn(network: nn.Module, loss: Callable[[], Tensor], dice: Callable[[], float], rate: float) -> int:
    """Steps of Adam until the Dice is enough, looked at every tenth; MOST_STEPS + 1 if it never is."""
    optimiser = torch.optim.Adam(network.parameters(), rate)
    for step in range(1, MOST_STEPS + 1):
        network.train()
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()
        if step % 10 == 0:
            network.eval()
            with torch.no_grad():
                if dice() > ENOUGH:
                    return step
    return MOST_STEPS + 1


def dice_of(answer: Tensor, truth: Tensor) -> float:
    return float(2 * (answer & truth).sum() / (answer.sum() + truth.sum()))


@pytest.mark.parametrize(
    ("network_id", "kwargs"),
    [
        ("resenc", {"features": [32, 64, 128, 256], "blocks": [1, 1, 1, 1], "width": 0.125}),
        ("dynunet", {"patch": [64, 64], "width": 0.125}),
    ],
)
def test_eight_slices_are_learnt_with_deep_supervision(network_id: str, kwargs: dict[str, object]) -> None:
    torch.manual_seed(0)
    network = build_network(network_id, kwargs)
    assert isinstance(network, (ResEncUNet, DynUNet))
    images, masks = some_slices()

    def supervised(logits: Tensor, target: Tensor) -> Tensor:
        return dice_ce_loss(logits, target, batch_dice=True)

    steps = steps_to_learn(
        network,
        lambda: deep_supervision_loss(network.heads(images), masks, supervised),
        lambda: dice_of(network(images) > 0, masks > 0),
        rate=1e-2,
    )
    assert steps <= MOST_STEPS


def test_eight_slices_are_learnt_by_transunet() -> None:
    torch.manual_seed(0)
    network = build_network(
        "transunet", {"image_size": [64, 64], "width": 0.125, "units": [1, 1, 1], "layers": 1, "dropout": 0.0}
    )
    images, masks = some_slices()
    steps = steps_to_learn(
        network,
        lambda: dice_ce_loss(network(images), masks, batch_dice=True),
        lambda: dice_of(network(images) > 0, masks > 0),
        rate=1e-2,
    )
    assert steps <= MOST_STEPS


def test_two_volumes_are_learnt_by_the_residual_encoder_in_3d() -> None:
    torch.manual_seed(0)
    kwargs = {
        "in_channels": 1,
        "out_channels": 3,
        "dimensions": 3,
        "features": [4, 8, 16],
        "blocks": [1, 1, 1],
        "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]],
        "kernels": [[1, 3, 3], [3, 3, 3], [3, 3, 3]],
    }
    network = build_network("resenc", kwargs)
    images, truth = some_volumes()
    steps = steps_to_learn(
        network,
        lambda: dice_ce_loss(network(images), truth, batch_dice=False),
        lambda: dice_of(network(images).argmax(1) == 2, truth[:, 2] > 0),
        rate=1e-2,
    )
    assert steps <= MOST_STEPS


def test_two_volumes_are_learnt_by_segresnet_with_its_autoencoder() -> None:
    torch.manual_seed(0)
    config = SegResNetConfig(out_channels=3, init_filters=8, blocks_down=(1, 1, 2), blocks_up=(1, 1))
    network: SegResNetWithVae = with_vae(config, (16, 32, 32))
    images, truth = some_volumes()

    def loss() -> Tensor:
        outputs = network.training_outputs(images)
        return with_vae_loss(dice_focal_loss(outputs.logits, truth), outputs.vae_loss, "best")

    steps = steps_to_learn(network, loss, lambda: dice_of(network(images).argmax(1) == 2, truth[:, 2] > 0), rate=1e-2)
    assert steps <= MOST_STEPS
