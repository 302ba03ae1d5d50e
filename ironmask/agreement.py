"""Find the embeddings of one subject that show one person: those that agree, if most do."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.cluster.hierarchy import fcluster, linkage

from ironmask.arrays import F64, unit_rows

# At most this many are compared pairwise: memory grows with the square of their number.
MOST_COMPARED: Final = 512

Mask = NDArray[np.bool_]


def agreeing(embeddings: ArrayLike, n: int, bar: float) -> Mask:
    """Tell which of m >= 1 embeddings, (m, n) of any scale, agree: (m,) bool.

    bar: the least mean cosine between two groups of one person. Average linkage joins the groups
    (Sokal and Michener, University of Kansas Science Bulletin 38, 1958). It joins the most alike
    first, and stops once the mean cosine between groups is below the bar. So one pair that is
    alike by chance joins no groups. The largest group agrees if it holds more than half of all
    embeddings; otherwise none agrees. One embedding alone agrees. Of more than `MOST_COMPARED`
    embeddings, only that many are grouped, and every one is compared with their largest group. The
    order of the embeddings does not matter.

    Raises `TemplateError` for what is no embedding of width n.
    """
    rows = unit_rows(embeddings, n)
    if len(rows) <= MOST_COMPARED:
        found = _largest_group(rows, bar)
    else:
        some = _some(rows)
        group = some[_largest_group(some, bar)]
        found = rows @ group.mean(axis=0) >= bar
    return found if 2 * found.sum() > len(rows) else np.zeros(len(rows), dtype=bool)


def _largest_group(rows: F64, bar: float) -> Mask:
    """The largest group of unit rows, (k, n), as (k,) bool."""
    cosines = (rows @ rows.T)[np.triu_indices(len(rows), 1)]
    if (cosines >= bar).all():
        # The usual case: linkage would give one group too.
        return np.ones(len(rows), dtype=bool)
    groups = fcluster(linkage(1 - np.clip(cosines, -1, 1), "average"), 1 - bar, "distance")
    largest: Mask = groups == np.bincount(groups).argmax()
    return largest


def _some(rows: F64) -> F64:
    """Rows from all over a set, the same ones whatever the order of the set."""
    places = np.linspace(0, len(rows) - 1, MOST_COMPARED).astype(np.intp)
    # `lexsort` sorts by its last key first.
    chosen: F64 = rows[np.lexsort(rows.T[1::-1])[places]]
    return chosen
