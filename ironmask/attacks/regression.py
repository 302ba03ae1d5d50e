"""Probabilistic linear regression: the published attack on several issues, as a baseline.

Zhu and Wang, Proceedings on Privacy Enhancing Technologies 2025(4), 728-744. A codeword has
N - alpha zeros among its N entries, so a row of P_b is probably orthogonal to the template. The
attack guesses that n - 1 rows of b issues are; then the template is orthogonal to all of them. Each
trial costs a factorisation, some n^3 operations.
"""

from __future__ import annotations

import time
from typing import Final

import numpy as np

from ironmask import codeword
from ironmask.accelerator import CPU, accelerator
from ironmask.arrays import F32, F64
from ironmask.attacks.result import (
    Confirm,
    Recovered,
    believed,
    require_issues,
    template_of,
)
from ironmask.errors import ParameterError

_BATCH: Final = 64
# Believed without a digest: so near to codewords of all issues as only the truth comes.
_SURE: Final = 0.985


def recover_by_regression(
    helpers: F32,
    alpha: int,
    rng: np.random.Generator,
    *,
    limit: int = 1 << 14,
    seconds: float = float("inf"),
    confirm: Confirm | None = None,
) -> Recovered:
    """Look for what two or more issues of one template were made from; see `recover_from_issues`.

    A trial takes the vector that is least in all guessed rows, so small differences between the
    captures do no harm. Raises `ParameterError` for fewer than two issues.
    """
    require_issues(helpers)
    on = accelerator(CPU)
    began, trials, best = time.perf_counter(), 0, 0.0
    while trials < limit and time.perf_counter() - began < seconds:
        count = min(_BATCH, limit - trials)
        trials += count
        x = _orthogonal(helpers, rng, count)
        u = np.einsum("bij,kj->bki", helpers, x.astype(np.float32))
        scores = np.min([on.sum_of_largest(np.abs(one), alpha) for one in u], axis=0)
        scores /= np.sqrt(alpha)
        first = int(scores.argmax())
        best = max(best, float(scores[first]))
        codes = list(codeword.decode(u[:, first], alpha))
        right = believed(codes, best >= _SURE, confirm)
        if right is not None:
            found = tuple(template_of(p, code) for p, code in zip(helpers, right, strict=True))
            return Recovered(found, trials, time.perf_counter() - began, best)
    return Recovered((), trials, time.perf_counter() - began, best)


def regression_bits(n: int, alpha: int, issues: int, code_width: int = 0) -> float:
    """log2 of the trials until all n - 1 guessed entries are zero.

    It is the sum of log2((N - i) / (N - alpha - i)) over the issues and over the rows i of each.
    code_width: N; 0 stands for n.
    """
    width = code_width or n
    return float(sum(np.log2(_odds(width, alpha, rows)).sum() for rows in _rows(n, issues)))


def _odds(code_width: int, alpha: int, rows: int) -> F64:
    i, most = np.arange(rows), code_width - alpha
    if rows > most:
        raise ParameterError(f"{rows} rows of an issue cannot all be zero: at most {most}")
    odds: F64 = (code_width - i) / (most - i)
    return odds


def _rows(n: int, issues: int) -> list[int]:
    """How many of the n - 1 rows each issue gives."""
    whole, rest = divmod(n - 1, issues)
    return [whole + (b < rest) for b in range(issues)]


def _orthogonal(helpers: F32, rng: np.random.Generator, count: int) -> F64:
    """Unit vectors, (count, n), as orthogonal as possible to n - 1 rows each."""
    _, code_width, n = helpers.shape
    issues = len(helpers)
    chosen = np.empty((count, n - 1, n))
    rows = _rows(n, issues)
    for trial in chosen:
        some = [rng.choice(code_width, k, replace=False) for k in rows]
        picked = [p[places] for p, places in zip(helpers, some, strict=True)]
        trial[:] = np.concatenate(picked)
    # In A' = Q R, the last column of Q is orthogonal to all rows of A.
    q, _ = np.linalg.qr(chosen.transpose(0, 2, 1), mode="complete")
    last: F64 = q[:, :, -1]
    return last
