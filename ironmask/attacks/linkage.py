"""Linkage functions: a score of two issues that may tell whether they are one person's.

`ironmask.metrics.linkability` says how well each does. That an obvious one fails proves nothing.
"""

from __future__ import annotations

import numpy as np

from ironmask.arrays import F32
from ironmask.attacks.issues import recover_from_issues


def largest_entry(helpers: F32) -> float:
    """The largest entry of P_2 P_1', (2, n, n) helpers: blind, since both have a rotation of their
    own.
    """
    first, second = helpers
    return float(np.abs(second @ first.T).max())


def nearest_codewords(
    helpers: F32,
    alpha: int,
    rng: np.random.Generator,
    starts: int,
    seconds: float = float("inf"),
) -> float | None:
    """How near the best of so many starts comes to a codeword of every issue: the least cosine.

    What `recover_from_issues` judges by, and stops where it believes; 1 where both are of one
    template. seconds: after which it gives up; None where not all starts were tried by then, for
    fewer of them come less near.
    """
    found = recover_from_issues(helpers, alpha, rng, limit=starts, seconds=seconds)
    return None if found.out_of_time else found.score
