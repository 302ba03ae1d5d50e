"""Many protected helpers at once on an accelerator: `ironmask.rotation`'s kernel in batches.

It is written in the Python array API standard, so one code runs on NumPy, PyTorch and CuPy. The
host draws the random bits: no generator of these libraries is cryptographic.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ironmask import codeword, helper
from ironmask.accelerator import Accelerator
from ironmask.arrays import F64, I32
from ironmask.random import raw_words
from ironmask.rotation import PANEL


def helpers(
    on: Accelerator, rng: np.random.Generator, sources: F64, codes: I32
) -> tuple[list[bytes], I32]:
    """Draw P with P s = c for each source and codeword, and encode it as int8.

    sources: (k, n) float64 unit vectors. codes: (k, alpha) int32. Returns k helpers, and the
    codewords (k, alpha) int32 that the encoded helpers give for their sources.
    """
    k, n = sources.shape
    sign = np.where(sources[:, :1] < 0, -1.0, 1.0)
    first = -sign * codeword.dense(codes, n)
    v = sources.copy()
    v[:, :1] += sign
    v *= np.sqrt(2 / (v * v).sum(axis=1, keepdims=True))
    drawn = normals(on, rng, k, sum(w * (n - start) for start, w in _panels(n)))
    p = multiplied(on, drawn, on.upload(first.astype(np.float32)))
    reflector = on.upload(v.astype(np.float32))
    p = p - (p @ reflector[:, :, None]) * reflector[:, None, :]
    return _encoded(on, p, sources, codes.shape[1])


def normals(on: Accelerator, rng: np.random.Generator, k: int, count: int) -> Any:
    """Standard normal variables, (k, count) float32, by Box and Muller; see `fill_normals`."""
    xp, half = on.xp, -(-count // 2)
    words = on.upload(raw_words(rng, 2 * k * half).view(np.int32).reshape(2, k, half))
    radius = xp.abs(xp.astype(words[0, ...], xp.float32))
    radius = xp.sqrt(-2 * xp.log((radius + 0.5) * 2.0**-31))
    angle = xp.astype(words[1, ...], xp.float32) * (np.pi / 2**31)
    return xp.concat([radius * xp.cos(angle), radius * xp.sin(angle)], axis=1)[:, :count]


def _panels(n: int) -> list[tuple[int, int]]:
    """First reflector and width of each panel, the last panel first."""
    return [(start, min(n - start, PANEL)) for start in reversed(range(0, n, PANEL))]


def multiplied(on: Accelerator, drawn: Any, first: Any) -> Any:
    """H_0 H_1 ... H_(n-1) D with first columns (k, n): (k, n, n); see `ironmask.rotation`.

    drawn: (k, count) float32, the Gaussian rows of the panels one after another.
    """
    xp, (k, n) = on.xp, first.shape
    q = drawn[:, :0].reshape((k, 0, 0))
    signs: list[Any] = []
    used = 0
    for start, width in _panels(n):
        m = n - start
        u = xp.reshape(drawn[:, used : used + width * m], (k, width, m))
        used += width * m
        if start == 0:
            u = xp.concat([first[:, None, :], u[:, 1:, :]], axis=1)
        u, sign = _to_reflectors(on, u)
        signs.insert(0, sign)
        q = _reflected(on, u, q)
    return q * xp.concat(signs, axis=1)[:, None, :]


def _to_reflectors(on: Accelerator, u: Any) -> tuple[Any, Any]:
    """Householder vectors (k, w, m) of Gaussian rows, and the signs of D, (k, w)."""
    xp, width, m = on.xp, u.shape[1], u.shape[2]
    u = u * on.upload(np.triu(np.ones((width, m), dtype=np.float32)))
    unit = on.upload(np.eye(width, m, dtype=np.float32))
    diagonal = xp.sum(u * unit, axis=2)
    lengths = xp.sqrt(xp.sum(u * u, axis=2))
    sign = xp.astype(xp.where(diagonal < 0, -1.0, 1.0), xp.float32)
    return u + (sign * lengths)[:, :, None] * unit, -sign


def _reflected(on: Accelerator, u: Any, q: Any) -> Any:
    """(I - V T V') diag(I, Q): reflectors V' = u, (k, w, m), and Q, (k, m - w, m - w)."""
    xp, k, width = on.xp, u.shape[0], u.shape[1]
    gram = u @ xp.matrix_transpose(u)
    half = np.triu(np.ones((width, width), dtype=np.float32))
    half[np.diag_indices(width)] = 0.5
    work = xp.concat([u[:, :, :width], u[:, :, width:] @ q], axis=2)
    x = xp.linalg.solve(gram * on.upload(half), work)
    rest = q.shape[1]
    eye = on.upload(np.broadcast_to(np.eye(width, dtype=np.float32), (k, width, width)).copy())
    zeros = xp.zeros((k, width, rest), dtype=xp.float32, device=on.device)
    upper = xp.concat([eye, zeros], axis=2)
    lower = xp.concat([xp.matrix_transpose(zeros), q], axis=2)
    return xp.concat([upper, lower], axis=1) - xp.matrix_transpose(u) @ x


def _encoded(on: Accelerator, p: Any, sources: F64, alpha: int) -> tuple[list[bytes], I32]:
    """int8 helpers of P, (k, n, n), and the codewords that they give for their sources."""
    xp, n = on.xp, sources.shape[1]
    scale = helper.int8_scale(on.download(xp.max(xp.abs(p), axis=2)))
    wide = scale.astype(np.float32)
    levels = xp.astype(xp.round(p * on.upload(1 / wide)[:, :, None]), xp.int8)
    opened = xp.astype(levels, xp.float32) @ on.upload(sources.astype(np.float32))[:, :, None]
    found = codeword.decode(on.download(opened)[:, :, 0] * wide, alpha)
    rows = on.download(levels).reshape(len(sources), n * n)
    return [s.tobytes() + r.tobytes() for s, r in zip(scale, rows, strict=True)], found
