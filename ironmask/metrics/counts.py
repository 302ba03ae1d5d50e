"""Errors and trials by subject, and the variance of their ratio when trials share subjects.

A rate is the ratio p = E / N of its errors and its trials. Its variance has the residuals e - p n
of trials: sum their products over all pairs of trials that share a subject, and divide by N^2.
Genuine comparisons share one subject (identity clusters). Impostor comparisons share either of two
(dyadic clusters).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_array, csr_array

from ironmask.arrays import F64
from ironmask.errors import ProtocolError
from ironmask.metrics.trials import Trials


@dataclass(frozen=True, slots=True)
class Moments:
    """Sums of b weightings of the subjects, each (b,) float64.

    errors, trials: their weighted numbers E and N. variance: that of E / N by clusters, not yet
    corrected for few subjects; NaN where nothing is left to compare.
    """

    errors: F64
    trials: F64
    variance: F64


class Counts(Protocol):
    """Errors among trials that share subjects."""

    @property
    def errors(self) -> int:
        """All errors."""

    @property
    def trials(self) -> int:
        """All trials."""

    @property
    def subjects(self) -> int:
        """Subjects s that take part."""

    @property
    def sharing(self) -> int:
        """Subjects in one trial: 1 or 2."""

    def by_subject(self) -> tuple[F64, F64]:
        """Errors and trials of each subject: two (s,)."""

    def weighted(self, weights: F64, rate: float | None = None) -> Moments:
        """The sums where each subject counts as often as its weight says.

        weights: (b, s) float64. rate: subtracted in the residuals; E / N by default.
        """

    @property
    def clustered(self) -> F64:
        """Errors of each cluster, a subject or a pair of subjects, that holds an error."""

    @property
    def clusters(self) -> int:
        """The number of clusters that have a trial."""

    @property
    def cluster_trials(self) -> float:
        """The size of a trial's cluster in trials, on average: sum n^2 / N."""

    def once(self) -> Self:
        """The same trials, with one error for each cluster that holds any."""

    def minus(self, other: Self) -> Self:
        """The same trials with the differences of errors, which may be negative.

        Raises `ProtocolError` where the trials differ.
        """


@dataclass(frozen=True, slots=True)
class SubjectCounts:
    """Trials that belong to one subject each: genuine comparisons, acquisitions, enrolments.

    wrong, possible: (s,) int64, errors and trials of each subject.
    """

    wrong: NDArray[np.int64]
    possible: NDArray[np.int64]

    @classmethod
    def of(cls, errors: ArrayLike, trials: ArrayLike) -> SubjectCounts:
        """From errors and trials of each subject, both (s,) integers.

        Raises `ProtocolError` for negative or fractional counts, or more errors than trials.
        """
        wrong, possible = whole(errors, "errors"), whole(trials, "trials")
        if len(wrong) != len(possible):
            raise ProtocolError(f"errors of {len(wrong)} subjects and trials of {len(possible)}")
        for subject in np.flatnonzero(wrong > possible)[:1]:
            raise ProtocolError(
                f"subject {subject} has {wrong[subject]} errors in {possible[subject]} trials; "
                "count the errors among the trials"
            )
        return cls(wrong, possible)

    @classmethod
    def tally(cls, subject: ArrayLike, is_error: ArrayLike) -> SubjectCounts:
        """From single trials: subject (m,) non-negative integers, is_error (m,) bool."""
        index = whole(subject, "subjects")
        possible = np.bincount(index)
        wrong = np.bincount(index[np.asarray(is_error, dtype=bool)], minlength=len(possible))
        return cls.of(wrong, possible)

    @property
    def errors(self) -> int:
        """All errors."""
        return int(self.wrong.sum())

    @property
    def trials(self) -> int:
        """All trials."""
        return int(self.possible.sum())

    @property
    def subjects(self) -> int:
        """Subjects, those without a trial included."""
        return len(self.possible)

    @property
    def sharing(self) -> int:
        """One subject a trial."""
        return 1

    def by_subject(self) -> tuple[F64, F64]:
        """See `Counts`."""
        return self.wrong.astype(np.float64), self.possible.astype(np.float64)

    def weighted(self, weights: F64, rate: float | None = None) -> Moments:
        """See `Counts.weighted`.

        The variance is the linearised one of a ratio over clusters, sum (e - p n)^2 / N^2 (Rao and
        Scott, Biometrics 48, 1992, section 2).
        """
        e, n = self.by_subject()
        errors, trials, ee, en, nn = (weights @ np.stack([e, n, e * e, e * n, n * n], axis=1)).T
        p = _ratio(errors, trials) if rate is None else np.full_like(errors, rate)
        squares = np.maximum(ee - 2 * p * en + p * p * nn, 0)
        return Moments(errors, trials, _ratio(squares, trials**2))

    @property
    def clustered(self) -> F64:
        """See `Counts`."""
        return self.wrong[self.wrong > 0].astype(np.float64)

    @property
    def clusters(self) -> int:
        """See `Counts`."""
        return int(np.count_nonzero(self.possible))

    @property
    def cluster_trials(self) -> float:
        """See `Counts`."""
        return float((self.possible.astype(np.float64) ** 2).sum() / self.trials)

    def once(self) -> Self:
        """See `Counts`."""
        return type(self)(np.minimum(self.wrong, 1), self.possible)

    def minus(self, other: Self) -> Self:
        """See `Counts`."""
        if not np.array_equal(self.possible, other.possible):
            raise ProtocolError("the trials differ: give both recognisers the same comparisons")
        return type(self)(self.wrong - other.wrong, self.possible)


@dataclass(frozen=True, slots=True)
class PairCounts:
    """Impostor comparisons, whose two subjects may both take part in others.

    first, second, wrong: (m,) int64: subjects of each pair with errors, first < second, and the
    pair's errors. possible: the comparisons of every pair of subjects.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    wrong: NDArray[np.int64]
    possible: Trials

    @classmethod
    def of(
        cls, first: ArrayLike, second: ArrayLike, wrong: ArrayLike, possible: Trials
    ) -> PairCounts:
        """From pairs of subjects in any order and number, and their errors: three (m,) integers.

        Raises `ProtocolError` for a pair of one subject with itself and for more errors than
        comparisons.
        """
        a, b = whole(first, "subjects"), whole(second, "subjects")
        same = np.flatnonzero(a == b)
        if len(same):
            raise ProtocolError(
                f"errors of subject {a[same[0]]} against itself: an impostor comparison has two "
                "subjects; count this one as genuine, or correct the labels"
            )
        low, high = np.minimum(a, b), np.maximum(a, b)
        keys, inverse = np.unique(low * possible.subjects + high, return_inverse=True)
        total = np.bincount(inverse, whole(wrong, "errors"), len(keys)).astype(np.int64)
        low, high = np.divmod(keys, possible.subjects)
        more = np.flatnonzero(total > possible.at(low, high))
        if len(more):
            raise ProtocolError(
                f"subjects {low[more[0]]} and {high[more[0]]} have {total[more[0]]} errors, more "
                "than their comparisons; count the errors among the comparisons"
            )
        return cls(low, high, total, possible)

    @property
    def errors(self) -> int:
        """All errors."""
        return int(self.wrong.sum())

    @property
    def trials(self) -> int:
        """All trials."""
        return self.possible.total

    @property
    def subjects(self) -> int:
        """Subjects, those without a comparison included."""
        return self.possible.subjects

    @property
    def sharing(self) -> int:
        """Two subjects a trial."""
        return 2

    def by_subject(self) -> tuple[F64, F64]:
        """See `Counts`. Each comparison counts for both of its subjects."""
        ones = np.ones((1, self.subjects))
        return (ones @ self._errors())[0], self.possible.of_subjects(ones)[0]

    def weighted(self, weights: F64, rate: float | None = None) -> Moments:
        """See `Counts.weighted`; a pair counts as often as the product of its two weights.

        Let R_a be the sum of the residuals of all pairs with subject a. The sum of R_a^2 counts
        every pair with itself twice, so the variance is (sum R_a^2 - sum r_ab^2) / N^2 (Aronow,
        Samii and Assenova, Political Analysis 23, 2015). If no enrolled subject is a probing one,
        it is the two-way variance of Cameron, Gelbach and Miller (Journal of Business & Economic
        Statistics 29, 2011).
        """
        w, wrong = weights, self._errors()
        each, of_subject = w @ wrong, self.possible.of_subjects(w)
        errors, trials = _half_sum(w, each), _half_sum(w, of_subject)
        p = _ratio(errors, trials) if rate is None else np.full_like(errors, rate)
        squares = (w * (each - p[:, None] * of_subject) ** 2).sum(axis=1)
        ee, en = _half_sum(w, w @ wrong.power(2)), _half_sum(w, w @ self._errors(by_trials=True))
        twice = ee - 2 * p * en + p * p * self.possible.squares(w)
        return Moments(errors, trials, _ratio(np.maximum(squares - twice, 0), trials**2))

    @property
    def clustered(self) -> F64:
        """See `Counts`."""
        return self.wrong[self.wrong > 0].astype(np.float64)

    @property
    def clusters(self) -> int:
        """See `Counts`."""
        return self.possible.pairs_compared

    @property
    def cluster_trials(self) -> float:
        """See `Counts`."""
        return float(self.possible.squares(np.ones((1, self.subjects)))[0]) / self.trials

    def once(self) -> Self:
        """See `Counts`."""
        return replace(self, wrong=np.minimum(self.wrong, 1))

    def minus(self, other: Self) -> Self:
        """See `Counts`."""
        if not self.possible.same(other.possible):
            raise ProtocolError("the trials differ: give both recognisers the same comparisons")
        difference = csr_array(self._errors() - other._errors()).tocoo()
        upper = difference.row < difference.col
        first, second = difference.row[upper].astype(np.int64), difference.col[upper]
        wrong = difference.data[upper].astype(np.int64)
        return type(self)(first, second.astype(np.int64), wrong, self.possible)

    def _errors(self, *, by_trials: bool = False) -> csr_array:
        """Errors of each pair of subjects, or these times its trials: (s, s), symmetric."""
        values = self.wrong.astype(np.float64)
        if by_trials:
            values = values * self.possible.at(self.first, self.second)
        rows = np.concatenate([self.first, self.second])
        columns = np.concatenate([self.second, self.first])
        shape = (self.subjects, self.subjects)
        return coo_array((np.tile(values, 2), (rows, columns)), shape=shape).tocsr()


def whole(values: ArrayLike, what: str) -> NDArray[np.int64]:
    """Return (m,) values as int64. Raises `ProtocolError` where they are no counts."""
    given = np.asarray(values)
    counts = given.astype(np.int64)
    if given.ndim != 1 or (counts < 0).any() or (counts != given).any():
        raise ProtocolError(f"{what} must be a list of whole numbers from 0 on")
    return counts


def _half_sum(weights: F64, sums: F64) -> F64:
    total: F64 = (weights * sums).sum(axis=1) / 2
    return total


def _ratio(numerator: F64, denominator: F64) -> F64:
    nothing = np.full_like(numerator, np.nan)
    return np.divide(numerator, denominator, out=nothing, where=denominator > 0)
