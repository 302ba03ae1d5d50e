"""Agreement: the faces of one person are kept, everybody else's go, and order plays no part."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ironmask.agreement import MOST_COMPARED, agreeing
from ironmask.errors import TemplateError

N = 128
BAR = 0.35


def photos(counts, seed=0, spread=0.9):
    """So many photos of each of some people, (m, N): cosines of .55 within, about 0 between."""
    rng = np.random.default_rng(seed)
    parts = []
    for count in counts:
        person, noise = rng.standard_normal(N), rng.standard_normal((count, N))
        parts.append(person + spread * noise)
    return np.concatenate(parts)


def kept(embeddings, bar=BAR):
    return agreeing(embeddings, N, bar).tolist()


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_one_photo_agrees_whatever_it_is(scale):
    assert kept(scale * photos([1])) == [True]
    assert kept(scale * photos([1]), bar=1.0) == [True]


@pytest.mark.parametrize(
    ("counts", "stays"),
    [
        ([2], 2), ([3], 3), ([10], 10),
        ([1, 1], 0), ([1, 1, 1], 0), ([1] * 10, 0),
        ([2, 1], 2), ([3, 2], 3), ([4, 2], 4), ([5, 4], 5), ([3, 1, 1], 3),
        ([2, 2], 0), ([3, 3], 0), ([2, 1, 1], 0), ([5, 5], 0), ([3, 2, 1], 0), ([4, 4, 4], 0),
    ],
)  # fmt: skip
def test_the_majority_stays_and_half_is_none(counts, stays):
    for seed in range(20):
        assert kept(photos(counts, seed)) == [i < stays for i in range(sum(counts))], seed


def test_one_pair_that_is_alike_by_chance_joins_nobody():
    """Three of each: a chain over the one pair would make them six of one person."""
    rows = photos([3, 3])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rows[3] += 0.45 * rows[0]
    pair = rows[3] @ rows[0] / np.linalg.norm(rows[3])
    assert pair > BAR
    assert kept(rows) == [False] * 6


def test_the_bar_decides():
    two = np.eye(N)[:2]
    two[1, 0] = 1
    cosine = np.sqrt(0.5)
    assert kept(two, cosine - 1e-9) == [True, True]
    assert kept(two, cosine + 1e-9) == [False, False]


def test_opposite_and_equal_faces():
    one = photos([1])
    assert kept(np.concatenate([one, 3 * one])) == [True, True]
    assert kept(np.concatenate([one, -one])) == [False, False]
    assert kept(np.concatenate([one, one, -one])) == [True, True, False]


@given(
    counts=st.lists(st.integers(1, 6), min_size=1, max_size=5),
    seed=st.integers(0, 2**32 - 1),
    spread=st.floats(0.2, 2.0),
    bar=st.floats(0.05, 0.9),
)
def test_order_plays_no_part_and_what_is_kept_agrees_alone(counts, seed, spread, bar):
    rows = photos(counts, seed, spread)
    found = agreeing(rows, N, bar)
    order = np.random.default_rng(seed).permutation(len(rows))
    assert (agreeing(rows[order], N, bar) == found[order]).all()
    assert 2 * found.sum() > len(rows) or not found.any()
    if found.any():
        assert agreeing(rows[found], N, bar).all()


class TestMoreThanAreComparedEachWithEach:
    """Their memory grows with their number alone: a folder of everybody is one subject."""

    COUNT = 4 * MOST_COMPARED

    @pytest.mark.parametrize(("share", "stays"), [(1, True), (0.7, True), (0.4, False)])
    def test_the_majority_stays(self, share, stays):
        own = int(share * self.COUNT)
        rows = photos([own, *[1] * (self.COUNT - own)])
        found = agreeing(rows, N, BAR)
        assert found[:own].sum() == own * stays
        # A single stranger among two thousand may be alike by chance.
        assert found[own:].sum() < 5

    def test_two_halves(self):
        assert not agreeing(photos([self.COUNT // 2] * 2), N, BAR).any()

    def test_order_plays_no_part(self):
        rows = photos([int(0.6 * self.COUNT), int(0.4 * self.COUNT)])
        order = np.random.default_rng(5).permutation(len(rows))
        assert (agreeing(rows[order], N, BAR) == agreeing(rows, N, BAR)[order]).all()


@pytest.mark.parametrize("bad", [np.zeros((2, N)), np.full((2, N), np.nan), np.ones((2, N - 1))])
def test_what_is_no_embedding_is_refused(bad):
    with pytest.raises(TemplateError):
        agreeing(bad, N, BAR)
