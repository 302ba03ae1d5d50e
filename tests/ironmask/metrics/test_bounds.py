"""Bounds of few errors: exact where trials are independent, and held where they are not."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
from scipy import stats

from ironmask.metrics import (
    ClusterSize,
    Crossed,
    Listed,
    PairCounts,
    SubjectCounts,
    nearest_clusters,
    rate,
    upper_bound,
)
from ironmask.metrics.bounds import ENOUGH_CLUSTERS, LEAST_CLUSTERS, FewErrors
from ironmask.metrics.rates import LEAST_ERRORS, ends

DRAWS = 1000


def subjects(errors, trials):
    return SubjectCounts.of(np.array(errors), np.array(trials))


def test_one_trial_a_person_is_clopper_and_pearsons_bound():
    counts = subjects([1] * 7 + [0] * 893, [1] * 900)
    known = stats.binomtest(7, 900, alternative="less").proportion_ci(0.95, "exact").high
    assert upper_bound(counts) == pytest.approx(known, rel=1e-9)
    both = stats.binomtest(7, 900).proportion_ci(0.95, "exact")
    found = FewErrors.of(counts).interval()
    assert found.low == pytest.approx(both.low, rel=1e-9)
    assert found.high == pytest.approx(both.high, rel=1e-9)
    assert upper_bound(subjects([1] * 5, [1] * 5)) == 1


def test_without_an_error_three_clusters_of_the_size_that_was_measured():
    none = subjects([0] * 100, [12] * 100)
    three = 100 * stats.beta.ppf(0.95, 1, 100)
    assert upper_bound(none) == pytest.approx(three / 100)
    assert upper_bound(none, ClusterSize(2.5, 0.4, 40)) == pytest.approx(2.5 * three / 1200)
    # No cluster holds more errors than trials.
    assert upper_bound(none, ClusterSize(20.0, 1.0, 40)) == pytest.approx(three / 100)


def test_larger_clusters_than_were_measured_are_believed():
    counts = subjects([9, 8] + [0] * 98, [12] * 100)
    small, seen = ClusterSize(2.0, 0.1, 40), ClusterSize(8.5, 0.1, 40)
    assert upper_bound(counts, small) == pytest.approx(upper_bound(counts, seen))


def test_an_interval_holds_its_rate_and_lies_below_its_bound_twice():
    rng = np.random.default_rng(3)
    for _ in range(300):
        trials = rng.integers(1, 9, rng.integers(2, 60))
        wrong = rng.binomial(trials, rng.choice([0.0, 0.01, 0.1, 0.9, 1.0]))
        size = rng.choice([None, ClusterSize(rng.uniform(1, 6), rng.uniform(0, 1), 20)])
        counts = subjects(wrong, trials)
        value = counts.errors / counts.trials
        few = FewErrors.of(counts).interval(size)
        assert 0 <= few.low <= value <= upper_bound(counts, size) <= few.high <= 1
        assert value <= rate(counts, rng, size=size).bound <= 1


def test_pairs_with_a_comparison_are_counted_without_a_table():
    rng = np.random.default_rng(4)
    for _ in range(50):
        t, q = rng.integers(0, 3, (2, 9))
        crossed = Crossed.of(t, q)
        first, second = np.triu_indices(9, 1)
        listed = Listed.of(first, second, t[first] * q[second] + q[first] * t[second], 9)
        assert crossed.pairs_compared == listed.pairs_compared


def test_sizes_are_measured_where_enough_clusters_hold_errors():
    # The worst comparisons are of cluster 0, then 0, 1, 1, 2, 2, ...
    cluster = np.arange(400) // 2
    places = nearest_clusters(cluster, 1000)
    assert cluster[places].max() == ENOUGH_CLUSTERS - 1
    assert len(places) == 2 * ENOUGH_CLUSTERS - 1
    assert cluster[nearest_clusters(cluster, 10)].max() == LEAST_CLUSTERS - 1
    assert len(nearest_clusters(cluster[:5], 1000)) == 5
    assert ClusterSize.of(subjects([1] * (LEAST_CLUSTERS - 1), [1] * (LEAST_CLUSTERS - 1))) is None


@pytest.mark.parametrize("clusters", [40, 100])
def test_clusters_without_errors_are_counted_for_what_they_are(clusters):
    """People of whom a few fail, with most of their comparisons. 3 / N lies below the truth too
    often: most draws that hold no error are of a population with plenty.
    """
    rng = np.random.default_rng(clusters)
    trials, share, failing = 20, 0.4, 3.3 / clusters
    truth = failing * share
    held = {"clusters": 0, "independent": 0}
    for _ in range(DRAWS):
        wrong = rng.binomial(trials, share, clusters) * (rng.random(clusters) < failing)
        laxer = rng.binomial(trials, share, clusters // 3)
        size = ClusterSize.of(subjects(laxer, [trials] * len(laxer)))
        counts = subjects(wrong, [trials] * clusters)
        held["clusters"] += upper_bound(counts, size) >= truth
        exact = stats.beta.ppf(0.95, counts.errors + 1, counts.trials - counts.errors)
        held["independent"] += exact >= truth
    assert 0.93 <= held["clusters"] / DRAWS <= 0.99
    assert held["independent"] / DRAWS < 0.85


def test_pairs_of_people_are_clusters(rng):
    """Two who look alike are one cluster, however many of their photos are taken for each other."""
    photos = np.full(30, 6)
    trials = Crossed.within(photos)
    alike = PairCounts.of([0, 2], [1, 3], [20, 16], trials)
    apart = PairCounts.of(np.zeros(18, int), np.arange(1, 19), np.full(18, 2), trials)
    assert upper_bound(alike) == pytest.approx(36 * 6.296 / trials.total, rel=0.02)
    assert alike.errors == apart.errors
    # Eighteen look like one and the same person: no more than a few independent ones.
    assert upper_bound(apart, ClusterSize(2.0, 0.1, 40)) > 1.4 * 36 / trials.total


class Asked(PairCounts):
    """How often the errors of each pair were counted once, which takes the longest."""

    times: ClassVar[list[PairCounts]] = []

    def once(self):
        self.times.append(self)
        return super().once()


@pytest.mark.parametrize("pairs", [3, LEAST_ERRORS])
def test_an_interval_and_its_bound_share_one_count(pairs):
    trials = Crossed.within(np.full(2 * pairs, 6))
    first = 2 * np.arange(pairs)
    counts = PairCounts.of(first, first + 1, np.full(pairs, 2), trials)
    asked = Asked(counts.first, counts.second, counts.wrong, trials)
    Asked.times.clear()
    assert ends(asked) == ends(counts)
    assert len(Asked.times) == 1
