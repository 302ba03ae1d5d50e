"""Comparisons with their cosines, and what errors among them mean for the subjects they share."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ironmask.arrays import Floats
from ironmask.metrics.bounds import ClusterSize, nearest_clusters
from ironmask.metrics.counts import PairCounts, SubjectCounts
from ironmask.metrics.trials import Trials

Index = NDArray[np.intp]


@dataclass(frozen=True)
class Kept:
    """All genuine comparisons, and the impostors that are kept one by one.

    genuine, owner: (g,) cosines and subjects. impostor, first, second: (i,) cosines and both
    subjects. trials: of all impostors. floor: from this cosine on all impostors are kept.
    """

    genuine: Floats = field(repr=False)
    owner: Index = field(repr=False)
    impostor: Floats = field(repr=False)
    first: Index = field(repr=False)
    second: Index = field(repr=False)
    trials: Trials = field(repr=False)
    floor: float

    def refused(self, is_error: NDArray[np.bool_]) -> SubjectCounts:
        """Genuine comparisons that are errors, (g,) bool, by subject."""
        possible = np.bincount(self.owner, minlength=self.trials.subjects)
        wrong = np.bincount(self.owner[is_error], minlength=self.trials.subjects)
        # The others say nothing of this rate.
        asked = possible > 0
        return SubjectCounts.of(wrong[asked], possible[asked])

    def accepted(self, is_error: NDArray[np.bool_]) -> PairCounts:
        """Impostor comparisons that are errors, (i,) bool, by pair of subjects."""
        first, second = self.first[is_error], self.second[is_error]
        return PairCounts.of(first, second, np.ones(len(first), dtype=int), self.trials)

    def refused_at(self, threshold: float) -> SubjectCounts:
        """Genuine comparisons with a lower cosine."""
        return self.refused(self.genuine.astype(np.float64) < threshold)

    def accepted_at(self, threshold: float) -> PairCounts:
        """Impostor comparisons with that cosine or a higher one."""
        return self.accepted(self.impostor.astype(np.float64) >= threshold)

    @cached_property
    def accepted_together(self) -> ClusterSize | None:
        """How many of the impostors with the highest cosines come together."""
        count = self.trials.subjects
        pair = np.minimum(self.first, self.second) * count + np.maximum(self.first, self.second)
        above = np.flatnonzero(self.impostor >= self.floor)
        worst = _worst(-self.impostor[above], pair[above], self.trials.pairs_compared)
        is_error = np.zeros(len(pair), dtype=bool)
        is_error[above[worst]] = True
        return ClusterSize.of(self.accepted(is_error))

    @cached_property
    def refused_together(self) -> ClusterSize | None:
        """How many of the genuine comparisons with the lowest cosines come together."""
        is_error = np.zeros(len(self.owner), dtype=bool)
        is_error[_worst(self.genuine, self.owner, len(np.unique(self.owner)))] = True
        return ClusterSize.of(self.refused(is_error))


def _worst(score: Floats, cluster: Index, clusters: int) -> Index:
    """Places of the lowest scores, as many as `nearest_clusters` asks for."""
    order = np.argsort(score, kind="stable")
    return order[nearest_clusters(cluster[order], clusters)]
