"""Rotations: random isometries, free or carrying one vector to another.

A square one is a Haar-distributed orthogonal matrix; of a wide one, from n to N dimensions, these
are the first n columns. They come from Householder reflectors of Gaussian vectors (Stewart, SIAM J.
Numer. Anal. 17, 1980; Mezzadri, Notices AMS 54, 2007). The reflectors are multiplied from the last
to the first, in panels of the compact WY form (Schreiber and Van Loan 1989), with the inverse of
each panel's triangular factor (Joffrain et al., ACM TOMS 32, 2006). Nearly all operations are
products of matrices: 4/3 n^3 for N = n.

All of this holds over the quaternions as well, with a unit quaternion in the place of each sign.
There only one factor of a product needs its real matrix, so a quarter of the operations is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import blas

from ironmask import algebra
from ironmask.arrays import F32, F64
from ironmask.errors import ParameterError
from ironmask.params import Params, Structure
from ironmask.random import fill_normals

_LEAST: Final = 2
# Real numbers in a row of a panel.
PANEL: Final = MappingProxyType({Structure.REAL: 96, Structure.QUATERNIONIC: 128})
# Stands for a first scalar of 0, far below rounding.
_TINY: Final = np.float32(1e-15)


class Sampler:
    """Draws isometries of one shape, and uses its memory again: fresh pages cost as much as BLAS.

    n, code_width: from n to N dimensions; 0 stands for n. A method's result are the stored rows of
    a matrix, (r, n); see `ironmask.algebra`. It is valid until the next call; `wipe` overwrites it.
    """

    def __init__(self, n: int, code_width: int = 0, structure: Structure = Structure.REAL) -> None:
        if n < _LEAST:
            raise ParameterError(f"a rotation needs at least {_LEAST} dimensions, not {n}")
        d = structure.components
        self._structure, self._d = structure, d
        # Columns and rows, in scalars.
        self._w, self._m = n // d, (code_width or n) // d
        self._panels = panels(n, code_width or n, structure)
        panel = self._panels[-1].width
        self._reflectors = np.empty(self._panels[-1].end, dtype=np.float32)
        self._first, self._before = _places(self._panels, d)
        self._columns = np.empty((2, self._m * d * self._w), dtype=np.float32)
        self._work = np.empty(panel * d * self._w, dtype=np.float32)
        most = 16 * panel * self._m if d > 1 else 0
        self._real = np.empty((2, most), dtype=np.float32)
        self._rows = np.empty((self._m, n), dtype=np.float32)

    @classmethod
    def of(cls, params: Params) -> Sampler:
        """A sampler of helpers of some parameters."""
        return cls(params.n, params.code_width, params.structure)

    def haar(self, rng: np.random.Generator) -> F32:
        """Draw from the invariant measure on the isometries of this shape; (r, n) float32.

        For N = n this is the Haar measure on O(n), or on Sp(n / 4).
        """
        return self._as_rows(self._multiplied(rng, None))

    def carrying(self, rng: np.random.Generator, source: F64, target: F64) -> F32:
        """Draw P from the invariant measure on the isometries with P s = c.

        P = M H. The reflector H takes s to -e_1 t, with t the direction of the first scalar of s. M
        has the law of `haar`, given that its first column is -c conj(t). Both carry s to c, and
        neither law changes under an isometry that keeps c; there is only one such measure. For
        N = n and real numbers it is that of R Q, where Q is Haar and R is the rotation that takes
        Q s to c (Kim et al. 2021, section 3.3). This way costs one update of rank one.

        source, target: (n,) and (N,) float64 unit vectors s and c. Returns (r, n) float32.
        """
        d = self._d
        turn = algebra.direction(source[:d])
        first = -algebra.times(target.reshape(-1, d), algebra.conjugate(turn))
        rows = self._as_rows(self._multiplied(rng, first.astype(np.float32)))
        v = source.copy()
        v[:d] += turn
        v *= np.sqrt(2 / (v @ v))
        self._reflect_right(rows, v.astype(np.float32))
        return rows

    def wipe(self) -> None:
        """Overwrite all that was drawn."""
        for array in (self._columns, self._work, self._real, self._reflectors, self._rows):
            array.fill(0)

    def _multiplied(self, rng: np.random.Generator, first: F32 | None) -> F32:
        """The first columns of H_0 H_1 ... D, given that its first one is `first`, if it is.

        Reflector i sends a Gaussian vector g of m - i scalars to a multiple of e_1. D has a unit
        scalar for each column: column i of reflector i becomes g / |g|. Returns (N, w) float32: the
        image of 1 in each of w scalars.
        """
        fill_normals(rng, self._reflectors)
        d = self._d
        each = [one.of(self._reflectors, d) for one in self._panels]
        if first is not None:
            each[-1][0] = first
        ends = self._to_reflectors(each)
        q = self._columns[0, :0].reshape((self._m - self._w) * d, 0)
        for turn, (panel, u) in enumerate(zip(self._panels, each, strict=True)):
            columns = panel.width + q.shape[1]
            x = self._work[: panel.width * d * columns].reshape(panel.width * d, columns)
            out = self._columns[turn % 2, : panel.m * d * columns].reshape(panel.m * d, columns)
            v = algebra.adjoint(u, self._real)
            own = ends[q.shape[1] : columns]
            _reflect(v, _inverse(u, v), own, q, x, out)
            q = out
        return q

    def _to_reflectors(self, each: Sequence[F32]) -> F32:
        """Turn Gaussian rows into Householder vectors g + t |g| e_1; return D, (w, d).

        each: the rows of each panel, (width, m, d). t is the direction of a row's first scalar.
        """
        self._reflectors[self._before] = 0
        first = self._reflectors[self._first]
        sizes = np.sqrt(np.einsum("ij,ij->i", first, first))
        if not sizes.all():
            first[sizes == 0, 0] = _TINY
            sizes = np.sqrt(np.einsum("ij,ij->i", first, first))
        turns: F32 = first / sizes[:, None]
        squares = np.concatenate([np.einsum("imd,imd->i", u, u) for u in each])
        self._reflectors[self._first] = first + turns * np.sqrt(squares)[:, None]
        return -turns

    def _as_rows(self, columns: F32) -> F32:
        """Stored rows of a matrix by its columns, (N, w)."""
        if self._d == 1:
            return columns
        own = columns.reshape(self._m, self._d, self._w)
        rows = self._rows.reshape(self._m, self._w, self._d)
        for part in range(self._d):
            rows[:, :, part] = own[:, part]
        return self._rows

    def _reflect_right(self, rows: F32, v: F32) -> None:
        """M - (M v) v* in place, for stored rows of M and v, (n,)."""
        d = self._d
        image = rows @ algebra.by_vectors(v[None], self._structure)
        dual = algebra.conjugate(v.reshape(-1, d)).reshape(1, -1)
        scalars = algebra.by_vectors(dual, self._structure).reshape(-1, d, d)
        back = np.ascontiguousarray(scalars.transpose(1, 0, 2)).reshape(d, -1)
        blas.sgemm(-1.0, back.T, image.T, beta=1.0, c=rows.T, overwrite_c=1)


def haar(rng: np.random.Generator, n: int) -> F32:
    """Draw an orthogonal matrix from the Haar measure on O(n); (n, n) float32, C order."""
    return Sampler(n).haar(rng)


class Panel(NamedTuple):
    """Some reflectors that are multiplied together. start: the first of them. width: their number.
    m: their scalars. begin, end: where their numbers lie, one reflector after another.
    """

    start: int
    width: int
    m: int
    begin: int
    end: int

    def of(self, numbers: F32, d: int) -> F32:
        """The reflectors, (width, m, d)."""
        return numbers[self.begin : self.end].reshape(self.width, self.m, d)


def panels(n: int, code_width: int, structure: Structure) -> list[Panel]:
    """The panels of the reflectors of one isometry, the last one first: so they are multiplied."""
    d = structure.components
    w, m = n // d, code_width // d
    panel = min(w, PANEL[structure] // d)
    found: list[Panel] = []
    for start in range(0, w, panel)[::-1]:
        width, begin = min(w - start, panel), found[-1].end if found else 0
        found.append(Panel(start, width, m - start, begin, begin + width * (m - start) * d))
    return found


def _places(panels: Sequence[Panel], d: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Where each reflector's first scalar lies, (w, d), and all numbers before these, (b,).

    Reflector i of a panel begins at scalar i.
    """
    first, before = [], []
    for panel in panels:
        row, scalar, component = np.ogrid[: panel.width, : panel.width, :d]
        places = panel.begin + (row * panel.m + scalar) * d + component
        first.append(places[range(panel.width), range(panel.width)])
        before.append(places[np.tri(panel.width, k=-1, dtype=np.bool_)].ravel())
    return np.concatenate(first), np.concatenate(before)


def _diagonal(blocks: F32) -> F32:
    """A writable view of the entries (i, :, i) of an array: (w, d)."""
    found: F32 = np.einsum("iji->ij", blocks)
    return found


def _inverse(u: F32, v: F32) -> F32:
    """T^-1 = strict_upper(V'V) + diag(V'V) / 2, (w d, w d), for reflectors u, (w, m, d).

    v: the real matrix of V', (w d, m d). What lies below the diagonal has no meaning.
    """
    width, m, d = u.shape
    if d == 1:
        inverse: F32 = blas.ssyrk(1.0, v.T, trans=1, lower=1).T
    else:
        # The conjugates of V'V, scalar by scalar: a quarter of the real product.
        inner = (u.reshape(width, m * d) @ v.T).reshape(width, width, d)
        inverse = algebra.adjoint(inner, np.empty((2, 16 * width * width), dtype=np.float32))
    inverse.reshape(-1)[:: width * d + 1] *= np.float32(0.5)
    return inverse


def _reflect(v: F32, inverse: F32, ends: F32, q: F32, x: F32, out: F32) -> None:
    """(I - V T V') diag(D, Q), with v the real matrix of V', (w d, m d), and inverse T^-1.

    ends: D, (w, d). q: (d (m - w), c), columns. x: (w d, w + c), scratch. out: (d m, w + c), the
    result.
    """
    width, d = ends.shape
    size = width * d
    own = np.zeros((width, d, width), dtype=np.float32)
    _diagonal(own)[...] = ends
    np.matmul(v[:, :size], own.reshape(size, width), out=x[:, :width])
    np.matmul(v[:, size:], q, out=x[:, width:])
    # BLAS reads columns first, so x' becomes -x' T'.
    blas.strsm(-1.0, inverse.T, x.T, side=1, lower=1, overwrite_b=1)
    np.matmul(v.T, x, out=out)
    top = _diagonal(out[:size].reshape(width, d, -1)[:, :, :width])
    top += ends
    out[size:, width:] += q
