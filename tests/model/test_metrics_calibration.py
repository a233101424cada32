"""Probabilities are held to what they say, and confidence to what it is worth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from model.metrics_calibration import (
    ProbabilityCounts,
    ace,
    at_temperature,
    aurc_of,
    brier,
    calibration_band,
    ece,
    excess_aurc_of,
    fit_temperature,
    risk_coverage,
    soft_dice_confidence,
)
from tests.model.hand_cases import NOTHING, TRUTH, grid

POINT = grid("00000", "00000", "00100", "00000", "00000")


def rows(probability: list[float], truth: list[bool], bins: int) -> np.ndarray:
    counts = ProbabilityCounts.of(np.array(probability, np.float32), np.array(truth, bool))
    return counts.reliability(bins).row


def test_the_band_reaches_ten_mm_from_the_lesion_in_every_direction() -> None:
    """Pixels of 4 mm: of the 5×5 around a lesion of one, only the corners, √(8² + 8²) mm away, are left out."""
    band = calibration_band(POINT, (5.0, 4.0, 4.0))
    assert np.count_nonzero(band) == 25 - 4
    assert not band[0, [0, 0, -1, -1], [0, -1, 0, -1]].any()


def test_a_voxel_exactly_ten_mm_away_is_in_the_band() -> None:
    assert calibration_band(POINT, (5.0, 5.0, 20.0)).sum() == 5


def test_lesions_belong_to_their_band_and_bands_join() -> None:
    band = calibration_band(TRUTH, (5.0, 11.0, 11.0))
    assert np.array_equal(band, TRUTH > 0)


def test_without_a_lesion_there_is_no_band() -> None:
    assert not calibration_band(NOTHING, (5.0, 1.0, 1.0)).any()


def test_calibration_errors_counted_by_hand() -> None:
    """Two bins. Low: 0.25, 0.25, of which none is lesion; gap 0.25. High: 0.5, 0.75, 1, of which one is; 0.75 − 1/3."""
    of = rows([0.25, 0.25, 0.5, 0.75, 1.0], [False, False, True, False, False], bins=2)
    low, high = 0.25, 0.75 - 1 / 3
    assert ece(of) == pytest.approx((2 * low + 3 * high) / 5)
    assert ace(of) == pytest.approx((low + high) / 2)
    assert brier(of) == pytest.approx((2 * 0.25**2 + 0.5**2 + 0.75**2 + 1) / 5)


def test_certainty_that_is_right_is_perfectly_calibrated() -> None:
    of = rows([0.0, 1.0, 1.0], [False, True, True], bins=15)
    assert (ece(of), ace(of), brier(of)) == (0, 0, 0)


def test_rows_of_cases_add_up_to_their_voxels() -> None:
    first, second = ([0.1, 0.9], [False, True]), ([0.4, 0.6, 0.95], [True, True, False])
    together = rows(first[0] + second[0], first[1] + second[1], bins=15)
    assert rows(*first, bins=15) + rows(*second, bins=15) == pytest.approx(together)


def test_no_voxel_has_no_calibration() -> None:
    assert np.isnan([ece(rows([], [], 15)), ace(rows([], [], 15)), brier(rows([], [], 15))]).all()


@given(st.lists(st.tuples(st.floats(0, 1, width=16), st.booleans()), min_size=1, max_size=60))
def test_counts_of_halves_lose_nothing(voxels: list[tuple[float, bool]]) -> None:
    probability, truth = (np.array(of) for of in zip(*voxels, strict=True))
    of = rows(list(probability), list(truth), bins=15)
    assert brier(of) == pytest.approx(np.mean((probability - truth) ** 2))
    bins = np.minimum((probability * 15).astype(int), 14)
    gaps = [abs(np.sum(truth[bins == b]) - np.sum(probability[bins == b])) for b in range(15)]
    assert ece(of) == pytest.approx(np.sum(gaps) / len(voxels))


@pytest.mark.parametrize("wrong", [1.5, -0.25, np.nan])
def test_what_is_no_probability_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        ProbabilityCounts.of(np.array([0.5, wrong], np.float32), np.array([True, False]))


def overconfident(times: float) -> tuple[np.ndarray, np.ndarray]:
    """Voxels whose logits are `times` too large: told σ(z), true in σ(z / times) of the cases."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2.5, 200_000)
    return expit(logits).astype(np.float16), rng.random(len(logits)) < expit(logits / times)


@pytest.mark.parametrize("times", [0.5, 1.0, 2.0])
def test_the_temperature_that_was_put_in_is_found(times: float) -> None:
    fitted = fit_temperature(ProbabilityCounts.of(*overconfident(times)))
    assert fitted.value == pytest.approx(times, rel=0.03)
    assert fitted.nll <= fitted.nll_at_1


def test_a_fitted_temperature_mends_the_calibration() -> None:
    probability, truth = overconfident(2.0)
    counts = ProbabilityCounts.of(probability, truth)
    told = at_temperature(np.clip(probability.astype(float), 1e-7, 1 - 1e-7), fit_temperature(counts).value)
    mended = ProbabilityCounts.of(told.astype(np.float16), truth)
    assert ece(mended.reliability().row) < 0.01 < 0.05 < ece(counts.reliability().row)


def test_counts_of_cases_add_up() -> None:
    probability, truth = overconfident(2.0)
    halves = (ProbabilityCounts.of(probability[part], truth[part]) for part in (slice(None, 999), slice(999, None)))
    assert fit_temperature(next(halves) + next(halves)) == fit_temperature(ProbabilityCounts.of(probability, truth))


def test_a_temperature_needs_both_kinds_of_voxels() -> None:
    with pytest.raises(ValueError, match="inside and outside"):
        fit_temperature(ProbabilityCounts.of(np.array([0.2, 0.4], np.float32), np.array([True, True])))


def test_an_answer_expects_the_dice_that_its_probabilities_say() -> None:
    """Four voxels answered at 0.75, four more at 0.25: 2·3 / (4 + 4)."""
    assert soft_dice_confidence(3.0, 4.0, 4, 0.0) == pytest.approx(6 / 8)
    assert soft_dice_confidence(4.0, 4.0, 4, 0.0) == 1.0


def test_an_empty_answer_is_as_sure_as_its_likeliest_voxel_is_unlikely() -> None:
    assert soft_dice_confidence(0.0, 7.0, 0, 0.25) == 0.75


CONFIDENCE, RISK = np.array([0.7, 0.9, 0.8]), np.array([0.6, 0.0, 0.3])


def test_risk_and_coverage_counted_by_hand() -> None:
    """Most confident first: risks 0, 0.3, 0.6, whose running means are 0, 0.15, 0.3."""
    curve = risk_coverage(CONFIDENCE, RISK)
    assert curve.coverage == pytest.approx([1 / 3, 2 / 3, 1])
    assert curve.risk == pytest.approx([0, 0.15, 0.3])
    assert aurc_of(CONFIDENCE, RISK)(np.ones(3)) == pytest.approx(0.15)
    assert excess_aurc_of(CONFIDENCE, RISK)(np.ones(3)) == pytest.approx(0)


def test_confidence_that_is_wrong_way_round_costs_area() -> None:
    assert aurc_of(-CONFIDENCE, RISK)(np.ones(3)) == pytest.approx((0.6 + 0.45 + 0.3) / 3)
    assert excess_aurc_of(-CONFIDENCE, RISK)(np.ones(3)) == pytest.approx(0.45 - 0.15)


def test_equal_confidence_says_nothing_whatever_the_order() -> None:
    curve = risk_coverage(np.full(3, 0.5), RISK)
    assert curve.risk == pytest.approx([0.3] * 3)
    assert aurc_of(np.full(3, 0.5), RISK)(np.ones(3)) == pytest.approx(0.3)


cases = st.lists(
    st.tuples(st.integers(0, 4).map(lambda n: n / 4), st.floats(0, 1), st.integers(0, 3)), min_size=1, max_size=9
).filter(lambda drawn: any(weight for *_, weight in drawn))


@given(cases)
def test_a_weight_is_as_many_cases(drawn: list[tuple[float, float, int]]) -> None:
    confidence, risk, weight = (np.array(of) for of in zip(*drawn, strict=True))
    repeated = risk_coverage(np.repeat(confidence, weight), np.repeat(risk, weight))
    assert aurc_of(confidence, risk)(weight.astype(float)) == pytest.approx(repeated.risk.mean())


@given(cases)
def test_no_confidence_beats_one_that_knows_the_risk(drawn: list[tuple[float, float, int]]) -> None:
    confidence, risk, weight = (np.array(of) for of in zip(*drawn, strict=True))
    assert excess_aurc_of(confidence, risk)(weight.astype(float)) >= -1e-12


def test_risk_needs_a_case() -> None:
    with pytest.raises(ValueError, match="need a case"):
        risk_coverage(np.empty(0), np.empty(0))
