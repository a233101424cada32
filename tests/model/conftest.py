"""What the tests of `model` share: a tiny untrained bundle, and volumes that lie every possible way round."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from model.bundle import Bundle
from model.training.demo import he_normal
from model.training.demo_card import save_untrained_bundle
from model.volume import Volume


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """The networks here are tiny: on a busy machine two threads wait for each other many times as long as they work."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def untrained_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A 1/8-width, 64×64 MR bundle with random weights."""
    return save_untrained_bundle(tmp_path_factory.mktemp("untrained"), "pre-nact-dwi")


@pytest.fixture(scope="session")
def untrained_ct_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The same for CT."""
    return save_untrained_bundle(tmp_path_factory.mktemp("untrained-ct"), "ct-portal-venous")


@pytest.fixture(scope="session")
def axial_volume() -> Callable[..., Volume]:
    """`axial_volume(shape, spacing_mm)`: noise with bright patches, no symmetry, in canonical order."""

    def make(shape: tuple[int, int, int] = (6, 80, 96), spacing_mm: tuple[float, ...] = (6.0, 2.0, 1.5)) -> Volume:
        d, h, w = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
        rng = np.random.default_rng(7)
        body = ((h / 0.8) ** 2 + (w / 0.9) ** 2 < 1) * 100.0
        patch = (((d - 0.2) / 0.9) ** 2 + ((h + 0.3) / 0.25) ** 2 + ((w - 0.35) / 0.15) ** 2 < 1) * 150.0
        array = (body + patch + rng.normal(20, 5, shape)).astype(np.float32)
        affine = np.zeros((4, 4))
        affine[[2, 1, 0], [0, 1, 2]] = spacing_mm
        affine[:, 3] = (-70.0, -90.0, 20.0, 1.0)
        return Volume(array, affine)

    return make


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Small tensors are slower on several threads, much slower where cores are shared."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def blobs() -> tuple[torch.Tensor, torch.Tensor]:
    """Eight noisy slices (8, 3, 64, 64) with one to three bright discs each, and their truth (8, 1, 64, 64)."""
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    truth = torch.zeros(8, 1, 64, 64)
    for number in range(8):
        for _ in range(1 + number % 3):
            centre_y, centre_x = (12 + 40 * torch.rand(2, generator=generator)).tolist()
            radius = 4 + 5 * torch.rand(1, generator=generator).item()
            truth[number, 0][(y - centre_y) ** 2 + (x - centre_x) ** 2 < radius**2] = 1
    return truth + 0.5 * torch.randn(8, 3, 64, 64, generator=generator), truth


@pytest.fixture(scope="session")
def learn_by_heart() -> Callable[..., torch.nn.Module]:
    """`learn_by_heart(network, loss)`: fifty steps down `loss()`, then evaluation mode."""

    def learn(network: torch.nn.Module, loss: Callable[[], torch.Tensor], steps: int = 50) -> torch.nn.Module:
        optimiser = torch.optim.Adam(he_normal(network, seed=0).train().parameters(), lr=1e-2)
        for _ in range(steps):
            optimiser.zero_grad()
            loss().backward()
            optimiser.step()
        return network.eval()

    return learn


@pytest.fixture(scope="session")
def one_step() -> Callable[..., list[float]]:
    """`one_step(network, loss)`: `loss()` before and after a small step down the gradient, in training mode."""

    def step(network: torch.nn.Module, loss: Callable[[], torch.Tensor]) -> list[float]:
        optimiser = torch.optim.SGD(he_normal(network, seed=0).train().parameters(), lr=1e-3)
        values = []
        for _ in range(2):
            optimiser.zero_grad()
            value = loss()
            value.backward()
            optimiser.step()
            values.append(value.item())
        return values

    return step


@pytest.fixture(scope="session")
def batch_dice() -> Callable[..., float]:
    """`batch_dice(logits, truth)`: Dice of all pixels whose logit is positive."""

    def dice(logits: torch.Tensor, truth: torch.Tensor) -> float:
        answer = (logits > 0).float()
        return (2 * (answer * truth).sum() / (answer.sum() + truth.sum())).item()

    return dice
