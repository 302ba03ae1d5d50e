"""List decoding against all codewords of small widths, and the subsets that probes are tried as."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ironmask import Params, candidates, codeword
from ironmask.errors import ParameterError, TemplateError

steady = settings(deadline=None, derandomize=True, database=None, max_examples=60)
SMALL = Params(64, 6, 2)


def every_codeword(n, alpha):
    places = np.array(list(combinations(range(1, n + 1), alpha)), dtype=np.int32)
    signs = np.array(list(product((1, -1), repeat=alpha)), dtype=np.int32)
    return (places[:, None, :] * signs).reshape(-1, alpha)


@steady
@given(st.integers(0, 2**32 - 1), st.sampled_from([(5, 1), (6, 2), (7, 3), (8, 4), (5, 5)]))
def test_nearest_first_as_by_brute_force(seed, shape):
    n, alpha = shape
    u = np.random.default_rng(seed).standard_normal(n)
    every = every_codeword(n, alpha)
    inner = codeword.dense(every, n) @ u
    found = candidates.nearest(u, alpha, len(every) + 5)
    assert sorted(map(tuple, found.tolist())) == sorted(map(tuple, every.tolist()))
    np.testing.assert_allclose(codeword.dense(found, n) @ u, np.sort(inner)[::-1], atol=1e-12)
    assert np.array_equal(found[0], codeword.decode(u, alpha)[0])


@steady
@given(st.lists(st.integers(0, 6), min_size=3, max_size=9), st.integers(1, 3))
def test_best_subsets_are_all_of_them_in_order(values, size):
    values = sorted(map(float, values), reverse=True)
    found = list(candidates.best_subsets(values, size))
    assert sorted(found) == list(combinations(range(len(values)), size))
    sums = [sum(values[i] for i in subset) for subset in found]
    assert sums == sorted(sums, reverse=True)


@pytest.mark.parametrize("params", [Params(512, 16, 4), Params(512, 20, 4), Params(512, 12), SMALL])
def test_patterns_hold_those_of_the_codeword_and_all_lower_ones(params):
    patterns = [tuple(p) for p in candidates.patterns(params).tolist()]
    known = candidates.accepting(params)
    assert len(patterns) == len(known) <= max(candidates.SEARCH, params.digest_count)
    assert known.issuperset(combinations(range(params.alpha), params.match_size))
    for pattern in patterns[:: max(1, len(patterns) // 500)]:
        for place, rank in enumerate(pattern):
            lower = pattern[place - 1] + 1 if place else 0
            for one in range(lower, rank):
                assert (*pattern[:place], one, *pattern[place + 1 :]) in known


def test_subsets_are_the_largest_entries_with_their_signs(rng):
    u = rng.standard_normal(64)
    tried = candidates.subsets(u, SMALL)
    assert tried.shape == (len(candidates.patterns(SMALL)), SMALL.match_size)
    assert (np.diff(np.abs(tried), axis=1) > 0).all()
    assert np.array_equal(np.sign(tried), np.sign(u[np.abs(tried) - 1]))
    decoded = codeword.decode(u, SMALL.alpha)[0]
    own = {tuple(subset) for subset in combinations(decoded.tolist(), SMALL.match_size)}
    assert own <= {tuple(subset) for subset in tried.tolist()}


def test_what_has_no_nearest_codeword_is_refused():
    with pytest.raises(TemplateError, match="finite"):
        candidates.subsets(np.full(64, np.nan), SMALL)
    with pytest.raises(TemplateError, match="finite"):
        candidates.nearest(np.array([np.inf, 1.0]), 1, 1)
    with pytest.raises(ParameterError, match="out of range"):
        candidates.nearest(np.ones(4), 5, 1)
