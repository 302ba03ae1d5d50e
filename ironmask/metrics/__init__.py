"""Rates of a biometric evaluation with their intervals, in the terms of ISO/IEC 19795-1.

`counts` and `trials` hold errors and comparisons by subject. `intervals`, `bounds` and `rates` say
what these mean for the population. `paired` compares two recognisers. `scores` has the rates over
thresholds; `curve` has their intervals, and the rates of settings, from comparisons in `kept`.
`linkability` measures what scores of pairs of issues give away.
"""

from ironmask.metrics.bounds import ClusterSize, nearest_clusters, upper_bound
from ironmask.metrics.counts import Counts, PairCounts, SubjectCounts
from ironmask.metrics.curve import Curve, Expected, Rates
from ironmask.metrics.kept import Kept
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
    "Curve",
    "Difference",
    "Expected",
    "Kept",
    "Linkability",
    "Listed",
    "OperatingPoint",
    "PairCounts",
    "Rate",
    "Rates",
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
