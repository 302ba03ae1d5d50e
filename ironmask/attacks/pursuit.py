"""Sparse vectors near what a filter passes, with some entries held, for many guesses at once.

Basis pursuit looks for the vector of least sum |x| (Chen, Donoho and Saunders, SIAM Journal on
Scientific Computing 20, 1998), here by the alternating direction method of multipliers (Boyd et
al., Foundations and Trends in Machine Learning 3, 2011). Its step onto a subspace may be any
symmetric filter, (N, N). An entry may also count the less the larger it is (reweighting: Candes,
Wakin and Boyd, Journal of Fourier Analysis and Applications 14, 2008); that finds vectors with more
entries, where the filter is a sharp one. All guesses go through as one matrix product: 2 N^2
operations for each guess and step.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from ironmask.accelerator import Accelerator
from ironmask.arrays import F32, I32

_SHRINK: Final = 0.15
# The size from which on an entry counts less, and after how many steps each anew.
_SIZE: Final = 0.1
_EVERY: Final = 5
_LEAST_GAIN: Final = 1e-4


def pursued(
    on: Accelerator,
    likely: Any,
    fixed: Any,
    is_free: Any,
    steps: int,
    *,
    reweighted: bool = False,
) -> Any:
    """Sparse vectors, (k, N), near what passes the filter, (N, N).

    fixed: (k, N), the held entries and zeros elsewhere. is_free: (k, N), which are not held.
    """
    xp = on.xp
    z, w = fixed, xp.zeros_like(fixed)
    shrink: Any = _SHRINK
    for step in range(1, steps + 1):
        w += (z - w) @ likely
        if reweighted and step % _EVERY == 0:
            shrink = 2 * _SHRINK * _SIZE / (xp.abs(z) + _SIZE)
        # Shrink towards zero, clip to an entry of a codeword, and keep the held entries.
        z = xp.clip(w - xp.clip(w, -shrink, shrink), -1, 1)
        z *= is_free
        z += fixed
        w -= z
    return z


def passed(on: Accelerator, likely: Any, s: Any) -> F32:
    """Energy of each vector, (k, N), that passes the filter: (k,)."""
    energy: F32 = on.download(on.xp.sum((s @ likely) * s, axis=1))
    return energy


def rounded(on: Accelerator, vectors: Any, alpha: int) -> Any:
    """Keep the signs of the alpha largest entries of each vector, (k, N), and zeros."""
    support = on.largest(on.xp.abs(vectors), alpha)
    rows = on.xp.arange(len(vectors), device=on.device)[:, None]
    s = on.xp.zeros_like(vectors)
    s[rows, support] = on.xp.where(vectors[rows, support] < 0, -1.0, 1.0)
    return s


def signed(dense: F32) -> I32:
    """The signed support of a vector of signs and zeros, (N,)."""
    support = np.flatnonzero(dense)
    return ((support + 1) * np.sign(dense[support])).astype(np.int32)


def polished(on: Accelerator, likely: Any, s: Any, alpha: int) -> Any:
    """Exchange one entry at a time of codewords, (k, N), while more of them passes the filter.

    The best codewords often have a wrong place or two. The loop is bounded, because rounding could
    keep it going.
    """
    xp, (k, n) = on.xp, s.shape
    diagonal = xp.sum(likely * xp.eye(n, dtype=xp.float32, device=on.device), axis=0)
    rows = xp.arange(k, device=on.device)
    for _ in range(2 * alpha):
        inner = s @ likely
        energy = xp.sum(inner * s, axis=1)
        support = on.largest(xp.abs(s), alpha)
        own = s[rows[:, None], support]
        columns = xp.reshape(xp.take(likely, xp.reshape(support, (-1,)), axis=0), (k, alpha, n))
        others = inner[:, None, :] - own[:, :, None] * columns
        left = energy[:, None] - 2 * own * inner[rows[:, None], support] + diagonal[support]
        # Skip places that the codeword has already.
        free = xp.astype(s == 0, xp.float32)[:, None, :]
        gain = (left[:, :, None] + 2 * xp.abs(others) + diagonal) * free
        flat = xp.argmax(xp.reshape(gain, (k, alpha * n)), axis=1)
        out, into = flat // n, flat % n
        moved = gain[rows, out, into] > energy + _LEAST_GAIN
        if not bool(xp.any(moved)):
            break
        sign = xp.where(others[rows, out, into] < 0, -1.0, 1.0)
        places, move = support[rows, out], xp.astype(moved, xp.float32)
        s[rows, places] *= 1 - move
        s[rows, into] += xp.astype(sign, xp.float32) * move
    return s
