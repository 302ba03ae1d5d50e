"""Choose a setting by the false match rate that one can bear.

Settings lie near the recogniser's own curve: each trades acceptance for false matches, and the
width of the code decides where on the curve it lies. So the FMR is asked for, and of the settings
that keep to it the one that accepts most is taken. Bits are a floor, never the goal: they rise
while settings accept nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import comb
from typing import Final

from ironmask.acceptance import Acceptance
from ironmask.errors import ParameterError
from ironmask.metrics import Curve, Expected
from ironmask.params import MAX_DIGESTS, MAX_N, MOST_WIDENING, Params, structure_for
from ironmask.template import row_bytes

FLOOR_BITS: Final = 80.0
MOST_KIB: Final = 140.0
WIDENINGS: Final = ((1, 1), (3, 2), (2, 1), (3, 1), (MOST_WIDENING, 1))
"""Code widths N by n, as fractions."""

ALPHAS: Final = (12, 14, 16, 18, 20, 22, 24, 28)
MOST_TOLERANCE: Final = 4


@dataclass(frozen=True, slots=True)
class Limits:
    """What every candidate keeps to. fmr: the target; None for any. kib: of a whole row."""

    fmr: float | None = None
    bits: float = FLOOR_BITS
    kib: float = MOST_KIB

    def __post_init__(self) -> None:
        if self.fmr is not None and not 0 < self.fmr < 1:
            raise ParameterError(f"FMR {self.fmr:g} must lie between 0 and 1")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A setting, and the rates that are expected of it with some recogniser."""

    params: Params
    encoding: str
    fmr: Expected
    fnmr: Expected

    @property
    def tar(self) -> float:
        """The share of genuine comparisons that it accepts."""
        return 1 - self.fnmr.value

    @property
    def row_bytes(self) -> int:
        """Helper and digests of one row."""
        return row_bytes(self.params, self.encoding)

    @property
    def kib(self) -> float:
        """The same in KiB."""
        return self.row_bytes / 1024

    def describe(self) -> str:
        """One line for people."""
        low, high = 1 - self.fnmr.high, 1 - self.fnmr.low
        return (
            f"{self.params.describe()}: TAR {self.tar:.4f} ({low:.4f} to {high:.4f}), FMR "
            f"{self.fmr.value:.2g} ({self.fmr.low:.2g} to {self.fmr.high:.2g}, 95 % bound "
            f"{self.fmr.bound:.2g}), {self.kib:.1f} KiB a row"
        )


def catalogue(n: int, encoding: str, limits: Limits) -> Iterator[Params]:
    """The settings to choose from for embeddings of width n, within these bits and bytes."""
    for over, under in WIDENINGS:
        code_width = n * over // under
        if code_width > MAX_N:
            continue
        structure = structure_for(n, code_width)
        for alpha in (alpha for alpha in ALPHAS if alpha <= code_width):
            for tolerance in range(largest_tolerance(alpha) + 1):
                params = Params(n, alpha, tolerance, code_width, structure)
                kib = row_bytes(params, encoding) / 1024
                if params.bits >= limits.bits and kib <= limits.kib:
                    yield params


def largest_tolerance(alpha: int) -> int:
    """The largest tolerance that is offered, and whose digests a row may hold."""
    fitting = (e for e in range(MOST_TOLERANCE, -1, -1) if comb(alpha, e) <= MAX_DIGESTS)
    return next(fitting)


def candidates(
    settings: Iterable[tuple[Params, Acceptance]],
    encoding: str,
    curve: Curve,
    shrunk: float = 1.0,
) -> list[Candidate]:
    """The rates of settings with a recogniser, the most accepting first.

    shrunk: how much smaller cosines are with templates than with plain embeddings.
    """

    def rates(acceptance: Acceptance) -> tuple[Expected, Expected]:
        return curve.mixture(lambda cosine: acceptance.at(shrunk * cosine))

    found = [Candidate(params, encoding, *rates(acceptance)) for params, acceptance in settings]
    return sorted(found, key=lambda one: -one.tar)


def choose(every: Iterable[Candidate], curve: Curve, fmr: float) -> Candidate:
    """The candidate that accepts most of those whose FMR is at most the given one, by its bound.

    Within a standard error of that acceptance: the one with fewer bytes, then with more bits.
    Raises `ParameterError` where the curve's comparisons are too few to tell, or no candidate
    qualifies.
    """
    refuse_too_few(curve, fmr)
    some = [one for one in every if one.fmr.bound <= fmr]
    if not some:
        raise ParameterError(
            f"no setting within these limits of bits and bytes has an FMR of at most {fmr:g}: ask "
            "for fewer bits, take an encoding of fewer bytes (int8, bits6) or allow more of them, "
            "or ask for a higher FMR"
        )
    best = max(some, key=lambda one: one.tar)
    near = [one for one in some if one.tar >= best.tar - best.fnmr.error]
    return min(near, key=lambda one: (one.row_bytes, -one.params.bits))


def refuse_too_few(curve: Curve, fmr: float) -> None:
    """Raise `ParameterError` where so many impostors cannot tell so low a rate.

    N comparisons without an error bound a rate at about 3 / N (rule of three), and at more where
    comparisons share people.
    """
    least = curve.least_bound
    if least > fmr:
        needed = curve.impostor * least / fmr
        raise ParameterError(
            f"an FMR of {fmr:g} is not supported by {curve.impostor:,} impostor comparisons: even "
            f"without an error they bound it at {least:.2g}; about {needed:,.0f} are needed, of "
            "more people in proportion"
        )


def undominated(every: Iterable[Candidate]) -> list[Candidate]:
    """The candidates that no other one equals or betters in acceptance, FMR, bits and bytes."""
    rest = list(every)
    merits = {id(one): (one.tar, -one.fmr.value, one.params.bits, -one.row_bytes) for one in rest}

    def betters(other: Candidate, one: Candidate) -> bool:
        mine, its = merits[id(one)], merits[id(other)]
        return its != mine and all(a >= b for a, b in zip(its, mine, strict=True))

    return [one for one in rest if not any(betters(other, one) for other in rest)]
