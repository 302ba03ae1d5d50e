"""Several issues of one person: the template from their helpers alone, in seconds.

Each row of a helper P_b whose place is in the support of its codeword lies at the cosine
1 / sqrt(alpha) to the template, and codewords are sparse for every issue at once. From a sum or
difference of a row of one issue and a row of another (one in 2,048 is right twice at n = 512 and
alpha = 16), an estimate x and a sparse message v_b of each issue are exchanged: u_b = P_b x less
the message that came from there, v_b its alpha largest entries at unit length, x = sum of P_b' v_b.
Without the subtraction it does not converge (extrinsic information: Berrou and Glavieux, IEEE
Transactions on Communications 44, 1996). A start costs 4 n^2 operations for each issue and
iteration; many go through as one matrix product.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

import numpy as np

from ironmask import codeword
from ironmask.arrays import F32, I32
from ironmask.attacks.result import Confirm, Recovered, believed, template_of
from ironmask.errors import ParameterError

_STARTS: Final = 1024
# After the first iterations a start that leads somewhere is among the best few, nearly always.
_FIRST: Final = 15
_SECOND: Final = 20
_KEPT: Final = 8
# What is believed without a digest: an estimate that stands out from all that led nowhere, whose
# least cosines to codewords scatter by about .01; or one as near as only the truth comes.
_DEVIATIONS: Final = 8.0
_SURE: Final = 0.985
_LEAST_NORM: Final = np.float32(1e-12)


def recover_from_issues(
    helpers: F32,
    alpha: int,
    rng: np.random.Generator,
    *,
    limit: int = 1 << 17,
    confirm: Confirm | None = None,
) -> Recovered:
    """Look for what two or more issues of one person were made from.

    helpers: (b, n, n) float32, decoded. alpha: non-zero entries of a codeword. limit: starts after
    which it gives up. confirm: where digests can be computed; otherwise a point is believed that
    lies unusually near to codewords of all issues. Each template is that of its own issue, exact
    but for the helper's encoding.

    Raises `ParameterError` for fewer than two issues.
    """
    if helpers.ndim != 3 or len(helpers) < 2:
        raise ParameterError("this attack needs the helpers of two issues or more: (b, n, n)")
    began, trials, best = time.perf_counter(), 0, 0.0
    for starts in _starts(helpers, rng):
        some = starts[: limit - trials]
        trials += len(some)
        scores, codes = _tried(helpers, some, alpha)
        first = int(scores.argmax())
        best = max(best, float(scores[first]))
        right = believed([code[first] for code in codes], _stands_out(scores), confirm)
        if right is not None:
            found = tuple(template_of(p, code) for p, code in zip(helpers, right, strict=True))
            return Recovered(found, trials, time.perf_counter() - began, best)
        if trials >= limit:
            break
    return Recovered((), trials, time.perf_counter() - began, best)


def _tried(helpers: F32, starts: F32, alpha: int) -> tuple[F32, list[I32]]:
    """Follow starts, (k, n), the best few of them to the end; see `_judged`."""
    messages = np.zeros((len(helpers), *starts.shape), dtype=np.float32)
    x = _exchanged(helpers, starts, messages, alpha, _FIRST)
    scores, _ = _judged(helpers, x, alpha)
    kept = np.argsort(-scores, kind="stable")[: max(1, len(scores) // _KEPT)]
    x = _exchanged(helpers, x[kept], np.ascontiguousarray(messages[:, kept]), alpha, _SECOND)
    return _judged(helpers, x, alpha)


def _stands_out(scores: F32) -> bool:
    """Whether the best score is no chance, by the median and its median absolute deviation."""
    middle = float(np.median(scores))
    deviation = 1.4826 * float(np.median(np.abs(scores - middle)))
    return bool(scores.max() >= min(_SURE, middle + _DEVIATIONS * deviation))


def _starts(helpers: F32, rng: np.random.Generator) -> Iterator[F32]:
    """Sums and differences of rows of two different issues, (k, n) float32 at a time."""
    issues, n, _ = helpers.shape
    while True:
        first = rng.integers(0, issues, _STARTS)
        second = (first + rng.integers(1, issues, _STARTS)) % issues
        signs = rng.choice(np.array([-1, 1], dtype=np.float32), _STARTS)[:, None]
        starts: F32 = helpers[second, rng.integers(0, n, _STARTS)] * signs
        starts += helpers[first, rng.integers(0, n, _STARTS)]
        yield starts


def _exchanged(helpers: F32, x: F32, messages: F32, alpha: int, iterations: int) -> F32:
    """Exchange messages, (b, k, n), which change, with estimates, (k, n); return the last ones."""
    for _ in range(iterations):
        total = np.zeros_like(x)
        for p, message in zip(helpers, messages, strict=True):
            u = x @ p.T
            u -= message
            _keep_largest(u, alpha, message)
            total += message @ p
        x = total
    return x


def _keep_largest(u: F32, alpha: int, out: F32) -> None:
    """The alpha largest entries of each row at unit length, and zeros."""
    size = np.abs(u)
    least = np.partition(size, u.shape[1] - alpha, axis=1)[:, -alpha, None]
    np.multiply(u, size >= least, out=out)
    out /= np.maximum(np.linalg.norm(out, axis=1, keepdims=True), _LEAST_NORM)


def _judged(helpers: F32, x: F32, alpha: int) -> tuple[F32, list[I32]]:
    """The least cosine of each estimate, (k, n), to its nearest codewords, (k,); and these."""
    x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), _LEAST_NORM)
    cosines, codes = [], []
    for p in helpers:
        u = x @ p.T
        code = codeword.decode(u, alpha)
        codes.append(code)
        own = np.take_along_axis(u, np.abs(code).astype(np.intp) - 1, axis=1)
        cosines.append(np.abs(own).sum(axis=1) / np.float32(np.sqrt(alpha)))
    least: F32 = np.min(cosines, axis=0)
    return least, codes
