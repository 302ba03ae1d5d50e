"""How alike embeddings of strangers are: the cosine that a given share of impostors reaches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betaincinv, ndtri

from ironmask.arrays import unit_rows
from ironmask.spectrum import Spectrum

LEAST_FMR: Final = 1e-5
MOST_FMR: Final = 0.1
"""Between these rates, people's embeddings can tell the quantiles."""


def of_embeddings(embeddings: ArrayLike, n: int, fmr: float) -> float:
    """The measured quantile for m >= 2 embeddings, (m, n) of any scale, each of another person."""
    rows = unit_rows(embeddings, n)
    cosines = (rows @ rows.T)[np.triu_indices(len(rows), 1)]
    return float(np.quantile(cosines, 1 - fmr))


def of_points(points: Sequence[tuple[float, float]], fmr: float) -> float:
    """Interpolate measured points (FMR, cosine) of falling FMR, linear in the normal quantile."""
    rates, cosines = zip(*points, strict=True)
    return float(np.interp(-ndtri(fmr), -ndtri(np.array(rates)), cosines))


def of_moments(space: Spectrum, fmr: float) -> float:
    """Treat cosines as normal about 0, with the mean square that the spectrum gives for two.

    That mean square is tr(M^2), M the second moments of unit embeddings, without the pairs of an
    embedding with itself. Real models have heavier tails, so the result is slightly low.
    """
    count = space.count
    square = (count * np.square(space.moments / count).sum() - 1) / (count - 1)
    return float(-ndtri(fmr) * np.sqrt(max(square, 1 / space.n)))


def on_sphere(n: int, fmr: float) -> float:
    """The cosine for directions that are uniform in n dimensions.

    Their squared cosines have the distribution Beta(1/2, (n - 1)/2). No model tells people apart
    better, so a real model's cosine is hardly lower.
    """
    return float(np.sqrt(1 - betaincinv((n - 1) / 2, 0.5, 2 * fmr)))
