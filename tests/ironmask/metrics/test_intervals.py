"""Intervals over populations whose true rate is known."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from scipy import stats

from ironmask.errors import ParameterError, ProtocolError
from ironmask.metrics import Crossed, PairCounts, SubjectCounts, rate
from ironmask.metrics.intervals import Design, clustered_wilson, design, subject_bootstrap

POPULATIONS = 1000


def people(rng: np.random.Generator) -> tuple[SubjectCounts, float]:
    """150 subjects of 1 to 12 comparisons, who differ much in how often they are refused."""
    trials = rng.integers(1, 13, 150)
    chance = rng.beta(0.8, 7.2, 150)
    return SubjectCounts.of(rng.binomial(trials, chance), trials), 0.1


def alike(rng: np.random.Generator) -> tuple[SubjectCounts, float]:
    """200 subjects of 4 comparisons, all alike."""
    return SubjectCounts.of(rng.binomial(4, 0.05, 200), np.full(200, 4)), 0.05


def pairs(rng: np.random.Generator) -> tuple[PairCounts, float]:
    """120 subjects of 1 to 3 images, all against all; some look like everybody."""
    images = rng.integers(1, 4, 120)
    likeness = np.exp(0.5 * rng.standard_normal(120) - 0.125)
    first, second = np.triu_indices(120, 1)
    chance = np.minimum(0.02 * likeness[first] * likeness[second], 1)
    wrong = rng.binomial(images[first] * images[second], chance)
    some = wrong > 0
    trials = Crossed.within(images)
    return PairCounts.of(first[some], second[some], wrong[some], trials), 0.02


@pytest.mark.parametrize("effect", [1.0, 1.3, 2.9])
def test_an_interval_holds_its_rate(effect):
    """To the last place: rounding left out rates of 0 and 1 in a sixth of these."""
    for trials in range(1, 120):
        for errors in {0, 1, trials // 2, trials - 1, trials}:
            for freedom in (1.0, 7.7, 60.0):
                found = Design(errors / trials, trials, effect, 1.0, freedom)
                interval = clustered_wilson(found)
                assert interval.low <= found.rate <= interval.high


@pytest.mark.slow
@pytest.mark.parametrize("population", [people, alike, pairs])
def test_95_percent_intervals_hold_the_true_rate(population, record_property):
    rng = np.random.default_rng(20)
    held = {"wilson": 0, "bootstrap": 0}
    for _ in range(POPULATIONS):
        counts, truth = population(rng)
        found = design(counts)
        for name, interval in (
            ("wilson", clustered_wilson(found)),
            ("bootstrap", subject_bootstrap(counts, found, rng)),
        ):
            held[name] += interval.low <= truth <= interval.high
    for name, count in held.items():
        share = count / POPULATIONS
        sys.stdout.write(f"{population.__name__}, {name}: {share:.1%} hold the true rate\n")
        assert 0.93 <= count / POPULATIONS <= 0.97, name


def test_one_comparison_a_subject_is_nearly_wilsons_interval():
    """SciPy's, but for Student's t in the normal quantile's place."""
    errors = np.zeros(2000, dtype=int)
    errors[:100] = 1
    found = clustered_wilson(design(SubjectCounts.of(errors, np.ones(2000, dtype=int))))
    known = stats.binomtest(100, 2000).proportion_ci(method="wilson")
    assert found.low == pytest.approx(known.low, rel=0.01)
    assert found.high == pytest.approx(known.high, rel=0.01)


def test_clusters_widen_it():
    trials = np.full(50, 20)
    together, apart = np.zeros(50, dtype=int), np.full(50, 2)
    together[:5] = 20
    wide, narrow = (design(SubjectCounts.of(errors, trials)) for errors in (together, apart))
    assert wide.effect > 15
    assert narrow.effect == 1


def test_thirty_errors_support_a_rate(rng):
    few = rate(SubjectCounts.of([1] * 29 + [0] * 71, [1] * 100), rng)
    enough = rate(SubjectCounts.of([1] * 30 + [0] * 70, [1] * 100), rng)
    assert (few.supported, enough.supported) == (False, True)
    none = rate(SubjectCounts.of([0] * 100, [3] * 100), rng)
    assert (none.value, none.supported) == (0, False)
    # Nothing says that a person's three comparisons do not fail together.
    assert none.bound == pytest.approx(3 * 3 / 300, rel=0.02)
    assert none.interval == none.bootstrap


def test_what_cannot_be_counted_is_refused(rng):
    with pytest.raises(ProtocolError, match="no trials"):
        rate(SubjectCounts.of([0], [0]), rng)
    with pytest.raises(ProtocolError, match="3 errors in 2 trials"):
        SubjectCounts.of([3], [2])
    with pytest.raises(ProtocolError, match="whole numbers"):
        SubjectCounts.of([0.5], [2])
    with pytest.raises(ProtocolError, match="against itself"):
        PairCounts.of([1], [1], [1], Crossed.within([2, 2]))
    with pytest.raises(ProtocolError, match="more than their comparisons"):
        PairCounts.of([0], [1], [5], Crossed.within([2, 2]))
    with pytest.raises(ParameterError, match="1,000"):
        rate(SubjectCounts.of([1], [2]), rng, resamples=10)
