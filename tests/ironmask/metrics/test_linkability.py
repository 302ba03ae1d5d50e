"""Linkability against SciPy's quadrature on known distributions, and at its ends."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from ironmask.errors import ProtocolError
from ironmask.metrics import linkability
from ironmask.metrics.linkability import d_sys, maximal


@pytest.fixture
def rng():
    return np.random.default_rng(31)


def by_quadrature(shift: float) -> tuple[float, float]:
    """Both numbers of two normal distributions with unit variance."""

    def linked(s):
        p, q = norm.pdf(s, shift), norm.pdf(s)
        return p * max(0.0, (p - q) / (p + q)) if p + q else 0.0

    def larger(s):
        return max(norm.pdf(s, shift), norm.pdf(s))

    ends = {"points": [shift / 2], "limit": 200}
    return quad(linked, -9, 9 + shift, **ends)[0], np.log2(quad(larger, -9, 9 + shift, **ends)[0])


@pytest.mark.parametrize("shift", [0.5, 1.0, 2.0, 4.0])
def test_known_distributions(shift, rng):
    """Shares of fine bins from the distributions themselves, and of four million drawn scores."""
    expected = by_quadrature(shift)
    edges = np.linspace(-9, 9 + shift, 4001)
    p, q = np.diff(norm.cdf(edges, shift)), np.diff(norm.cdf(edges))
    assert (d_sys(p, q), maximal(p, q)) == pytest.approx(expected, abs=1e-5)
    count = 4_000_000
    found = linkability(
        rng.standard_normal(count) + shift, rng.standard_normal(count), rng, bins=200
    )
    assert (found.d_sys, found.maximal) == pytest.approx(expected, abs=1e-3)
    assert found.d_sys_interval.low - 1e-3 <= expected[0] <= found.d_sys_interval.high + 1e-3


def test_what_says_nothing_and_what_says_all(rng):
    same = linkability(rng.random(20_000), rng.random(20_000), rng)
    assert same.d_sys < 0.02
    assert same.maximal < 0.05
    apart = linkability(rng.random(50) + 2, rng.random(50), rng)
    assert (apart.d_sys, apart.maximal) == (1, 1)
    assert apart.d_sys_interval.low == pytest.approx(1)
    assert apart.bins == 10


@pytest.mark.parametrize("scores", [([], [1.0]), ([1.0], []), ([np.nan], [1.0])])
def test_scores_that_are_none_are_refused(scores, rng):
    with pytest.raises(ProtocolError):
        linkability(*scores, rng)
