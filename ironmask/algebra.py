"""Matrices over the real numbers or the quaternions, written with real numbers.

R^n is read as columns of scalars: n real numbers, or n / 4 quaternions (w, x, y, z) one after
another. A matrix acts from the left, so it commutes with scalars on the right. Its **rows** are
stored: (r, n) real numbers, a row of scalars with their components one after another. Its real
matrix is (d r, n), where d is the number of a scalar's components; for d = 1 both are the same.

`left` of a scalar a is the (d, d) matrix of x -> a x, `right` that of row a -> a x: Hamilton's
product, with i j = k.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ironmask.arrays import F32, F64, I32, Floats
from ironmask.params import Structure

# left[b, a] = SIGN[b, a] * component[PLACE[b, a]]; the same places hold for `right`.
_PLACE: Final = np.bitwise_xor.outer(np.arange(4), np.arange(4))
_LEFT: Final = np.array([[1, -1, -1, -1], [1, 1, -1, 1], [1, 1, 1, -1], [1, -1, 1, 1]])
_RIGHT: Final = np.array([[1, 1, 1, 1], [-1, 1, -1, 1], [-1, 1, 1, -1], [-1, -1, 1, 1]])
_CONJUGATE: Final = np.array([1, -1, -1, -1])

Table = tuple[NDArray[np.intp], NDArray[np.int8]]


def _table(signs: NDArray[np.int64], d: int) -> Table:
    return _PLACE[:d, :d], signs[:d, :d].astype(np.int8)


LEFT: Final = MappingProxyType({s: _table(_LEFT, s.components) for s in Structure})
"""Places and signs, (d, d) each: left[b, a] = sign[b, a] * component[place[b, a]]."""

RIGHT: Final = MappingProxyType({s: _table(_RIGHT, s.components) for s in Structure})
"""Places and signs of the matrix that a row of components is multiplied by, (d, d) each."""


def expanded(rows: Floats, structure: Structure) -> Floats:
    """The real matrices, (k, d r, n), of stored rows, (k, r, n)."""
    d = structure.components
    if d == 1:
        return rows
    k, r, n = rows.shape
    own = rows.reshape(k, r, n // d, d)
    out = np.empty((k, r, d, n // d, d), dtype=rows.dtype)
    places, signs = LEFT[structure]
    for b, a in np.ndindex(d, d):
        sign = rows.dtype.type(signs[b, a])
        np.multiply(own[..., places[b, a]], sign, out=out[:, :, b, :, a])
    return out.reshape(k, d * r, n)


def by_vectors(vectors: F32, structure: Structure) -> F32:
    """X for k vectors, (k, n): (n, k d), so that rows @ X holds the products of the matrix."""
    d = structure.components
    if d == 1:
        return np.ascontiguousarray(vectors.T)
    k, n = vectors.shape
    own = vectors.reshape(k, n // d, d)
    places, signs = RIGHT[structure]
    out = np.empty((n // d, d, k, d), dtype=vectors.dtype)
    for a, b in np.ndindex(d, d):
        sign = vectors.dtype.type(signs[a, b])
        np.multiply(own[:, :, places[a, b]].T, sign, out=out[:, a, :, b])
    return out.reshape(n, k * d)


def as_vectors(product: F32, structure: Structure) -> F32:
    """Undo the layout of rows @ X, (r, k d): the products as (k, d r)."""
    d = structure.components
    r = len(product)
    found: F32 = product.reshape(r, -1, d).transpose(1, 0, 2).reshape(-1, r * d)
    return found


def conjugate(scalars: Floats) -> Floats:
    """The conjugates of scalars, (..., d)."""
    return scalars * _CONJUGATE[: scalars.shape[-1]].astype(scalars.dtype)


def direction(scalar: F64) -> F64:
    """A scalar, (..., d), at unit length; 1 where it is 0."""
    size = np.sqrt((scalar * scalar).sum(axis=-1, keepdims=True))
    unit = np.zeros_like(scalar)
    unit[..., 0] = 1
    return np.where(size > 0, scalar / np.where(size > 0, size, 1), unit)


def times(left: Floats, right: Floats) -> Floats:
    """The products of scalars, (..., d) each, which broadcast."""
    d = left.shape[-1]
    places, signs = LEFT[Structure.QUATERNIONIC if d == 4 else Structure.REAL]
    matrix = left[..., places] * signs.astype(left.dtype)
    product: Floats = (matrix @ right[..., None])[..., 0]
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
