"""Metrics against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from btc_assets.signals.evaluation.metrics import UNKNOWN, Estimate, auc, effective_rank, estimate_from_sums, pooled_share, qlike, r2

RANDOM = np.random.default_rng(0)


def test_r2_is_1_for_a_perfect_forecast_and_0_for_the_training_mean() -> None:
    actual = RANDOM.normal(size=500)
    assert r2(actual, actual, 0.3).value == 1
    assert r2(actual, np.full(500, 0.3), 0.3).value == 0


@given(st.lists(st.tuples(st.floats(1e-9, 1e3), st.floats(1e-9, 1e3)), min_size=1, max_size=20))
def test_qlike_is_0_for_a_perfect_forecast_and_positive_otherwise(pairs: list[tuple[float, float]]) -> None:
    variance, forecast = np.array(pairs).T
    assert qlike(variance, variance).value == 0
    assert qlike(variance, forecast).value >= -1e-12
    assert qlike(variance, variance / 2).value == pytest.approx(2 - np.log(2) - 1)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2, max_size=30))
def test_auc_is_the_share_of_pairs_in_order_with_ties_as_a_half(pairs: list[tuple[bool, int]]) -> None:
    positive, score = np.array([one for one, _ in pairs]), np.array([float(two) for _, two in pairs])
    compared = [(one > zero) + 0.5 * (one == zero) for one in score[positive] for zero in score[~positive]]
    assert auc(positive, score).value == pytest.approx(np.mean(compared) if compared else np.nan, nan_ok=True)


def test_the_error_of_an_auc_without_skill_is_about_that_of_ranks() -> None:
    estimate = auc(RANDOM.random(4000) < 0.5, RANDOM.random(4000))
    assert estimate.error == pytest.approx((1 / 12 / 1000) ** 0.5, rel=0.05)
    assert abs(estimate.value - 0.5) < 4 * estimate.error


def test_the_error_of_a_mean_is_the_textbook_value_and_larger_for_dependent_queries() -> None:
    independent = RANDOM.normal(size=4000)
    dependent = np.repeat(independent[:400], 10)
    ones = np.ones(4000)
    assert estimate_from_sums(np.divide, independent, ones).error == pytest.approx(1 / 4000**0.5, rel=0.2)
    assert estimate_from_sums(np.divide, dependent, ones).error == pytest.approx(1 / 400**0.5, rel=0.25)


def test_a_share_is_of_all_counts_together() -> None:
    assert pooled_share(np.array([1, 0, 5]), np.array([1, 1, 10])).value == 0.5


def test_without_queries_a_metric_is_unknown() -> None:
    nothing = np.array([])
    assert str(r2(nothing, nothing, 0.0)) == str(auc(np.array([True]), np.array([1.0]))) == str(UNKNOWN) == "-"
    assert not UNKNOWN.exceeds(0.0, 3)


def test_an_estimate_shows_its_error_and_whether_it_exceeds_a_bound() -> None:
    estimate = Estimate(0.5, 0.125)
    assert str(estimate) == "0.500 ± 0.125"
    assert estimate.exceeds(0.1, 3)
    assert not estimate.exceeds(0.2, 3)


def test_the_effective_rank_counts_directions() -> None:
    isotropic = RANDOM.normal(size=(20_000, 16))
    assert effective_rank(isotropic) == pytest.approx(16, rel=0.01)
    assert effective_rank(np.pad(isotropic, [(0, 0), (0, 16)]) + 7) == pytest.approx(16, rel=0.01)
    assert effective_rank(np.outer(RANDOM.normal(size=100), [1.0, 2.0, 3.0])) == pytest.approx(1, abs=1e-3)
    assert effective_rank(np.ones((10, 4))) == 1
    unequal = np.array([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    assert effective_rank(unequal) == pytest.approx(np.exp(-0.75 * np.log(0.75) - 0.25 * np.log(0.25)))


def test_rows_without_a_vector_do_not_count_for_the_rank() -> None:
    vectors = RANDOM.normal(size=(500, 4))
    assert effective_rank(np.concatenate([vectors, np.full((50, 4), np.nan)])) == effective_rank(vectors)
    assert np.isnan(effective_rank(np.full((50, 4), np.nan)))
