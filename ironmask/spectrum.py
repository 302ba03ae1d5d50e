"""How much of the space a model's embeddings fill, and so how many promised bits are left.

A codeword's bits count guesses for a template that may lie anywhere on the sphere. Embeddings of
real models avoid some directions, and anyone who has the model can measure these. A wrong codeword
of a stolen row points there by chance alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, Self

import numpy as np
from numpy.typing import ArrayLike

from ironmask.arrays import F64, unit_rows
from ironmask.errors import ParameterError
from ironmask.params import Params

# Energy in a direction that int8 rounds to, as a share of the average energy of a direction.
_ROUNDING: Final = 1e-4


@dataclass(frozen=True)
class Spectrum:
    """Second moments of unit embeddings, which add up over parts of a set.

    Measure it on templates, one of each person, where rows hide templates. Several photos of a few
    people tell more about these people than about the model. A mean of several photos lies nearer
    to the strongest directions than one photo does (`ironmask.centring.by_person`).

    count: embeddings. moments: (n, n) float64, the sum of t t'. The mean is not subtracted: a
    stolen row hides t itself.
    """

    count: int
    moments: F64 = field(repr=False)

    @classmethod
    def of(cls, embeddings: ArrayLike, n: int) -> Self:
        """Measure embeddings, (k, n) of any scale. Raises `TemplateError` for unusable ones."""
        rows = unit_rows(embeddings, n)
        return cls(len(rows), rows.T @ rows)

    def __add__(self, other: Spectrum) -> Spectrum:
        if self.moments.shape != other.moments.shape:
            raise ParameterError("spectra of embeddings of different widths do not add up")
        return Spectrum(self.count + other.count, self.moments + other.moments)

    @property
    def n(self) -> int:
        """Width of the embeddings."""
        return len(self.moments)

    @cached_property
    def _decomposed(self) -> tuple[F64, F64]:
        if self.count < 1:
            raise ParameterError("a spectrum of no embeddings")
        values, vectors = np.linalg.eigh(self.moments / self.count)
        return np.maximum(values[::-1], 0), vectors[:, ::-1]

    @property
    def eigenvalues(self) -> F64:
        """(n,), from the largest; they sum to 1, the energy of a unit embedding."""
        return self._decomposed[0]

    @property
    def directions(self) -> F64:
        """(n, n), the eigenvectors as columns, in the order of the eigenvalues."""
        return self._decomposed[1]

    @property
    def effective_rank(self) -> float:
        """exp of the entropy of the eigenvalues: n where every direction is used alike.

        Roy and Vetterli, European Signal Processing Conference, 2007.
        """
        some = self.eigenvalues[self.eigenvalues > 0]
        return float(np.exp(-(some * np.log(some)).sum()))

    @property
    def beyond(self) -> F64:
        """(n + 1,): the share of the energy outside the first 0, 1, ..., n directions."""
        tail: F64 = np.append(np.cumsum(self.eigenvalues[::-1])[::-1], 0.0)
        return tail

    def strongest(self, share: float) -> int:
        """The fewest directions that hold all of the energy but this share."""
        return int(np.count_nonzero(self.beyond[:-1] > share))

    @property
    def _ratios(self) -> F64:
        """n times the eigenvalues, where a helper's rounding fills the empty directions."""
        return np.maximum(self.n * self.eigenvalues, _ROUNDING)

    @property
    def weights(self) -> F64:
        """(n,): the part of each direction that Wiener's filter keeps of an embedding."""
        return self._ratios / (self._ratios + 1)

    def likeness(self, vectors: F64) -> F64:
        """Bits by which unit vectors, (k, n), look like embeddings rather than random vectors.

        log2 of the ratio of two normal densities, one with the eigenvalues as variances, one with
        1 / n: 1/2 sum ((n - 1 / l) z^2 - ln(n l)) / ln 2. z: the vector's coordinates, l: the
        eigenvalues.
        """
        x = self._ratios
        squares = self.n * (vectors @ self.directions) ** 2
        bits: F64 = (squares @ (1 - 1 / x) - np.log(x).sum()) / 2 / np.log(2)
        return bits

    def known_bits(self) -> float:
        """Bits by which directions tell the right codeword from wrong ones: the mean `likeness`.

        A wrong codeword passes a likelihood test with the probability 2^-b, where b is the relative
        entropy of the two normal distributions (Stein's lemma; Cover and Thomas, Elements of
        Information Theory, 2006, chapter 11).
        """
        x = self._ratios
        return float((x - 1 - np.log(x)).sum() / 2 / np.log(2))

    def weakest(self, share: float = 0.005) -> int:
        """The most directions that hold no more than a share of the energy, from 1 to n - 1."""
        return int(np.clip(self.n - self.strongest(share), 1, self.n - 1))

    def bits_left(self, params: Params) -> float:
        """log2 of the guesses that the embeddings' subspace does not rule out, at least 0.

        A thief who knows the model and can compute without limit still lacks these bits. With 0,
        the helper determines the template, and only the search protects it. The number does not
        tell how long that search takes. Raises `ParameterError` for another width.
        """
        if params.n != self.n:
            raise ParameterError(f"params are of width {params.n}, the spectrum of {self.n}")
        return max(0.0, params.bits - self.within(params.code_width).known_bits())

    def within(self, code_width: int) -> Spectrum:
        """This spectrum in a space of N dimensions that a wide helper takes embeddings into.

        The N - n directions that are added hold no energy.
        """
        if code_width == self.n:
            return self
        values, vectors = self._decomposed
        none = np.zeros(code_width - self.n)
        wide = Spectrum(self.count, _extended(self.moments, none))
        # Decomposing it again would take (N / n)^3 as long.
        vars(wide)["_decomposed"] = np.append(values, none), _extended(vectors, none + 1)
        return wide


def _extended(matrix: F64, diagonal: F64) -> F64:
    """A square matrix with more entries on its diagonal, and zeros elsewhere."""
    n = len(matrix)
    whole = np.diag(np.append(np.zeros(n), diagonal))
    whole[:n, :n] = matrix
    return whole
