"""Weights and card belong together, or the bundle is refused with the reason."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from model.bundle import Bundle, load_bundle, save_bundle
from model.card import BundleProblem, card_digest


@pytest.fixture
def folder(untrained_bundle: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(untrained_bundle.path, tmp_path / "bundle"))


def test_what_was_saved_as_half_precision_is_loaded_as_float32(folder: Path) -> None:
    weights = load_bundle(folder).state_dict()
    assert {v.dtype for v in weights.values() if v.is_floating_point()} == {torch.float32}
    assert torch.equal(weights["head.weight"], weights["head.weight"].half().float())


def test_altered_weights_are_refused_and_both_digests_are_told(folder: Path) -> None:
    expected = load_bundle(folder).card.sha256
    weights = folder / "weights.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(raw)
    with pytest.raises(BundleProblem, match=rf"weights.safetensors: sha256 expected {expected}, found [0-9a-f]{{64}}"):
        load_bundle(folder)


@pytest.mark.parametrize("name", ["card.json", "weights.safetensors"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(BundleProblem, match=f"{name}: cannot be read"):
        load_bundle(folder)


def test_an_unknown_key_in_the_card_is_named(folder: Path) -> None:
    card = folder / "card.json"
    card.write_text(card.read_text().replace('"threshold"', '"treshold"'))
    with pytest.raises(BundleProblem, match=r"output\.treshold"):
        load_bundle(folder)


def test_a_card_that_is_no_json_is_refused(folder: Path) -> None:
    (folder / "card.json").write_text("{")
    with pytest.raises(BundleProblem, match="not a valid card"):
        load_bundle(folder)


def test_an_unknown_network_is_refused(folder: Path) -> None:
    card = folder / "card.json"
    card.write_text(card.read_text().replace('"unetpp"', '"vnet"'))
    with pytest.raises(BundleProblem, match=r"network\.id is 'vnet'.*unetpp"):
        load_bundle(folder)


def test_weights_of_another_width_are_refused(folder: Path) -> None:
    card = folder / "card.json"
    card.write_text(card.read_text().replace('"width": 0.125', '"width": 0.25'))
    with pytest.raises(BundleProblem, match="weights do not fit"):
        load_bundle(folder).network()


def test_the_identity_changes_with_the_card_and_is_known_without_the_weights(folder: Path) -> None:
    before = load_bundle(folder).sha256
    card = folder / "card.json"
    card.write_text(card.read_text().replace('"threshold": 0.5', '"threshold": 0.6'))
    assert load_bundle(folder).sha256 == card_digest(folder) != before


def test_weights_that_half_precision_cannot_hold_are_not_saved(untrained_bundle: Bundle, tmp_path: Path) -> None:
    weights = untrained_bundle.state_dict()
    weights["head.bias"] = torch.tensor([1e9])
    with pytest.raises(ValueError, match=r"head\.bias"):
        save_bundle(tmp_path / "b", untrained_bundle.card, weights)
    assert not (tmp_path / "b" / "card.json").exists()
