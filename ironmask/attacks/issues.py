"""Several issues of one person: the template from their helpers alone, in seconds.

If a place is in the support of the codeword, that row of the helper P_b has the cosine
1 / sqrt(alpha) to the template. Codewords are sparse for every issue at once. A start is the sum or
the difference of a row of one issue and a row of another; one in 2,048 is right twice at n = 512
and alpha = 16. Then an estimate x and a sparse message v_b of each issue are exchanged:
u_b = P_b x less the message that came from there, v_b = the alpha largest entries of u_b at unit
length, x = the sum of P_b' v_b. Without the subtraction it does not converge (extrinsic
information: Berrou and Glavieux, IEEE Transactions on Communications 44, 1996). A start costs 4 N n
operations for each issue and iteration; many go through as one matrix product.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from ironmask import codeword
from ironmask.accelerator import CPU, Accelerator, accelerator
from ironmask.arrays import F32
from ironmask.attacks.result import (
    Confirm,
    Recovered,
    believed,
    require_issues,
    template_of,
)
from ironmask.params import Structure

_STARTS: Final = 1024
# A GPU needs at least this many at once to be busy.
_DEVICE_STARTS: Final = 16_384
# After the first iterations, a start that succeeds is nearly always among the best few.
_FIRST: Final = 15
_SECOND: Final = 20
_KEPT: Final = 8
# Without a digest, an estimate is believed in two cases. It stands out from all that failed, whose
# least cosines to codewords scatter by about .01; or it is so near as only the truth comes.
_DEVIATIONS: Final = 8.0
_SURE: Final = 0.985
_LEAST_NORM: Final = 1e-12


class _Issue(NamedTuple):
    """helper: (N, n), on the device."""

    helper: Any
    alpha: int


def recover_from_issues(
    helpers: Sequence[F32] | F32,
    alpha: int | Sequence[int],
    rng: np.random.Generator,
    *,
    limit: int = 1 << 17,
    seconds: float = float("inf"),
    confirm: Confirm | None = None,
    device: str = CPU,
    structure: Structure = Structure.REAL,
) -> Recovered:
    """Look for what two or more issues of one person were made from.

    helpers: b of (N, n) float32, decoded. alpha: non-zero entries of a codeword. Both may differ
    between issues, as those of two settings do. structure: of the helpers, `real` where they
    differ. limit, seconds: the attack gives up after so many starts, or so long. confirm: for
    thieves who can compute digests; otherwise a point is believed if it lies unusually near to
    codewords of all issues. device: see `ironmask.accelerator`. Each template of the result is that
    of its own issue, exact but for the helper's encoding.

    Raises `ParameterError` for fewer than two issues, `ProviderError` for an absent device.
    """
    require_issues(helpers)
    on = accelerator(device)
    began, trials, best = time.perf_counter(), 0, 0.0
    alphas = [alpha] * len(helpers) if isinstance(alpha, int) else list(alpha)
    stolen = [_Issue(on.upload(p), own) for p, own in zip(helpers, alphas, strict=True)]
    for starts in _starts(on, stolen, rng):
        some = starts[: limit - trials]
        trials += len(some)
        x, scores = _tried(on, stolen, some)
        first = int(scores.argmax())
        best = max(best, float(scores[first]))
        nearest = on.download(x[first, :])
        issues = zip(helpers, alphas, strict=True)
        codes = [codeword.decode(p @ nearest, own)[0] for p, own in issues]
        right = believed(codes, _stands_out(scores), confirm, structure)
        spent = time.perf_counter() - began
        if right is not None:
            found = tuple(template_of(p, code) for p, code in zip(helpers, right, strict=True))
            return Recovered(found, trials, spent, best, structure=structure)
        if trials >= limit or spent >= seconds:
            break
    spent = time.perf_counter() - began
    return Recovered((), trials, spent, best, out_of_time=trials < limit, structure=structure)


def _tried(on: Accelerator, issues: Sequence[_Issue], starts: Any) -> tuple[Any, F32]:
    """Follow starts, (k, n), the best few to the end; return these and their scores."""
    shapes = [(len(starts), issue.helper.shape[0]) for issue in issues]
    none = [on.xp.zeros(shape, dtype=on.xp.float32, device=on.device) for shape in shapes]
    x, messages = _exchanged(on, issues, starts, none, _FIRST)
    scores = _scores(on, issues, x)
    kept = on.upload(np.argsort(-scores, kind="stable")[: max(1, len(scores) // _KEPT)])
    messages = [on.xp.take(one, kept, axis=0) for one in messages]
    x, _ = _exchanged(on, issues, on.xp.take(x, kept, axis=0), messages, _SECOND)
    return x, _scores(on, issues, x)


def _stands_out(scores: F32) -> bool:
    """Whether the best score is no chance, by the median and the median absolute deviation."""
    middle = float(np.median(scores))
    deviation = 1.4826 * float(np.median(np.abs(scores - middle)))
    return bool(scores.max() >= min(_SURE, middle + _DEVIATIONS * deviation))


def _starts(on: Accelerator, issues: Sequence[_Issue], rng: np.random.Generator) -> Iterator[Any]:
    """Sums and differences of rows of two different issues, (k, n) float32 at a time."""
    count = _STARTS if on.is_host else _DEVICE_STARTS
    rows = on.xp.concat([issue.helper for issue in issues])
    ends = np.cumsum([issue.helper.shape[0] for issue in issues])
    begins = np.append(0, ends[:-1])
    while True:
        first = rng.integers(0, len(issues), count)
        second = (first + rng.integers(1, len(issues), count)) % len(issues)
        signs = rng.choice(np.array([-1, 1], dtype=np.float32), count)[:, None]
        one, other = (rng.integers(begins[which], ends[which]) for which in (first, second))
        added = on.xp.take(rows, on.upload(other), axis=0) * on.upload(signs)
        yield on.xp.take(rows, on.upload(one), axis=0) + added


def _exchanged(
    on: Accelerator, issues: Sequence[_Issue], x: Any, messages: list[Any], iterations: int
) -> tuple[Any, list[Any]]:
    """Exchange messages, (k, N) of each issue, with estimates, (k, n); return the last estimates
    and messages.
    """
    for _ in range(iterations):
        total = on.xp.zeros_like(x)
        for b, (p, alpha) in enumerate(issues):
            u = x @ p.T
            u -= messages[b]
            messages[b] = _keep_largest(on, u, alpha)
            total += messages[b] @ p
        x = total
    return x, messages


def _keep_largest(on: Accelerator, u: Any, alpha: int) -> Any:
    """Keep the alpha largest entries of each row, at unit length; the rest becomes zero."""
    size = on.xp.abs(u)
    u = u * (size >= on.least_of_largest(size, alpha))
    u /= _norms(on, u)
    return u


def _norms(on: Accelerator, rows: Any) -> Any:
    return on.xp.sqrt(on.xp.sum(rows * rows, axis=1, keepdims=True)) + _LEAST_NORM


def _scores(on: Accelerator, issues: Sequence[_Issue], x: Any) -> F32:
    """The least cosine of each estimate, (k, n), to its nearest codeword of each issue: (k,)."""
    x = x / _norms(on, x)
    cosines = []
    for p, alpha in issues:
        size = on.xp.abs(x @ p.T)
        cosines.append(on.download(on.sum_of_largest(size, alpha)) / np.sqrt(alpha))
    least: F32 = np.min(cosines, axis=0)
    return least
