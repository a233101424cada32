"""Intervals and tests against theory, and the patient as what is drawn."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from model import statistics
from model.statistics import (
    Interval,
    Sample,
    Statistic,
    bootstrap,
    bootstraps,
    holm,
    mean_of,
    of_sums,
    paired_difference,
    ratio_of,
    wilcoxon_p,
)


def of_patients(count: int) -> Sample:
    return Sample.of([f"patient {n:04d}" for n in range(count)])


def ends(interval: Interval) -> tuple[float, float, float]:
    return interval.value, interval.low, interval.high


def test_the_interval_of_equal_cases_has_no_width() -> None:
    assert ends(bootstrap(mean_of([0.7] * 20), of_patients(20))) == pytest.approx((0.7, 0.7, 0.7))


def test_the_interval_of_a_mean_is_that_of_theory() -> None:
    """For many cases the bootstrap agrees with mean ± 1.96·sd/√n."""
    values = np.random.default_rng(1).normal(0.6, 0.2, 400)
    interval = bootstrap(mean_of(list(values)), of_patients(400))
    half = 1.96 * values.std() / 20
    assert ends(interval) == pytest.approx((values.mean(), values.mean() - half, values.mean() + half), abs=0.002)


def test_a_ratio_is_resampled_by_case_and_not_by_lesion() -> None:
    """One case holds nine missed lesions: its coming and going must widen the interval far beyond ±√(pq/n)."""
    interval = bootstrap(ratio_of([1] * 10 + [0], [1] * 10 + [9]), of_patients(11))
    assert interval.value == pytest.approx(10 / 19)
    assert interval.high == 1.0
    assert interval.low < 0.35


def test_four_series_of_a_patient_tell_no_more_than_one() -> None:
    """The same values four times over, each four of one patient: exactly the interval of the patients."""
    values = list(np.random.default_rng(2).random(30))
    once = bootstrap(mean_of(values), of_patients(30))
    patients = [patient for patient in of_patients(30).patients for _ in range(4)]
    by_patient = bootstrap(mean_of([v for v in values for _ in range(4)]), Sample.of(patients))
    as_if_independent = bootstrap(mean_of([v for v in values for _ in range(4)]), of_patients(120))
    assert ends(by_patient) == pytest.approx(ends(once))
    assert by_patient.high - by_patient.low > 1.8 * (as_if_independent.high - as_if_independent.low)


def test_trainings_are_drawn_too() -> None:
    """All patients alike, one training right and one wrong: the mean of two drawn trainings is 0, ½ or 1."""
    sample = Sample(tuple("abc" * 2), tuple("abc" * 2), (0, 0, 0, 1, 1, 1))
    interval = bootstrap(mean_of([0.0] * 3 + [1.0] * 3), sample)
    assert ends(interval) == (0.5, 0.0, 1.0)
    assert interval.cases == 3


def test_trainings_that_agree_leave_the_interval_of_the_patients() -> None:
    values = list(np.random.default_rng(5).random(25))
    one = bootstrap(mean_of(values), of_patients(25))
    names = of_patients(25).patients
    three = bootstrap(mean_of(values * 3), Sample(names * 3, names * 3, tuple(np.repeat([0, 1, 2], 25).tolist())))
    assert ends(three) == pytest.approx(ends(one))


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """200 studies of 30 patients with 1 to 4 series each, series of a patient alike: the true mean, 0, is in 95 %."""
    rng = np.random.default_rng(11)
    held = {"by patient": 0, "by series": 0}
    for study in range(200):
        series = rng.integers(1, 5, 30)
        values = np.repeat(rng.normal(0, 1, 30), series) + rng.normal(0, 0.2, series.sum())
        patients = np.repeat(of_patients(30).patients, series).tolist()
        for name, sample in (("by patient", Sample.of(patients)), ("by series", of_patients(len(values)))):
            interval = bootstrap(mean_of(list(values)), sample, resamples=400, seed=study)
            held[name] += interval.low <= 0 <= interval.high
    assert 0.89 <= held["by patient"] / 200 <= 0.98
    assert held["by series"] / 200 < 0.88


def test_the_same_cases_get_the_same_interval_again() -> None:
    values = [0.1, 0.5, 0.9, 0.3]
    assert bootstrap(mean_of(values), of_patients(4)) == bootstrap(mean_of(values), of_patients(4))


def test_several_statistics_on_the_same_draws_are_those_of_each_alone() -> None:
    of = [mean_of([0.1, 0.5, None, 0.3]), ratio_of([1, 0, 2, 0], [1, 1, 3, 0])]
    assert bootstraps(of, of_patients(4)) == tuple(bootstrap(one, of_patients(4)) for one in of)


def test_what_has_no_case_is_undefined_and_not_zero() -> None:
    assert not bootstrap(mean_of([None, None]), of_patients(2)).is_defined
    assert not bootstrap(ratio_of([0, 0], [0, 0]), of_patients(2)).is_defined
    assert str(bootstrap(mean_of([None]), of_patients(1))) == "–"


def test_a_case_without_a_value_is_left_out_and_told() -> None:
    interval = bootstrap(mean_of([0.2, None, 0.4]), of_patients(3))
    assert (interval.value, interval.cases) == (pytest.approx(0.3), 2)


def test_a_function_of_sums_is_taken_after_adding() -> None:
    """(Σa)² / Σb, which no mean over cases is."""
    statistic = of_sums(np.array([[1.0, 2], [3, 2]]), lambda s: s[..., 0] ** 2 / s[..., 1], np.ones(2, bool))
    assert statistic.value == 4.0
    assert statistic.of(np.array([[2.0, 0], [0, 2]])).tolist() == [1.0, 9.0]


def test_columns_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="needs one of each"):
        Sample(("a",), ("p", "q"), (0,))
    with pytest.raises(ValueError, match="3 answers"):
        bootstrap(mean_of([0.1, 0.2, 0.3]), of_patients(2))


def both(count: int) -> tuple[Sample, Sample]:
    return of_patients(count), of_patients(count)


def test_a_paired_difference_is_narrower_than_the_two_intervals() -> None:
    """Easy and hard patients are so for both sides; what is common to them cancels."""
    rng = np.random.default_rng(3)
    first = rng.random(60)
    second = first + 0.03 + rng.normal(0, 0.01, 60)
    result = paired_difference((mean_of(list(first)), mean_of(list(second))), both(60))
    assert result.difference.value == pytest.approx((second - first).mean())
    assert 0.02 < result.difference.low < result.difference.high < 0.04
    assert result.first.high - result.first.low > 5 * (result.difference.high - result.difference.low)
    assert max(result.p_bootstrap, result.p_wilcoxon or 1) < 0.001


def test_no_difference_is_never_significant() -> None:
    values = mean_of([0.1, 0.9, 0.4])
    result = paired_difference((values, values), both(3))
    assert (ends(result.difference), result.p_bootstrap, result.p_wilcoxon) == ((0, 0, 0), 1.0, 1.0)


def test_means_are_compared_on_the_cases_that_both_sides_measured() -> None:
    """The second side lacks the hard case, and must not look better for it."""
    result = paired_difference((mean_of([1.0, 2.0, 50.0]), mean_of([1.0, 2.0, None])), both(3))
    assert (result.first.value, result.second.value, result.difference.value) == (1.5, 1.5, 0.0)
    assert result.difference.cases == 2


def test_what_no_case_of_both_sides_has_is_not_compared() -> None:
    result = paired_difference((mean_of([1.0, None]), mean_of([None, 1.0])), both(2))
    assert not result.difference.is_defined
    assert math.isnan(result.p)


def test_pooled_estimates_have_no_rank_test() -> None:
    result = paired_difference((ratio_of([1, 0, 1], [2, 1, 1]), ratio_of([2, 1, 1], [2, 1, 1])), both(3))
    assert result.difference.value == pytest.approx(0.5)
    assert result.p_wilcoxon is None
    assert result.p == result.p_bootstrap


def test_trainings_of_either_side_are_drawn_apart() -> None:
    """Each side's trainings are 0 and 1 for every patient: differences of −1, 0 and 1 all come up."""
    sample = Sample(tuple("ab" * 2), tuple("ab" * 2), (0, 0, 1, 1))
    values = mean_of([0.0, 0.0, 1.0, 1.0])
    result = paired_difference((values, values), (sample, sample))
    assert ends(result.difference) == (0.0, -1.0, 1.0)
    assert result.p_wilcoxon == 1.0


def test_sides_of_different_cases_are_refused() -> None:
    with pytest.raises(ValueError, match="same cases"):
        paired_difference((mean_of([1.0]), mean_of([1.0])), (Sample.of(["one"]), Sample.of(["other"])))


def test_the_rank_test_is_exact_for_few_patients() -> None:
    """Six differences of one sign: 2 of the 2⁶ arrangements are as extreme."""
    assert wilcoxon_p([0.1, 0.25, 0.3, 0.45, 0.5, 0.6]) == pytest.approx(2 / 64)
    assert wilcoxon_p([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]) == pytest.approx(2 / 64)


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=9))
def test_the_rank_test_counts_every_assignment_of_signs(differences: list[int]) -> None:
    """With ties and zeros, where tables and the normal approximation are off: all 2ⁿ arrangements, one by one."""
    kept = np.array([d for d in differences if d], float)
    ranks = stats.rankdata(np.abs(kept))
    observed = min(ranks[kept > 0].sum(), ranks[kept < 0].sum())
    sums = [sum(r for r, up in zip(ranks, signs, strict=True) if up) for signs in product((0, 1), repeat=len(kept))]
    expected = min(1.0, 2 * np.mean([total <= observed + 1e-9 for total in sums]))
    assert wilcoxon_p(differences) == pytest.approx(expected)


def test_the_rank_test_is_that_of_scipy_where_there_are_no_ties() -> None:
    apart = np.random.default_rng(8).normal(0.1, 1, 40)
    assert wilcoxon_p(apart) == pytest.approx(stats.wilcoxon(apart, method="exact").pvalue)


def test_for_many_patients_the_approximation_takes_over_without_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    apart = np.random.default_rng(9).normal(0.1, 1, 400)
    exact = wilcoxon_p(apart)
    monkeypatch.setattr(statistics, "_MOST_EXACT", 399)
    assert wilcoxon_p(apart) == pytest.approx(exact, rel=0.02)
    assert wilcoxon_p(apart) != exact


def test_patients_whom_both_answer_alike_are_left_out() -> None:
    apart = [0.01, 0.02, 0.03, 0.04, -0.05, 0.06, 0.07, 0.08, 0.09]
    assert wilcoxon_p(apart + [0.0] * 40) == wilcoxon_p(apart)
    assert wilcoxon_p([0.0] * 5) == 1.0


def test_differences_that_are_equal_but_for_rounding_are_ties() -> None:
    assert wilcoxon_p([0.3 - 0.2, 0.1 - 0.2]) == 1.0


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert holm([0.5, 0.9]) == (1.0, 1.0)
    assert holm([]) == ()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_keeps_the_order_and_lies_between_no_correction_and_bonferroni(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    for p, corrected in zip(p_values, adjusted, strict=True):
        assert p <= corrected <= min(1.0, p * len(p_values)) + 1e-12
    assert np.all(np.diff(np.array(adjusted)[np.argsort(p_values, kind="stable")]) >= 0)


def test_by_chance_alone_five_in_a_hundred_tests_are_significant() -> None:
    rng = np.random.default_rng(17)
    found = {"bootstrap": 0, "wilcoxon": 0}
    for study in range(200):
        first, second = rng.random((2, 25))
        pair = mean_of(list(first)), mean_of(list(second))
        result = paired_difference(pair, both(25), resamples=400, seed=study)
        found["bootstrap"] += result.p_bootstrap < 0.05
        found["wilcoxon"] += (result.p_wilcoxon or 1) < 0.05
    assert 2 <= found["wilcoxon"] <= 18
    assert 2 <= found["bootstrap"] <= 22


def test_a_statistic_without_weights_left_is_no_number() -> None:
    statistic: Statistic = ratio_of([1.0, 1.0], [1.0, 0.0])
    assert math.isnan(float(statistic.of(np.array([0.0, 3.0]))))
