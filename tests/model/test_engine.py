"""Volumes in any order come back with probabilities in that very order, on their own grid."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from model.body import body_of
from model.bundle import Bundle
from model.engine import Engine, VolumeProblem
from model.hardware import choose_device
from model.planar import with_context
from model.preprocess import Framing, intake
from model.volume import Volume
from model.ways import EXACT, Way


@pytest.fixture(scope="module")
def engine(untrained_bundle: Bundle) -> Engine:
    return Engine(untrained_bundle, "cpu", threads=1)


@pytest.fixture(scope="module")
def ct_engine(untrained_ct_bundle: Bundle) -> Engine:
    return Engine(untrained_ct_bundle, "cpu", threads=1)


def test_the_answer_is_a_probability_on_the_native_grid(engine: Engine, axial_volume: Callable[..., Volume]) -> None:
    volume = axial_volume()
    answer = engine.segment(volume)
    assert answer.probability_DHW.shape == volume.array_DHW.shape
    assert answer.probability_DHW.dtype == np.float16
    assert 0 <= answer.probability_DHW.min() < answer.probability_DHW.max() <= 1
    assert set(answer.seconds) == {"place", "prepare", "forward", "restore"}


def test_the_volume_is_left_as_it_was(engine: Engine, axial_volume: Callable[..., Volume]) -> None:
    volume = axial_volume()
    before = volume.array_DHW.copy()
    engine.segment(volume)
    assert np.array_equal(volume.array_DHW, before)


@pytest.mark.parametrize("flips", [(0,), (1,), (2,), (0, 1, 2)])
@pytest.mark.parametrize("swap", [False, True])
def test_a_series_stored_another_way_round_gets_the_same_answer_at_the_same_place(
    engine: Engine, axial_volume: Callable[..., Volume], flips: tuple[int, ...], swap: bool
) -> None:
    volume = axial_volume()
    array, affine = volume.array_DHW, volume.affine_lps_mm.copy()
    if swap:
        array, affine = array.transpose(0, 2, 1), affine[:, [0, 2, 1, 3]]
    for axis in flips:
        affine[:3, 3] += affine[:3, axis] * (array.shape[axis] - 1)
        affine[:3, axis] *= -1
    other = engine.segment(Volume(np.flip(array, flips), affine)).probability_DHW
    back = np.flip(other, flips)
    expected = engine.segment(volume).probability_DHW
    assert np.array_equal(back.transpose(0, 2, 1) if swap else back, expected)


def test_the_same_volume_gets_the_same_answer_bit_for_bit(
    engine: Engine, untrained_bundle: Bundle, axial_volume: Callable[..., Volume]
) -> None:
    volume = axial_volume()
    again = Engine(untrained_bundle, "cpu", threads=1).segment(volume).probability_DHW
    assert np.array_equal(engine.segment(volume).probability_DHW, again)


def test_the_probabilities_are_exact_in_half_precision(engine: Engine, axial_volume: Callable[..., Volume]) -> None:
    p = engine.segment(axial_volume()).probability_DHW
    assert np.array_equal(p, p.astype(np.float16).astype(np.float32))


def test_mr_intensities_may_be_scaled_by_any_factor(engine: Engine, axial_volume: Callable[..., Volume]) -> None:
    volume = axial_volume()
    brighter = volume.with_array(volume.array_DHW * 37.0)
    expected = engine.segment(volume).probability_DHW
    assert np.abs(engine.segment(brighter).probability_DHW - expected).max() < 0.02


def test_a_ct_is_clipped_to_its_window(ct_engine: Engine, axial_volume: Callable[..., Volume]) -> None:
    volume = axial_volume()
    metal = volume.array_DHW.copy()
    metal[2, 5, 5] = 3000.0
    at_the_limit = volume.array_DHW.copy()
    at_the_limit[2, 5, 5] = 240.0
    answers = [ct_engine.segment(volume.with_array(a)).probability_DHW for a in (metal, at_the_limit)]
    assert np.array_equal(*answers)


def test_bf16_and_fp32_agree_on_the_probe(engine: Engine) -> None:
    with torch.inference_mode():
        probe = engine._pipeline.probe(None)
        exact, quick = (engine._runner(probe, None, way) for way in (EXACT, Way("eager", torch.bfloat16)))
    assert 0 < float((exact - quick).abs().mean()) < 0.005


def test_more_slices_than_a_batch_are_all_answered(engine: Engine, axial_volume: Callable[..., Volume]) -> None:
    volume = axial_volume((37, 64, 64))
    per_slice = engine.segment(volume).probability_DHW
    assert len({per_slice[d].tobytes() for d in range(37)}) == 37


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda a: np.full_like(a, 3.0), "same value"),
        (lambda a: np.where(np.arange(a.size).reshape(a.shape) == 7, np.nan, a), "no numbers"),
        (lambda a: np.where(np.arange(a.size).reshape(a.shape) == 7, np.inf, a), "no numbers"),
        (lambda a: a[:2], "2 slices"),
        (lambda a: a[:, :8], "8×96 pixels"),
    ],
)
def test_a_degenerate_volume_is_refused_with_its_reason(
    engine: Engine, axial_volume: Callable[..., Volume], spoil: Callable[[np.ndarray], np.ndarray], complaint: str
) -> None:
    volume = axial_volume()
    bad = Volume(spoil(volume.array_DHW).astype(np.float32), volume.affine_lps_mm)
    with pytest.raises(VolumeProblem, match=complaint):
        engine.segment(bad)


def test_a_dry_run_takes_time_and_says_how_much(engine: Engine) -> None:
    assert 0 < engine.dry_run() < 30


def test_cuda_that_is_absent_is_refused_in_words() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(ValueError, match="no CUDA"):
        choose_device("cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA")
def test_cuda_and_cpu_agree(untrained_bundle: Bundle, engine: Engine, axial_volume: Callable[..., Volume]) -> None:
    volume = axial_volume()
    on_gpu = Engine(untrained_bundle, "cuda").segment(volume).probability_DHW
    assert np.abs(on_gpu - engine.segment(volume).probability_DHW).max() < 0.05


def test_neighbours_become_channels_and_the_ends_are_repeated(engine: Engine) -> None:
    pictures = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 2, 2)
    spec = engine.card.input.model_copy(update={"context": 1})
    assert with_context(pictures, spec)[:, :, 0, 0].tolist() == [[0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 3]]


@pytest.mark.parametrize("fit", ["stretch", "pad"])
def test_a_map_comes_back_to_where_its_pixels_were(fit: str) -> None:
    """A 20 mm disc on an anisotropic 100×160 matrix survives the way to 64×64 and back within one pixel."""
    rows, columns = np.mgrid[:100, :160]
    disc = (((rows - 30) * 2.0) ** 2 + ((columns - 110) * 1.5) ** 2 < 20.0**2).astype(np.float32)
    framing = Framing.of((100, 160), (2.0, 1.5), fit)
    there = framing.into(torch.from_numpy(disc)[None, None], 64)
    back = framing.back(there)[0, 0].numpy() >= 0.5
    assert back.shape == disc.shape
    for axis in (0, 1):
        assert abs(np.argwhere(back).mean(axis=0)[axis] - np.argwhere(disc > 0).mean(axis=0)[axis]) < 0.3
    assert back.sum() == pytest.approx(disc.sum(), rel=0.1)


def test_padding_makes_the_field_of_view_square_in_millimetres() -> None:
    framing = Framing.of((100, 160), (2.0, 1.5), "pad")
    assert (framing.top + 100 + framing.bottom) * 2.0 == pytest.approx(
        (framing.left + 160 + framing.right) * 1.5, abs=2
    )
    assert (framing.top, framing.bottom, framing.left, framing.right) == (10, 10, 0, 0)


def test_percentiles_are_those_of_the_body_and_not_of_the_air(
    engine: Engine, axial_volume: Callable[..., Volume]
) -> None:
    volume = axial_volume((8, 90, 90))
    body = body_of(volume.array_DHW, is_ct=False)
    assert 0.4 < body.inside_DHW.mean() < 0.7
    taken = intake(volume, engine.card.input)
    low, high = np.percentile(body.values_DHW[body.inside_DHW], [0.5, 99.5])
    assert (taken.low, taken.high) == pytest.approx((low, high), rel=0.05)
