"""The codeword parts that a probe is tried as: list decoding (Kim et al. 2021, supplement D.1).

A row stores digests of the signed m-subsets of its codeword, m = alpha - tolerance. A probe, with
u = P t', is tried as many signed m-subsets: those of the alpha largest |u_j|, and then the most
likely ones beyond. If noise has no direction, a subset is more likely the larger the sum of its
|u_j| is. More tries cost a verification some milliseconds. A thief of the row gains nothing from
them, because the row stays the same.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import combinations, islice
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from ironmask.arrays import F64, I32, Floats
from ironmask.errors import ParameterError, TemplateError
from ironmask.params import Params

SEARCH: Final = 8192
"""The number of subsets that a probe is tried as, unless the alpha largest entries give more."""

REACH: Final = 128
"""No subset holds an entry of a higher rank."""


def subsets(u: Floats, params: Params) -> I32:
    """The signed m-subsets that a probe is tried as, each sorted by place: (count, m) int32.

    u: (N,), finite. A larger |u_j| comes first; of equal ones, the lower place.
    """
    if not np.isfinite(u).all():
        raise TemplateError("not_finite", "a vector to decode holds values that are not finite")
    ranks = patterns(params)
    order = np.argsort(-np.abs(u), kind="stable")[: ranks.max() + 1]
    signed = np.where(u[order] < 0, -(order + 1), order + 1).astype(np.int32)
    tried = signed[ranks]
    by_place = np.argsort(np.abs(tried), axis=1)
    return np.take_along_axis(tried, by_place, axis=1)


@lru_cache(maxsize=32)
def patterns(params: Params) -> NDArray[np.intp]:
    """Ranks of the subsets that are tried, each increasing: (count, m).

    First come all m-subsets of the alpha first ranks. Then, up to `SEARCH` in all, come those with
    the largest sums of average |u_j| at their ranks, for u without direction. These averages are
    half-normal order statistics, approximated by the quantiles 1 - (r + 1/2) / N (Blom, 1958).
    The ranks depend on no probe, so they are found once.
    """
    m = params.match_size
    within = list(combinations(range(params.alpha), m))
    reach = min(params.code_width, REACH)
    size = ndtri(1 - (np.arange(reach) + 0.5) / (2 * params.code_width))
    known = set(within)
    further = (subset for subset in best_subsets(size, m) if subset not in known)
    found = np.array([*within, *islice(further, max(0, SEARCH - len(within)))], dtype=np.intp)
    found.flags.writeable = False
    return found


@lru_cache(maxsize=32)
def accepting(params: Params) -> frozenset[tuple[int, ...]]:
    """The patterns as a set: a probe is accepted if its first m right ranks are in it.

    With each pattern, the set holds all patterns of lower ranks; so these m ranks decide.
    """
    return frozenset(map(tuple, patterns(params).tolist()))


def accepted(ranks: NDArray[np.intp], params: Params) -> NDArray[np.bool_]:
    """Which probes are accepted, by the ranks of the codeword's places among all |u_j|.

    ranks: (k, alpha), increasing in each row; N where the sign is wrong. Returns (k,).
    """
    known = accepting(params)
    some = map(tuple, ranks[:, : params.match_size].tolist())
    return np.fromiter((first in known for first in some), dtype=np.bool_, count=len(ranks))


def nearest(u: Floats, alpha: int, count: int) -> I32:
    """The codewords with the largest inner products with u, in that order: (count, alpha) int32.

    u: (n,), finite. The first one is `codeword.decode`'s. Fewer come where fewer exist. Between
    equal inner products the order is fixed but arbitrary.
    """
    u = np.asarray(u, dtype=np.float64)
    if u.ndim != 1 or not np.isfinite(u).all():
        raise TemplateError("not_finite", "list decoding takes one vector of finite values")
    if not 1 <= alpha <= len(u) or count < 1:
        raise ParameterError(f"alpha {alpha} of width {len(u)}, {count} codewords: out of range")
    # Each place stands twice: with its own sign, and much later with the other sign.
    places = np.argsort(-np.abs(u), kind="stable")
    signed = np.where(u[places] < 0, -(places + 1), places + 1)
    items = np.concatenate([signed, -signed[::-1]])
    size = np.abs(u[places])
    values = np.concatenate([size, -size[::-1]])
    chosen = (items[list(subset)] for subset in best_subsets(values, alpha))
    found = (c for c in chosen if len(set(np.abs(c))) == alpha)
    codes = np.array(list(islice(found, count)), dtype=np.int32).reshape(-1, alpha)
    order = np.argsort(np.abs(codes), axis=1)
    return np.take_along_axis(codes, order, axis=1)


def best_subsets(values: F64 | Sequence[float], size: int) -> Iterator[tuple[int, ...]]:
    """Index sets of `size` values, by decreasing sum. The values must not increase.

    Each set but the first has one parent. In the parent, the first index that is not at its own
    place stands one earlier. The parent's sum is no smaller, so a heap of children meets each set
    once, and in order (Lawler, Management Science 18, 1972).
    """
    kept = [float(value) for value in values]
    first = tuple(range(size))
    heap = [(-sum(kept[:size]), first)]
    while heap:
        negative, subset = heapq.heappop(heap)
        yield subset
        moved = next((j for j in range(size) if subset[j] != j), size)
        for j in (moved, moved - 1):
            if not 0 <= j < size:
                continue
            index = subset[j] + 1
            if index < (subset[j + 1] if j + 1 < size else len(kept)):
                child = (*subset[:j], index, *subset[j + 1 :])
                heapq.heappush(heap, (negative + kept[index - 1] - kept[index], child))
