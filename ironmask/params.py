"""Scheme parameters, presets and the bits that they promise.

These bits bound one attack only: guessing a codeword for a uniformly distributed template. Real
embeddings do not fill the sphere, so a stolen helper in the clear can be worth far less.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import comb, log2
from types import MappingProxyType
from typing import Final

from ironmask.errors import ParameterError

SCHEME_VERSION: Final = 1
MIN_N: Final = 64
MAX_N: Final = 1 << 16
MAX_ALPHA: Final = 128
MAX_DIGESTS: Final = 8192


@dataclass(frozen=True)
class Params:
    """The parameters of one protected template.

    n: width of the embedding.
    alpha: non-zero entries of a codeword.
    tolerance: places of the signed support in which a probe may disagree and still match
        (Kim et al. 2021, supplementary material D.1).
    """

    n: int = 512
    alpha: int = 16
    tolerance: int = 4

    def __post_init__(self) -> None:
        if not MIN_N <= self.n <= MAX_N:
            raise ParameterError(f"n is {self.n}; it must lie in {MIN_N}..{MAX_N}")
        if not 1 <= self.alpha <= min(self.n, MAX_ALPHA):
            raise ParameterError(
                f"alpha is {self.alpha}; it must lie in 1..{min(self.n, MAX_ALPHA)}"
            )
        if not 0 <= self.tolerance < self.alpha:
            raise ParameterError(
                f"tolerance is {self.tolerance}; it must lie in 0..alpha-1 = {self.alpha - 1}"
            )
        if self.digest_count > MAX_DIGESTS:
            raise ParameterError(
                f"alpha {self.alpha} with tolerance {self.tolerance} needs {self.digest_count:,} "
                f"digests a row; at most {MAX_DIGESTS:,} are allowed: lower the tolerance"
            )

    @property
    def match_size(self) -> int:
        """Places in which enrolled and decoded signed support must agree."""
        return self.alpha - self.tolerance

    @property
    def digest_count(self) -> int:
        """Digests a row: one for each subset of `match_size` places."""
        return comb(self.alpha, self.tolerance)

    @cached_property
    def codebook_bits(self) -> float:
        """log2 of the number of codewords, binom(n, alpha) * 2^alpha."""
        return log2(comb(self.n, self.alpha)) + self.alpha

    @cached_property
    def bits(self) -> float:
        """Work to guess an accepted codeword, in bits.

        log2(binom(n, m) * 2^m / binom(alpha, m)) with m = alpha - tolerance.
        """
        m = self.match_size
        return log2(comb(self.n, m)) + m - log2(self.digest_count)

    def describe(self) -> str:
        """One line for people, bits included."""
        return (
            f"n {self.n}, alpha {self.alpha}, tolerance {self.tolerance} "
            f"({self.bits:.1f} bits against guessing)"
        )


PRESETS: Final = MappingProxyType(
    {"paper": (16, 0), "balanced": (16, 4), "strict": (20, 4)},
)
DEFAULT_PRESET: Final = "balanced"


def preset(name: str, n: int = 512) -> Params:
    """Return the parameters of a named preset for embeddings of width n."""
    try:
        alpha, tolerance = PRESETS[name]
    except KeyError:
        known = ", ".join(PRESETS)
        raise ParameterError(f"unknown preset {name!r}; the presets are {known}") from None
    return Params(n=n, alpha=alpha, tolerance=tolerance)
