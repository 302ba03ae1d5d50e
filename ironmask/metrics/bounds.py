"""The upper bound of a rate of few errors among trials that share subjects.

Errors come in clusters. Two people who look alike are confused on several photos. A person with one
bad photo is refused with each of the others. So N trials without an error are worth far less than N
independent ones, whose bound would be 3 / N. And with hardly any error, the trials do not show how
much less.

So the method counts clusters that hold an error: pairs of subjects, or single subjects. Among real
people this number varies hardly more than for independent clusters; its design effect is divided
out. The number of errors in a cluster that holds one is measured on the same trials where errors
are more frequent: at the nearest laxer threshold that gives enough clusters. There more errors come
together, so the bound is rather too high. Without such a threshold, a cluster counts with all its
trials.

    bound = (k s + sqrt(s^2 (u - k)^2 + k^2 (t e)^2)) / N

k: clusters with an error. u: the one-sided 95 % bound of their expected number (Clopper and
Pearson, Biometrika 26, 1934; the number of clusters is divided by the design effect: Korn and
Graubard, Survey Methodology 24, 1998). s: errors of such a cluster. e: the standard error of s. t:
a quantile of Student's t. The two margins are combined by their squares, to first order (Zou and
Donner, Statistics in Medicine 27, 2008). With one trial in each cluster, this is the bound of
Clopper and Pearson.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, stdtrit

from ironmask.metrics.counts import Counts
from ironmask.metrics.intervals import LEVEL, Interval, design

LEAST_CLUSTERS: Final = 8
ENOUGH_CLUSTERS: Final = 50
# If more of all clusters hold errors, many hold several by chance.
_LARGEST_SHARE: Final = 0.3


@dataclass(frozen=True, slots=True)
class ClusterSize:
    """How many errors a cluster holds that holds any.

    clusters: the number of clusters measured. error: the standard error of the mean.
    """

    mean: float
    error: float
    clusters: int

    @classmethod
    def of(cls, counts: Counts) -> Self | None:
        """Measure it. None on fewer than `LEAST_CLUSTERS`: they tell too little."""
        sizes = counts.clustered
        if len(sizes) < LEAST_CLUSTERS:
            return None
        error = float(sizes.std(ddof=1)) / np.sqrt(len(sizes))
        return cls(float(sizes.mean()), error, len(sizes))

    def margin(self, level: float) -> float:
        """The one-sided error of the mean, with a quantile of Student's t."""
        return float(stdtrit(self.clusters - 1, level)) * self.error


def nearest_clusters(cluster: NDArray[np.int64], clusters: int) -> NDArray[np.intp]:
    """The first comparisons whose clusters are enough to measure `ClusterSize` on.

    cluster: (m,), the number of each comparison's cluster, from the worst comparison on. clusters:
    the number of all clusters. Returns places; all of them if clusters are too few.
    """
    enough = int(np.clip(clusters * _LARGEST_SHARE, LEAST_CLUSTERS, ENOUGH_CLUSTERS))
    first = np.sort(np.unique(cluster, return_index=True)[1])
    return np.arange(first[enough - 1] + 1 if len(first) >= enough else len(cluster))


def upper_bound(counts: Counts, size: ClusterSize | None = None) -> float:
    """One-sided 95 % bound of a rate; see the module. size: of clusters where errors are more.

    Without it a cluster counts with all its trials: the sum of n^2 over that of n. Raises
    `ProtocolError` where there is no trial.
    """
    return FewErrors.of(counts).bound(size)


@dataclass(frozen=True, slots=True)
class FewErrors:
    """The clusters of a rate with few errors.

    hit: clusters with an error, of `clusters`. effect: the design effect of their number. seen:
    errors in each. whole: trials in each, on average.
    """

    trials: int
    hit: int
    clusters: int
    effect: float
    seen: float
    whole: float

    @classmethod
    def of(cls, counts: Counts) -> Self:
        hit = len(counts.clustered)
        # People are independent of one another; pairs that share a person are not quite.
        effect = design(counts.once()).effect if counts.sharing > 1 else 1.0
        return cls(
            trials=counts.trials,
            hit=hit,
            clusters=counts.clusters,
            effect=effect,
            seen=counts.errors / hit if hit else 0.0,
            whole=counts.cluster_trials,
        )

    def bound(self, size: ClusterSize | None = None) -> float:
        """See `upper_bound`."""
        return self._high(size, LEVEL)

    def interval(self, size: ClusterSize | None = None) -> Interval:
        """Two-sided 95 % interval of a rate of few errors; see `upper_bound`.

        The lower end takes the size of clusters as seen, or as measured where that is less.
        """
        level = (1 + LEVEL) / 2
        return Interval(self._low(size, level), self._high(size, level))

    def _high(self, size: ClusterSize | None, level: float) -> float:
        mean, margin = self.whole, 0.0
        if size and max(size.mean, self.seen) < mean:
            mean, margin = max(size.mean, self.seen), size.margin(level)
        x, n = self.hit / self.effect, self.clusters / self.effect
        most = self.clusters if x >= n else self.effect * n * float(betaincinv(x + 1, n - x, level))
        expected = self.hit * mean + np.hypot(mean * (most - self.hit), self.hit * margin)
        return float(np.clip(expected / self.trials, self.hit * self.seen / self.trials, 1.0))

    def _low(self, size: ClusterSize | None, level: float) -> float:
        if not self.hit:
            return 0.0
        mean, margin = self.seen, 0.0
        if size and size.mean < mean:
            mean, margin = size.mean, size.margin(level)
        x, n = self.hit / self.effect, self.clusters / self.effect
        least = self.effect * float(betaincinv(x, n - x + 1, 1 - level)) * n
        expected = self.hit * mean - np.hypot(mean * (self.hit - least), self.hit * margin)
        return float(max(expected / self.trials, 0.0))
