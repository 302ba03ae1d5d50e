"""Bars of strangers: each way to find one, against draws from what it describes."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest

from ironmask import impostors
from ironmask.spectrum import Spectrum

N = 64
RATES = [1e-1, 1e-2, 1e-3]


def cosines(rows):
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows @ rows.T)[np.triu_indices(len(rows), 1)]


@pytest.fixture(scope="module")
def uniform():
    return np.random.default_rng(1).standard_normal((3000, N))


@pytest.fixture(scope="module")
def narrow():
    """Of a model that uses some directions more than others."""
    rng = np.random.default_rng(2)
    return rng.standard_normal((3000, N)) * np.linspace(2, 0, N)


@pytest.mark.parametrize("fmr", RATES)
def test_on_the_sphere(uniform, fmr):
    bar = impostors.on_sphere(N, fmr)
    assert (cosines(uniform) > bar).mean() == pytest.approx(fmr, rel=0.1)


@pytest.mark.parametrize("fmr", RATES)
def test_of_embeddings(narrow, fmr):
    bar = impostors.of_embeddings(narrow[:1500], N, fmr)
    assert (cosines(narrow[1500:]) > bar).mean() == pytest.approx(fmr, rel=0.2)
    assert bar > impostors.on_sphere(N, fmr)


@pytest.mark.parametrize("fmr", RATES)
def test_of_moments_whatever_their_number(narrow, fmr):
    bars = [impostors.of_moments(Spectrum.of(narrow[:k], N), fmr) for k in (4 * N, 3000)]
    assert bars[0] == pytest.approx(bars[1], rel=0.05)
    for bar in bars:
        assert (cosines(narrow) > bar).mean() == pytest.approx(fmr, rel=0.7)


def test_moments_that_tell_nothing_are_those_of_the_sphere():
    """Embeddings that are more apart than any can be by chance."""
    apart = Spectrum.of(np.concatenate([np.eye(N), -np.eye(N)]), N)
    assert impostors.of_moments(apart, 1e-2) == pytest.approx(
        impostors.on_sphere(N, 1e-2), rel=0.05
    )


def test_of_points():
    points = ((1e-1, 0.1), (1e-2, 0.2), (1e-3, 0.25))
    assert [impostors.of_points(points, fmr) for fmr, _ in points] == pytest.approx(
        [0.1, 0.2, 0.25]
    )
    between = [impostors.of_points(points, fmr) for fmr in (0.05, 0.02, 0.005, 0.002)]
    assert between == sorted(between)
    assert 0.1 < between[0] < between[1] < 0.2 < between[2] < between[3] < 0.25
    deviates = [NormalDist().inv_cdf(1 - fmr) for fmr in (0.1, 0.02, 0.01)]
    share = (deviates[1] - deviates[0]) / (deviates[2] - deviates[0])
    assert between[1] == pytest.approx(0.1 + 0.1 * share)
