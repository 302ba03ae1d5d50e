"""The difference of two recognisers on the same comparisons."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from scipy.special import stdtr, stdtrit

from ironmask.errors import ProtocolError
from ironmask.metrics.counts import PairCounts, SubjectCounts
from ironmask.metrics.intervals import LEVEL, Interval, small_sample


@dataclass(frozen=True, slots=True)
class Difference:
    """value: the first rate minus the second. p: two-sided, for the hypothesis of no difference."""

    value: float
    interval: Interval
    p: float


_Counts = TypeVar("_Counts", SubjectCounts, PairCounts)


def mcnemar(one: _Counts, other: _Counts) -> Difference:
    """McNemar's test for comparisons that share subjects.

    The statistic is the difference of the two error rates over its standard error by identity
    clusters, against Student's t (Durkalski et al., Statistics in Medicine 22, 2003; McNemar,
    Psychometrika 12, 1947). With one comparison a subject it is McNemar's own statistic.

    Raises `ProtocolError` where the two have other comparisons, or none.
    """
    if type(one) is not type(other):
        raise ProtocolError("genuine and impostor comparisons have no common difference")
    difference = one.minus(other)
    if not difference.trials:
        raise ProtocolError("a difference over no comparisons: add some, or leave it out")
    value = difference.errors / difference.trials
    _, freedom = small_sample(difference, value)
    # Without a difference, the residuals are the differences themselves.
    null = _deviation(difference, 0.0)
    p = float(2 * stdtr(freedom, -abs(value) / null)) if null else 1.0
    half = float(stdtrit(freedom, (1 + LEVEL) / 2)) * _deviation(difference, value)
    return Difference(value, Interval(max(value - half, -1.0), min(value + half, 1.0)), p)


def _deviation(counts: SubjectCounts | PairCounts, rate: float) -> float:
    moments = counts.weighted(np.ones((1, counts.subjects)), rate)
    return math.sqrt(float(moments.variance[0]))
