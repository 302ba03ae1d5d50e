"""Quaternions in real numbers: Hamilton's product, and matrices that commute with scalars."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.laws import times as turned

from ironmask import algebra, codeword
from ironmask.params import Structure

steady = settings(deadline=None, derandomize=True, database=None, max_examples=60)
seeds = st.integers(0, 2**32 - 1)
structures = st.sampled_from(list(Structure))
QUATERNIONIC = Structure.QUATERNIONIC


def test_units_multiply_as_hamilton_wrote():
    one, i, j, k = np.eye(4)
    for unit in (i, j, k):
        assert np.array_equal(algebra.times(unit, unit), -one)
    assert np.array_equal(algebra.times(i, j), k)
    assert np.array_equal(algebra.times(j, k), i)
    assert np.array_equal(algebra.times(k, i), j)
    assert np.array_equal(algebra.times(j, i), -k)


@steady
@given(seeds)
def test_quaternions_are_a_division_algebra(seed):
    a, b, c = np.random.default_rng(seed).standard_normal((3, 4))
    product = algebra.times(a, b)
    assert np.allclose(algebra.times(product, c), algebra.times(a, algebra.times(b, c)))
    assert np.isclose(np.linalg.norm(product), np.linalg.norm(a) * np.linalg.norm(b))
    assert np.allclose(algebra.times(a, algebra.conjugate(a)), [a @ a, 0, 0, 0])
    backwards = algebra.times(algebra.conjugate(b), algebra.conjugate(a))
    assert np.allclose(algebra.conjugate(product), backwards)
    assert np.allclose(np.linalg.norm(a) * algebra.direction(a), a)


@pytest.mark.parametrize("d", [1, 4])
def test_the_direction_of_nothing_is_one(d):
    assert np.array_equal(algebra.direction(np.zeros((3, d))), np.tile(np.eye(d)[0], (3, 1)))
    assert np.array_equal(algebra.direction(-np.eye(d)[0]), -np.eye(d)[0])


def test_products_match_the_vectors(vectors):
    """Rows, vectors and images as an independent program has them."""
    for v in vectors("quaternions"):
        matrix, vector, image = (
            np.array(v[name], np.float32) for name in ("matrix", "vector", "image")
        )
        rows = matrix.reshape(1, len(matrix), -1)
        (real,) = algebra.expanded(rows, QUATERNIONIC)
        assert np.array_equal(real @ vector.ravel(), image.ravel())
        product = rows[0] @ algebra.by_vectors(vector.reshape(1, -1), QUATERNIONIC)
        assert np.array_equal(algebra.as_vectors(product, QUATERNIONIC)[0], image.ravel())
        by_hand = algebra.times(matrix.astype(float), vector.astype(float)).sum(axis=1)
        assert np.array_equal(by_hand, image)


@steady
@given(seeds, structures, st.integers(1, 5), st.integers(1, 5), st.integers(0, 4))
def test_products_with_stored_rows_are_those_of_the_real_matrix(seed, structure, r, w, k):
    rng, d = np.random.default_rng(seed), structure.components
    rows = rng.standard_normal((2, r, w * d)).astype(np.float32)
    x = rng.standard_normal((k, w * d)).astype(np.float32)
    real = algebra.expanded(rows, structure)
    assert real.shape == (2, r * d, w * d)
    for one, matrix in zip(rows, real, strict=True):
        found = algebra.as_vectors(one @ algebra.by_vectors(x, structure), structure)
        np.testing.assert_allclose(found, x @ matrix.T, atol=1e-4)


@steady
@given(seeds, structures, st.integers(1, 5), st.integers(1, 5))
def test_real_matrices_commute_with_scalars_on_the_right(seed, structure, r, w):
    rng, d = np.random.default_rng(seed), structure.components
    rows = rng.standard_normal((1, r, w * d)).astype(np.float32)
    matrix = algebra.expanded(rows, structure)[0].astype(np.float64)
    x, scalar = rng.standard_normal(w * d), rng.standard_normal(d)
    np.testing.assert_allclose(matrix @ turned(x, scalar), turned(matrix @ x, scalar), atol=1e-10)


@steady
@given(seeds, structures, st.integers(1, 5), st.integers(1, 5))
def test_the_adjoint_is_the_transposed_matrix_of_columns(seed, structure, m, w):
    rng, d = np.random.default_rng(seed), structure.components
    columns = rng.standard_normal((w, m, d)).astype(np.float32)
    rows = np.ascontiguousarray(columns.transpose(1, 0, 2)).reshape(1, m, w * d)
    scratch = np.empty((2, 16 * m * w), dtype=np.float32)
    found = algebra.adjoint(columns, scratch)
    assert np.array_equal(found, algebra.expanded(rows, structure)[0].T)


@steady
@given(seeds, structures, st.integers(1, 12))
def test_multiples_of_a_codeword_by_units_are_codewords(seed, structure, alpha):
    rng = np.random.default_rng(seed)
    codes = codeword.sample(rng, 16, alpha, 3)
    found = algebra.unit_multiples(codes, structure)
    units = np.eye(structure.components)
    assert len(found) == len(units)
    for unit, multiples in zip(units, found, strict=True):
        assert multiples.dtype == np.int32
        assert (np.diff(np.abs(multiples), axis=1) > 0).all()
        expected = turned(codeword.dense(codes, 16), unit)
        assert np.array_equal(codeword.dense(multiples, 16), expected)
    assert np.array_equal(found[0], codes)
