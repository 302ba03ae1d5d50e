"""A recogniser's rates at every threshold, and the rates of a setting that follow from them.

A setting accepts a share A(cosine) of probes. A falls with the angle, so it is a mixture of
thresholds: dA of it lies at each. The FMR of the setting is then the mean of the recogniser's own
FMR over these thresholds, and so is its TAR. The ends of the intervals are averaged likewise. This
takes errors at neighbouring thresholds for wholly dependent, as they nearly are, so an interval is
rather too wide.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Self

import numpy as np

from ironmask.arrays import F64
from ironmask.metrics.bounds import ClusterSize
from ironmask.metrics.counts import Counts
from ironmask.metrics.kept import Kept
from ironmask.metrics.rates import ends
from ironmask.metrics.scores import ScoreCounts

STEPS: Final = 100
"""Thresholds in a unit of cosine."""


@dataclass(frozen=True, slots=True)
class Expected:
    """A rate that is expected, with a 95 % interval. bound: its one-sided 95 % bound from above.
    error: its standard error.
    """

    value: float
    low: float
    high: float
    bound: float
    error: float


@dataclass(frozen=True)
class Rates:
    """One rate at each threshold, (b,) float64 each; see `Expected`."""

    value: F64
    low: F64
    high: F64
    bound: F64
    error: F64

    def mixed(self, shares: F64) -> Expected:
        """The mean over thresholds, each with its share, (b,)."""
        ends = (self.value, self.low, self.high, self.bound, self.error)
        return Expected(*(float(shares @ end) for end in ends))


@dataclass(frozen=True)
class Curve:
    """A recogniser's rates at cosines from -1 to 1, in steps of .01.

    thresholds: (201,) float64. genuine, impostor: numbers of comparisons. fmr, fnmr: at these
    thresholds.
    """

    thresholds: F64
    genuine: int
    impostor: int
    fmr: Rates
    fnmr: Rates

    @classmethod
    def of(cls, kept: Kept, scores: ScoreCounts) -> Self:
        """The curve of some comparisons. scores: of all of them, in bins no wider than a step.

        Below `kept.floor` nobody knows which impostors share subjects. There the interval of the
        FMR is as wide, in proportion, as at the first threshold above.
        """
        thresholds = np.arange(-STEPS, STEPS + 1) / STEPS
        first = int(np.searchsorted(thresholds, kept.floor))
        known = _rates(thresholds[first:], kept.accepted_at, kept.accepted_together)
        lower = np.searchsorted(scores.thresholds, thresholds[:first])
        return cls(
            thresholds=thresholds,
            genuine=int(scores.genuine.sum()),
            impostor=int(scores.impostor.sum()),
            fmr=_continued(np.append(scores.fmr, 0.0)[lower], known),
            fnmr=_rates(thresholds, kept.refused_at, kept.refused_together),
        )

    def mixture(self, accepted: Callable[[F64], F64]) -> tuple[Expected, Expected]:
        """FMR and FNMR of a setting. accepted: its share of accepted probes by cosine, (b,)."""
        middles = self.thresholds + 0.5 / STEPS
        share = np.maximum.accumulate(accepted(np.minimum(middles, 1.0)))
        shares = np.diff(share, prepend=0.0)
        # What no cosine accepts is refused at every threshold.
        refused = 1 - share[-1]
        fnmr = self.fnmr.mixed(shares)
        return self.fmr.mixed(shares), Expected(
            value=fnmr.value + refused,
            low=fnmr.low + refused,
            high=fnmr.high + refused,
            bound=fnmr.bound + refused,
            error=fnmr.error,
        )

    def tar_at(self, fmr: float) -> float | None:
        """The recogniser's own TAR where its FMR is the given one, between two thresholds linear
        in the logarithm. None where no impostor tells of a threshold so strict.
        """
        some = np.flatnonzero(self.fmr.value > 0)
        rates = self.fmr.value[some][::-1]
        if not rates[0] <= fmr <= rates[-1]:
            return None
        return float(np.interp(np.log(fmr), np.log(rates), 1 - self.fnmr.value[some][::-1]))

    @property
    def least_bound(self) -> float:
        """The bound of the FMR of a threshold that accepts no impostor: what so many can tell."""
        return float(self.fmr.bound.min())


def _rates(thresholds: F64, errors: Callable[[float], Counts], size: ClusterSize | None) -> Rates:
    # From one threshold to the next errors only come, or only go: as many are the same ones.
    rows: dict[int, tuple[float, ...]] = {}
    of_each = []
    for threshold in thresholds:
        counts = errors(float(threshold))
        if counts.errors not in rows:
            rows[counts.errors] = _row(counts, size)
        of_each.append(rows[counts.errors])
    return Rates(*np.array(of_each).T)


def _row(counts: Counts, size: ClusterSize | None) -> tuple[float, ...]:
    found, interval, bound = ends(counts, size)
    error = np.sqrt(found.rate * (1 - found.rate) / found.effective)
    return found.rate, interval.low, interval.high, bound, float(error)


def _continued(below: F64, known: Rates) -> Rates:
    """The rates at lower thresholds as well, with intervals in proportion to the first known."""
    first = known.value[0]

    def lengthened(known: F64) -> F64:
        lower = below * known[0] / first if first else below + known[0]
        return np.concatenate([np.minimum(lower, 1.0), known])

    return Rates(*map(lengthened, (known.value, known.low, known.high, known.bound, known.error)))
