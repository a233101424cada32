"""By its probe an engine sees whether a quicker way of computing finds the same lesions."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from model.bundle import Bundle, add_probe, load_bundle
from model.card import BundleProblem
from model.engine import Engine
from model.probe import PROBE_NAME, difference, read_probe

PICTURES = np.random.default_rng(0).integers(0, 255, (4, 64, 64), dtype=np.uint8)


@pytest.fixture
def bundle(untrained_bundle: Bundle, tmp_path: Path) -> Bundle:
    return add_probe(
        load_bundle(Path(shutil.copytree(untrained_bundle.path, tmp_path / "bundle"))), {"image": PICTURES}
    )


def test_it_comes_back_as_the_network_sees_it(bundle: Bundle) -> None:
    seen = read_probe(bundle.path, bundle.card)
    assert seen is not None
    assert torch.equal(seen["image"], torch.from_numpy(PICTURES).float() / 255)
    assert Engine(bundle, "cpu").dry_run() > 0


@pytest.mark.parametrize("spoil", [lambda p: p.write_bytes(b"spoilt"), lambda p: p.unlink()])
def test_a_probe_that_is_not_the_cards_is_refused(bundle: Bundle, spoil: Callable[[Path], None]) -> None:
    spoil(bundle.path / PROBE_NAME)
    with pytest.raises(BundleProblem, match=r"probe\.npz"):
        Engine(bundle, "cpu")


def maps(changed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Probability maps with a mask of 1000 pixels, of which some fall below the threshold in the second."""
    exact = torch.zeros(100, 100)
    exact[:10] = 0.51
    quick = exact.clone()
    quick[0, :changed] = 0.49
    return exact, quick


def test_one_pixel_of_a_thousand_may_change_and_three_may_not() -> None:
    assert difference(*maps(1), 0.5) is None
    assert "Dice 0.9985" in str(difference(*maps(3), 0.5))


def test_values_that_are_no_numbers_differ() -> None:
    exact, quick = maps(0)
    assert difference(exact, quick * torch.nan, 0.5) is not None


def test_a_mask_of_a_few_pixels_is_judged_by_its_values_alone() -> None:
    exact, quick = (m[:10, :10] for m in maps(5))
    assert difference(exact, quick, 0.5) is None
