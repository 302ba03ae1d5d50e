"""List decoding against all codewords of small widths, and the subsets that probes are tried as."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtri

from ironmask import Params, candidates, codeword, protect, verify_batch
from ironmask.errors import ParameterError, TemplateError
from ironmask.template import tried

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


WIDE = Params(512, 18, 3, 1024, "quaternionic")


@pytest.mark.parametrize(
    "params", [Params(512, 16, 4), Params(512, 20, 4), Params(512, 12), SMALL, WIDE]
)
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


@pytest.mark.parametrize("params", [WIDE, Params(512, 16, 3, 1024), Params(512, 16, 1, 2048)])
def test_wide_codes_are_tried_as_often(params):
    """As many subsets as the list is long, whatever the width: a verification costs no more."""
    assert params.digest_count < candidates.SEARCH
    assert candidates.patterns(params).shape == (candidates.SEARCH, params.match_size)


@pytest.mark.parametrize("code_width", [130, 200, 512, 1024])
def test_the_likeliest_subsets_of_the_codes_width_come_first(code_width):
    """Their sums of average sizes among N entries, and those of all subsets within reach."""
    params = Params(64, 4, 1, code_width)
    reach = min(code_width, candidates.REACH)
    size = ndtri(1 - (np.arange(reach) + 0.5) / (2 * code_width))
    every = np.array(list(combinations(range(reach), 3)))
    sums = np.sort(size[every].sum(axis=1))[::-1]
    patterns = candidates.patterns(params)
    own = combinations(range(4), 3)
    assert {*own} == {tuple(p) for p in patterns[:4].tolist()}
    found = np.sort(size[patterns].sum(axis=1))[::-1]
    assert np.allclose(found, sums[: candidates.SEARCH])


def test_the_width_of_the_code_decides_and_not_that_of_the_embedding():
    narrow, wide, real = (
        Params(n, 16, 3, code_width, structure)
        for n, code_width, structure in (
            (512, 512, "real"),
            (512, 1024, "quaternionic"),
            (64, 1024, "real"),
        )
    )
    assert np.array_equal(candidates.patterns(wide), candidates.patterns(real))
    assert not np.array_equal(candidates.patterns(wide), candidates.patterns(narrow))


@pytest.mark.parametrize("structure", ["real", "quaternionic"])
def test_lists_of_wide_rows_accept_more_than_decoding(structure, rng, row_key):
    """Every probe that decodes within the tolerance is accepted, and others with it."""
    params = Params(128, 12, 2, 256, structure)
    template = rng.standard_normal(128)
    row = protect(template, params, row_key, rng=rng)
    probes = template + rng.uniform(0.8, 1.6, 300)[:, None] * rng.standard_normal((300, 128))
    accepted = verify_batch(row, probes, row_key)
    (known, *found) = (
        np.unique(one[: params.digest_count]) for one in tried(row, [template, *probes])
    )
    shared = np.array([len(np.intersect1d(known, code)) for code in found])
    assert accepted[shared >= params.match_size].all()
    assert 0 < (shared >= params.match_size).sum() < accepted.sum() < 300
