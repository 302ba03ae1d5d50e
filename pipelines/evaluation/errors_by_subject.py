"""Kept comparisons of one case, and what errors among them mean for the subjects they share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ironmask.metrics import Kept, PairCounts, Rate, SubjectCounts, Trials, rate

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

    @cached_property
    def kept(self) -> Kept:
        """The same without places of templates and probes."""
        return Kept(
            genuine=self.genuine["cosine"],
            owner=self.template[self.genuine["template"]],
            impostor=self.impostor["cosine"],
            first=self.template[self.impostor["template"]],
            second=self.subject[self.impostor["probe"]],
            trials=self.trials,
            floor=self.floor,
        )

    def refused(self, is_error: NDArray[np.bool_]) -> SubjectCounts:
        """Genuine comparisons that are errors, by subject."""
        return self.kept.refused(is_error)

    def accepted(self, is_error: NDArray[np.bool_]) -> PairCounts:
        """Impostor comparisons that are errors, by pair of subjects."""
        return self.kept.accepted(is_error)

    def refused_at(self, threshold: float) -> SubjectCounts:
        """Genuine comparisons with a lower cosine."""
        return self.kept.refused_at(threshold)

    def rate(self, counts: PairCounts | SubjectCounts) -> Rate:
        """With clusters as large as those of the cosine's own errors, where they are more."""
        is_impostor = isinstance(counts, PairCounts)
        size = self.kept.accepted_together if is_impostor else self.kept.refused_together
        return rate(counts, self.rng, size=size)


def side(table: pa.Table, genuine: bool) -> dict[str, NDArray[Any]]:
    some = table.filter(pc.equal(table["genuine"], genuine))
    return {name: some[name].to_numpy() for name in some.column_names}


def accepts(kept: dict[str, NDArray[Any]], number: int, tolerance: int) -> NDArray[np.bool_]:
    """Comparisons that a setting accepts at a tolerance."""
    bits: NDArray[np.bool_] = (kept[f"tolerances_{number}"] >> tolerance) & 1 == 1
    return bits
