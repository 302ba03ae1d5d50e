"""How many comparisons each pair of subjects has, without a table of all pairs.

There are two forms. One lists the pairs of a protocol. The other compares all templates with all
probes: the number of a pair of subjects is a product, and a million subjects need two numbers each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_array, csr_array

from ironmask.arrays import F64
from ironmask.errors import ProtocolError

Index = NDArray[np.int64]


class Trials(Protocol):
    """Comparisons n_ab of each pair of s subjects: symmetric, none of a subject with itself."""

    @property
    def subjects(self) -> int:
        """All subjects s, also those without a comparison."""

    @property
    def total(self) -> int:
        """All comparisons."""

    @property
    def pairs_compared(self) -> int:
        """The number of pairs of subjects that have a comparison."""

    def at(self, first: Index, second: Index) -> F64:
        """n_ab of given pairs: (m,)."""

    def of_subjects(self, weights: F64) -> F64:
        """Sum over b of w_b n_ab for each subject a; weights and result are (b, s)."""

    def squares(self, weights: F64) -> F64:
        """Sum over pairs of w_a w_b n_ab^2; weights: (b, s), result: (b,)."""

    def same(self, other: Trials) -> bool:
        """Whether these are the same comparisons."""

    def among(self, some: Index) -> Trials:
        """The comparisons of some subjects with one another."""


@dataclass(frozen=True, slots=True)
class Listed:
    """The pairs of a protocol. pairs: (s, s) symmetric."""

    pairs: csr_array

    @classmethod
    def of(cls, first: ArrayLike, second: ArrayLike, trials: ArrayLike, subjects: int) -> Listed:
        """From pairs of subjects in any order and number, and their comparisons: three (m,)."""
        a, b = np.asarray(first), np.asarray(second)
        same = np.flatnonzero(a == b)
        if len(same):
            raise ProtocolError(
                f"pair {same[0]} is of subject {a[same[0]]} with itself: list it as genuine, or "
                "correct its label"
            )
        half = coo_array((np.asarray(trials, np.float64), (a, b)), shape=(subjects, subjects))
        return cls(csr_array(half.tocsr() + half.T.tocsr()))

    @property
    def subjects(self) -> int:
        """See `Trials`."""
        return int(self.pairs.shape[0])

    @property
    def total(self) -> int:
        """See `Trials`."""
        return round(float(self.pairs.sum()) / 2)

    @property
    def pairs_compared(self) -> int:
        """See `Trials`."""
        return int(self.pairs.count_nonzero()) // 2

    def at(self, first: Index, second: Index) -> F64:
        """See `Trials`."""
        found: Any = self.pairs[first, second]
        # Newer versions of SciPy return a sparse array.
        dense = found.toarray() if hasattr(found, "toarray") else found
        return np.asarray(dense, dtype=np.float64).reshape(-1)

    def of_subjects(self, weights: F64) -> F64:
        """See `Trials`."""
        return np.asarray(self.pairs @ weights.T).T

    def squares(self, weights: F64) -> F64:
        """See `Trials`."""
        product = np.asarray(self.pairs.power(2) @ weights.T).T
        total: F64 = (weights * product).sum(axis=1) / 2
        return total

    def same(self, other: Trials) -> bool:
        """See `Trials`."""
        if not isinstance(other, Listed) or self.pairs.shape != other.pairs.shape:
            return False
        difference = csr_array(self.pairs - other.pairs)
        return not difference.count_nonzero()

    def among(self, some: Index) -> Listed:
        """See `Trials`."""
        return Listed(csr_array(self.pairs[some][:, some]))


@dataclass(frozen=True, slots=True)
class Crossed:
    """All against all: n_ab = t_a q_b + q_a t_b. t, q: (s,) float64."""

    t: F64
    q: F64

    @classmethod
    def of(cls, templates: ArrayLike, probes: ArrayLike) -> Crossed:
        """Each template against each probe of another subject. templates, probes: (s,) counts."""
        return cls(np.asarray(templates, np.float64), np.asarray(probes, np.float64))

    @classmethod
    def within(cls, images: ArrayLike) -> Crossed:
        """Each image against each image of another subject, once. images: (s,) counts."""
        m = np.asarray(images, np.float64)
        return cls(m, m / 2)

    @property
    def subjects(self) -> int:
        """See `Trials`."""
        return len(self.t)

    @property
    def total(self) -> int:
        """See `Trials`."""
        return round(float(self.t.sum() * self.q.sum() - self.t @ self.q))

    @property
    def pairs_compared(self) -> int:
        """See `Trials`."""
        t, q = self.t > 0, self.q > 0
        both, enrolled, probing = (int(some.sum()) for some in (t & q, t & ~q, q & ~t))
        return both * (both - 1) // 2 + both * (enrolled + probing) + enrolled * probing

    def at(self, first: Index, second: Index) -> F64:
        """See `Trials`."""
        number: F64 = self.t[first] * self.q[second] + self.q[first] * self.t[second]
        return number

    def of_subjects(self, weights: F64) -> F64:
        """See `Trials`."""
        t, q = weights * self.t, weights * self.q
        sums: F64 = self.t * (q.sum(axis=1, keepdims=True) - q)
        sums += self.q * (t.sum(axis=1, keepdims=True) - t)
        return sums

    def squares(self, weights: F64) -> F64:
        """See `Trials`."""
        t, q = self.t, self.q
        tt, qq, tq = (weights @ np.stack([t * t, q * q, t * q], axis=1)).T
        total: F64 = tt * qq + tq**2 - 2 * weights**2 @ (t * q) ** 2
        return total

    def same(self, other: Trials) -> bool:
        """See `Trials`."""
        if not isinstance(other, Crossed):
            return False
        return np.array_equal(self.t, other.t) and np.array_equal(self.q, other.q)

    def among(self, some: Index) -> Crossed:
        """See `Trials`."""
        return Crossed(self.t[some], self.q[some])
