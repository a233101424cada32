"""Hand-over files are whole or absent, and lose nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from model.exchange import ExchangeProblem, read_probability, read_volume, write_probability, write_volume
from model.volume import Volume


def test_a_volume_comes_back_with_its_affine_and_without_a_copy(
    tmp_path: Path, axial_volume: Callable[..., Volume]
) -> None:
    volume = axial_volume()
    write_volume(tmp_path / "v.npy", volume)
    back = read_volume(tmp_path / "v.npy")
    assert np.array_equal(back.array_DHW, volume.array_DHW)
    assert np.array_equal(back.affine_lps_mm, volume.affine_lps_mm)
    assert isinstance(back.array_DHW, np.memmap)
    assert [p.name for p in tmp_path.iterdir()] == ["v.npy"]


def test_a_flipped_view_is_written_in_its_own_order(tmp_path: Path, axial_volume: Callable[..., Volume]) -> None:
    volume = axial_volume()
    flipped = Volume(volume.array_DHW[::-1, :, ::-1], volume.affine_lps_mm)
    write_volume(tmp_path / "v.npy", flipped)
    assert np.array_equal(read_volume(tmp_path / "v.npy").array_DHW, flipped.array_DHW)


def test_probabilities_come_back_as_they_are(tmp_path: Path) -> None:
    p = np.random.default_rng(0).random((3, 5, 7)).astype(np.float16)
    write_probability(tmp_path / "p.npy", p)
    back = read_probability(tmp_path / "p.npy")
    assert back.dtype == np.float16
    assert np.array_equal(back, p)


@pytest.mark.parametrize("keep", [0, 5, 100, 300, 5000])
def test_a_cut_volume_file_is_refused(tmp_path: Path, axial_volume: Callable[..., Volume], keep: int) -> None:
    path = tmp_path / "v.npy"
    write_volume(path, axial_volume())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ExchangeProblem, match=r"v\.npy"):
        read_volume(path)


def test_a_volume_is_not_taken_for_a_probability(tmp_path: Path, axial_volume: Callable[..., Volume]) -> None:
    write_volume(tmp_path / "v.npy", axial_volume())
    with pytest.raises(ExchangeProblem, match="not a probability"):
        read_probability(tmp_path / "v.npy")


def test_a_pickle_in_a_hand_over_file_is_never_opened(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ExchangeProblem):
        read_volume(tmp_path / "v.npy")
