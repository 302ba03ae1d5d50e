"""Kept comparisons of one case, and what errors among them mean for the subjects they share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ironmask.metrics import Counts, PairCounts, Rate, SubjectCounts, Trials, rate

Index = NDArray[np.intp]


@dataclass(frozen=True)
class Errors:
    """Kept comparisons by column, and what errors among them mean for their subjects."""

    genuine: dict[str, NDArray[Any]]
    impostor: dict[str, NDArray[Any]]
    subject: Index
    template: Index
    trials: Trials
    rng: np.random.Generator

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

    def rate(self, counts: Counts) -> Rate:
        return rate(counts, self.rng)

    def refused_at(self, threshold: float) -> SubjectCounts:
        return self.refused(self.genuine["cosine"].astype(np.float64) < threshold)


def side(table: pa.Table, genuine: bool) -> dict[str, NDArray[Any]]:
    some = table.filter(pc.equal(table["genuine"], genuine))
    return {name: some[name].to_numpy() for name in some.column_names}


def accepts(kept: dict[str, NDArray[Any]], number: int, tolerance: int) -> NDArray[np.bool_]:
    """Comparisons that a setting accepts at a tolerance."""
    bits: NDArray[np.bool_] = (kept[f"tolerances_{number}"] >> tolerance) & 1 == 1
    return bits
