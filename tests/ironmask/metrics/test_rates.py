"""Folding of failures, differences of two recognisers, and counts of pairs."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from ironmask.errors import ParameterError, ProtocolError
from ironmask.metrics import Crossed, Listed, PairCounts, SubjectCounts, mcnemar
from ironmask.metrics.rates import far, frr, gfar, gfrr


def test_failures_fold_into_the_rates():
    """Counted on attempts: 1,000 people try to enrol and are probed once."""
    fte, fta, fmr, fnmr = 0.1, 0.05, 0.02, 0.08
    assert far(fmr, fta) == pytest.approx(0.02 * 0.95)
    assert frr(fnmr, fta) == pytest.approx((50 + 0.08 * 950) / 1000)
    assert gfar(fmr, fta, fte) == pytest.approx(0.02 * 0.95 * 0.9)
    assert gfrr(fnmr, fta, fte) == pytest.approx((100 + 900 * frr(fnmr, fta)) / 1000)
    with pytest.raises(ParameterError, match=r"0\.\.1"):
        far(1.2, 0)


def test_one_comparison_a_subject_is_mcnemars_test():
    one, other = np.zeros(500, dtype=int), np.zeros(500, dtype=int)
    one[:30], other[20:60] = 1, 1
    found = mcnemar(*(SubjectCounts.of(e, np.ones(500, dtype=int)) for e in (one, other)))
    b, c = 20, 30
    assert found.value == pytest.approx((b - c) / 500)
    assert found.p == pytest.approx(stats.chi2.sf((b - c) ** 2 / (b + c), 1), rel=0.05)


def test_no_difference_is_found_at_the_level_of_the_test(rng):
    """Two recognisers that are alike, subjects that are not."""
    rejected = 0
    for _ in range(600):
        chance = rng.beta(1, 9, 80)
        one, other = (SubjectCounts.of(rng.binomial(6, chance), np.full(80, 6)) for _ in range(2))
        rejected += mcnemar(one, other).p < 0.05
    assert 0.03 <= rejected / 600 <= 0.075


def test_a_difference_is_found_and_held(rng):
    held = 0
    for _ in range(300):
        chance = rng.beta(1, 9, 100)
        one = SubjectCounts.of(rng.binomial(8, chance), np.full(100, 8))
        other = SubjectCounts.of(rng.binomial(8, chance / 2), np.full(100, 8))
        found = mcnemar(one, other)
        held += found.interval.low <= 0.05 <= found.interval.high
    assert 0.92 <= held / 300 <= 0.98


def test_the_same_errors_are_no_difference():
    counts = SubjectCounts.of([1, 0, 2], [3, 3, 3])
    found = mcnemar(counts, counts)
    assert (found.value, found.p) == (0, 1)


def test_other_comparisons_have_no_difference():
    one = SubjectCounts.of([1, 0], [3, 3])
    with pytest.raises(ProtocolError, match="differ"):
        mcnemar(one, SubjectCounts.of([1, 0], [3, 4]))
    pairs = PairCounts.of([0], [1], [1], Crossed.within([2, 2]))
    with pytest.raises(ProtocolError, match="no common"):
        mcnemar(one, pairs)


@pytest.fixture
def images(rng):
    return rng.integers(1, 4, 12)


def listed(images):
    first, second = np.triu_indices(len(images), 1)
    return Listed.of(first, second, images[first] * images[second], len(images))


def test_crossed_trials_are_those_of_the_list(images, rng):
    crossed, other = Crossed.within(images), listed(images)
    assert crossed.total == other.total == (images.sum() ** 2 - (images**2).sum()) // 2
    weights = rng.integers(0, 3, (5, 12)).astype(float)
    np.testing.assert_allclose(crossed.of_subjects(weights), other.of_subjects(weights))
    np.testing.assert_allclose(crossed.squares(weights), other.squares(weights))
    first, second = np.array([0, 3]), np.array([5, 1])
    np.testing.assert_allclose(crossed.at(first, second), other.at(first, second))


def test_variance_of_pairs_is_the_sum_over_comparisons_that_share_a_subject(images, rng):
    """Against the definition, one comparison at a time."""
    first, second = np.triu_indices(12, 1)
    wrong = rng.binomial(images[first] * images[second], 0.3)
    counts = PairCounts.of(second, first, wrong, Crossed.within(images))
    p = wrong.sum() / counts.trials
    residual = wrong - p * images[first] * images[second]
    shares = (first[:, None] == first) | (first[:, None] == second)
    shares |= (second[:, None] == first) | (second[:, None] == second)
    expected = (residual[:, None] * residual * shares).sum() / counts.trials**2
    found = counts.weighted(np.ones((1, 12)))
    assert (found.errors[0], found.trials[0]) == (wrong.sum(), counts.trials)
    assert found.variance[0] == pytest.approx(max(expected, 0))
