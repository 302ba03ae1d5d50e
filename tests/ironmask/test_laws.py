"""Isometries of every structure and width follow their law, and wrong ones are told from it.

The theory of `support.laws` against the sampler, and against samplers that are nearly right.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
from scipy.stats import beta, kstest, norm
from support.laws import (
    RARE,
    Carried,
    coordinates,
    entries,
    far,
    first_moments,
    line,
    second_moments,
    stabilised,
    times,
    unit,
)
from support.marks import slow

from ironmask import algebra, codeword, rotation
from ironmask.params import Structure
from ironmask.rotation import Sampler

DRAWS = 6000
REAL, QUATERNIONIC = Structure.REAL, Structure.QUATERNIONIC
WIDTHS = [(REAL, 6, 6), (REAL, 5, 8), (QUATERNIONIC, 12, 12), (QUATERNIONIC, 8, 12)]


def source(n):
    """A unit vector like any other."""
    return unit(np.random.default_rng(n).standard_normal(n))


def target(code_width):
    """A codeword: one entry in three is zero."""
    code = np.where(np.arange(code_width) % 3, np.where(np.arange(code_width) % 2, 1.0, -1.0), 0)
    return unit(code)


FREE = [Carried(*widths) for widths in WIDTHS]
CARRIED = [Carried(*widths, source(widths[1]), target(widths[2])) for widths in WIDTHS]
# The others are slow: each takes as many draws.
of_some_laws = pytest.mark.parametrize(
    "of",
    [FREE[1], CARRIED[2], *map(slow, FREE[:1] + FREE[2:] + CARRIED[:2] + CARRIED[3:])],
    ids=lambda of: of.name,
)
of_any_law = pytest.mark.parametrize("of", FREE + CARRIED, ids=lambda of: of.name)


@lru_cache(maxsize=len(FREE + CARRIED))
def _drawn(place: int):
    of = (FREE + CARRIED)[place]
    found = of.draws(np.random.default_rng([17, place]), DRAWS)
    found.flags.writeable = False
    return found


@pytest.fixture
def draws(of):
    """Many draws of a law, (DRAWS, N, n)."""
    return _drawn(next(i for i, one in enumerate(FREE + CARRIED) if one is of))


@of_some_laws
def test_first_moments(of, draws):
    assert first_moments(draws, of) < 1


@of_some_laws
def test_second_moments_and_covariances(of, draws):
    assert second_moments(draws, of) < 1


@of_any_law
def test_the_random_part_has_the_law_of_a_point_on_the_sphere(of, draws, rng):
    assert coordinates(draws, of, rng) > RARE


@pytest.mark.parametrize("of", FREE, ids=lambda of: of.name)
def test_entries_have_the_law_of_a_point_on_the_sphere(of, draws):
    assert entries(draws, of) > RARE


@pytest.mark.parametrize("of", CARRIED, ids=lambda of: of.name)
def test_moments_stay_where_what_is_carried_stays(of, draws, rng):
    for _ in range(4):
        assert stabilised(draws, of, rng) < 1


@pytest.mark.parametrize("of", CARRIED, ids=lambda of: of.name)
def test_what_is_carried_is_in_every_draw(of, draws):
    image = draws @ line(of.source, of.structure).T
    assert np.abs(image - line(of.target, of.structure).T).max() < 1e-5


def without_ends(of, rng):
    """As a factorisation without unit scalars at its ends gives: the first row real, above 0."""
    images = images_of_one(of.draws(rng, DRAWS), of.structure)
    phases = algebra.direction(images[:, :1])
    rows = algebra.times(images, algebra.conjugate(phases)).reshape(DRAWS, -1, of.n)
    return algebra.expanded(rows.astype(np.float32), of.structure).astype(np.float64)


def images_of_one(draws, structure):
    """The images of 1 in each place, row by row: (k, m, w, d) for (k, d m, d w) matrices."""
    k, code_width, n = draws.shape
    d = structure.components
    return draws.reshape(k, code_width // d, d, n // d, d)[..., 0].transpose(0, 1, 3, 2)


def one_for_all(of, rng):
    """One isometry, times a random unit scalar."""
    (fixed,) = of.draws(rng, 1)
    phases = rng.standard_normal((DRAWS, of.structure.components))
    phases /= np.linalg.norm(phases, axis=1, keepdims=True)
    return np.stack([times(fixed.T, phase).T for phase in phases])


def smaller_group(of, rng):
    """Matrices of real numbers in the place of quaternions."""
    d = of.structure.components
    small = Carried(REAL, of.n // d, of.code_width // d).draws(rng, DRAWS)
    return np.kron(small, np.eye(d))


@pytest.mark.parametrize(
    ("wrong", "of", "statistic"),
    [
        (without_ends, FREE[0], first_moments),
        slow(without_ends, FREE[2], first_moments),
        slow(without_ends, FREE[3], second_moments),
        (one_for_all, FREE[1], second_moments),
        slow(one_for_all, FREE[2], second_moments),
        slow(smaller_group, FREE[2], second_moments),
        (smaller_group, FREE[3], second_moments),
    ],
    ids=lambda value: getattr(value, "name", getattr(value, "__name__", "")),
)
def test_moments_tell_a_wrong_law(wrong, of, statistic, rng):
    assert statistic(wrong(of, rng), of) > 2


@pytest.mark.parametrize("of", [CARRIED[0], CARRIED[3]], ids=lambda of: of.name)
def test_a_part_that_never_changes_is_told(of, rng):
    """What is carried is carried; the rest is one isometry for all, up to its sign."""
    (fixed,) = of.draws(rng, 1)
    rest = fixed - of.mean()
    wrong = of.mean() + rng.choice([-1, 1], DRAWS)[:, None, None] * rest
    assert first_moments(wrong, of) < 1
    assert second_moments(wrong, of) > 2
    assert coordinates(wrong, of, rng) < RARE
    assert stabilised(wrong, of, rng) > 2


@pytest.mark.parametrize("of", FREE, ids=lambda of: of.name)
@pytest.mark.slow
def test_entries_tell_a_wrong_law_of_right_moments(of, rng, monkeypatch):
    """Reflectors of uniform entries instead of normal ones."""

    def fill(generator, out):
        out[:] = generator.uniform(-1, 1, len(out))

    monkeypatch.setattr(rotation, "fill_normals", fill)
    draws = of.draws(rng, 2 * DRAWS)
    assert first_moments(draws, of) < 1
    assert entries(draws, of) < RARE / 100


FULL = [(REAL, 512, 512), (REAL, 512, 1024), (QUATERNIONIC, 512, 512), (QUATERNIONIC, 512, 1024)]


def full(structure, n, code_width, rng):
    code = codeword.sample(rng, code_width, 16)
    return Carried(structure, n, code_width, source(n), codeword.dense(code, code_width)[0])


def p_value_of_normal(scaled):
    """Whether entries times sqrt(N), (k,), have the standard normal law."""
    return kstest(scaled[:: max(1, len(scaled) // 100_000)], norm.cdf).pvalue


@pytest.mark.parametrize("widths", FULL, ids=lambda w: f"{w[0]}-{w[2]}")
def test_entries_at_full_width_are_normal(widths, rng):
    """N(0, 1 / N), but for what is carried."""
    of = full(*widths, rng)
    mean = images_of_one(of.mean()[None], of.structure).reshape(1, -1, of.n)
    sampler = Sampler(of.n, of.code_width, of.structure)
    rows = [sampler.carrying(rng, of.source, of.target) - mean[0] for _ in range(3)]
    assert p_value_of_normal(np.sqrt(of.code_width) * np.stack(rows).ravel()) > RARE


def test_entries_at_full_width_tell_a_wrong_law(rng):
    """A quarter of the numbers that ought to vary, and those of a narrower code."""
    small = Sampler(128, 256).haar(rng)
    wrong = np.kron(small, np.array([1, 0, 0, 0], dtype=np.float32))
    assert p_value_of_normal(np.sqrt(1024) * wrong.ravel()) < RARE / 100
    narrower = Sampler(512, 960, QUATERNIONIC).haar(rng)
    assert p_value_of_normal(np.sqrt(1024) * narrower.ravel()) < RARE / 100


NOISE_ANGLE = 50.0


@pytest.mark.parametrize("of", CARRIED, ids=lambda of: of.name)
def test_noise_of_a_probe_is_isotropic(of, draws, rng):
    """At a fixed angle, what P t' has beside c and its multiples points anywhere."""
    aside = rng.standard_normal(of.n)
    aside = unit(aside - (aside @ of.source) * of.source)
    probe = np.cos(np.radians(NOISE_ANGLE)) * of.source + np.sin(np.radians(NOISE_ANGLE)) * aside
    image = draws @ probe
    own = line(of.target, of.structure)
    along = image @ own.T
    expected = line(of.source, of.structure) @ probe
    assert np.abs(along - expected).max() < 1e-5
    noise = image - along @ own
    size = np.sqrt(1 - expected @ expected)
    assert np.abs(np.linalg.norm(noise, axis=1) - size).max() < 1e-5
    noise /= size
    off = np.eye(of.code_width) - own.T @ own
    assert far(noise, 0.0) < 1
    assert far(np.einsum("ki,kj->kij", noise, noise), off / of.dimensions) < 1
    law = beta((of.dimensions - 1) / 2, (of.dimensions - 1) / 2)
    for _ in range(8):
        direction = unit(off @ rng.standard_normal(of.code_width))
        assert kstest((noise @ direction + 1) / 2, law.cdf).pvalue > RARE / 8


def test_noise_at_full_width_is_as_that_of_real_helpers(rng):
    """The largest entries of the noise decide what is decoded: they have one law."""
    largest = {}
    for structure in Structure:
        of = full(structure, 64, 256, rng)
        image = of.draws(rng, 400) @ probes_aside(of.source, 4, rng).T
        own = line(of.target, structure)
        noise = image - own.T @ (own @ image)
        noise /= np.linalg.norm(noise, axis=1, keepdims=True)
        largest[structure] = np.sort(np.abs(noise), axis=1)[:, -16:].mean(axis=1).ravel()
    assert kstest(largest[REAL], largest[QUATERNIONIC]).pvalue > RARE


def probes_aside(vector, count, rng):
    aside = rng.standard_normal((count, len(vector)))
    aside -= np.outer(aside @ vector, vector)
    return aside / np.linalg.norm(aside, axis=1, keepdims=True)
