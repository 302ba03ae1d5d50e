"""Who is accepted among many templates times many probes, without the full products.

An evaluator knows the codewords. A probe that a template accepts has the codeword's signs in at
least alpha - tolerance places of the support. So the alpha rows of P on the support, out of N,
refuse most impostors. A few more rows, the witnesses, refuse nearly all others. They test the
j-th largest of those places: no subset that probes are tried as has its j-th entry further down
than a known rank among all entries. Enough larger witnesses show that this place is. Both screens
leave room for rounding and can only refuse. The full product decides the rest, with more digits
where values are close. So the result is that of full products, however the pairs are cut into
tiles.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ironmask import candidates
from ironmask.arrays import F32, I32, U8, Floats
from ironmask.params import Params

# Far above the rounding of float32 products of unit vectors, far below a typical entry.
_SLACK: Final = np.float32(1e-5)
# Ten times the usual rounding error.
_CLOSE: Final = np.float32(2e-6)
_WITNESSES: Final = 40
# So many witnesses must refuse a probe; for an impostor more than half of them do.
_REFUSING: Final = 16
# Probes at once: their products with a few templates stay in the cache.
_PROBES: Final = 4096
_TEMPLATES: Final = 32
# Probes that are ranked at once: their differences stay in the cache.
_RANKED: Final = 16


@dataclass(frozen=True, slots=True)
class Screen:
    """The rows that refuse probes of one template.

    code: (alpha,) int32. support: (alpha, n) float32, the rows of P on the support times the
    codeword's signs. witnesses: (w, n) float32, other rows of P.
    """

    code: I32 = field(repr=False)
    support: F32 = field(repr=False)
    witnesses: F32 = field(repr=False)


def screen(p: F32, code: I32) -> Screen:
    """The screen of a template with helper P, (N, n) float32, and codeword (alpha,) int32."""
    places = np.abs(code) - 1
    signs = np.sign(code).astype(np.float32)[:, None]
    others = np.setdiff1d(np.arange(len(p)), places)[:_WITNESSES]
    return Screen(code, p[places] * signs, p[others])


@dataclass(frozen=True, slots=True)
class Accepted:
    """Pairs that some tolerance accepts, in order of template, then probe; (k,) each.

    template, probe: indices. agreement: places in which codeword and decoded probe agree.
    tolerances: bit e is set where tolerance e accepts.
    """

    template: NDArray[np.intp]
    probe: NDArray[np.intp]
    agreement: NDArray[np.intp]
    tolerances: NDArray[np.intp]


def accepted(
    screens: Sequence[Screen], helper: Callable[[int], F32], probes: F32, params: Params
) -> Accepted:
    """Find all pairs of templates and probes that match at params.tolerance or a smaller one.

    helper: gives P, (N, n) float32, of the template at an index. Called only for the few needed.
    probes: (m, n) float32, of unit length.
    """
    # One buffer for all blocks: fresh pages would cost as much as the product.
    values = np.empty(_TEMPLATES * params.alpha * _PROBES, dtype=np.float32)
    found = [
        _block(screens, helper, probes, params, first, start, values)
        for first in range(0, len(screens), _TEMPLATES)
        for start in range(0, len(probes), _PROBES)
    ]
    pairs = np.concatenate([np.empty((4, 0), dtype=np.intp), *found], axis=1)
    return Accepted(*pairs[:, np.lexsort((pairs[1], pairs[0]))])


def judge(
    p: F32, code: I32, probes: F32, params: Params
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Judge each probe, (k, n): count the places that agree, and find the tolerances that accept.

    Returns both as (k,), the tolerances as bits up to params.tolerance; see `Accepted`.
    """
    places = np.abs(code) - 1
    u: Floats = probes @ p.T
    right, ranks, close = _ranked(u, code, places)
    if close.any():
        # Rounding may decide which entries are larger: compute these with more digits.
        u = probes[close].astype(np.float64) @ p.T.astype(np.float64)
        right[close], ranks[close], _ = _ranked(u, code, places)
    ranks = np.where(right, ranks, len(p))
    agreement = (ranks < len(code)).sum(axis=1)
    ranks.sort(axis=1)
    tolerances = np.zeros(len(probes), dtype=np.intp)
    for tolerance in range(params.tolerance + 1):
        found = candidates.accepted(ranks, replace(params, tolerance=tolerance))
        tolerances |= found.astype(np.intp) << tolerance
    return agreement, tolerances


def _ranked(
    u: Floats, code: I32, places: NDArray[np.intp]
) -> tuple[NDArray[np.bool_], NDArray[np.intp], NDArray[np.bool_]]:
    """Compare rows u, (k, N), with a codeword: signs that are right, ranks, and close rows.

    Returns whether each place of the support has the codeword's sign, (k, alpha); how many entries
    come before it, (k, alpha); and which rows rounding could decide, (k,). Larger entries come
    before smaller ones; of equal ones, the lower place.
    """
    own = u[:, places]
    right: NDArray[np.bool_] = np.where(own < 0, -1, 1) == np.sign(code)
    close: NDArray[np.bool_] = np.any(np.abs(own) < _CLOSE, axis=1, keepdims=True)[:, 0]
    ranks = np.empty(own.shape, dtype=np.intp)
    lower = np.arange(u.shape[1]) < places[:, None]
    for start in range(0, len(u), _RANKED):
        part = slice(start, start + _RANKED)
        size = np.abs(u[part])
        ahead = size[:, None, :] - np.abs(own[part])[:, :, None]
        ranks[part] = np.count_nonzero((ahead > 0) | ((ahead == 0) & lower), axis=2)
        near = np.count_nonzero(np.abs(ahead, out=ahead) < _CLOSE, axis=2) > 1
        # No probe is tried with ranks beyond REACH.
        close[part] |= (near & right[part] & (ranks[part] <= candidates.REACH)).any(axis=1)
    return right, ranks, close


@lru_cache(maxsize=32)
def _reach(params: Params) -> tuple[int, int]:
    """A place j, from 1 on, and how far down the j-th largest right entry of a match can lie.

    It holds at any tolerance up to that of params. j is the last place for which no more than
    `_REFUSING` witnesses suffice to refuse a probe.
    """
    every = [replace(params, tolerance=e) for e in range(params.tolerance + 1)]
    m = params.match_size
    ends = np.max([candidates.patterns(some)[:, :m].max(axis=0) for some in every], axis=0) + 1
    enough = np.flatnonzero(ends - np.arange(m) <= _REFUSING)
    last = int(enough[-1]) if len(enough) else 0
    return last + 1, int(ends[last])


def _block(
    screens: Sequence[Screen],
    helper: Callable[[int], F32],
    probes: F32,
    params: Params,
    first: int,
    start: int,
    scratch: F32,
) -> NDArray[np.intp]:
    """Accepted pairs of one block, rows as the fields of `Accepted`: (4, k)."""
    some, part = screens[first : first + _TEMPLATES], probes[start : start + _PROBES]
    support = np.concatenate([one.support for one in some])
    product = scratch[: len(support) * len(part)].reshape(len(support), len(part))
    np.matmul(support, part.T, out=product)
    values = product.reshape(len(some), params.alpha, len(part))
    right = _count(values > -_SLACK) >= params.match_size
    found = []
    for index in map(int, np.flatnonzero(right.any(axis=1))):
        one, left = some[index], np.flatnonzero(right[index])
        others = one.witnesses @ part[left].T
        left = left[_among_largest(values[index][:, left], others, *_reach(params))]
        if len(left):
            agreement, tolerances = judge(helper(first + index), one.code, part[left], params)
            is_match = tolerances > 0
            matches = left[is_match] + start
            template = np.full_like(matches, first + index)
            found.append([template, matches, agreement[is_match], tolerances[is_match]])
    return np.concatenate([np.empty((4, 0), dtype=np.intp), *map(np.stack, found)], axis=1)


def _count(flags: NDArray[np.bool_]) -> U8:
    """True values along the middle axis. alpha is at most 128, so uint8 holds the count."""
    counts: U8 = flags.view(np.uint8).sum(axis=1, dtype=np.uint8)
    return counts


def _among_largest(values: F32, others: F32, j: int, reach: int) -> NDArray[np.bool_]:
    """Whether the j-th largest right place of the support may be among the `reach` largest.

    values: (alpha, k), signed so that a right place is positive. others: (w, k), any other
    entries. Too many entries larger than that place refuse the probe.
    """
    alpha = len(values)
    least = np.partition(values, alpha - j, axis=0)[alpha - j]
    limit = np.maximum(least, 0) + _SLACK
    beyond = (values < -limit).sum(axis=0) + (np.abs(others) > limit).sum(axis=0)
    may: NDArray[np.bool_] = j - 1 + beyond < reach
    return may
