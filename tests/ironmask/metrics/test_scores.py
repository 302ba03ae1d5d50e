"""Rates over thresholds, against scikit-learn on the same scores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import det_curve, roc_curve

from ironmask.errors import ParameterError, ProtocolError
from ironmask.metrics import ScoreCounts

SCORES = st.lists(st.integers(-20, 20), min_size=1, max_size=60)


def scored(rng, genuine=400, impostor=9000, digits=3):
    """Scores with many ties."""
    g = np.round(rng.normal(0.6, 0.12, genuine), digits)
    return g, np.round(rng.normal(0.0, 0.07, impostor), digits)


def labelled(genuine, impostor):
    scores = np.concatenate([genuine, impostor])
    return np.repeat([1, 0], [len(genuine), len(impostor)]), scores


def test_as_scikit_learn(rng):
    genuine, impostor = scored(rng)
    counts = ScoreCounts.of(genuine, impostor)
    labels, scores = labelled(genuine, impostor)
    fpr, tpr, thresholds = roc_curve(labels, scores, drop_intermediate=False)
    np.testing.assert_array_equal(thresholds[1:][::-1], counts.thresholds)
    np.testing.assert_allclose(counts.fmr, fpr[1:][::-1], rtol=0, atol=1e-9)
    np.testing.assert_allclose(counts.fnmr, 1 - tpr[1:][::-1], rtol=0, atol=1e-9)
    fmr, fnmr, thresholds = det_curve(labels, scores)
    at = np.searchsorted(counts.thresholds, thresholds)
    np.testing.assert_allclose(counts.fmr[at], fmr, rtol=0, atol=1e-9)
    np.testing.assert_allclose(counts.fnmr[at], fnmr, rtol=0, atol=1e-9)


@given(SCORES, SCORES, st.floats(0, 1))
def test_the_operating_point_is_the_lowest_that_keeps_the_rate(genuine, impostor, fmr):
    point = ScoreCounts.of(genuine, impostor).at_fmr(fmr)
    g, i = np.array(genuine), np.array(impostor)
    assert point.fmr == (i >= point.threshold).mean() <= fmr
    assert point.fnmr == (g < point.threshold).mean()
    below = max((s for s in {*genuine, *impostor} if s < point.threshold), default=None)
    assert below is None or (i >= below).mean() > fmr


def test_bins_are_exact_at_their_edges(rng):
    genuine, impostor = scored(rng, digits=6)
    edges = np.linspace(-1, 1.5, 251)
    binned = ScoreCounts(edges, *(np.histogram(s, [*edges, 9])[0] for s in (genuine, impostor)))
    for place in (80, 100, 130):
        assert binned.fmr[place] == (impostor >= edges[place]).mean()
        assert binned.fnmr[place] == (genuine < edges[place]).mean()


def test_equal_error_rate(rng):
    genuine, impostor = rng.normal(1, 1, 40_000), rng.normal(-1, 1, 40_000)
    assert ScoreCounts.of(genuine, impostor).eer == pytest.approx(0.1587, abs=0.004)


def test_planted_errors_come_back(rng):
    genuine, impostor = scored(rng)
    genuine[:20], impostor[:18] = -0.9, 0.95
    point = ScoreCounts.of(genuine, impostor).at_fmr(0.002)
    assert point.fmr == pytest.approx(18 / 9000)
    assert point.fnmr == pytest.approx(20 / 400, abs=0.02)


@pytest.mark.parametrize(("genuine", "impostor"), [([], [1.0]), ([1.0], [])])
def test_an_empty_class_is_refused(genuine, impostor):
    with pytest.raises(ProtocolError, match=r"there is no .* comparison"):
        ScoreCounts.of(genuine, impostor)


def test_what_is_no_score_is_refused():
    with pytest.raises(ProtocolError, match="finite"):
        ScoreCounts.of([1.0, np.nan], [0.0])
    with pytest.raises(ProtocolError, match="increase"):
        ScoreCounts(np.array([1.0, 0.0]), np.array([1, 1]), np.array([1, 1]))
    with pytest.raises(ParameterError, match="FMR"):
        ScoreCounts.of([1.0], [0.0]).at_fmr(1.5)
