"""Kept comparisons of one case, and what errors among them mean for the subjects they share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ironmask.metrics import (
    ClusterSize,
    PairCounts,
    Rate,
    SubjectCounts,
    Trials,
    nearest_clusters,
    rate,
)

Index = NDArray[np.intp]


@dataclass(frozen=True)
class Errors:
    """Kept comparisons by column, and what errors among them mean for their subjects. floor: cosine
    from which all impostors are kept.
    """

    genuine: dict[str, NDArray[Any]]
    impostor: dict[str, NDArray[Any]]
    subject: Index
    template: Index
    trials: Trials
    rng: np.random.Generator
    floor: float

    def refused(self, is_error: NDArray[np.bool_]) -> SubjectCounts:
        """Genuine comparisons that are errors, by subject."""
        owner = self.template[self.genuine["template"]]
        possible = np.bincount(owner, minlength=self.trials.subjects)
        wrong = np.bincount(owner[is_error], minlength=self.trials.subjects)
        # The others say nothing of this rate.
        asked = possible > 0
        return SubjectCounts.of(wrong[asked], possible[asked])

    def accepted(self, is_error: NDArray[np.bool_]) -> PairCounts:
        """Impostor comparisons that are errors, by pair of subjects."""
        first = self.template[self.impostor["template"][is_error]]
        second = self.subject[self.impostor["probe"][is_error]]
        return PairCounts.of(first, second, np.ones(len(first), dtype=int), self.trials)

    def rate(self, counts: PairCounts | SubjectCounts) -> Rate:
        """With clusters as large as those of the cosine's own errors, where they are more."""
        is_impostor = isinstance(counts, PairCounts)
        size = self._accepted_together if is_impostor else self._refused_together
        return rate(counts, self.rng, size=size)

    @cached_property
    def _accepted_together(self) -> ClusterSize | None:
        """Of the impostors with the highest cosines."""
        first = self.template[self.impostor["template"]]
        second = self.subject[self.impostor["probe"]]
        pair = np.minimum(first, second) * self.trials.subjects + np.maximum(first, second)
        above = np.flatnonzero(self.impostor["cosine"] >= self.floor)
        worst = _worst(-self.impostor["cosine"][above], pair[above], self.trials.pairs_compared)
        is_error = np.zeros(len(pair), dtype=bool)
        is_error[above[worst]] = True
        return ClusterSize.of(self.accepted(is_error))

    @cached_property
    def _refused_together(self) -> ClusterSize | None:
        """Of the genuine comparisons with the lowest cosines."""
        owner = self.template[self.genuine["template"]]
        is_error = np.zeros(len(owner), dtype=bool)
        is_error[_worst(self.genuine["cosine"], owner, len(np.unique(owner)))] = True
        return ClusterSize.of(self.refused(is_error))

    def refused_at(self, threshold: float) -> SubjectCounts:
        return self.refused(self.genuine["cosine"].astype(np.float64) < threshold)


def _worst(
    score: NDArray[np.floating[Any]], cluster: NDArray[np.int64], clusters: int
) -> NDArray[np.intp]:
    """Places of the lowest scores, as many as `nearest_clusters` asks for."""
    order = np.argsort(score, kind="stable")
    return order[nearest_clusters(cluster[order], clusters)]


def side(table: pa.Table, genuine: bool) -> dict[str, NDArray[Any]]:
    some = table.filter(pc.equal(table["genuine"], genuine))
    return {name: some[name].to_numpy() for name in some.column_names}


def accepts(kept: dict[str, NDArray[Any]], number: int, tolerance: int) -> NDArray[np.bool_]:
    """Comparisons that a setting accepts at a tolerance."""
    bits: NDArray[np.bool_] = (kept[f"tolerances_{number}"] >> tolerance) & 1 == 1
    return bits
