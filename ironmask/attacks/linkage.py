"""Linkage functions: a score of two issues that may tell whether they are of one person.

`ironmask.metrics.linkability` says how well each one does. If an obvious one fails, that proves
nothing.
"""

from __future__ import annotations

import numpy as np

from ironmask.arrays import F32
from ironmask.attacks.issues import recover_from_issues


def largest_entry(helpers: F32) -> float:
    """The largest entry of P_2 P_1', (2, N, n) helpers.

    It sees nothing, since both issues have a rotation of their own.
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
    """The least cosine to a codeword of every issue that the best of `starts` starts reaches.

    `recover_from_issues` judges by this score, and stops where it believes one. It is 1 where both
    issues are of one template. seconds: gives up after so long. Returns None if not all starts were
    tried by then, since fewer starts come less near.
    """
    found = recover_from_issues(helpers, alpha, rng, limit=starts, seconds=seconds)
    return None if found.out_of_time else found.score
