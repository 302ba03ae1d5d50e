"""One error rate with all that a reader must know of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from ironmask.errors import ParameterError
from ironmask.metrics.counts import Counts
from ironmask.metrics.intervals import (
    LEAST_RESAMPLES,
    Interval,
    clustered_wilson,
    design,
    subject_bootstrap,
    upper_bound,
)

# Doddington's rule of 30: with 30 errors the true rate lies within 30 % of the one seen, at 90 %.
LEAST_ERRORS: Final = 30


@dataclass(frozen=True, slots=True)
class Rate:
    """errors / trials, its intervals, and whether the errors suffice to state it.

    interval: Wilson's with the variance by identity clusters. bootstrap: over subjects. bound:
    one-sided 95 %, what is stated where the rate is not `supported` (fewer than 30 errors).
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


def rate(counts: Counts, rng: np.random.Generator, resamples: int = LEAST_RESAMPLES) -> Rate:
    """The rate of errors among trials that share subjects.

    Raises `ProtocolError` where there is no trial.
    """
    found = design(counts)
    return Rate(
        errors=counts.errors,
        trials=counts.trials,
        value=found.rate,
        interval=clustered_wilson(found),
        bootstrap=subject_bootstrap(counts, found, rng, resamples),
        bound=upper_bound(counts.errors, counts.trials, found.effect),
    )


def far(fmr: float, fta: float) -> float:
    """False accept rate: FMR (1 - FTA); FTA: failures to acquire (ISO/IEC 19795-1, section 8.3)."""
    _shares(fmr, fta)
    return fmr * (1 - fta)


def frr(fnmr: float, fta: float) -> float:
    """False reject rate: FTA + FNMR (1 - FTA)."""
    _shares(fnmr, fta)
    return fta + fnmr * (1 - fta)


def gfar(fmr: float, fta: float, fte: float) -> float:
    """Generalised FAR, failures to enrol (FTE) folded in: FMR (1 - FTA) (1 - FTE)."""
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
