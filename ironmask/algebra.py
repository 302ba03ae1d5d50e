"""Matrices over the real numbers or the quaternions, written with real numbers.

R^n is read as columns of scalars: n real numbers, or n / 4 quaternions (w, x, y, z) one after
another. A matrix acts from the left, so it commutes with scalars on the right. Its **rows** are
stored: (r, n) real numbers, a row of scalars with their components one after another. Its real
matrix is (d r, n), where d is the number of a scalar's components; for d = 1 both are the same.

`left` of a scalar a is the (d, d) matrix of x -> a x, `right` that of row a -> a x: Hamilton's
product, with i j = k.
"""

from __future__ import annotations

from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from ironmask.arrays import F32, F64, I32
from ironmask.params import Structure

Real = TypeVar("Real", F32, F64)

# left[b, a] = _LEFT[b, a] * component[_PLACE[b, a]], and right[a, b] with _RIGHT[a, b].
_PLACE: Final = np.bitwise_xor.outer(np.arange(4), np.arange(4))
_LEFT: Final = np.array([[1, -1, -1, -1], [1, 1, -1, 1], [1, 1, 1, -1], [1, -1, 1, 1]])
_RIGHT: Final = np.array([[1, 1, 1, 1], [-1, 1, -1, 1], [-1, 1, 1, -1], [-1, -1, 1, 1]])
_CONJUGATE: Final = np.array([1, -1, -1, -1])
# Four float32 at once: NumPy moves these several times as fast one by one.
_FOUR: Final = np.complex128


def _linear(signs: NDArray[np.int64]) -> F32:
    """The map from a scalar to its matrix, (4, 16) float32. Each column has one entry, +-1."""
    linear = np.zeros((4, 4, 4), dtype=np.float32)
    row, column = np.indices((4, 4))
    linear[_PLACE, row, column] = signs
    linear.flags.writeable = False
    return linear.reshape(4, 16)


_TO_LEFT: Final = _linear(_LEFT)
TO_ADJOINT: Final = _linear(_LEFT.T)
"""Takes a scalar to the matrix of its conjugate, row by row: (4, 16) float32."""
_TO_RIGHT: Final = _linear(_RIGHT)


def expanded(rows: F32, structure: Structure) -> F32:
    """The real matrices, (k, d r, n) float32, of stored rows, (k, r, n)."""
    if structure is Structure.REAL:
        return rows
    k, r, n = rows.shape
    return _spread(rows.reshape(-1, n // 4, 4), _TO_LEFT).reshape(k, 4 * r, n)


def adjoint(vectors: F32, scratch: F32) -> F32:
    """The real matrix of V', (w d, m d), for w vectors of m scalars, (w, m, d), as V's columns.

    scratch: (2, 16 w m or more); the result lies there, unless d = 1.
    """
    width, m, d = vectors.shape
    found = vectors if d == 1 else _spread(vectors, TO_ADJOINT, scratch)
    return found.reshape(width * d, m * d)


def by_vectors(vectors: F32, structure: Structure) -> F32:
    """X for k vectors, (k, n): (n, k d), so that rows @ X holds the products of the matrix."""
    k, n = vectors.shape
    if structure is Structure.REAL:
        return np.ascontiguousarray(vectors.T)
    scalars = np.ascontiguousarray(vectors.reshape(k, n // 4, 4).transpose(1, 0, 2))
    return _spread(scalars, _TO_RIGHT).reshape(n, 4 * k)


def _spread(scalars: F32, linear: F32, scratch: F32 | None = None) -> F32:
    """The matrices of scalars, (p, q, 4), laid out as (p, 4, q, 4): row by row of each matrix."""
    p, q, _ = scalars.shape
    if scratch is None:
        scratch = np.empty((2, 16 * p * q), dtype=np.float32)
    matrices, out = scratch[:, : 16 * p * q]
    np.matmul(scalars.reshape(-1, 4), linear, out=matrices.reshape(p * q, 16))
    moved = matrices.view(_FOUR).reshape(p, q, 4).transpose(0, 2, 1)
    out.view(_FOUR).reshape(p, 4, q)[...] = moved
    found: F32 = out.reshape(p, 4, q, 4)
    return found


def as_vectors(product: F32, structure: Structure) -> F32:
    """Undo the layout of rows @ X, (r, k d): the products as (k, d r)."""
    d = structure.components
    r = len(product)
    found: F32 = product.reshape(r, -1, d).transpose(1, 0, 2).reshape(-1, r * d)
    return found


def conjugate(scalars: Real) -> Real:
    """The conjugates of scalars, (..., d)."""
    signs: Real = _CONJUGATE[: scalars.shape[-1]].astype(scalars.dtype)
    return scalars * signs


def direction(scalar: F64) -> F64:
    """A scalar, (..., d), at unit length; 1 where it is 0."""
    size = np.sqrt((scalar * scalar).sum(axis=-1, keepdims=True))
    unit: F64 = scalar / (size + (size == 0))
    unit[..., :1] += size == 0
    return unit


def times(left: F64, right: F64) -> F64:
    """The products of scalars, (..., d) each, which broadcast."""
    d = left.shape[-1]
    matrix = right[..., _PLACE[:d, :d]] * _RIGHT[:d, :d]
    # By one scalar, a product of matrices instead of one for each scalar.
    product: F64 = left @ matrix if right.ndim == 1 else (left[..., None, :] @ matrix)[..., 0, :]
    return product


def unit_multiples(codewords: I32, structure: Structure) -> list[I32]:
    """The codewords c u for the units u = 1, i, j, k, each (k, alpha) int32 and sorted by place.

    A helper that takes t to c takes t u to c u, so it cannot tell them apart.
    """
    d = structure.components
    places = np.abs(codewords) - 1
    scalar, component = places // d, places % d
    found = []
    for unit in range(d):
        moved, sign = _times_unit(component, unit, d)
        other = np.sign(codewords) * sign * (d * scalar + moved + 1)
        order = np.argsort(np.abs(other), axis=-1)
        found.append(np.take_along_axis(other, order, axis=-1).astype(np.int32))
    return found


def _times_unit(
    component: NDArray[np.intp], unit: int, d: int
) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """Where the basis scalars go that are multiplied by a unit from the right, and their signs."""
    to = _PLACE[component, unit]
    # right[a, b] holds component a ^ b of the factor, which is 1 for the unit alone.
    return to, _RIGHT[:d, :d][component, to]
