"""Rates over all thresholds, from counts of scores rather than from the scores themselves.

Counts add up: the tiles of a large evaluation give the same result in any order. Count scores as
they are, or in bins; with bins, every rate is exact at the bins' lower edges.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ironmask.arrays import F64
from ironmask.errors import ParameterError, ProtocolError

Numbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """Scores from the threshold on are accepted."""

    threshold: float
    fmr: float
    fnmr: float


@dataclass(frozen=True)
class ScoreCounts:
    """How many genuine and impostor comparisons have each score.

    thresholds: (b,) float64, increasing. genuine, impostor: (b,) int64, the comparisons whose score
    is that threshold, or lies between it and the next one.
    """

    thresholds: F64
    genuine: Numbers
    impostor: Numbers

    def __post_init__(self) -> None:
        if not len(self.thresholds) == len(self.genuine) == len(self.impostor):
            raise ProtocolError("thresholds and numbers of comparisons are not equally many")
        if not (np.diff(self.thresholds) > 0).all() or not np.isfinite(self.thresholds).all():
            raise ProtocolError("thresholds must be finite and increase")
        for name, numbers in (("genuine", self.genuine), ("impostor", self.impostor)):
            if (numbers < 0).any():
                raise ProtocolError(f"a number of {name} comparisons is negative")
            if not numbers.any():
                raise ProtocolError(
                    f"there is no {name} comparison, so no rate of {name} errors: check that the "
                    "labels tell one person from another"
                )

    @classmethod
    def of(cls, genuine: ArrayLike, impostor: ArrayLike) -> ScoreCounts:
        """From the scores themselves, (g,) and (i,); higher means more alike.

        Raises `ProtocolError` for an empty class or scores that are not finite.
        """
        both = [np.asarray(scores, dtype=np.float64).ravel() for scores in (genuine, impostor)]
        thresholds = np.unique(np.concatenate(both))
        numbers = [
            np.bincount(np.searchsorted(thresholds, s), minlength=len(thresholds)) for s in both
        ]
        return cls(thresholds, numbers[0].astype(np.int64), numbers[1].astype(np.int64))

    @cached_property
    def fmr(self) -> F64:
        """Share of impostor comparisons that each threshold accepts: (b,), decreasing."""
        share: F64 = np.cumsum(self.impostor[::-1])[::-1] / self.impostor.sum()
        return share

    @cached_property
    def fnmr(self) -> F64:
        """Share of genuine comparisons that each threshold refuses: (b,), increasing."""
        share: F64 = (np.cumsum(self.genuine) - self.genuine) / self.genuine.sum()
        return share

    def at_fmr(self, fmr: float) -> OperatingPoint:
        """The lowest threshold whose FMR is at most the given one.

        If no score qualifies, it is a threshold above all scores, which refuses every comparison.
        """
        if not 0 <= fmr <= 1:
            raise ParameterError(f"FMR {fmr} must lie in 0..1")
        place = int(np.searchsorted(-self.fmr, -fmr))
        if place == len(self.thresholds):
            return OperatingPoint(float("inf"), 0.0, 1.0)
        return self.at(place)

    def at(self, place: int) -> OperatingPoint:
        """The operating point of one threshold, by its index."""
        return OperatingPoint(*(float(v[place]) for v in (self.thresholds, self.fmr, self.fnmr)))

    def accepted(self, threshold: float) -> int:
        """Impostor comparisons that a threshold accepts."""
        return int(self.impostor[self.thresholds >= threshold].sum())

    @cached_property
    def eer(self) -> float:
        """Equal error rate: the mean of FMR and FNMR where they are closest."""
        place = int(np.argmin(np.abs(self.fmr - self.fnmr)))
        return float(self.fmr[place] + self.fnmr[place]) / 2
