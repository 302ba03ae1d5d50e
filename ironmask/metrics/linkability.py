"""How well a linkage function tells issues of one person from issues of two.

D_sys: Gomez-Barrero, Galbally, Rathgeb and Busch, General framework to evaluate unlinkability in
biometric template protection systems, IEEE Transactions on Information Forensics and Security 13,
2018.

Maximal linkability: Otroshi Shahreza, Shkel and Marcel, Measuring linkability of protected
biometric templates using maximal leakage, the same journal 18, 2023. It is the maximal leakage
(Issa, Wagner and Kamath, IEEE Transactions on Information Theory 66, 2020) of a score about whether
its two issues are mated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from ironmask.arrays import F64
from ironmask.errors import ProtocolError
from ironmask.metrics.intervals import LEAST_RESAMPLES, LEVEL, Interval

_MOST_BINS: Final = 100
_LEAST_BINS: Final = 10


@dataclass(frozen=True, slots=True)
class Linkability:
    """The result for one linkage function. mated, non_mated: scores counted, in so many bins.

    d_sys: 0 where scores say nothing, 1 where they say everything. maximal: bits, 0 to 1, that a
    score gives away about whether two issues are mated. Both have 95 % intervals.
    """

    mated: int
    non_mated: int
    bins: int
    d_sys: float
    d_sys_interval: Interval
    maximal: float
    maximal_interval: Interval


def linkability(
    mated: ArrayLike,
    non_mated: ArrayLike,
    rng: np.random.Generator,
    bins: int | None = None,
    resamples: int = LEAST_RESAMPLES,
) -> Linkability:
    """D_sys and maximal linkability of scores, (m,) and (k,), in equal bins over their range.

    bins: by default a tenth of the fewer scores, from 10 to 100. Intervals: percentiles of a
    bootstrap over scores. Chance alone makes both numbers larger than 0, the more so the fewer
    scores a bin has. Raises `ProtocolError` where one kind has no score, or a score is not finite.
    """
    same, other = np.asarray(mated, np.float64).ravel(), np.asarray(non_mated, np.float64).ravel()
    if not len(same) or not len(other):
        raise ProtocolError("linkability needs scores of mated and of non-mated pairs")
    if not (np.isfinite(same).all() and np.isfinite(other).all()):
        raise ProtocolError("a linkage score is not finite")
    some = min(len(same), len(other)) // 10
    count = bins or int(np.clip(some, _LEAST_BINS, _MOST_BINS))
    edges = np.histogram_bin_edges(np.concatenate([same, other]), count)
    p, q = (np.histogram(scores, edges)[0] for scores in (same, other))
    drawn = [
        rng.multinomial(counts.sum(), counts / counts.sum(), resamples) / counts.sum()
        for counts in (p, q)
    ]
    shares = p / p.sum(), q / q.sum()
    return Linkability(
        mated=len(same),
        non_mated=len(other),
        bins=count,
        d_sys=float(d_sys(*shares)),
        d_sys_interval=_percentiles(d_sys(*drawn)),
        maximal=float(maximal(*shares)),
        maximal_interval=_percentiles(maximal(*drawn)),
    )


def d_sys(p: F64, q: F64) -> F64:
    """Sum over bins of p max(0, (p - q) / (p + q)), for equal priors.

    p, q: shares of mated and of non-mated scores in each bin, (..., bins).
    """
    total = np.where(p + q > 0, p + q, 1.0)
    value: F64 = (p * np.maximum(p - q, 0) / total).sum(axis=-1)
    return value


def maximal(p: F64, q: F64) -> F64:
    """log2 of the sum over bins of max(p, q): bits; see `d_sys`."""
    value: F64 = np.log2(np.maximum(p, q).sum(axis=-1))
    return value


def _percentiles(values: F64) -> Interval:
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))
