"""How often bounds of few errors hold, on draws of real people.

People are drawn from LFW (embeddings of w600k_mbf; people with five photos or more, their first
ten, less wrong labels); their photos are compared all with all. The truth is the rate of everybody
at that threshold.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from support.shared import SHARED

from ironmask.metrics import (
    ClusterSize,
    Counts,
    Crossed,
    PairCounts,
    SubjectCounts,
    nearest_clusters,
)
from ironmask.metrics.rates import ends

from .table import Row

DRAWS = 1000
LEAST_PHOTOS, MOST_PHOTOS = 5, 10
# Draws in which a bound misses have few errors; where more than 7 % of draws have none, it holds
# for these, and nearly always, or for none of them, and then too seldom.
HELD = 0.93, 0.99
# Thresholds at which so many people make fewer than 30 errors on average.
FMR = {40: (3e-4, 1e-4, 3e-5), 100: (1e-4, 3e-5, 1e-5)}
FNMR = (1e-2, 5e-3, 2e-3)
_LEAST_COSINE = 0.12
_LEAST_KEPT, _KEPT_SHARE = 1000, 2e-3

Index = NDArray[np.intp]
F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Comparisons:
    """From the worst error on: the people of each comparison, and its cosine."""

    first: Index
    second: Index
    cosine: F64

    def among(self, number: Index) -> Comparisons:
        """Those of some people; number: (everybody,), their new numbers, -1 for all others."""
        first, second = number[self.first], number[self.second]
        some = (first >= 0) & (second >= 0)
        return Comparisons(first[some], second[some], self.cosine[some])


@dataclass(frozen=True)
class Population:
    """Everybody. photos: of each. impostors: how many comparisons there are."""

    photos: Index
    genuine: Comparisons
    impostor: Comparisons
    impostors: int


@dataclass(frozen=True)
class Cell:
    """What draws of so many people gave at one threshold. bounds, errors, naive: a number a draw;
    naive: the bound of independent comparisons.
    """

    what: str
    people: int
    truth: float
    errors: Index
    bounds: F64
    naive: F64

    @property
    def held(self) -> float:
        return float(np.mean(self.bounds >= self.truth))

    @property
    def held_as_independent(self) -> float:
        return float(np.mean(self.naive >= self.truth))

    @property
    def without_error(self) -> float:
        return float(np.mean(self.errors == 0))

    def held_with(self, few: bool) -> float:
        """Where there is no error, or where there are 1 to 29."""
        some = (self.errors > 0) & (self.errors < 30) if few else self.errors == 0
        return float(np.mean(self.bounds[some] >= self.truth)) if some.any() else float("nan")

    @property
    def can_miss(self) -> bool:
        """Whether draws without an error are so few that a bound that is no larger than need be may
        miss in 1 to 7 % of draws.
        """
        return self.without_error <= 1 - HELD[0]

    def describe(self) -> str:
        note = "" if self.can_miss else " (more than 7 % have none: it must hold for these)"
        return (
            f"{self.people} people, {self.what}: holds in {self.held:.1%} of {len(self.errors):,} "
            f"draws, as independent {self.held_as_independent:.1%}; no error in "
            f"{self.without_error:.1%}, of which {self.held_with(False):.1%}; one to 29: "
            f"{self.held_with(True):.1%}; {self.errors.mean():.1f} errors on average, bound / "
            f"truth {np.median(self.bounds) / self.truth:.1f}{note}"
        )


def population(folder: Path = SHARED) -> Population:
    """Everybody of LFW with enough photos."""
    content = np.load(folder / "faces" / "lfw_w600k_mbf_embeddings.npz")
    order = np.argsort(content["path"])
    names = np.array([Path(path).stem for path in content["path"][order]])
    wrong = np.isin(names, list(_wrong_labels(folder)))
    label, vectors = content["label"][order][~wrong], content["emb"][order][~wrong]
    _, owner, counts = np.unique(label, return_inverse=True, return_counts=True)
    place = np.arange(len(owner)) - (np.cumsum(counts) - counts)[owner]
    kept = (counts[owner] >= LEAST_PHOTOS) & (place < MOST_PHOTOS)
    owner = np.unique(owner[kept], return_inverse=True)[1]
    unit = vectors[kept] / np.linalg.norm(vectors[kept], axis=1, keepdims=True)
    first, second = np.triu_indices(len(unit), 1)
    cosine = (unit @ unit.T)[first, second].astype(np.float64)
    first, second = owner[first], owner[second]
    genuine, near = first == second, (first != second) & (cosine > _LEAST_COSINE)
    return Population(
        photos=np.bincount(owner),
        genuine=_sorted(first[genuine], second[genuine], cosine[genuine], 1),
        impostor=_sorted(first[near], second[near], cosine[near], -1),
        impostors=int(np.count_nonzero(~genuine)),
    )


def _wrong_labels(folder: Path) -> set[str]:
    text = (folder / "faces" / "lfw_label_noise.txt").read_text()
    plain = [line.partition("#")[0] for line in text.splitlines() if "=" not in line]
    return {Path(word).stem for line in plain for word in line.split()}


def _sorted(first: Index, second: Index, cosine: F64, sign: int) -> Comparisons:
    order = np.argsort(sign * cosine, kind="stable")
    return Comparisons(first[order], second[order], cosine[order])


def cells(people: int, everybody: Population, draws: int = DRAWS, seed: int = 11) -> list[Cell]:
    """Draw so many people again and again, and ask for bounds at each threshold."""
    rng = np.random.default_rng(seed)
    impostor, genuine = everybody.impostor, everybody.genuine
    worst = [round(fmr * everybody.impostors) for fmr in FMR[people]]
    refused = [round(fnmr * len(genuine.cosine)) for fnmr in FNMR]
    accepts = [float(impostor.cosine[count - 1]) for count in worst]
    refuses = [float(genuine.cosine[count]) for count in refused]
    found: list[list[tuple[int, float, float]]] = [[] for _ in (*FMR[people], *FNMR)]
    for _ in range(draws):
        number = np.full(len(everybody.photos), -1)
        drawn = rng.permutation(len(number))[:people]
        number[drawn] = np.arange(people)
        trials = Crossed.within(everybody.photos[drawn])
        counts: list[tuple[Counts, ClusterSize | None]] = []
        counts += _impostors(impostor.among(number), trials, accepts)
        counts += _genuine(genuine.among(number), people, refuses)
        for cell, (one, size) in zip(found, counts, strict=True):
            cell.append((one.errors, ends(one, size)[2], _independent(one)))
    truths = [count / everybody.impostors for count in worst]
    truths += [count / len(genuine.cosine) for count in refused]
    named = [f"FMR {fmr:g}" for fmr in FMR[people]] + [f"FNMR {fnmr:g}" for fnmr in FNMR]
    made = []
    for what, truth, cell in zip(named, truths, found, strict=True):
        errors, bounds, naive = map(np.array, zip(*cell, strict=True))
        made.append(Cell(what, people, truth, errors, bounds, naive))
    return made


def _impostors(near: Comparisons, trials: Crossed, accepts: list[float]) -> Any:
    def counts(some: slice | Index) -> PairCounts:
        first = near.first[some]
        return PairCounts.of(first, near.second[some], np.ones(len(first), int), trials)

    low, high = np.minimum(near.first, near.second), np.maximum(near.first, near.second)
    kept = int(max(_KEPT_SHARE * trials.total, _LEAST_KEPT))
    pair = (low * trials.subjects + high)[:kept]
    size = ClusterSize.of(counts(nearest_clusters(pair, trials.pairs_compared)))
    for threshold in accepts:
        yield counts(slice(0, int(np.searchsorted(-near.cosine, -threshold, "right")))), size


def _genuine(near: Comparisons, people: int, refuses: list[float]) -> Any:
    possible = np.bincount(near.first, minlength=people)

    def counts(some: slice | Index) -> SubjectCounts:
        return SubjectCounts.of(np.bincount(near.first[some], minlength=people), possible)

    size = ClusterSize.of(counts(nearest_clusters(near.first, people)))
    for threshold in refuses:
        yield counts(slice(0, int(np.searchsorted(near.cosine, threshold)))), size


def _independent(counts: Counts) -> float:
    """Clopper and Pearson's bound, as if no two comparisons shared a person."""
    return float(stats.beta.ppf(0.95, counts.errors + 1, counts.trials - counts.errors))


def coverage() -> list[Row]:
    """The share of draws in which the bound holds, against that of independent comparisons."""
    everybody, rows = population(), []
    for people in FMR:
        for cell in cells(people, everybody):
            sys.stdout.write(cell.describe() + "\n")
            goal = {"at_least": HELD[0] / cell.held_as_independent} if cell.can_miss else {}
            rows.append(_row(cell, goal))
    return rows


def _row(cell: Cell, goal: dict[str, float]) -> Row:
    ratio = cell.held / cell.held_as_independent
    return Row(
        f"{cell.people} people, {cell.what}, bound holds", "independent comparisons", ratio, ratio,
        ratio, 100 * cell.held, 100 * cell.held_as_independent, "% of draws", **goal,
    )  # fmt: skip
