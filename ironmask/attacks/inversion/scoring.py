"""Whether a recogniser accepts reconstructions: hits at thresholds of strangers, by people.

Type I compares a reconstruction with the photo that its template is of, type II with other photos
of the same person (Mai et al. 2018, section 4). Embed real photos for both: the cosine to a target
that was optimised says nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ironmask.arrays import F64, unit_rows
from ironmask.errors import ParameterError, ProtocolError
from ironmask.metrics.counts import SubjectCounts
from ironmask.metrics.intervals import Interval, clustered_wilson, design
from ironmask.metrics.rates import LEAST_ERRORS

_BLOCK: Final = 1024
# Cosines are counted in bins; a threshold is the upper edge of one.
_BINS: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Threshold:
    """far: what was asked for. cosine: the least that is accepted.

    accepted, comparisons: of strangers. pairs: of different people among them.
    """

    far: float
    cosine: float
    accepted: int
    comparisons: int
    pairs: int

    @property
    def supported(self) -> bool:
        """Whether as many pairs of people as 30 errors need were compared (rule of 30).

        Photos of the same two people err together, so they count once.
        """
        return self.far * self.pairs >= LEAST_ERRORS


@dataclass(frozen=True, slots=True)
class Hits:
    """Reconstructions that are accepted. interval: Wilson's, 95 %, by people."""

    threshold: Threshold
    hits: int
    trials: int
    people: int
    interval: Interval

    @property
    def share(self) -> float:
        """TAR: hits / trials."""
        return self.hits / self.trials


@dataclass(frozen=True)
class Scores:
    """cosines: (m,), of reconstructions and photos. people: (m,), numbers of their people."""

    cosines: F64
    people: NDArray[np.intp]

    @classmethod
    def of(cls, reconstructed: ArrayLike, photos: ArrayLike, people: ArrayLike) -> Scores:
        """From embeddings of reconstructions and of photos, row by row, both (m, n)."""
        n = np.shape(photos)[-1]
        one, other = unit_rows(reconstructed, n), unit_rows(photos, n)
        labels = np.unique(np.asarray(people), return_inverse=True)[1]
        if not len(one) == len(other) == len(labels):
            raise ProtocolError(
                f"{len(one)} reconstructions, {len(other)} photos and {len(labels)} people"
            )
        return cls(np.einsum("ij,ij->i", one, other), labels.astype(np.intp))

    def hits(self, threshold: Threshold) -> Hits:
        """Raises `ProtocolError` where there is no comparison."""
        accepted = self.cosines >= threshold.cosine
        counts = SubjectCounts.tally(self.people, accepted)
        interval = clustered_wilson(design(counts))
        people = int(np.count_nonzero(counts.possible))
        return Hits(threshold, counts.errors, counts.trials, people, interval)


def thresholds(embeddings: ArrayLike, people: ArrayLike, fars: Sequence[float]) -> list[Threshold]:
    """The thresholds at false accept rates, from all pairs of photos of different people.

    embeddings: (m, n) of any scale, of people who are in no test. people: (m,), their labels.
    Memory does not grow with the pairs. A rate below one comparison gives a threshold above all of
    them; see `Threshold.supported`. Raises `ParameterError` for rates outside 0..1 or one person.
    """
    if not all(0 < far < 1 for far in fars):
        raise ParameterError(f"false accept rates {list(fars)}: they must lie in 0..1")
    rows = unit_rows(embeddings, np.shape(embeddings)[-1]).astype(np.float32)
    labels = np.unique(np.asarray(people), return_inverse=True)[1]
    counts = _impostors(rows, labels)
    total, several = int(counts.sum()), int(labels.max()) + 1 if len(labels) else 0
    if not total:
        raise ParameterError("thresholds need photos of two people or more")
    above = np.append(np.cumsum(counts[::-1])[::-1], 0)
    found = []
    for far in fars:
        place = int(np.argmax(above <= far * total))
        cosine = 2 * place / _BINS - 1
        pairs = several * (several - 1) // 2
        found.append(Threshold(far, cosine, int(above[place]), total, pairs))
    return found


def other_photos(own: ArrayLike, people: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    """Pairs for type II: indices into `own`, and of photos of the same people, both (r,).

    own: (k,) indices of the photos that templates are of. people: (m,), labels of all photos.
    """
    mine, labels = np.asarray(own, dtype=np.intp), np.asarray(people)
    which, photo = np.nonzero(labels[mine][:, None] == labels[None])
    other = photo != mine[which]
    return which[other], photo[other]


def _impostors(rows: NDArray[np.float32], labels: NDArray[np.intp]) -> NDArray[np.int64]:
    """How many cosines of two people's photos lie in each bin of -1..1: (_BINS,)."""
    counts = np.zeros(_BINS, dtype=np.int64)
    for start in range(0, len(rows), _BLOCK):
        block = slice(start, start + _BLOCK)
        cosines = rows[block] @ rows[start:].T
        strangers = labels[block, None] != labels[None, start:]
        # Each pair once: a row with the rows after it.
        strangers &= np.arange(len(cosines))[:, None] < np.arange(cosines.shape[1])
        places = ((cosines[strangers] + 1) * (_BINS / 2)).astype(np.int64)
        counts += np.bincount(np.clip(places, 0, _BINS - 1), minlength=_BINS)
    return counts
