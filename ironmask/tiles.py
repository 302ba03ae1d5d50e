"""Who is accepted among many templates times many probes, without the full products.

An evaluator knows the codewords. A probe that a template accepts has the codeword's signs in at
least alpha - tolerance places of the support, so the alpha rows of P on the support, of n, refuse
most impostors. Some more rows refuse nearly all others: the least of those places must lie among
the largest entries, as far down as probes are tried, and these witnesses show that it does not.
Both screens leave room for rounding and can only refuse. What they let through is decided by the
full product in float64, so the result is that of full products, however the pairs are cut into
tiles.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ironmask import candidates
from ironmask.arrays import F32, F64, I32, U8
from ironmask.params import Params

# Far above the rounding of products of unit vectors in float32, far below a typical entry.
_SLACK: Final = np.float32(1e-5)
# Witnesses for each entry down to which a probe is tried: enough that half of them refuse it.
_WITNESSES: Final = 2
# Probes at once: the products of a few templates stay in the cache.
_PROBES: Final = 4096
_TEMPLATES: Final = 32


@dataclass(frozen=True, slots=True)
class Screen:
    """What refuses probes of one template.

    code: (alpha,) int32. support: (alpha, n) float32, the rows of P on the support times the
    codeword's signs. witnesses: (w, n) float32, other rows of P.
    """

    code: I32 = field(repr=False)
    support: F32 = field(repr=False)
    witnesses: F32 = field(repr=False)


def screen(p: F32, code: I32, params: Params) -> Screen:
    """The screen of a template with helper P, (n, n) float32, and codeword (alpha,) int32.

    params.tolerance: the largest one that will be looked at.
    """
    places = np.abs(code) - 1
    signs = np.sign(code).astype(np.float32)[:, None]
    others = np.setdiff1d(np.arange(len(p)), places)[: _WITNESSES * _reach(params)]
    return Screen(code, p[places] * signs, p[others])


@dataclass(frozen=True, slots=True)
class Accepted:
    """Pairs that some tolerance accepts: indices of templates and of probes, and what is accepted.

    Ordered by template and then by probe; (k,) each. agreement: places in which codeword and
    decoded probe agree. tolerances: bit e is set where tolerance e accepts.
    """

    template: NDArray[np.intp]
    probe: NDArray[np.intp]
    agreement: NDArray[np.intp]
    tolerances: NDArray[np.intp]


def accepted(
    screens: Sequence[Screen], helper: Callable[[int], F32], probes: F32, params: Params
) -> Accepted:
    """Find all pairs of templates and probes that match at params.tolerance or a smaller one.

    helper: gives P, (n, n) float32, of the template at an index; called for the few that need it.
    probes: (m, n) float32, of unit length.
    """
    # Written again for each block: fresh pages would cost as much as the product.
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
    """What becomes of each probe, (k, n): places that agree, and tolerances that accept, (k,) both.

    As bits, up to params.tolerance; see `Accepted`.
    """
    u = probes.astype(np.float64) @ p.T.astype(np.float64)
    places = np.abs(code) - 1
    right = np.where(u[:, places] < 0, -1, 1) == np.sign(code)
    ranks = np.where(right, _ranks(np.abs(u), places), u.shape[1])
    agreement = (ranks < len(code)).sum(axis=1)
    ranks.sort(axis=1)
    tolerances = np.zeros(len(probes), dtype=np.intp)
    for tolerance in range(params.tolerance + 1):
        some = Params(params.n, params.alpha, tolerance)
        known = candidates.accepting(some)
        for place, first in enumerate(map(tuple, ranks[:, : some.match_size].tolist())):
            if first in known:
                tolerances[place] |= 1 << tolerance
    return agreement, tolerances


def _ranks(size: F64, places: NDArray[np.intp]) -> NDArray[np.intp]:
    """How many entries of each row, (k, n), come before those at some places, (k, p).

    Larger ones do, and equal ones at a lower place.
    """
    ranks = np.empty((len(size), len(places)), dtype=np.intp)
    for column, place in enumerate(places):
        own = size[:, place, None]
        ranks[:, column] = (size > own).sum(axis=1) + (size[:, :place] == own).sum(axis=1)
    return ranks


@lru_cache(maxsize=32)
def _reach(params: Params) -> int:
    """How many of a probe's largest entries can matter at any tolerance up to this one."""
    every = (Params(params.n, params.alpha, e) for e in range(params.tolerance + 1))
    return 1 + max(int(candidates.patterns(some).max()) for some in every)


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
    found, reach = [], _reach(params)
    for index in map(int, np.flatnonzero(right.any(axis=1))):
        one, left = some[index], np.flatnonzero(right[index])
        others = one.witnesses @ part[left].T
        left = left[_among_largest(values[index][:, left], others, params, reach)]
        if len(left):
            agreement, tolerances = judge(helper(first + index), one.code, part[left], params)
            is_match = tolerances > 0
            matches = left[is_match] + start
            template = np.full_like(matches, first + index)
            found.append([template, matches, agreement[is_match], tolerances[is_match]])
    return np.concatenate([np.empty((4, 0), dtype=np.intp), *map(np.stack, found)], axis=1)


def _count(flags: NDArray[np.bool_]) -> U8:
    """True values along the middle axis; alpha is at most 128."""
    counts: U8 = flags.view(np.uint8).sum(axis=1, dtype=np.uint8)
    return counts


def _among_largest(values: F32, others: F32, params: Params, reach: int) -> NDArray[np.bool_]:
    """Whether enough places of the support may be among the `reach` largest.

    values: (alpha, k), signed so that a right place is positive. others: (w, k), any other
    entries. The least place that is needed is the (alpha - tolerance)-th largest of the right
    ones: too many entries beyond it refuse the probe.
    """
    needed = params.match_size
    least = np.partition(values, params.alpha - needed, axis=0)[params.alpha - needed]
    limit = np.maximum(least, 0) + _SLACK
    beyond = (values < -limit).sum(axis=0) + (np.abs(others) > limit).sum(axis=0)
    may: NDArray[np.bool_] = needed - 1 + beyond < reach
    return may
