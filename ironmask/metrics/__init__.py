"""Rates of a biometric evaluation with their intervals, in the terms of ISO/IEC 19795-1.

`counts` and `trials` hold errors and comparisons by subject. `intervals`, `bounds` and `rates` say
what these mean for the population. `paired` compares two recognisers. `scores` has the rates over
thresholds. `linkability` measures what scores of pairs of issues give away.
"""

from ironmask.metrics.bounds import ClusterSize, nearest_clusters, upper_bound
from ironmask.metrics.counts import Counts, PairCounts, SubjectCounts
from ironmask.metrics.linkability import Linkability, linkability
from ironmask.metrics.paired import Difference, mcnemar
from ironmask.metrics.rates import LEAST_ERRORS, Rate, far, frr, gfar, gfrr, rate
from ironmask.metrics.scores import OperatingPoint, ScoreCounts
from ironmask.metrics.trials import Crossed, Listed, Trials

__all__ = [
    "LEAST_ERRORS",
    "ClusterSize",
    "Counts",
    "Crossed",
    "Difference",
    "Linkability",
    "Listed",
    "OperatingPoint",
    "PairCounts",
    "Rate",
    "ScoreCounts",
    "SubjectCounts",
    "Trials",
    "far",
    "frr",
    "gfar",
    "gfrr",
    "linkability",
    "mcnemar",
    "nearest_clusters",
    "rate",
    "upper_bound",
]
