"""Rotations: the Haar measure on O(n), and on those that carry one vector to another."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import beta, binom, kstest
from support.marks import few

from ironmask import rotation
from ironmask.errors import ParameterError
from ironmask.params import Structure

DRAWS = 20_000
N = 6
RARE = 1e-4


@pytest.fixture(scope="module")
def small():
    """Many small draws, (DRAWS, N, N) float64."""
    rng = np.random.default_rng(11)
    return np.stack([rotation.haar(rng, N) for _ in range(DRAWS)]).astype(np.float64)


def unit(vector):
    return vector / np.linalg.norm(vector)


def z_scores(samples, expected):
    """Standardised distance of the mean over axis 0 from its expectation."""
    error = samples.std(axis=0) / np.sqrt(len(samples))
    return np.abs(samples.mean(axis=0) - expected) / np.maximum(error, 1e-12)


def defect(q):
    q = q.astype(np.float64)
    return np.abs(q @ q.T - np.eye(len(q))).max()


@pytest.mark.parametrize("n", [2, 64, 65, 100, 128, 257, 512, 1024])
def test_haar_is_orthogonal(n, rng):
    q = rotation.haar(rng, n)
    assert q.shape == (n, n)
    assert q.dtype == np.float32
    assert q.flags.c_contiguous
    assert defect(q) < 1e-5
    assert defect(q.T) < 1e-5


@pytest.mark.slow
def test_first_moments(small):
    assert z_scores(small, 0).max() < 5


@pytest.mark.slow
def test_second_moments_and_covariances(small):
    """E q_ij q_kl = 1/n where (i, j) = (k, l), else 0."""
    flat = small.reshape(DRAWS, -1)
    products = flat[:, :, None] * flat[:, None, :]
    assert z_scores(products, np.eye(N * N) / N).max() < 5.5


def test_fourth_moments(small):
    """1/(n(n+2)) times 3 for q_ij^4, 1 in one row or column, (n+1)/(n-1) elsewhere."""
    squares = (small**2).reshape(DRAWS, -1)
    row, column = np.divmod(np.arange(N * N), N)
    same_row, same_column = row[:, None] == row, column[:, None] == column
    expected = np.where(same_row | same_column, 1.0, (N + 1) / (N - 1))
    expected[same_row & same_column] = 3
    products = squares[:, :, None] * squares[:, None, :]
    assert z_scores(products, expected / (N * (N + 2))).max() < 5.5


def test_fourth_moment_at_full_width():
    rng = np.random.default_rng(12)
    n = 512
    q = np.stack([rotation.haar(rng, n) for _ in range(3)]).astype(np.float64)
    assert n * (q**2).mean() == pytest.approx(1, abs=1e-5)
    assert n * (n + 2) * (q**4).mean() == pytest.approx(3, abs=0.06)


@pytest.mark.parametrize(("power", "moment"), [(1, 0), (2, 1), (3, 0), (4, 3)])
def test_moments_of_the_trace(power, moment, small):
    """The trace of a Haar matrix has the first moments of a standard normal variable."""
    trace = np.trace(small, axis1=1, axis2=2)
    assert z_scores(trace**power, moment) < 4.5


def test_trace_of_the_square(small):
    assert z_scores(np.trace(small @ small, axis1=1, axis2=2), 1) < 4.5


def test_both_determinants_are_equally_likely(small):
    determinants = np.linalg.det(small)
    assert np.abs(determinants) == pytest.approx(1, abs=1e-5)
    negative = int((determinants < 0).sum())
    assert RARE < binom.cdf(negative, DRAWS, 0.5) < 1 - RARE


def test_determinants_of_odd_width_too(rng):
    signs = [np.sign(np.linalg.det(rotation.haar(rng, 3).astype(np.float64))) for _ in range(4000)]
    assert RARE < binom.cdf(signs.count(-1), 4000, 0.5) < 1 - RARE


@pytest.mark.parametrize("i", [0, 2, N - 1])
@pytest.mark.parametrize("j", [0, 2, N - 1])
def test_entries_have_the_law_of_a_point_on_the_sphere(i, j, small):
    """(1 + x)/2 is Beta((n-1)/2, (n-1)/2) for one coordinate of a uniform unit vector."""
    law = beta((N - 1) / 2, (N - 1) / 2)
    assert kstest((small[:, i, j] + 1) / 2, law.cdf).pvalue > RARE


def test_invariance_under_fixed_rotations(small, rng):
    """a' Q b has the law of one coordinate whatever the unit vectors a and b are."""
    law = beta((N - 1) / 2, (N - 1) / 2)
    for _ in range(12):
        a, b = unit(rng.standard_normal(N)), unit(rng.standard_normal(N))
        assert kstest((small @ b @ a + 1) / 2, law.cdf).pvalue > RARE


def test_left_translation_keeps_the_law_of_the_trace(small, rng):
    """tr(A Q) and tr(Q) agree in law, which a missing sign fix breaks."""
    trace = np.trace(small, axis1=1, axis2=2)
    for _ in range(4):
        a = rotation.haar(rng, N).astype(np.float64)
        moved = np.einsum("ij,kji->k", a, small)
        assert z_scores(moved, 0) < 4.5
        assert z_scores(moved**2, 1) < 4.5
        assert kstest(trace[::2], moved[1::2]).pvalue > RARE


def test_same_generator_state_gives_the_same_matrix():
    first, second = (rotation.haar(np.random.default_rng(5), 64) for _ in range(2))
    assert np.array_equal(first, second)


def explicit_turn(s, c):
    """Proposition 2 of the supplement with w normalised, written out in float64."""
    w = c - (s @ c) * s
    sine = np.linalg.norm(w)
    w = w / sine
    plane = np.stack([s, w], axis=1)
    g = np.array([[s @ c, -sine], [sine, s @ c]])
    return np.eye(len(s)) - np.outer(s, s) - np.outer(w, w) + plane @ g @ plane.T


def nearly(s, distance, rng):
    """A unit vector at the given small angle from s."""
    aside = rng.standard_normal(len(s))
    aside = unit(aside - (aside @ s) * s)
    return np.cos(distance) * s + np.sin(distance) * aside


PAIRS = {
    "apart": lambda s, rng: unit(rng.standard_normal(len(s))),
    "equal": lambda s, rng: s,
    "opposite": lambda s, rng: -s,
    "nearly equal": lambda s, rng: nearly(s, 1e-7, rng),
    "just apart": lambda s, rng: nearly(s, 2e-9, rng),
    "within the limit": lambda s, rng: nearly(s, 5e-10, rng),
    "nearly opposite": lambda s, rng: -nearly(s, 1e-7, rng),
    "just not opposite": lambda s, rng: -nearly(s, 2e-9, rng),
    "right angle": lambda s, rng: nearly(s, np.pi / 2, rng),
}


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("n", [2, 64, 65, 512, 1024])
def test_carrying_is_orthogonal_and_takes_source_to_target(pair, n, rng):
    s = unit(rng.standard_normal(n))
    c = PAIRS[pair](s, rng)
    p = rotation.Sampler(n).carrying(rng, s, c)
    assert (p.dtype, p.shape, p.flags.c_contiguous) == (np.float32, (n, n), True)
    assert np.abs(p @ s - c).max() < 1e-6
    assert defect(p) < 1e-5


AXES = {"first": np.eye(64)[0], "-first": -np.eye(64)[0], "last": np.eye(64)[63]}


@pytest.mark.parametrize("source", AXES)
@pytest.mark.parametrize("target", AXES)
def test_carrying_between_axes(source, target, rng):
    """-AXES["last"] begins with minus zero."""
    s, c = -AXES[source], AXES[target]
    p = rotation.Sampler(64).carrying(rng, s, c)
    assert np.abs(p @ s - c).max() < 1e-6
    assert defect(p) < 1e-6


@pytest.fixture(scope="module", params=few(["drawn", "explicit"], "drawn"))
def carried(request):
    """Many P with P s = c, drawn, and by the published recipe: (DRAWS, N, N), s, c."""
    rng = np.random.default_rng(13)
    s, c = unit(rng.standard_normal(N)), np.array([1.0, 0, -1, 0, 0, 1]) / np.sqrt(3)
    sampler = rotation.Sampler(N)
    if request.param == "drawn":
        return np.stack([sampler.carrying(rng, s, c).astype(float) for _ in range(DRAWS)]), s, c
    drawn = (sampler.haar(rng).astype(float) for _ in range(DRAWS))
    return np.stack([explicit_turn(unit(q @ s), c) @ q for q in drawn]), s, c


@pytest.mark.slow
def test_moments_of_what_carries(carried):
    """E p_ij = c_i s_j; the rest is Haar on what is orthogonal to c and s."""
    p, s, c = carried
    assert z_scores(p, np.outer(c, s)).max() < 5
    flat = (p - np.outer(c, s)).reshape(DRAWS, -1)
    products = flat[:, :, None] * flat[:, None, :]
    left, right = np.eye(N) - np.outer(c, c), np.eye(N) - np.outer(s, s)
    expected = np.einsum("ik,jl->ijkl", left, right).reshape(N * N, N * N) / (N - 1)
    assert z_scores(products, expected).max() < 5.5


@pytest.mark.slow
def test_the_rest_of_what_carries_has_the_law_of_a_smaller_haar_matrix(carried, rng):
    p, s, c = carried
    law = beta((N - 2) / 2, (N - 2) / 2)
    for _ in range(6):
        a, b = rng.standard_normal(N), rng.standard_normal(N)
        a, b = unit(a - (a @ c) * c), unit(b - (b @ s) * s)
        assert kstest((p @ b @ a + 1) / 2, law.cdf).pvalue > RARE
    negative = int((np.linalg.det(p) < 0).sum())
    assert RARE < binom.cdf(negative, DRAWS, 0.5) < 1 - RARE
    left, right = (np.linalg.svd(v[None])[2][1:] for v in (c, s))
    inner = np.einsum("ij,kjl,ml->kim", left, p, right)
    trace = np.trace(inner, axis1=1, axis2=2)
    for power, moment in [(1, 0), (2, 1), (3, 0), (4, 3)]:
        assert z_scores(trace**power, moment) < 4.5


@pytest.mark.parametrize("structure", Structure)
@pytest.mark.parametrize("code_width", [100, 160])
def test_a_sampler_gives_fresh_matrices_and_can_be_wiped(structure, code_width, rng):
    sampler = rotation.Sampler(100, code_width, structure)
    first = sampler.haar(rng).copy()
    second = sampler.haar(rng)
    assert np.abs(first - second).max() > 0.1
    sampler.wipe()
    arrays = [value for value in vars(sampler).values() if isinstance(value, np.ndarray)]
    # Whole numbers are places, the same for every draw.
    held = [array for array in arrays if array.dtype.kind != "i"]
    assert sum(array.nbytes for array in held) > first.nbytes
    assert not any(array.any() for array in held)
    assert not second.any()


def test_too_few_dimensions_are_refused():
    with pytest.raises(ParameterError, match="at least 2"):
        rotation.Sampler(1)
