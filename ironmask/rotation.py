"""Rotations: Haar-distributed orthogonal matrices, free or carrying one vector to another.

Haar matrices come from Householder reflectors of Gaussian vectors (Stewart, SIAM J. Numer. Anal.
17, 1980; Mezzadri, Notices AMS 54, 2007). The reflectors are multiplied from the last to the first,
in panels of the compact WY form (Schreiber and Van Loan 1989), with the inverse of each panel's
triangular factor (Joffrain et al., ACM TOMS 32, 2006). This takes 4/3 n^3 operations, nearly all in
products of matrices.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
from scipy.linalg import blas

from ironmask.arrays import F32, F64
from ironmask.errors import ParameterError
from ironmask.random import fill_normals

_LEAST: Final = 2
PANEL: Final = 96
_ONE: Final = np.float32(1)


class Sampler:
    """Draws rotations of one width, and uses its memory again: fresh pages cost as much as BLAS.

    A method's result is valid until the next call; `wipe` overwrites it.
    """

    def __init__(self, n: int) -> None:
        if n < _LEAST:
            raise ParameterError(f"a rotation needs at least {_LEAST} dimensions, not {n}")
        self._n = n
        self._squares = np.empty((2, n * n), dtype=np.float32)
        self._rows = np.empty(min(n, PANEL) * n, dtype=np.float32)
        # The last panel comes first: this is the order of the multiplication.
        self._starts = range(0, n, PANEL)[::-1]
        drawn = sum(min(n - start, PANEL) * (n - start) for start in self._starts)
        self._reflectors = np.empty(drawn, dtype=np.float32)
        self._signs = np.empty(n, dtype=np.float32)

    def haar(self, rng: np.random.Generator) -> F32:
        """Draw an orthogonal matrix from the Haar measure on O(n); (n, n) float32, C order."""
        return self._multiplied(rng, None)

    def carrying(self, rng: np.random.Generator, source: F64, target: F64) -> F32:
        """Draw P from the Haar measure on the orthogonal matrices with P s = c.

        P = M H. The reflector H takes s to e_1. M is Haar, given that its first column is c. P has
        the law of R Q, where Q is Haar and R is the rotation that takes Q s to c (Kim et al. 2021,
        section 3.3). Both carry s to c, and neither law changes under an orthogonal map that keeps
        c; there is only one such measure. This way costs one update of rank one.

        source, target: (n,) float64 unit vectors s and c. Returns (n, n) float32, C order.
        """
        sign = -1.0 if source[0] < 0 else 1.0
        # H s = -sign e_1, so the first column of M carries the sign.
        p = self._multiplied(rng, (-sign * target).astype(np.float32))
        v = source.copy()
        v[0] += sign
        v *= np.sqrt(2 / (v @ v))
        reflector = v.astype(np.float32)
        blas.sger(-1.0, reflector, p @ reflector, a=p.T, overwrite_a=1)
        return p

    def wipe(self) -> None:
        """Overwrite all that was drawn."""
        for array in (self._squares, self._rows, self._reflectors, self._signs):
            array.fill(0)

    def _multiplied(self, rng: np.random.Generator, first: F32 | None) -> F32:
        """H_0 H_1 ... H_(n-1) D: Haar, or Haar given that its first column is `first`.

        Reflector i sends a Gaussian vector g of length n - i to a multiple of e_1. D has minus the
        sign of g_1 on its diagonal, so that column i of reflector i becomes g / |g|.
        """
        fill_normals(rng, self._reflectors)
        q = self._squares[0, :0].reshape(0, 0)
        used = 0
        for turn, start in enumerate(self._starts):
            m = self._n - start
            width = min(m, PANEL)
            u = self._reflectors[used : used + width * m].reshape(width, m)
            used += width * m
            if start == 0 and first is not None:
                u[0] = first
            self._signs[start : start + width] = _to_reflectors(u)
            x = self._rows[: width * m].reshape(width, m)
            out = self._squares[turn % 2, : m * m].reshape(m, m)
            _reflect(u, q, x, out, self._signs if start == 0 else None)
            q = out
        return q


def haar(rng: np.random.Generator, n: int) -> F32:
    """Draw an orthogonal matrix from the Haar measure on O(n); (n, n) float32, C order."""
    return Sampler(n).haar(rng)


def _to_reflectors(u: F32) -> F32:
    """Turn Gaussian rows into Householder vectors g + sign(g_1) |g| e_1; return the signs of D.

    Row i begins at column i.
    """
    width = len(u)
    u[:, :width] *= _upper(width)
    diagonal = _diagonal(u)
    diagonal += np.copysign(np.sqrt(np.einsum("ij,ij->i", u, u)), diagonal)
    return -np.copysign(_ONE, diagonal)


def _reflect(u: F32, q: F32, x: F32, out: F32, signs: F32 | None) -> None:
    """(I - V T V') diag(I, Q) D for reflectors V' = u, (w, m), and an orthogonal Q of m - w.

    T^-1 = strict_upper(V'V) + diag(V'V) / 2. x: (w, m) scratch. out: (m, m), the result. signs:
    the diagonal of D, (m,); None before the last panel.
    """
    width = len(u)
    inverse = blas.ssyrk(1.0, u.T, trans=1)
    _diagonal(inverse.T)[:] *= np.float32(0.5)
    x[:, :width] = u[:, :width]
    np.matmul(u[:, width:], q, out=x[:, width:])
    # BLAS reads columns first, so x' becomes x' T'.
    blas.strsm(1.0, inverse, x.T, side=1, trans_a=1, overwrite_b=1)
    out[:width] = 0
    out[width:, :width] = 0
    if signs is None:
        _diagonal(out)[:width] = _ONE
        out[width:, width:] = q
    else:
        _diagonal(out)[:width] = signs[:width]
        np.multiply(q, signs[width:], out=out[width:, width:])
        x *= signs
    blas.sgemm(-1.0, x.T, u.T, beta=1.0, c=out.T, trans_b=1, overwrite_c=1)


def _diagonal(array: F32) -> F32:
    """A writable view of the diagonal of an array in C order."""
    return array.reshape(-1)[:: array.shape[1] + 1][: len(array)]


@lru_cache(maxsize=4)
def _upper(width: int) -> F32:
    mask = np.triu(np.ones((width, width), dtype=np.float32))
    mask.flags.writeable = False
    return mask
