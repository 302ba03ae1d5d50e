"""Scheme parameters, presets and the bits that they promise.

These bits bound one attack only: guessing a codeword for a uniformly distributed template. Real
embeddings do not fill the sphere, so a stolen helper in the clear can be worth far less.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from math import comb, log2
from types import MappingProxyType
from typing import Any, Final

from ironmask.errors import ParameterError

SCHEME_VERSION: Final = 2
FIRST_VERSION: Final = 1
MIN_N: Final = 64
MAX_N: Final = 1 << 16
MAX_ALPHA: Final = 128
MAX_DIGESTS: Final = 8192
MOST_WIDENING: Final = 4
"""N / n of the widest code that jobs take: wider ones accept random vectors too often."""


class Structure(StrEnum):
    """The scalars that a helper is linear over, from the right.

    `real`: any isometry (the paper). `quaternionic`: it commutes with right multiplication by
    quaternions, so a quarter of its numbers give it.
    """

    REAL = "real"
    QUATERNIONIC = "quaternionic"

    @property
    def components(self) -> int:
        """Real numbers in one scalar."""
        return 4 if self is Structure.QUATERNIONIC else 1


@dataclass(frozen=True)
class Params:
    """The parameters of one protected template.

    n: width of the embedding.
    alpha: non-zero entries of a codeword.
    tolerance: places of the signed support in which a probe may disagree and still match
        (Kim et al. 2021, supplementary material D.1).
    code_width: N, the entries of a codeword; 0 stands for n, which is the paper's choice. The
        helper is an isometry from n to N dimensions.
    structure: of the helper.
    version: of the scheme. Version 1 knows neither wide codes nor structures, and has longer tags.
    """

    n: int = 512
    alpha: int = 16
    tolerance: int = 4
    code_width: int = 0
    structure: Structure = Structure.REAL
    version: int = SCHEME_VERSION

    def __post_init__(self) -> None:
        self._check_version()
        object.__setattr__(self, "code_width", self.code_width or self.n)
        object.__setattr__(self, "structure", _structure(self.structure))
        if not MIN_N <= self.n <= MAX_N:
            raise ParameterError(f"n is {self.n}; it must lie in {MIN_N}..{MAX_N}")
        if not self.n <= self.code_width <= MAX_N:
            raise ParameterError(
                f"the code's width is {self.code_width}; it must lie in n..{MAX_N}, and n is "
                f"{self.n}"
            )
        most = min(self.code_width, MAX_ALPHA)
        if not 1 <= self.alpha <= most:
            raise ParameterError(f"alpha is {self.alpha}; it must lie in 1..{most}")
        if not 0 <= self.tolerance < self.alpha:
            raise ParameterError(
                f"tolerance is {self.tolerance}; it must lie in 0..alpha-1 = {self.alpha - 1}"
            )
        if self.digest_count > MAX_DIGESTS:
            raise ParameterError(
                f"alpha {self.alpha} with tolerance {self.tolerance} needs {self.digest_count:,} "
                f"digests a row; at most {MAX_DIGESTS:,} are allowed: lower the tolerance"
            )
        self._check_structure()

    @classmethod
    def recorded(cls, fields: Mapping[str, Any]) -> Params:
        """The parameters that a record or a row names: `n`, `alpha`, `tolerance`, and, since
        version 2, `code_width`, `structure` and `version` (in rows `scheme_version`). Other fields
        are not looked at.
        """
        version = fields.get("version", fields.get("scheme_version", FIRST_VERSION))
        return cls(
            n=fields["n"],
            alpha=fields["alpha"],
            tolerance=fields["tolerance"],
            code_width=fields.get("code_width") or 0,
            structure=fields.get("structure") or Structure.REAL,
            version=version,
        )

    def recording(self) -> dict[str, Any]:
        """The fields of a row that `recorded` reads."""
        return {
            "scheme_version": self.version,
            "n": self.n,
            "alpha": self.alpha,
            "tolerance": self.tolerance,
            "code_width": self.code_width,
            "structure": str(self.structure),
        }

    def _check_version(self) -> None:
        if self.version not in (FIRST_VERSION, SCHEME_VERSION):
            raise ParameterError(
                f"scheme version {self.version} is unknown to this release, which knows "
                f"{FIRST_VERSION} and {SCHEME_VERSION}: upgrade ironmask"
            )

    def _check_structure(self) -> None:
        if self.structure is Structure.QUATERNIONIC and (self.n % 4 or self.code_width % 4):
            raise ParameterError(
                f"a quaternionic helper needs widths that 4 divides, not {self.n} and "
                f"{self.code_width}: use structure real"
            )
        is_plain = self.structure is Structure.REAL and not self.is_wide
        if self.version == FIRST_VERSION and not is_plain:
            raise ParameterError("scheme version 1 has square real helpers alone: use version 2")

    @property
    def is_wide(self) -> bool:
        """Whether the code is wider than the embedding."""
        return self.code_width > self.n

    @property
    def helper_shape(self) -> tuple[int, int]:
        """Rows and columns of the stored helper: (N, n) real, (N / 4, n) quaternionic.

        A quaternionic row has n / 4 quaternions, four real numbers each.
        """
        return self.code_width // self.structure.components, self.n

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
        """log2 of the number of codewords, binom(N, alpha) * 2^alpha."""
        return log2(comb(self.code_width, self.alpha)) + self.alpha

    @cached_property
    def bits(self) -> float:
        """Work to guess an accepted codeword, in bits.

        log2(binom(N, m) * 2^m / binom(alpha, m)) with m = alpha - tolerance.
        """
        m = self.match_size
        return log2(comb(self.code_width, m)) + m - log2(self.digest_count)

    def describe(self) -> str:
        """One line for people, bits included."""
        wide = f", code {self.code_width} wide" if self.is_wide else ""
        structure = f", {self.structure}" if self.structure is not Structure.REAL else ""
        return (
            f"n {self.n}{wide}{structure}, alpha {self.alpha}, tolerance {self.tolerance} "
            f"({self.bits:.1f} bits against guessing)"
        )


@dataclass(frozen=True)
class Preset:
    """A choice for embeddings of any width n. widening: N / n. prefers: the structure where the
    widths allow it.
    """

    alpha: int
    tolerance: int
    widening: int = 1
    prefers: Structure = Structure.QUATERNIONIC


PRESETS: Final = MappingProxyType(
    {
        "paper": Preset(16, 0, prefers=Structure.REAL),
        "compact": Preset(16, 4),
        "balanced": Preset(16, 2, widening=2),
        "strict": Preset(20, 3, widening=2),
    },
)
DEFAULT_PRESET: Final = "balanced"
SQUARE_PRESET: Final = "compact"
"""The smallest rows of a code as wide as the embedding."""


def preset(name: str, n: int = 512) -> Params:
    """Return the parameters of a named preset for embeddings of width n."""
    try:
        chosen = PRESETS[name]
    except KeyError:
        known = ", ".join(PRESETS)
        raise ParameterError(f"unknown preset {name!r}; the presets are {known}") from None
    code_width = chosen.widening * n
    structure = structure_for(n, code_width) if chosen.prefers is not Structure.REAL else "real"
    return Params(n, chosen.alpha, chosen.tolerance, code_width, Structure(structure))


def structure_for(n: int, code_width: int) -> Structure:
    """Quaternionic where 4 divides both widths, else real."""
    return Structure.REAL if n % 4 or code_width % 4 else Structure.QUATERNIONIC


def _structure(name: str) -> Structure:
    try:
        return Structure(name)
    except ValueError:
        known = ", ".join(Structure)
        raise ParameterError(f"unknown structure {name!r}; the structures are {known}") from None
