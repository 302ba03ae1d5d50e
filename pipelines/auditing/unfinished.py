"""Searches that ran out of time: they say neither that a row falls nor that it withstands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from pipelines.auditing.frozen import Finding

# An average time below total / 3 would have let one search in 95 of 100 cases end.
_RULE_OF_THREE: Final = 3.0


@dataclass(frozen=True)
class Unfinished:
    """count: searches that ran out of time. had: seconds of the longest. needed: seconds that one
    takes on average; is_bound: at least so many, for none has ended.
    """

    count: int
    had: float
    needed: float
    is_bound: bool

    @classmethod
    def among(cls, found: Sequence[Finding], foretold: float = 0.0) -> Self | None:
        """Those among searches; None where all ended. foretold: seconds that one takes, if known.

        Guesses succeed independently of one another, so the time of a search is exponential. Its
        mean is the time of all over those that ended (the estimate of a censored sample: Epstein
        and Sobel, Journal of the American Statistical Association 48, 1953), and without any it is
        at least a third of that time, with 95 % confidence.
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
        """In words: how many, and what time they would need."""
        least = "at least" if self.is_bound else "about"
        return (
            f"{self.count} inconclusive: out of time after {self.had:.1f} s, one takes {least} "
            f"{self.needed:,.1f} s on average"
        )
