"""Rotations: Haar-distributed orthogonal matrices, and the rank-2 turn of one vector to another.

Haar matrices come from Householder reflectors of Gaussian vectors (Stewart, SIAM J. Numer. Anal.
17, 1980; Mezzadri, Notices AMS 54, 2007), multiplied out in the compact WY form (Schreiber and Van
Loan 1989) with the triangular factor from its inverse (Joffrain et al., ACM TOMS 32, 2006).
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import blas

from ironmask.arrays import F32, F64
from ironmask.errors import ParameterError

_PARALLEL = 1e-9
_LEAST = 2


def haar(rng: np.random.Generator, n: int) -> F32:
    """Draw an orthogonal matrix from the Haar measure on O(n); (n, n) float32, C order.

    Reflector i sends a Gaussian vector g of length n - i to a multiple of e_1; with the sign of
    g_1 on the diagonal the product H_0 H_1 ... H_(n-1) D is Haar. All n reflectors V are applied
    at once as I - V T V' with T^-1 = strict_upper(V'V) + diag(V'V) / 2.
    """
    if n < _LEAST:
        raise ParameterError(f"a rotation needs at least {_LEAST} dimensions, not {n}")
    v = _reflectors(rng, n)
    signs = np.where(v.diagonal() < 0, np.float32(1), np.float32(-1))
    gram = blas.ssyrk(1.0, v, trans=1)
    gram[np.diag_indices(n)] *= np.float32(0.5)
    t_vt = blas.strsm(1.0, gram, np.asfortranarray(v.T), overwrite_b=1)
    q = blas.strmm(-1.0, v, t_vt, lower=1, overwrite_b=1)
    q[np.diag_indices(n)] += np.float32(1)
    q *= signs
    # The transpose of a Haar matrix is Haar, and turns Fortran order into C order for nothing.
    transposed: F32 = q.T
    return transposed


def _reflectors(rng: np.random.Generator, n: int) -> F32:
    """Householder vectors g + sign(g_1) |g| e_1 as columns of a lower triangle, Fortran order."""
    v = np.zeros((n, n), dtype=np.float32, order="F")
    rows = v.T
    normals = rng.standard_normal(n * (n + 1) // 2, dtype=np.float32)
    rows[np.triu_indices(n)] = normals
    diagonal = rows.diagonal()
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    rows[np.diag_indices(n)] = diagonal + np.copysign(lengths, diagonal)
    return v


def turn(matrix: F32, source: F64, target: F64) -> F32:
    """Return R A for a matrix A, R being the rotation that takes source to target.

    R = I - s s' - w w' + [s w] G [s w]', where w is the unit part of target orthogonal to source
    and G the plane rotation by their angle (Kim et al. 2021, supplement, Proposition 2, with w
    normalised: without that R is not orthogonal). R is never formed; the update costs O(n^2).

    matrix: (n, m) float32, overwritten where it is in C order; source, target: (n,) float64 unit
    vectors, possibly equal or opposite.
    """
    cosine = float(source @ target)
    w = target - cosine * source
    sine = float(np.linalg.norm(w))
    if sine < _PARALLEL:
        if cosine > 0:
            return matrix
        w = np.zeros_like(source)
        w[np.argmin(np.abs(source))] = 1.0
        w -= (w @ source) * source
        sine = 0.0
    w /= np.linalg.norm(w)
    plane = np.stack([source, w]).astype(np.float32)
    turned = np.array([[cosine - 1, -sine], [sine, cosine - 1]], dtype=np.float32)
    update = (turned @ (plane @ matrix)).T
    result: F32 = blas.sgemm(1.0, update, plane, beta=1.0, c=matrix.T, overwrite_c=1).T
    return result
