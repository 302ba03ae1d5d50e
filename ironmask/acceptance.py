"""How often a setting accepts a probe, by the angle between probe and template.

A helper takes the template to its codeword c, and the rest of the probe to a direction that is
uniform across c. So the decoder sees u = cos(angle) c + sin(angle) z with z uniform on the unit
sphere across c. N, alpha and tolerance decide alone: the embedding's width, the structure and the
face do not. (A quaternionic helper takes three of n directions to fixed ones; their share of a
probe is as large there as anywhere.) Errors of the encoding are left out: int8 adds none that was
seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from ironmask import candidates
from ironmask.arrays import F32, F64
from ironmask.params import Params

ANGLES: Final = tuple(range(20, 88, 2))
"""The angles that are measured, in degrees: 34."""

DRAWS: Final = 3000
# Stands for a share that no draw, or every draw, has.
_SELDOM: Final = 1e-7
# Rows whose ranks are counted at once: their differences stay in the cache.
_RANKED: Final = 64


@dataclass(frozen=True, slots=True)
class Acceptance:
    """The share of probes that a setting accepts. shares: (34,) float64, one for each angle."""

    shares: F64 = field(repr=False)

    def at(self, cosine: F64) -> F64:
        """The share at each cosine, of any shape.

        Between the angles it is linear in the normal quantile of the share, which hardly bends.
        Beyond the first angle where no draw was accepted it is 0; below the last where all were, 1.
        """
        angle = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
        quantile = ndtri(np.clip(self.shares, _SELDOM, 1 - _SELDOM))
        some, every = self.shares > 0, self.shares >= 1
        share: F64 = ndtr(np.interp(angle, ANGLES, quantile))
        # `argmin` finds the first False, and 0 where there is none: the grid holds both ends.
        last = ANGLES[int(np.argmin(some))] if not some.all() else 90
        first = ANGLES[int(np.argmin(every)) - 1] if every[0] and not every.all() else 0
        return np.where(angle >= last, 0.0, np.where(angle <= first, 1.0, share))


def measured(params: Params, rng: np.random.Generator, draws: int = DRAWS) -> list[Acceptance]:
    """Measure the acceptance at each tolerance from 0 to that of params, by so many probes.

    The same directions serve all angles and tolerances. So neighbouring shares err alike, and a
    curve falls as it should.
    """
    every = [replace(params, tolerance=e) for e in range(params.tolerance + 1)]
    shares = [
        [candidates.accepted(ranks, some).mean() for some in every]
        for ranks in _ranks(params, rng, draws)
    ]
    return [Acceptance(np.array(column)) for column in zip(*shares, strict=True)]


def _ranks(params: Params, rng: np.random.Generator, draws: int) -> Iterator[NDArray[np.intp]]:
    """For each angle the ranks of the codeword's places, (draws, alpha); see `candidates.accepted`.

    The codeword is 1 / sqrt(alpha) in the first alpha places; all others are like it.
    """
    alpha, width = params.alpha, params.code_width
    across = rng.standard_normal((draws, width), dtype=np.float32)
    across[:, :alpha] -= across[:, :alpha].mean(axis=1, keepdims=True)
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    own, others = across[:, :alpha], np.abs(across[:, alpha:])
    # No subset holds an entry of a higher rank.
    kept = min(candidates.REACH, others.shape[1])
    others = np.partition(others, -kept, axis=1)[:, -kept:]
    for angle in np.radians(ANGLES):
        u = np.float32(np.cos(angle) / np.sqrt(alpha)) + np.float32(np.sin(angle)) * own
        order = np.argsort(-np.abs(u), axis=1, kind="stable")
        u = np.take_along_axis(u, order, axis=1)
        ahead = _ahead(np.abs(u), np.float32(np.sin(angle)) * others)
        ranks = np.where(u > 0, np.arange(alpha) + ahead, width)
        ranks.sort(axis=1)
        yield ranks


def _ahead(sizes: F32, others: F32) -> NDArray[np.intp]:
    """How many of the others in its row are larger than each size: as sizes, (k, alpha)."""
    found = np.empty(sizes.shape, dtype=np.intp)
    for start in range(0, len(sizes), _RANKED):
        part = slice(start, start + _RANKED)
        found[part] = np.count_nonzero(others[part, None, :] > sizes[part, :, None], axis=2)
    return found
