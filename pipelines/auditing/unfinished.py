"""Searches that ran out of time. They do not tell whether a row falls or withstands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from pipelines.auditing.frozen import Finding

# With an average time below total / 3, one search would have ended in 95 of 100 cases.
_RULE_OF_THREE: Final = 3.0
_UNITS: Final = (("years", 31_557_600.0), ("days", 86_400.0), ("hours", 3_600.0))
_MANY: Final = 1e6


@dataclass(frozen=True)
class Unfinished:
    """count: searches that ran out of time. had: seconds of the longest. needed: seconds of one on
    average; is_bound: this is a lower limit, since none has ended.
    """

    count: int
    had: float
    needed: float
    is_bound: bool

    @classmethod
    def among(cls, found: Sequence[Finding], foretold: float = 0.0) -> Self | None:
        """Those among some searches; None where all ended. foretold: seconds of one, if known.

        Guesses succeed independently, so the time of a search is exponential. Its mean is the total
        time over the number that ended (the estimate of a censored sample: Epstein and Sobel,
        Journal of the American Statistical Association 48, 1953). If none ended, it is at least a
        third of the total time, with 95 % confidence.
        """
        late = [one for one in found if one.out_of_time]
        if not late:
            return None
        ended = len(found) - len(late)
        total = sum(one.seconds for one in found)
        needed = total / ended if ended else max(total / _RULE_OF_THREE, foretold)
        had = max(one.seconds for one in late)
        return cls(len(late), had, needed, is_bound=not ended)

    def describe(self) -> str:
        """A text: how many there are, and how long they would need."""
        least = "at least" if self.is_bound else "about"
        return (
            f"{self.count} inconclusive: out of time after {self.had:.1f} s, one takes {least} "
            f"{lasting(self.needed)} on average"
        )


def lasting(seconds: float) -> str:
    """A time as people say it: `6.0 s`, `30 hours`, `356 years`."""
    for unit, length in _UNITS:
        # From two on, so that no unit stands in the singular.
        if seconds >= 2 * length:
            count = seconds / length
            return f"{count:,.0f} {unit}" if count < _MANY else f"{count:.1g} {unit}"
    return f"{seconds:,.1f} s"
