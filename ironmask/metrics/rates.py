"""One error rate with all that a reader must know about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from ironmask.errors import ParameterError
from ironmask.metrics.bounds import ClusterSize, FewErrors
from ironmask.metrics.counts import Counts
from ironmask.metrics.intervals import (
    LEAST_RESAMPLES,
    Design,
    Interval,
    clustered_wilson,
    design,
    one_sided,
    subject_bootstrap,
)

# Doddington's rule of 30: with 30 errors, the true rate is within 30 % of this one, at 90 %.
LEAST_ERRORS: Final = 30


@dataclass(frozen=True, slots=True)
class Rate:
    """errors / trials, its intervals, and whether the errors suffice to state it.

    interval: Wilson's with the variance by identity clusters; if fewer than 30 clusters hold an
    error, that of `bounds`. bootstrap: over subjects; equal to the interval without any error.
    bound: one-sided 95 %; state it where the rate is not `supported` (fewer than 30 errors).
    """

    errors: int
    trials: int
    value: float
    interval: Interval
    bootstrap: Interval
    bound: float

    @property
    def supported(self) -> bool:
        """Doddington et al., Speech Communication 31, 2000, section 4: the rule of 30."""
        return self.errors >= LEAST_ERRORS


def rate(
    counts: Counts,
    rng: np.random.Generator,
    resamples: int = LEAST_RESAMPLES,
    *,
    size: ClusterSize | None = None,
) -> Rate:
    """The rate of errors among trials that share subjects.

    size: how many errors come together; measured where errors are more, used where they are few.
    Raises `ProtocolError` where there is no trial.
    """
    found, interval, bound = ends(counts, size)
    bootstrap = subject_bootstrap(counts, found, rng, resamples)
    return Rate(
        errors=counts.errors,
        trials=counts.trials,
        value=found.rate,
        interval=interval,
        bootstrap=bootstrap if counts.errors else interval,
        bound=bound,
    )


def ends(counts: Counts, size: ClusterSize | None = None) -> tuple[Design, Interval, float]:
    """The design of a rate, its interval and its bound: a `Rate` without a bootstrap.

    With errors in 30 clusters or more, the bound is no lower than Wilson's; see `bounds`.
    """
    found, few = design(counts), FewErrors.of(counts)
    if few.hit < LEAST_ERRORS:
        return found, few.interval(size), few.bound(size)
    return found, clustered_wilson(found), max(few.bound(size), one_sided(found))


def far(fmr: float, fta: float) -> float:
    """False accept rate: FMR (1 - FTA); FTA: failures to acquire (ISO/IEC 19795-1, section 8.3)."""
    _shares(fmr, fta)
    return fmr * (1 - fta)


def frr(fnmr: float, fta: float) -> float:
    """False reject rate: FTA + FNMR (1 - FTA)."""
    _shares(fnmr, fta)
    return fta + fnmr * (1 - fta)


def gfar(fmr: float, fta: float, fte: float) -> float:
    """Generalised FAR, which includes failures to enrol (FTE): FMR (1 - FTA) (1 - FTE)."""
    _shares(fte)
    return far(fmr, fta) * (1 - fte)


def gfrr(fnmr: float, fta: float, fte: float) -> float:
    """Generalised FRR: FTE + (1 - FTE) FRR."""
    _shares(fte)
    return fte + (1 - fte) * frr(fnmr, fta)


def _shares(*values: float) -> None:
    for value in values:
        if not 0 <= value <= 1:
            raise ParameterError(f"{value} is no rate: it must lie in 0..1")
