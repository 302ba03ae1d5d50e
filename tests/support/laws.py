"""The laws that random isometries have, and statistics that tell whether draws follow them.

Draws are real matrices, (k, N, n). Of those that carry a unit vector s to c, P - E P is the
invariant law between what is orthogonal to s and to c: to all of their multiples by scalars.
Moments: with D dimensions there, x' P y has mean 0 and variance |x|^2 |y|^2 / D; and as P commutes
with scalars u on the right, E (P y) (P z)' = sum over the units u of (y' (z u)) R_u / D, where R_u
is x -> x u.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, kstest, norm

from ironmask import algebra
from ironmask.params import Structure
from ironmask.rotation import Sampler

F64 = NDArray[np.float64]
RARE = 1e-4
"""How often a statistic may fail draws of the right law."""


def unit(vector: F64) -> F64:
    found: F64 = vector / np.linalg.norm(vector)
    return found


def units(structure: Structure) -> F64:
    """1, or 1, i, j and k."""
    return np.eye(structure.components)


def times(vectors: F64, scalar: F64) -> F64:
    """x a for real vectors, (..., n), and one scalar, (d,)."""
    d = len(scalar)
    turned: F64 = algebra.times(vectors.reshape(*vectors.shape[:-1], -1, d), scalar)
    return turned.reshape(vectors.shape)


def line(vector: F64, structure: Structure) -> F64:
    """The multiples of a vector, (n,), by the units: (d, n)."""
    return np.stack([times(vector, u) for u in units(structure)])


@dataclass(frozen=True)
class Carried:
    """A shape, and what is carried to what; neither for the free law.

    source: s, (n,). target: c, (N,). Unit vectors.
    """

    structure: Structure
    n: int
    code_width: int
    source: F64 | None = None
    target: F64 | None = None

    @property
    def name(self) -> str:
        kind = "free" if self.source is None else "carried"
        return f"{self.structure}-{self.n}-{self.code_width}-{kind}"

    @property
    def dimensions(self) -> int:
        """D, of what the random part goes to."""
        taken = 0 if self.target is None else self.structure.components
        return self.code_width - taken

    def draws(self, rng: np.random.Generator, count: int) -> F64:
        """So many of the sampler's matrices, (count, N, n)."""
        sampler = Sampler(self.n, self.code_width, self.structure)
        rows = [self._one(sampler, rng).copy() for _ in range(count)]
        found: F64 = algebra.expanded(np.stack(rows), self.structure).astype(np.float64)
        return found

    def _one(self, sampler: Sampler, rng: np.random.Generator) -> Any:
        if self.source is None or self.target is None:
            return sampler.haar(rng)
        return sampler.carrying(rng, self.source, self.target)

    def mean(self) -> F64:
        """E P, (N, n)."""
        if self.source is None or self.target is None:
            return np.zeros((self.code_width, self.n))
        return line(self.target, self.structure).T @ line(self.source, self.structure)

    def covariance(self) -> F64:
        """E X_ij X_kl of X = P - E P, (N n, N n)."""
        total = np.zeros((self.code_width, self.n, self.code_width, self.n))
        for u in units(self.structure):
            left = self._off(self.target, self.code_width) @ times(np.eye(self.code_width), u).T
            right = self._off(self.source, self.n) @ times(np.eye(self.n), u).T
            total += np.einsum("ik,jl->ijkl", left, right)
        size = self.code_width * self.n
        covariance: F64 = total.reshape(size, size) / self.dimensions
        return covariance

    def _off(self, vector: F64 | None, width: int) -> F64:
        """The projection to what is orthogonal to a vector's multiples, (width, width)."""
        if vector is None:
            return np.eye(width)
        own = line(vector, self.structure)
        return np.eye(width) - own.T @ own


def far(samples: F64, expected: Any) -> float:
    """How far means over axis 0 lie from what is expected, as a share of what chance allows.

    The most of all entries; above 1 with probability RARE at most. What does not vary must be as
    expected, but for rounding.
    """
    return _far(samples.mean(axis=0), samples.std(axis=0), len(samples), expected)


def _far(mean: F64, spread: F64, count: int, expected: Any) -> float:
    limit = norm.isf(RARE / (2 * mean.size)) * spread / np.sqrt(count)
    return float((np.abs(mean - expected) / np.maximum(limit, 1e-6)).max())


def first_moments(draws: F64, of: Carried) -> float:
    """`far` of the entries from E P."""
    return far(draws, of.mean())


def second_moments(draws: F64, of: Carried) -> float:
    """`far` of the products of two entries of P - E P from their law."""
    x = (draws - of.mean()).reshape(len(draws), -1)
    mean, squares = x.T @ x / len(x), (x**2).T @ x**2 / len(x)
    spread = np.sqrt(np.maximum(squares - mean**2, 0))
    return _far(mean, spread, len(x), of.covariance())


def coordinates(draws: F64, of: Carried, rng: np.random.Generator, count: int = 24) -> float:
    """x' P y for random x and y off the carried lines, against a coordinate of a point on a sphere.

    The least p-value of Kolmogorov and Smirnov's test, times their number (Bonferroni).
    """
    law = beta((of.dimensions - 1) / 2, (of.dimensions - 1) / 2)
    least = 1.0
    for _ in range(count):
        x = unit(of._off(of.target, of.code_width) @ rng.standard_normal(of.code_width))
        y = unit(of._off(of.source, of.n) @ rng.standard_normal(of.n))
        least = min(least, kstest((draws @ y @ x + 1) / 2, law.cdf).pvalue)
    return least * count


def entries(draws: F64, of: Carried, count: int = 24) -> float:
    """Entries at fixed places, among them the first and the last; as `coordinates`.

    For the free law alone: an entry of P is a coordinate of a point on a sphere.
    """
    law = beta((of.code_width - 1) / 2, (of.code_width - 1) / 2)
    flat = draws.reshape(len(draws), -1)
    places = np.linspace(0, flat.shape[1] - 1, count).astype(int)
    return count * min(kstest((flat[:, i] + 1) / 2, law.cdf).pvalue for i in places)


def stabilised(draws: F64, of: Carried, rng: np.random.Generator) -> float:
    """`far` of moments of U P V from those of P, for fixed U c = c and V s = s in the same group.

    The moments: all of order four of some entries, each draw against itself.
    """
    left, right = (
        Carried(of.structure, width, width, fixed, fixed).draws(rng, 1)[0]
        for width, fixed in ((of.code_width, of.target), (of.n, of.source))
    )
    moved = left @ draws @ right
    places = rng.permutation(of.code_width * of.n)[:5]
    before, after = (x.reshape(len(x), -1)[:, places] for x in (draws, moved))
    powers = [np.einsum("ka,kb,kc,kd->kabcd", x, x, x, x) for x in (before, after)]
    return far((powers[1] - powers[0]).reshape(len(draws), -1), 0.0)
