"""Centring: one template from several embeddings."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ironmask import Centring, centre
from ironmask.errors import TemplateError

steady = settings(deadline=None, derandomize=True, database=None, max_examples=80)
METHODS = list(Centring)


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def captures(rng, m, n=128, spread=0.6):
    """m embeddings of one person: a common direction and noise, each of another scale."""
    rows = unit(rng.standard_normal(n)) + spread * unit(rng.standard_normal((m, n)))
    return rows * rng.uniform(0.1, 30, (m, 1))


@pytest.mark.parametrize("method", METHODS)
def test_one_embedding_is_only_normalised(method, rng):
    t = rng.standard_normal(128) * 7
    assert centre(t, 128, method) == pytest.approx(unit(t))
    assert centre(t[None], 128, method).shape == (128,)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("m", [1, 2, 5, 40])
def test_template_is_a_float64_unit_vector(method, m, rng):
    t = centre(captures(rng, m), 128, method)
    assert t.shape == (128,)
    assert t.dtype == np.float64
    assert np.linalg.norm(t) == pytest.approx(1)


def test_mean_is_the_normalised_sum_of_unit_embeddings(rng):
    rows = captures(rng, 5)
    assert centre(rows, 128, Centring.MEAN) == pytest.approx(unit(unit(rows).sum(axis=0)))
    assert centre(rows, 128) == pytest.approx(centre(rows, 128, Centring.MEAN))


@pytest.mark.parametrize("m", [2, 3, 10, 60])
def test_regression_has_one_inner_product_with_all(m, rng):
    rows = captures(rng, m)
    products = unit(rows) @ centre(rows, 128, Centring.REGRESSION)
    assert products == pytest.approx(products[0])
    assert products[0] > 0.3


def test_regression_solves_the_normal_equations_when_overdetermined(rng):
    rows = unit(captures(rng, 50, n=8))
    solution = np.linalg.solve(rows.T @ rows, rows.sum(axis=0))
    assert centre(rows, 8, Centring.REGRESSION) == pytest.approx(unit(solution))


def test_regression_differs_from_the_mean(rng):
    rows = captures(rng, 5)
    rows[1] = rows[0] * 2 + 1e-3 * rows[1]
    mean, regression = (centre(rows, 128, method) for method in METHODS)
    assert mean @ regression < 0.999


def test_regression_lies_in_the_span_of_the_embeddings(rng):
    rows = captures(rng, 5)
    t = centre(rows, 128, Centring.REGRESSION)
    inside = rows.T @ np.linalg.lstsq(rows.T, t, rcond=None)[0]
    assert inside == pytest.approx(t)


def test_two_embeddings_are_bisected_by_both(rng):
    rows = captures(rng, 2)
    for method in METHODS:
        assert centre(rows, 128, method) == pytest.approx(unit(unit(rows).sum(axis=0)))


@pytest.mark.parametrize("method", METHODS)
def test_copies_of_one_embedding_give_its_direction(method, rng):
    t = rng.standard_normal(128)
    assert centre([t, 2 * t, t / 3, t], 128, method) == pytest.approx(unit(t))


def test_duplicates_do_not_weigh_in_a_regression(rng):
    rows = captures(rng, 3)
    doubled = np.concatenate([rows, rows[:1]])
    expected = centre(rows, 128, Centring.REGRESSION)
    assert centre(doubled, 128, Centring.REGRESSION) == pytest.approx(expected)
    assert centre(doubled, 128) != pytest.approx(centre(rows, 128))


@pytest.mark.parametrize("method", METHODS)
def test_opposed_embeddings_are_refused(method, rng):
    t, other = rng.standard_normal((2, 128))
    for rows in ([t, -t], [t, -3 * t, other, -other]):
        with pytest.raises(TemplateError) as caught:
            centre(rows, 128, method)
        assert caught.value.reason == "opposed_embeddings"


def test_three_directions_that_cancel_are_refused():
    angles = np.array([0, 2, 4]) * np.pi / 3
    star = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    for method in METHODS:
        with pytest.raises(TemplateError) as caught:
            centre(star, 2, method)
        assert caught.value.reason == "opposed_embeddings"


@pytest.mark.parametrize("method", METHODS)
def test_right_angles_are_not_refused(method):
    t = centre(np.eye(4)[:2], 4, method)
    assert t == pytest.approx([0.5**0.5, 0.5**0.5, 0, 0])


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (np.ones((2, 5)), "wrong_width"),
        (np.ones((0, 4)), "wrong_width"),
        ([], "wrong_width"),
        ([[1, 2, 3, np.nan]], "not_finite"),
        ([[1, 2, 3, 4], [0, 0, 0, 0]], "zero_norm"),
    ],
)
def test_unusable_embeddings_are_refused(rows, reason):
    with pytest.raises(TemplateError) as caught:
        centre(rows, 4)
    assert caught.value.reason == reason


@steady
@given(
    st.sampled_from(METHODS),
    st.integers(1, 12),
    st.integers(0, 2**32 - 1),
    st.sampled_from([1e-150, 1e-6, 1.0, 1e6, 1e150]),
)
def test_neither_scale_nor_order_counts(method, m, seed, scale):
    rng = np.random.default_rng(seed)
    rows = captures(rng, m, n=64)
    changed = rows[rng.permutation(m)] * scale * rng.uniform(0.5, 2, (m, 1))
    assert centre(changed, 64, method) == pytest.approx(centre(rows, 64, method), abs=1e-9)


@steady
@given(st.sampled_from(METHODS), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_template_turns_with_the_embeddings(method, m, seed):
    rng = np.random.default_rng(seed)
    rows = captures(rng, m, n=64)
    turn = np.linalg.qr(rng.standard_normal((64, 64)))[0]
    expected = centre(rows, 64, method) @ turn
    assert centre(rows @ turn, 64, method) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("m", [5, 20])
def test_centring_comes_closer_to_the_common_direction(m, rng):
    common = unit(rng.standard_normal(512))
    rows = common + unit(rng.standard_normal((m, 512)))
    alone = unit(rows[0]) @ common
    for method in METHODS:
        assert centre(rows, 512, method) @ common > alone + 0.1


@pytest.mark.parametrize("method", list(Centring))
def test_nearly_dependent_embeddings_keep_their_direction(method, rng):
    """The third embedding is the rounded sum of the others; all lie within 30 degrees."""
    a, aside = unit(rng.standard_normal((2, 512)))
    b = unit(a + 0.5 * aside)
    rows = np.stack([a, b, a + b]).astype(np.float32)
    assert (unit(rows) @ centre(rows, 512, method)).min() > 0.85
