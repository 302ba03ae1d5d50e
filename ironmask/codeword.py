"""Codewords: unit vectors with exactly alpha non-zero entries, all of one size.

A codeword is held as its **signed support**: alpha signed one-based indices +-(j + 1), sorted by
index. A batch of k codewords is an int32 array of shape (k, alpha). Kim et al. 2021, section 3.2.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ironmask.arrays import F64, I32, Floats
from ironmask.errors import ParameterError, TemplateError

# Above this width a signed one-based index no longer fits an int16.
_INT16_WIDTH = 32_767


def sample(rng: np.random.Generator, n: int, alpha: int, k: int = 1) -> I32:
    """Draw k codewords uniformly: positions without replacement, independent fair signs.

    Returns (k, alpha) int32.
    """
    support = np.stack([rng.choice(n, alpha, replace=False, shuffle=False) for _ in range(k)])
    support.sort(axis=1)
    signs = 1 - 2 * rng.integers(0, 2, size=(k, alpha))
    return ((support + 1) * signs).astype(np.int32)


def decode(u: Floats, alpha: int) -> I32:
    """Return the codeword with the largest inner product with each row of u.

    The alpha largest |u_j| keep their signs. Between equal ones the lower index wins, and a zero
    counts as positive, so every machine gives the same answer. u: (n,) or (k, n); returns
    (k, alpha) int32. Raises `TemplateError` where u is not finite: then no codeword is nearest.
    """
    u = np.atleast_2d(u)
    n = u.shape[1]
    if not 1 <= alpha <= n:
        raise ParameterError(f"alpha is {alpha}; it must lie in 1..{n}")
    if not np.isfinite(u).all():
        raise TemplateError("not_finite", "a vector to decode holds values that are not finite")
    support = _largest(np.abs(u), alpha)
    negative = u[np.arange(len(u))[:, None], support] < 0
    return np.where(negative, -(support + 1), support + 1).astype(np.int32)


def _largest(size: Floats, alpha: int) -> NDArray[np.intp]:
    """Positions of the alpha largest entries of each row, sorted by position."""
    k, n = size.shape
    threshold = np.partition(size, n - alpha, axis=1)[:, n - alpha, None]
    chosen = size >= threshold
    surplus = np.count_nonzero(chosen, axis=1) - alpha
    for row in np.nonzero(surplus)[0]:
        ties = np.nonzero(size[row] == threshold[row])[0]
        chosen[row, ties[len(ties) - surplus[row] :]] = False
    return np.nonzero(chosen)[1].reshape(k, alpha)


def dense(codewords: I32, n: int) -> F64:
    """Return codewords of shape (k, alpha) as (k, n) float64 unit vectors."""
    codewords = np.atleast_2d(codewords)
    out = np.zeros((len(codewords), n))
    rows = np.arange(len(codewords))[:, None]
    out[rows, np.abs(codewords) - 1] = np.sign(codewords) / np.sqrt(codewords.shape[1])
    return out


def agreement(a: I32, b: I32) -> NDArray[np.intp]:
    """Count the places in which two (k, alpha) batches of signed supports agree: (k,)."""
    same = np.atleast_2d(a)[:, :, None] == np.atleast_2d(b)[:, None, :]
    counts: NDArray[np.intp] = np.count_nonzero(same, axis=(1, 2))
    return counts


def canonical_bytes(codewords: I32, n: int) -> bytes:
    """Bytes to digest: the signed indices in order, int16 little-endian (int32 above 32,767)."""
    dtype = "<i2" if n <= _INT16_WIDTH else "<i4"
    return codewords.astype(dtype).tobytes()
