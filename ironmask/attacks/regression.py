"""Probabilistic linear regression: the published attack on several issues, as a baseline.

Zhu and Wang, Proceedings on Privacy Enhancing Technologies 2025(4), 728-744. A codeword has
N - alpha zeros among its N entries, so a row of P_b is probably orthogonal to the template. The
attack guesses that n - 1 rows of b issues are; then the template is orthogonal to all of them. Each
trial costs a factorisation, some n^3 operations.

Four rows of a quaternionic helper are one row of quaternions. n / 4 - 1 of those leave the products
of the template with all quaternions; one that makes a quaternion of a codeword real is right.
"""

from __future__ import annotations

import time
from typing import Final

import numpy as np

from ironmask import algebra, codeword
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
from ironmask.params import Structure

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
    structure: Structure = Structure.REAL,
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
        x = _orthogonal(helpers, rng, count, alpha, structure)
        u = np.einsum("bij,kj->bki", helpers, x.astype(np.float32))
        scores = np.min([on.sum_of_largest(np.abs(one), alpha) for one in u], axis=0)
        scores /= np.sqrt(alpha)
        first = int(scores.argmax())
        best = max(best, float(scores[first]))
        codes = list(codeword.decode(u[:, first], alpha))
        right = believed(codes, best >= _SURE, confirm, structure)
        spent = time.perf_counter() - began
        if right is not None:
            found = tuple(template_of(p, code) for p, code in zip(helpers, right, strict=True))
            return Recovered(found, trials, spent, best, structure=structure)
    return Recovered((), trials, time.perf_counter() - began, best, structure=structure)


def regression_bits(
    n: int,
    alpha: int,
    issues: int,
    code_width: int = 0,
    structure: Structure = Structure.REAL,
) -> float:
    """log2 of the trials until all n - 1 guessed entries are zero, or n - 4 of quaternions.

    It is the sum of log2((N - i) / (N - alpha - i)) over the issues and over the rows i of each.
    code_width: N; 0 stands for n.
    """
    width = code_width or n
    rows = _rows(n, issues, structure.components)
    return float(sum(np.log2(_odds(width, alpha, own)).sum() for own in rows))


def _odds(code_width: int, alpha: int, rows: int) -> F64:
    i, most = np.arange(rows), code_width - alpha
    if rows > most:
        raise ParameterError(f"{rows} rows of an issue cannot all be zero: at most {most}")
    odds: F64 = (code_width - i) / (most - i)
    return odds


def _rows(n: int, issues: int, d: int) -> list[int]:
    """How many of the n - d rows each issue gives; whole rows of scalars."""
    whole, rest = divmod(n // d - 1, issues)
    return [d * (whole + (b < rest)) for b in range(issues)]


def _orthogonal(
    helpers: F32, rng: np.random.Generator, count: int, alpha: int, structure: Structure
) -> F64:
    """Unit vectors, (count, n), as orthogonal as possible to n - d rows each."""
    _, code_width, n = helpers.shape
    d = structure.components
    chosen = np.empty((count, n - d, n))
    rows = _rows(n, len(helpers), d)
    for trial in chosen:
        picked = []
        for p, k in zip(helpers, rows, strict=True):
            scalars = rng.choice(code_width // d, k // d, replace=False)
            picked.append(p.reshape(-1, d, n)[scalars].reshape(k, n))
        trial[:] = np.concatenate(picked)
    # In A' = Q R, the last columns of Q are orthogonal to all rows of A.
    q, _ = np.linalg.qr(chosen.transpose(0, 2, 1), mode="complete")
    last: F64 = q[:, :, -1]
    return last if d == 1 else _turned(last, helpers[0], alpha)


def _turned(x: F64, helper: F32, alpha: int) -> F64:
    """The vectors, (k, n), times the quaternions that make one of a codeword real.

    Rarely a quaternion of a codeword has two entries. These are its largest, so a middle one is
    taken.
    """
    image = (x @ helper.T).reshape(len(x), -1, 4)
    size = (image * image).sum(axis=2)
    middle = np.argsort(-size, axis=1)[:, (alpha - 1) // 2]
    unit = algebra.conjugate(algebra.direction(image[np.arange(len(x)), middle]))
    turned: F64 = algebra.times(x.reshape(len(x), -1, 4), unit[:, None])
    return turned.reshape(len(x), -1)
