"""Confidence intervals of a rate whose trials share subjects.

Two intervals: Wilson's with the variance by identity clusters (Fogliato, Patil and Perona,
International Journal of Computer Vision, 2024, sections 3 and 4), and a bootstrap over subjects on
Wilson's scale. Both account for the number of subjects, and for their unequal numbers of trials.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.special import stdtrit

from ironmask.arrays import F64
from ironmask.errors import ParameterError, ProtocolError
from ironmask.metrics.counts import Counts, Moments

LEVEL: Final = 0.95
LEAST_RESAMPLES: Final = 1000
# The number of weights held in memory at once.
_BLOCK: Final = 1 << 22
# The correction for few subjects is only of first order, so no larger factor is believed.
_LARGEST_FACTOR: Final = 4.0


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95 % confidence interval. Both ends are in 0..1, except for a difference."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Design:
    """The cost of trials that share subjects.

    rate: errors / trials. effect: the variance over that of as many independent trials, at least 1
    (Kish, Survey Sampling, 1965). factor: corrects the variance for few subjects. freedom: degrees
    of freedom of the variance.
    """

    rate: float
    trials: int
    effect: float
    factor: float
    freedom: float

    @property
    def effective(self) -> float:
        """The number of independent trials that would tell as much."""
        return self.trials / self.effect


def design(counts: Counts) -> Design:
    """Rate and design effect. Raises `ProtocolError` where there is no trial."""
    if counts.trials == 0:
        raise ProtocolError("a rate of no trials: add comparisons, or leave this rate out")
    rate = counts.errors / counts.trials
    factor, freedom = small_sample(counts, rate)
    moments = counts.weighted(np.ones((1, counts.subjects)))
    effect = float(_effects(moments)[0]) * factor
    return Design(rate, counts.trials, max(effect, 1.0), factor, freedom)


def small_sample(counts: Counts, rate: float) -> tuple[float, float]:
    """Correction factor of a variance by clusters, and its degrees of freedom.

    Residuals r_a = e_a - p n_a are smaller than true ones, since p is fitted to them. To first
    order, and for effects of subjects that are alike, the variance is short by a share. It is
    2 sum n^3 / (N sum n^2) - sum n^2 / N^2, for pairs 4 sum n^3 / (N sum n^2), with N = sum n
    (after Bell and McCaffrey, Survey Methodology 28, 2002). The degrees of freedom are
    Satterthwaite's: 1 / df = 1 / ((sum n^2)^2 / sum n^4 - 1) + h / 2. h: the excess of the fourth
    powers of the residuals over those of normal ones, relative to (sum r^2)^2; at least 0.
    """
    errors, trials = counts.by_subject()
    errors, n = errors[trials > 0], trials[trials > 0]
    total, squares = n.sum(), (n**2).sum()
    if counts.sharing == 1:
        short = 2 * (n**3).sum() / (total * squares) - squares / total**2
    else:
        short = 4 * (n**3).sum() / (total * squares)
    factor = 1 / max(1 - short, 1 / _LARGEST_FACTOR)
    freedom = max(squares**2 / (n**4).sum() - 1, 1.0)
    r2 = (errors - rate * n) ** 2
    if r2.any():
        heavy = (r2**2).sum() / r2.sum() ** 2 - 3 * (n**4).sum() / squares**2
        freedom = 1 / (1 / freedom + max(heavy, 0) / 2)
    return float(factor), float(max(freedom, 1.0))


def wilson(rate: float, trials: float, below: float, above: float) -> Interval:
    """All p with below <= (rate - p) / sqrt(p (1 - p) / trials) <= above, below <= 0 <= above.

    Wilson (Journal of the American Statistical Association 22, 1927) has below = -above. The
    interval holds the rate, even where rounding would leave it out by a unit in the last place.
    """
    low, high = _root(rate, trials, above), _root(rate, trials, below)
    return Interval(min(low, rate), max(high, rate))


def clustered_wilson(found: Design) -> Interval:
    """Wilson's interval of the effective number of trials, with a quantile of Student's t."""
    t = float(stdtrit(found.freedom, (1 + LEVEL) / 2))
    return wilson(found.rate, found.effective, -t, t)


def subject_bootstrap(
    counts: Counts, found: Design, rng: np.random.Generator, resamples: int = LEAST_RESAMPLES
) -> Interval:
    """Bootstrap over subjects, studentised on Wilson's scale.

    Subjects are drawn with replacement, and an impostor comparison counts w_a w_b times. Alone,
    this exaggerates the noise of single pairs, up to three times in variance (Owen, Annals of
    Applied Statistics 1, 2007). Each resample's own standard error grows alike, so its deviation is
    divided by that (bootstrap-t: Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
    section 12.5). Without an error, or with errors only, the result is Wilson's interval.

    Raises `ParameterError` for fewer than 1,000 resamples.
    """
    if resamples < LEAST_RESAMPLES:
        raise ParameterError(f"{resamples} resamples; at least {LEAST_RESAMPLES:,} are needed")
    p = found.rate
    if not 0 < p < 1:
        return clustered_wilson(found)
    scores = []
    step = max(1, _BLOCK // counts.subjects)
    for start in range(0, resamples, step):
        many = counts.weighted(_draw(rng, min(step, resamples - start), counts.subjects))
        some = many.trials > 0
        errors, trials = many.errors[some], many.trials[some]
        error = np.sqrt(_effects(many)[some] * p * (1 - p) / trials)
        scores.append((errors / trials - p) / error)
    below, above = np.quantile(np.concatenate(scores), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return wilson(p, found.effective, min(float(below), 0.0), max(float(above), 0.0))


def one_sided(found: Design) -> float:
    """The upper end of Wilson's one-sided 95 % interval, as `clustered_wilson`."""
    t = float(stdtrit(found.freedom, LEVEL))
    return wilson(found.rate, found.effective, -t, t).high


def _root(rate: float, trials: float, z: float) -> float:
    shrunk = rate + z * z / (2 * trials)
    half = z * np.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    return min(max(float((shrunk - half) / (1 + z * z / trials)), 0.0), 1.0)


def _effects(moments: Moments) -> F64:
    """Design effects, 1 where the variance is zero or nothing was drawn: (b,)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        p = moments.errors / moments.trials
        effect = moments.variance * moments.trials / (p * (1 - p))
    return np.where(np.isfinite(effect) & (effect > 0), effect, 1.0)


def _draw(rng: np.random.Generator, resamples: int, subjects: int) -> F64:
    """How often each subject is drawn: (resamples, subjects) float64."""
    drawn = rng.integers(0, subjects, (resamples, subjects))
    return np.stack([np.bincount(row, minlength=subjects) for row in drawn]).astype(np.float64)
