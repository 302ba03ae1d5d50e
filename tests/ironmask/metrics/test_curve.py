"""A recogniser's rates at all thresholds, and the rates of settings that follow from them."""

from __future__ import annotations

import numpy as np
import pytest

from ironmask.metrics import Crossed, Curve, Kept, ScoreCounts
from ironmask.metrics.rates import ends

PEOPLE, EACH = 60, 4


def compared(rng, floor=-1.0, spread=0.08):
    """First faces against all others, with people who are hard to tell and easy to mistake."""
    hard, common = 0.12 * rng.standard_normal(PEOPLE), spread * rng.standard_normal(PEOPLE)
    owner = np.repeat(np.arange(PEOPLE), EACH)
    genuine = 0.6 + hard[owner] + 0.1 * rng.standard_normal(len(owner))
    first, probe = np.nonzero(np.arange(PEOPLE)[:, None] != owner)
    second = owner[probe]
    impostor = common[first] + common[second] + 0.1 * rng.standard_normal(len(first))
    genuine, impostor = np.clip(genuine, -1, 1), np.clip(impostor, -1, 1)
    trials = Crossed.of(np.ones(PEOPLE, dtype=int), np.full(PEOPLE, EACH))
    some = impostor >= floor
    kept = Kept(genuine, owner, impostor[some], first[some], second[some], trials, floor)
    return kept, impostor, ScoreCounts.of(genuine, impostor)


@pytest.fixture
def people(rng):
    return compared(rng)


def smooth(cosine):
    return 1 / (1 + np.exp(-(cosine - 0.35) / 0.04))


def test_its_rates_are_those_of_each_threshold(people):
    kept, impostor, scores = people
    curve = Curve.of(kept, scores)
    assert (curve.genuine, curve.impostor) == (len(kept.genuine), len(impostor))
    for place in (0, 100, 125, 140, 160, 200):
        threshold = curve.thresholds[place]
        assert curve.fmr.value[place] == (impostor >= threshold).mean()
        assert curve.fnmr.value[place] == (kept.genuine < threshold).mean()
        errors = kept.accepted_at(threshold)
        _, interval, bound = ends(errors, kept.accepted_together)
        assert (curve.fmr.low[place], curve.fmr.high[place]) == (interval.low, interval.high)
        assert curve.fmr.bound[place] == bound


def test_a_threshold_is_a_setting(people):
    """Whoever accepts from a cosine on has the recogniser's own rates there, intervals and all."""
    curve = Curve.of(people[0], people[2])
    place = int(np.searchsorted(curve.thresholds, 0.3))
    fmr, fnmr = curve.mixture(lambda cosine: (cosine >= curve.thresholds[place]).astype(float))
    for found, rates in ((fmr, curve.fmr), (fnmr, curve.fnmr)):
        for end in ("value", "low", "high", "bound", "error"):
            assert getattr(found, end) == pytest.approx(getattr(rates, end)[place])


def test_the_rates_of_a_setting_are_means_over_comparisons(people):
    kept, impostor, scores = people
    fmr, fnmr = Curve.of(kept, scores).mixture(smooth)
    assert fmr.value == pytest.approx(smooth(impostor).mean(), rel=0.02)
    assert fnmr.value == pytest.approx(1 - smooth(kept.genuine).mean(), rel=0.02)
    for one in (fmr, fnmr):
        assert 0 <= one.low < one.value < one.bound <= one.high <= 1
    rest = smooth(kept.genuine) - smooth(kept.genuine).mean()
    error = np.sqrt((np.bincount(kept.owner, rest) ** 2).sum()) / len(rest)
    assert error < fnmr.error < 2 * error


def test_who_accepts_nobody_refuses_everybody(people):
    curve = Curve.of(people[0], people[2])
    fmr, fnmr = curve.mixture(np.zeros_like)
    assert (fmr.value, fmr.bound, fnmr.value, fnmr.low) == (0, 0, 1, 1)
    _, half = curve.mixture(lambda cosine: np.full_like(cosine, 0.5))
    assert half.value == pytest.approx(0.5)


def test_below_the_floor_intervals_are_as_wide_in_proportion(rng):
    kept, impostor, scores = compared(rng, floor=0.2)
    curve = Curve.of(kept, scores)
    first = int(np.searchsorted(curve.thresholds, 0.2))
    assert curve.fmr.value[first - 10] == (impostor >= curve.thresholds[first - 10]).mean()
    for end in ("low", "high", "bound", "error"):
        ends = getattr(curve.fmr, end)[: first + 1]
        width = ends / curve.fmr.value[: first + 1]
        assert width[ends < 1] == pytest.approx(width[-1])
        assert (width <= width[-1] * (1 + 1e-9)).all()
    assert (np.diff(curve.fmr.value) <= 0).all()


def test_where_no_impostor_is_kept_the_bound_is_there_all_the_same(rng):
    kept, impostor, scores = compared(rng, floor=0.9, spread=0.02)
    assert not (impostor >= 0.9).any()
    curve = Curve.of(kept, scores)
    assert curve.fmr.bound.min() > 3 / len(impostor)
    assert (curve.fmr.bound >= curve.fmr.value).all()


def test_no_errors_tell_less_where_people_come_again(people):
    """The rule of three, counted by pairs of people."""
    curve = Curve.of(people[0], people[2])
    assert curve.least_bound == curve.fmr.bound[-1]
    pairs = PEOPLE * (PEOPLE - 1) / 2
    assert 2.9 / len(people[1]) < curve.least_bound <= 3 / pairs


def test_the_recogniser_at_the_same_fmr(people):
    curve = Curve.of(people[0], people[2])
    place = int(np.searchsorted(curve.thresholds, 0.25))
    at = curve.fmr.value[place]
    assert curve.tar_at(float(at)) == pytest.approx(1 - curve.fnmr.value[place])
    between = curve.tar_at(float(np.sqrt(at * curve.fmr.value[place + 1])))
    ends = 1 - curve.fnmr.value[[place, place + 1]]
    assert between == pytest.approx(ends.mean())
    assert curve.tar_at(1e-12) is None


@pytest.mark.slow
def test_the_bound_of_a_setting_holds(rng):
    """Over populations of other people: in 95 of 100 at least, less what so few draws vary."""
    whole = [compared(rng) for _ in range(100)]
    truth = np.mean([smooth(impostor).mean() for _, impostor, _ in whole])
    held = [Curve.of(kept, s).mixture(smooth)[0].bound >= truth for kept, _, s in whole]
    assert np.mean(held) >= 0.9
