"""What the tests of `model` share: a tiny untrained bundle, and volumes that lie every possible way round."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from model.bundle import Bundle
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
