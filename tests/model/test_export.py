"""An exported bundle runs on the machine that it is carried to, with all that it needs and nothing unverified."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.bundle import Bundle, load_bundle, save_bundle, write_card
from model.card import BundleProblem, Companion
from model.export import export_bundle


@pytest.fixture
def with_companion(untrained_bundle: Bundle, tmp_path: Path) -> Bundle:
    """A bundle that needs another one first; both in one folder."""
    weights = untrained_bundle.state_dict()
    output = untrained_bundle.card.output.model_copy(update={"classes": ("liver",)})
    liver = save_bundle(
        tmp_path / "in" / "liver-net", untrained_bundle.card.model_copy(update={"output": output}), weights
    )
    companions = {"liver": Companion(bundle="liver-net", sha256=liver.sha256)}
    card = untrained_bundle.card.model_copy(update={"companions": companions})
    return save_bundle(tmp_path / "in" / "tumour-net", card, weights)


def test_companions_come_along_and_the_copy_is_the_same_bundle(with_companion: Bundle, tmp_path: Path) -> None:
    liver, tumour = export_bundle(with_companion.path, tmp_path / "out")
    assert (liver.path.name, tumour.path.name) == ("liver-net", "tumour-net")
    assert tumour.sha256 == with_companion.sha256
    assert load_bundle(tmp_path / "out" / "tumour-net").companion("liver").sha256 == liver.sha256
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["liver-net", "tumour-net"]


def test_to_export_twice_changes_nothing(with_companion: Bundle, tmp_path: Path) -> None:
    export_bundle(with_companion.path, tmp_path / "out")
    before = (tmp_path / "out" / "tumour-net" / "card.json").stat().st_mtime_ns
    export_bundle(with_companion.path, tmp_path / "out")
    assert (tmp_path / "out" / "tumour-net" / "card.json").stat().st_mtime_ns == before


def test_another_bundle_of_the_name_is_not_overwritten(with_companion: Bundle, tmp_path: Path) -> None:
    export_bundle(with_companion.path, tmp_path / "out")
    write_card(with_companion.path, with_companion.card.model_copy(update={"version": "9.9.9"}))
    with pytest.raises(BundleProblem, match="another bundle of this name"):
        export_bundle(with_companion.path, tmp_path / "out")


def test_a_damaged_bundle_is_not_exported(with_companion: Bundle, tmp_path: Path) -> None:
    weights = tmp_path / "in" / "liver-net" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    with pytest.raises(BundleProblem, match="sha256 expected"):
        export_bundle(with_companion.path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_copy_that_was_damaged_since_is_told(with_companion: Bundle, tmp_path: Path) -> None:
    export_bundle(with_companion.path, tmp_path / "out")
    weights = tmp_path / "out" / "liver-net" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    with pytest.raises(BundleProblem, match="sha256 expected"):
        export_bundle(with_companion.path, tmp_path / "out")
