"""Codewords: uniform sampling, nearest decoding, canonical bytes."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2, chisquare

from ironmask import codeword
from ironmask.errors import ParameterError, TemplateError

steady = settings(deadline=None, derandomize=True, database=None, max_examples=150)
RARE = 1e-4


def every_codeword(n, alpha):
    supports = combinations(range(1, n + 1), alpha)
    signs = list(product((-1, 1), repeat=alpha))
    return np.array([np.multiply(s, sign) for s in supports for sign in signs], dtype=np.int32)


def plain_decode(u, alpha):
    """Sort by size, then by index; a zero is positive."""
    order = sorted(range(len(u)), key=lambda j: (-abs(u[j]), j))[:alpha]
    return [-(j + 1) if u[j] < 0 else j + 1 for j in sorted(order)]


def test_sample_has_the_documented_shape(rng):
    drawn = codeword.sample(rng, 512, 16, 7)
    assert drawn.shape == (7, 16)
    assert drawn.dtype == np.int32
    assert codeword.sample(rng, 512, 16).shape == (1, 16)


def test_samples_are_sorted_by_index_without_repeats(rng):
    index = np.abs(codeword.sample(rng, 100, 30, 500))
    assert (np.diff(index, axis=1) > 0).all()
    assert index.min() == 1
    assert index.max() == 100


def test_every_codeword_is_equally_likely(rng):
    every = [tuple(c) for c in every_codeword(8, 3).tolist()]
    drawn = codeword.sample(rng, 8, 3, 50 * len(every))
    counts = dict.fromkeys(every, 0)
    for c in drawn.tolist():
        counts[tuple(c)] += 1
    assert len(every) == 448
    assert RARE < chisquare(list(counts.values())).pvalue < 1 - RARE


@pytest.mark.parametrize(("n", "alpha"), [(64, 16), (512, 16), (64, 48)])
def test_positions_are_uniform(n, alpha, rng):
    k = 12_000
    drawn = codeword.sample(rng, n, alpha, k)
    counts = np.bincount(np.abs(drawn).ravel(), minlength=n + 1)[1:]
    share = alpha / n
    # Draws without replacement: the counts are negatively correlated, which this scale removes.
    scale = k * share * (1 - share) * n / (n - 1)
    statistic = ((counts - k * share) ** 2).sum() / scale
    assert RARE < chi2.sf(statistic, n - 1) < 1 - RARE


def test_pairs_of_positions_are_uniform(rng):
    n, alpha, k = 64, 16, 20_000
    present = codeword.dense(codeword.sample(rng, n, alpha, k), n) != 0
    together = present.astype(np.float32).T @ present.astype(np.float32)
    pairs = together[np.triu_indices(n, 1)]
    share = alpha * (alpha - 1) / (n * (n - 1))
    z = (pairs - k * share) / np.sqrt(k * share * (1 - share))
    assert np.abs(z).max() < 5.5
    assert 0.7 < z.std() < 1.2


def test_signs_are_fair_and_independent(rng):
    alpha, k = 16, 20_000
    signs = np.sign(codeword.sample(rng, 512, alpha, k))
    limit = 5 * np.sqrt(k)
    assert np.abs(signs.sum(axis=0)).max() < limit
    products = signs.T @ signs
    assert np.abs(products[np.triu_indices(alpha, 1)]).max() < limit


def test_signs_do_not_depend_on_the_position(rng):
    drawn = codeword.sample(rng, 64, 16, 20_000).ravel()
    positive = np.bincount(np.abs(drawn), weights=drawn > 0, minlength=65)[1:]
    total = np.bincount(np.abs(drawn), minlength=65)[1:]
    statistic = ((positive - total / 2) ** 2 / (total / 4)).sum()
    assert RARE < chi2.sf(statistic, 64) < 1 - RARE


@pytest.mark.parametrize("n", [8, 9, 10, 11, 12])
@pytest.mark.parametrize("alpha", [1, 2, 3, 4])
def test_decode_is_nearest_of_all_codewords(n, alpha, rng):
    every = every_codeword(n, alpha)
    u = rng.standard_normal((40, n))
    products = u @ codeword.dense(every, n).T
    assert np.array_equal(codeword.decode(u, alpha), every[products.argmax(axis=1)])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_decode_returns_a_codeword_unchanged(dtype, rng):
    code = codeword.sample(rng, 512, 16, 50)
    assert np.array_equal(codeword.decode(codeword.dense(code, 512).astype(dtype), 16), code)


@steady
@given(
    st.lists(st.sampled_from([-2.0, -1.0, -0.0, 0.0, 1.0, 2.0]), min_size=4, max_size=12),
    st.data(),
)
def test_decode_breaks_ties_by_index(u, data):
    alpha = data.draw(st.integers(1, len(u)))
    assert codeword.decode(np.array(u), alpha).tolist() == [plain_decode(u, alpha)]


@pytest.mark.parametrize(
    ("u", "expected"),
    [
        ([0.0, 0.0, 0.0, 0.0], [1, 2]),
        ([-0.0, -0.0, -0.0, -0.0], [1, 2]),
        ([-1.0, 1.0, -1.0, 1.0], [-1, 2]),
        ([0.0, 1.0, -0.0, -0.0], [1, 2]),
        ([1.0, -2.0, 1.0, 1.0], [1, -2]),
        ([1.0, 0.0, -2.0, -2.0], [-3, -4]),
        ([0.5, 1.0, 0.5, -0.5], [1, 2]),
    ],
)
def test_tie_rule_by_example(u, expected):
    assert codeword.decode(np.array(u), 2).tolist() == [expected]


def test_ties_of_one_row_leave_the_others_alone(rng):
    u = rng.standard_normal((5, 32))
    u[2] = 1.0
    expected = [plain_decode(row, 6) for row in u.tolist()]
    assert codeword.decode(u, 6).tolist() == expected


def test_decode_accepts_a_single_vector_and_any_memory_order(rng):
    u = rng.standard_normal((6, 64))
    expected = codeword.decode(u, 5)
    assert np.array_equal(codeword.decode(np.asfortranarray(u), 5), expected)
    assert np.array_equal(codeword.decode(u[3], 5), expected[3:4])
    assert expected.dtype == np.int32


def test_decode_ignores_the_scale_and_keeps_its_input(rng):
    u = rng.standard_normal((6, 64))
    kept = u.copy()
    assert np.array_equal(codeword.decode(u * 1e-200, 5), codeword.decode(u, 5))
    assert np.array_equal(u, kept)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_decode_refuses_what_is_not_finite(bad):
    u = np.ones((3, 16))
    u[1, 7] = bad
    with pytest.raises(TemplateError) as caught:
        codeword.decode(u, 4)
    assert caught.value.reason == "not_finite"


@pytest.mark.parametrize("alpha", [-1, 0, 17])
def test_decode_refuses_an_impossible_alpha(alpha):
    with pytest.raises(ParameterError, match="alpha"):
        codeword.decode(np.ones(16), alpha)


@pytest.mark.parametrize("alpha", [1, 16])
def test_decode_at_both_ends_of_alpha(alpha):
    u = -np.arange(1.0, 17.0)
    assert codeword.decode(u, alpha).tolist() == [list(range(-17 + alpha, -17, -1))]


def test_dense_codewords_are_unit_vectors_of_equal_entries(rng):
    code = codeword.sample(rng, 512, 16, 20)
    vectors = codeword.dense(code, 512)
    assert vectors.shape == (20, 512)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1)
    assert (np.count_nonzero(vectors, axis=1) == 16).all()
    assert np.unique(np.abs(vectors)).tolist() == [0, 0.25]
    assert (vectors[0][np.abs(code[0]) - 1] > 0).tolist() == (code[0] > 0).tolist()


def test_dense_takes_one_codeword():
    assert codeword.dense(np.array([-1, 3], dtype=np.int32), 3)[0] == pytest.approx(
        [-(0.5**0.5), 0, 0.5**0.5]
    )


def test_agreement_counts_equal_signed_indices(rng):
    a = codeword.sample(rng, 64, 16, 200)
    b = codeword.sample(rng, 64, 16, 200)
    b[:3], b[3] = a[:3], -a[3]
    expected = [len(set(x) & set(y)) for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    assert codeword.agreement(a, b).tolist() == expected
    assert codeword.agreement(a[0], b[0]).tolist() == [16]
    assert codeword.agreement(a[3], b[3]).tolist() == [0]


def test_canonical_bytes_match_the_vectors(vectors):
    stored = vectors("codewords")
    assert {v["n"] for v in stored} >= {512, 32_767, 32_768, 1 << 20}
    for v in stored:
        code = np.array(v["codeword"], dtype=np.int32)
        assert codeword.canonical_bytes(code, v["n"]).hex() == v["bytes"]


def test_canonical_bytes_of_a_batch_are_those_of_its_rows(rng):
    code = codeword.sample(rng, 512, 16, 4)
    whole = codeword.canonical_bytes(code, 512)
    assert whole == b"".join(codeword.canonical_bytes(row, 512) for row in code)
