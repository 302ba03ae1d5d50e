"""How often settings accept, by angle: as rows that were protected for it are verified."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from support.marks import slow

from ironmask import Params, Protector, candidates, verify_batch
from ironmask.acceptance import ANGLES, DRAWS, Acceptance, measured
from ironmask.params import Structure, structure_for

ROWS, PROBES, TRIED = 20, 20, 200
# Standard errors of a difference; the tests have some dozen differences.
LIMIT = 4.5


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def at_angle(rng, template, angle, count):
    """Probes at an angle to a unit template, in directions that are uniform across it."""
    across = rng.standard_normal((count, len(template)))
    across = unit(across - np.outer(across @ template, template))
    return np.cos(angle) * template + np.sin(angle) * across


def verified(rng, params, angles, row_key):
    """The share of probes that rows accept, made and verified as a user does it."""
    accepted = np.zeros(len(angles))
    with Protector(params) as protector:
        for _ in range(ROWS):
            template = unit(rng.standard_normal(params.n))
            row = protector.protect(template, row_key)
            for place, angle in enumerate(np.radians(angles)):
                probes = at_angle(rng, template, angle, PROBES)
                accepted[place] += verify_batch(row, probes, row_key).sum()
    return accepted / (ROWS * PROBES)


@pytest.mark.parametrize(
    "params",
    [
        Params(128, 8, 2, 128),
        slow(Params(128, 12, 1, 192, Structure.QUATERNIONIC)),
        slow(Params(512, 16, 3, 1024, Structure.QUATERNIONIC)),
    ],
    ids=Params.describe,
)
def test_it_is_what_protected_rows_do(params, rng, row_key):
    found = measured(params, rng)[params.tolerance]
    # Where about a fifth and two thirds of the probes are accepted.
    angles = np.interp([0.2, 0.65], found.shares[::-1], ANGLES[::-1])
    expected = found.at(np.cos(np.radians(angles)))
    share = verified(rng, params, angles, row_key)
    spread = expected * (1 - expected) * (1 / DRAWS + 1 / (ROWS * PROBES))
    assert (np.abs(share - expected) <= LIMIT * np.sqrt(spread)).all()
    assert expected == pytest.approx([0.2, 0.65], abs=0.1)


def test_it_falls_with_the_angle_and_grows_with_the_tolerance(rng):
    some = [one.shares for one in measured(Params(256, 12, 3, 512), rng, 1000)]
    assert len(some) == 4
    for shares in some:
        assert len(shares) == len(ANGLES)
        assert shares[0] == 1
        assert shares[-1] == 0
        # The same directions at each angle: only a few of them come and go.
        assert (np.diff(shares) < 0.005).all()
    for fewer, more in pairwise(some):
        assert (more >= fewer).all()


def test_the_width_of_the_code_matters_and_that_of_the_embedding_does_not(rng):
    narrow, wide = (measured(Params(128, 10, 1, width), rng)[1] for width in (128, 512))
    assert (wide.shares >= narrow.shares - 0.02).all()
    assert wide.shares.sum() > narrow.shares.sum() + 1
    other = measured(Params(512, 10, 1, 512), rng)[1]
    assert np.abs(other.shares - wide.shares).max() < LIMIT * np.sqrt(0.5 / DRAWS)


def test_structure_is_not_looked_at(rng):
    real, other = (Params(128, 8, 1, 128, kind) for kind in Structure)
    assert structure_for(128, 128) is other.structure
    seeds = [np.random.default_rng(5) for _ in Structure]
    first, again = (measured(p, seed, 200) for p, seed in zip((real, other), seeds, strict=True))
    assert all(np.array_equal(a.shares, b.shares) for a, b in zip(first, again, strict=True))


class TestBetweenTheAngles:
    def test_it_passes_through_what_was_measured(self, rng):
        found = measured(Params(128, 8, 1), rng, 500)[1]
        cosine = np.cos(np.radians(ANGLES))
        np.testing.assert_allclose(found.at(cosine), found.shares, atol=2e-7)

    def test_beyond_it_all_or_nothing_is_accepted(self):
        shares = np.where(np.array(ANGLES) < 40, 1.0, 0.0)
        shares[10:12] = 0.6, 0.2
        found = Acceptance(shares)
        degrees = np.array([0, 20, 38, 40, 42, 44, 46, 90, 180])
        expected = [1, 1, 1, 0.6, 0.2, 0, 0, 0, 0]
        np.testing.assert_allclose(found.at(np.cos(np.radians(degrees))), expected, atol=1e-9)

    @pytest.mark.parametrize("share", [0.0, 1.0])
    def test_of_one_share_alone(self, share):
        found = Acceptance(np.full(len(ANGLES), share))
        inside = found.at(np.cos(np.radians([20.0, 40.0, 86.0])))
        np.testing.assert_allclose(inside, share, atol=2e-7)

    @pytest.mark.slow
    def test_the_curve_of_many_more_angles_and_draws_is_met(self, rng):
        """Halfway between two angles, as a setting of the neighbouring width would not be."""
        params = Params(256, 10, 2)
        found = measured(params, rng)[2]
        between = np.arange(45, 62, 4)
        share = np.array([simulated(rng, params, angle) for angle in np.radians(between)])
        expected = found.at(np.cos(np.radians(between)))
        limit = LIMIT * np.sqrt(expected * (1 - expected) * (1 / DRAWS + 1 / TRIED)) + 0.01
        assert (np.abs(share - expected) < limit).all()


def simulated(rng, params, angle):
    """The share at one angle by full decoding: codewords and tags, without ranks."""

    code = np.zeros(params.code_width)
    code[: params.alpha] = params.alpha**-0.5
    probes = at_angle(rng, code, angle, TRIED)
    known = replace(params, n=params.code_width)
    right = set(range(1, params.alpha + 1))
    hits = 0
    for u in probes:
        tried = candidates.subsets(u, known)
        hits += bool((np.isin(tried, list(right))).all(axis=1).any())
    return hits / TRIED
