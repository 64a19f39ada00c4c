"""Each figure of the report's statistics, against an independent call of scipy or a count by hand."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pipelines.significance import (
    equivalence_p,
    half_width,
    mcnemar,
    paired_interval,
    seeds_needed,
    slope,
    trend_p,
    welch_interval,
)

ERRORS = st.lists(st.floats(0, 100).map(lambda x: round(x, 2)), min_size=2, max_size=8, unique=True)


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=8, unique=True))
def test_the_interval_agrees_with_scipys_paired_t_test(differences):
    low, high = paired_interval(differences)
    if stats.sem(differences) < 1e-9:
        return
    test = stats.ttest_rel(differences, [0.0] * len(differences))
    expected = test.confidence_interval(0.95)
    assert (low, high) == pytest.approx((expected.low, expected.high))
    assert (test.pvalue < 0.05) == (not low <= 0 <= high) or math.isclose(test.pvalue, 0.05, rel_tol=1e-6)


def test_equal_differences_and_single_seeds_decide_nothing():
    assert all(math.isnan(end) for end in paired_interval([1.0, 1.0, 1.0]))
    assert all(math.isnan(end) for end in paired_interval([1.0]))
    assert math.isnan(equivalence_p([0.0, 0.0], 1.0))


@given(ERRORS, ERRORS)
def test_welchs_interval_excludes_zero_as_welchs_test_rejects(left, right):
    low, high = welch_interval(left, right)
    test: Any = stats.ttest_ind(left, right, equal_var=False)
    p = test.pvalue
    assert (p < 0.05) == (not low <= 0 <= high) or math.isclose(p, 0.05, rel_tol=1e-6)
    assert (low + high) / 2 == pytest.approx(np.mean(left) - np.mean(right), abs=1e-6)


def test_welch_needs_two_seeds_on_both_sides():
    assert math.isnan(welch_interval([1.0, 2.0], [1.0])[0])
    assert math.isnan(welch_interval([1.0, 1.0], [2.0, 2.0])[0])


def test_the_half_width_is_that_of_the_interval_and_of_the_reviews_table():
    found = [1.0, 1.4, 1.9, 1.1]
    low, high = paired_interval(found)
    assert half_width(float(np.std(found, ddof=1)), 4) == pytest.approx((high - low) / 2)
    assert [round(half_width(0.25, n), 2) for n in (2, 3, 5, 10)] == [2.25, 0.62, 0.31, 0.18]


@given(ERRORS)
def test_as_many_seeds_as_needed_decide_and_one_fewer_does_not(differences):
    needed = seeds_needed(differences)
    mean, std = abs(np.mean(differences)), float(np.std(differences, ddof=1))
    if needed is None:
        assert half_width(std, 1000) >= mean
    else:
        assert half_width(std, needed) < mean
        assert needed == 2 or half_width(std, needed - 1) >= mean * (1 - 1e-9)


@given(st.lists(st.floats(-3, 3), min_size=2, max_size=8, unique=True), st.floats(0.1, 2))
def test_equivalence_is_the_90_percent_interval_inside_the_margin(differences, margin):
    error = stats.sem(differences)
    if error < 1e-6:
        return
    low, high = stats.t.interval(0.9, len(differences) - 1, np.mean(differences), error)
    p = equivalence_p(differences, margin)
    assert (p < 0.05) == (-margin < low and high < margin) or math.isclose(p, 0.05, rel_tol=1e-4)


def test_pages_test_is_exact_for_few_seeds():
    """Two seeds, three depths, both in order: one of 36 ways; all orders have their p-values in pairs."""
    rising = [[1.0, 2.0, 3.0], [1.5, 2.5, 2.6]]
    assert trend_p(rising, falls=False) == pytest.approx(1 / 36)
    assert trend_p(rising, falls=True) == pytest.approx(1)
    falling = [row[::-1] for row in rising]
    assert trend_p(falling, falls=True) == trend_p(rising, falls=False)
    four = [[9.0, 8.0, 7.5, 7.0], [9.1, 8.2, 7.1, 7.3], [8.9, 8.3, 7.4, 7.0]]
    assert trend_p(four, falls=True) == stats.page_trend_test(-np.array(four)).pvalue


def test_the_slope_is_points_a_doubling_of_depth():
    found = slope([8, 16, 32], [9.0, 8.0, 7.1])
    expected: Any = stats.linregress([3, 4, 5], [9.0, 8.0, 7.1])
    half = stats.t.ppf(0.975, 1) * expected.stderr
    assert found == pytest.approx((expected.slope, expected.slope - half, expected.slope + half))
    assert slope([8, 16], [9.0, 8.0]) is None
    assert slope([8, 8, 8], [9.0, 8.0, 7.0]) is None


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=60))
def test_mcnemar_counts_images_that_one_network_alone_gets_right(pairs):
    left, right = (np.array([pair[i] for pair in pairs], dtype=bool) for i in (0, 1))
    found = mcnemar(left, right)
    only_left, only_right = pairs.count((True, False)), pairs.count((False, True))
    assert found[:2] == (only_left, only_right)
    tail = stats.binom.cdf(min(only_left, only_right), only_left + only_right, 0.5)
    assert found.p == pytest.approx(min(1.0, 2 * tail))
