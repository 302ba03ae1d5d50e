"""Many protected helpers at once on an accelerator: `ironmask.rotation`'s kernel in batches.

It is written in the Python array API standard, so one code runs on NumPy, PyTorch and CuPy. The
host draws the random bits: no generator of these libraries is cryptographic.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ironmask import algebra, codeword, helper, rotation
from ironmask.accelerator import Accelerator
from ironmask.arrays import F32, F64, I32
from ironmask.params import Params
from ironmask.random import raw_words
from ironmask.rotation import Panel


def helpers(
    on: Accelerator, rng: np.random.Generator, sources: F64, codes: I32, params: Params
) -> tuple[list[bytes], I32]:
    """Draw P with P s = c for each source and codeword, and encode it as int8.

    sources: (k, n) float64 unit vectors. codes: (k, alpha) int32. Returns k helpers, and the
    codewords (k, alpha) int32 that the encoded helpers give for their sources.
    """
    k, d = len(sources), params.structure.components
    turn = algebra.direction(sources[:, :d])
    target = codeword.dense(codes, params.code_width).reshape(k, -1, d)
    first = -algebra.times(target, algebra.conjugate(turn)[:, None]).reshape(k, -1)
    v = sources.copy()
    v[:, :d] += turn
    v *= np.sqrt(2 / (v * v).sum(axis=1, keepdims=True))
    drawn = normals(on, rng, k, panels(params)[-1].end)
    columns = multiplied(on, drawn, on.upload(first.astype(np.float32)), params)
    rows = _reflected_right(on, _as_rows(on, columns, params), v.astype(np.float32), params)
    return _encoded(on, rows, sources, params)


def normals(on: Accelerator, rng: np.random.Generator, k: int, count: int) -> Any:
    """Standard normal variables, (k, count) float32, by Box and Muller; see `fill_normals`."""
    xp, half = on.xp, -(-count // 2)
    words = on.upload(raw_words(rng, 2 * k * half).view(np.int32).reshape(2, k, half))
    radius = xp.abs(xp.astype(words[0, ...], xp.float32))
    radius = xp.sqrt(-2 * xp.log((radius + 0.5) * 2.0**-31))
    angle = xp.astype(words[1, ...], xp.float32) * (np.pi / 2**31)
    return xp.concat([radius * xp.cos(angle), radius * xp.sin(angle)], axis=1)[:, :count]


def panels(params: Params) -> list[Panel]:
    """The panels of the helpers of some parameters; see `ironmask.rotation.panels`."""
    return rotation.panels(params.n, params.code_width, params.structure)


def multiplied(on: Accelerator, drawn: Any, first: Any, params: Params) -> Any:
    """The first columns of H_0 H_1 ... D, of which the first ones are given, (k, N): (k, N, w).

    See `ironmask.rotation`. drawn: (k, count) float32, the Gaussian rows of the panels one after
    another.
    """
    xp, k, d = on.xp, first.shape[0], params.structure.components
    q = drawn[:, :0].reshape((k, params.code_width - params.n, 0))
    for panel in panels(params):
        u = xp.reshape(drawn[:, panel.begin : panel.end], (k, panel.width, panel.m, d))
        if panel.start == 0:
            u = xp.concat([xp.reshape(first, (k, 1, -1, d)), u[:, 1:, :, :]], axis=1)
        u, ends = _to_reflectors(on, u)
        q = _reflected(on, _adjoint(on, u), ends, q)
    return q


def _to_reflectors(on: Accelerator, u: Any) -> tuple[Any, Any]:
    """Householder vectors (k, w, m, d) of Gaussian rows, and the ends D, (k, w, d)."""
    xp, (width, m, d) = on.xp, u.shape[1:]
    u = u * on.upload(np.triu(np.ones((width, m), dtype=np.float32))[:, :, None])
    unit = on.upload(np.eye(width, m, dtype=np.float32)[:, :, None])
    diagonal = xp.sum(u * unit, axis=2)
    size = xp.sqrt(xp.sum(diagonal * diagonal, axis=2, keepdims=True))
    one = on.upload(np.eye(1, d, dtype=np.float32)[0])
    is_zero = xp.astype(size == 0, xp.float32)
    turns = diagonal / (size + is_zero) + is_zero * one
    lengths = xp.sqrt(xp.sum(u * u, axis=(2, 3)))[:, :, None]
    return u + (turns * lengths)[:, :, None, :] * unit, -turns


def _adjoint(on: Accelerator, u: Any) -> Any:
    """The real matrix of V', (k, w d, m d), of reflectors (k, w, m, d)."""
    xp, (k, width, m, d) = on.xp, u.shape
    if d > 1:
        u = xp.reshape(u @ on.upload(algebra.TO_ADJOINT), (k, width, m, d, d))
        u = xp.permute_dims(u, (0, 1, 3, 2, 4))
    return xp.reshape(u, (k, width * d, m * d))


def _reflected(on: Accelerator, v: Any, ends: Any, q: Any) -> Any:
    """(I - V T V') diag(D, Q): the real matrix of V', (k, w d, m d), D (k, w, d), and columns Q."""
    xp, (k, width, d) = on.xp, ends.shape
    size, rest = width * d, q.shape[2]
    half = np.triu(np.ones((size, size), dtype=np.float32))
    half[np.diag_indices(size)] = 0.5
    own = xp.sum(xp.reshape(v[:, :, :size], (k, size, width, d)) * ends[:, None, :, :], axis=3)
    work = xp.concat([own, v[:, :, size:] @ q], axis=2)
    x = xp.linalg.solve((v @ xp.matrix_transpose(v)) * on.upload(half), work)
    eye = on.upload(np.eye(width, dtype=np.float32)[:, None, :])
    own = xp.reshape(ends[:, :, :, None] * eye, (k, size, width))
    upper = xp.concat([own, _zeros(on, (k, size, rest))], axis=2)
    lower = xp.concat([_zeros(on, (k, q.shape[1], width)), q], axis=2)
    return xp.concat([upper, lower], axis=1) - xp.matrix_transpose(v) @ x


def _zeros(on: Accelerator, shape: tuple[int, ...]) -> Any:
    return on.xp.zeros(shape, dtype=on.xp.float32, device=on.device)


def _as_rows(on: Accelerator, columns: Any, params: Params) -> Any:
    """Stored rows, (k, r, n), of matrices by their columns, (k, N, w)."""
    xp, k = on.xp, columns.shape[0]
    rows, n = params.helper_shape
    d = params.structure.components
    own = xp.permute_dims(xp.reshape(columns, (k, rows, d, n // d)), (0, 1, 3, 2))
    return xp.reshape(own, (k, rows, n))


def _reflected_right(on: Accelerator, rows: Any, v: F32, params: Params) -> Any:
    """M - (M v) v* for stored rows of k matrices and k vectors, (k, n)."""
    k, n = v.shape
    d = params.structure.components
    dual = algebra.conjugate(v.reshape(k, -1, d)).reshape(k, n)
    back = _factors(dual, params).reshape(k, -1, d, d).transpose(0, 2, 1, 3).reshape(k, d, n)
    return rows - (rows @ on.upload(_factors(v, params))) @ on.upload(back)


def _factors(vectors: F32, params: Params) -> F32:
    """`algebra.by_vectors` of each vector, (k, n): (k, n, d)."""
    k, n = vectors.shape
    found = algebra.by_vectors(vectors, params.structure).reshape(n, k, -1).transpose(1, 0, 2)
    return np.ascontiguousarray(found)


def _encoded(on: Accelerator, rows: Any, sources: F64, params: Params) -> tuple[list[bytes], I32]:
    """int8 helpers of stored rows, (k, r, n), and the codewords that they give for sources."""
    xp, k = on.xp, len(sources)
    scale = helper.int8_scale(on.download(xp.max(xp.abs(rows), axis=2)))
    wide = scale.astype(np.float32)
    levels = xp.astype(xp.round(rows * on.upload(1 / wide)[:, :, None]), xp.int8)
    x = on.upload(_factors(sources.astype(np.float32), params))
    opened = on.download(xp.astype(levels, xp.float32) @ x) * wide[:, :, None]
    found = codeword.decode(opened.reshape(k, -1), params.alpha)
    data = on.download(levels).reshape(k, -1)
    return [s.tobytes() + r.tobytes() for s, r in zip(scale, data, strict=True)], found
