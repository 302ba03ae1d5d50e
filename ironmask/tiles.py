"""Who is accepted among many templates times many probes, without the full products.

An evaluator knows the codewords. A probe that a template accepts has the codeword's signs in at
least alpha - tolerance places of the support, so the alpha rows of P on the support, of n, refuse
most impostors. A few more rows refuse nearly all others: the least of those places must lie among
the alpha largest, and these witnesses show that it does not. Both screens leave room for rounding
and can only refuse. What they let through is decided by the full product, with more digits
where it is close, so the result is that of full products, however the pairs are cut into tiles.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ironmask import codeword
from ironmask.arrays import F32, I32, U8
from ironmask.params import Params

# Far above the rounding of products of unit vectors in float32, far below a typical entry.
_SLACK: Final = np.float32(1e-5)
_WITNESSES: Final = 16
# Probes at once: the products of a few templates stay in the cache.
_PROBES: Final = 4096
_TEMPLATES: Final = 32


@dataclass(frozen=True, slots=True)
class Screen:
    """What refuses probes of one template.

    code: (alpha,) int32. support: (alpha, n) float32, the rows of P on the support times the
    codeword's signs. witnesses: (16, n) float32, other rows of P.
    """

    code: I32 = field(repr=False)
    support: F32 = field(repr=False)
    witnesses: F32 = field(repr=False)


def screen(p: F32, code: I32) -> Screen:
    """The screen of a template with helper P, (n, n) float32, and codeword (alpha,) int32."""
    places = np.abs(code) - 1
    signs = np.sign(code).astype(np.float32)[:, None]
    others = np.setdiff1d(np.arange(len(p)), places)[:_WITNESSES]
    return Screen(code, p[places] * signs, p[others])


@dataclass(frozen=True, slots=True)
class Accepted:
    """Accepted pairs: indices of templates and of probes, and the places in which they agree.

    Three (k,) arrays, ordered by template and then by probe.
    """

    template: NDArray[np.intp]
    probe: NDArray[np.intp]
    agreement: NDArray[np.intp]


def accepted(
    screens: Sequence[Screen], helper: Callable[[int], F32], probes: F32, params: Params
) -> Accepted:
    """Find all pairs of templates and probes that agree in at least alpha - tolerance places.

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
    pairs = np.concatenate([np.empty((3, 0), dtype=np.intp), *found], axis=1)
    template, probe, agreement = pairs[:, np.lexsort((pairs[1], pairs[0]))]
    return Accepted(template, probe, agreement)


def _block(
    screens: Sequence[Screen],
    helper: Callable[[int], F32],
    probes: F32,
    params: Params,
    first: int,
    start: int,
    scratch: F32,
) -> NDArray[np.intp]:
    """Accepted pairs of one block, rows template, probe and agreement: (3, k)."""
    some, part = screens[first : first + _TEMPLATES], probes[start : start + _PROBES]
    support = np.concatenate([one.support for one in some])
    product = scratch[: len(support) * len(part)].reshape(len(support), len(part))
    np.matmul(support, part.T, out=product)
    values = product.reshape(len(some), params.alpha, len(part))
    right = _count(values > -_SLACK) >= params.match_size
    found = []
    for index in map(int, np.flatnonzero(right.any(axis=1))):
        one, left = some[index], np.flatnonzero(right[index])
        left = left[_among_largest(values[index][:, left], one.witnesses @ part[left].T, params)]
        if len(left):
            agreement = _agreement(helper(first + index), one.code, part[left])
            is_match = agreement >= params.match_size
            matches = left[is_match] + start
            found.append([np.full_like(matches, first + index), matches, agreement[is_match]])
    return np.concatenate([np.empty((3, 0), dtype=np.intp), *map(np.stack, found)], axis=1)


def _count(flags: NDArray[np.bool_]) -> U8:
    """True values along the middle axis; alpha is at most 128."""
    counts: U8 = flags.view(np.uint8).sum(axis=1, dtype=np.uint8)
    return counts


def _among_largest(values: F32, others: F32, params: Params) -> NDArray[np.bool_]:
    """Whether enough places of the support may be among the alpha largest.

    values: (alpha, k), signed so that a right place is positive. others: (w, k), any other
    entries. The least place that is needed is the (alpha - tolerance)-th largest of the right
    ones: too many entries beyond it refuse the probe.
    """
    needed = params.match_size
    least = np.partition(values, params.alpha - needed, axis=0)[params.alpha - needed]
    limit = np.maximum(least, 0) + _SLACK
    beyond = (values < -limit).sum(axis=0) + (np.abs(others) > limit).sum(axis=0)
    may: NDArray[np.bool_] = needed - 1 + beyond < params.alpha
    return may


def _agreement(p: F32, code: I32, probes: F32) -> NDArray[np.intp]:
    """Places in which the decoded probes, (k, n), agree with a codeword: (k,)."""
    u = probes @ p.T
    alpha, n = len(code), u.shape[1]
    agreement = codeword.agreement(codeword.decode(u, alpha), code)
    if alpha < n:
        # Where rounding may decide which entries are the largest, more digits do.
        edge = np.partition(np.abs(u), [n - alpha - 1, n - alpha], axis=1)
        close = edge[:, n - alpha] - edge[:, n - alpha - 1] < _SLACK
        exact = probes[close].astype(np.float64) @ p.T.astype(np.float64) if close.any() else u[:0]
        agreement[close] = codeword.agreement(codeword.decode(exact, alpha), code)
    return agreement
