"""Foretell how hard the search of one row will be.

The forecast uses fresh issues, whose codewords are known: it measures which share of right guesses
leads to the codeword, for each number of guessed entries. Each entry more costs a factor of about
2 N / alpha.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from ironmask import helper
from ironmask.arrays import F64, I32, unit_rows
from ironmask.attacks.fresh import fresh_issues
from ironmask.attacks.subspace import guesses_needed, share_recovered
from ironmask.attacks.widened import MOST_GUESSED, guesses_by_width, share_by_width
from ironmask.errors import ParameterError
from ironmask.filling import Filling
from ironmask.params import Params
from ironmask.spectrum import Spectrum

_FORETOLD: Final = (1, 2, 3, 4, 6, 8, 10, 12)
# Issues of random templates. No template is easier to find than another by the width alone.
_ISSUES: Final = 4


@dataclass(frozen=True, slots=True)
class Foretold:
    """The cost of the search.

    guessed: the number of entries to guess that needs the fewest trials. trials: on average, for
    the share of rows that fall at all. is_bound: no set of right entries led to a codeword; trials
    is then a lower limit. by_width: of `recover_from_width`, which needs no embeddings.
    """

    guessed: int
    trials: float
    share: float
    is_bound: bool
    by_width: bool = False

    @property
    def bits(self) -> float:
        """log2 of the trials."""
        return float(np.log2(self.trials))


def foretell(
    templates: F64,
    space: Spectrum,
    params: Params,
    rng: np.random.Generator,
    *,
    filling: Filling | None = None,
    encoding: str = helper.DEFAULT_ENCODING,
    sets: int = 24,
) -> Foretold:
    """Foretell the search of one row, from fresh issues of some embeddings, (k, n) unit rows.

    It is the cheaper one of `recover_from_row` and, for a wide code, `recover_from_width`. space:
    measured on other embeddings. filling: of the templates, where they are filled. sets: so many
    sets of right entries are tried for each template.
    """
    width, alpha = params.code_width, params.alpha
    by_width = foretell_by_width(params, rng, encoding=encoding) if params.is_wide else None
    # The spectrum takes no fewer guesses than one entry alone.
    if by_width and not by_width.is_bound and by_width.trials <= width / alpha:
        return by_width
    stolen = fresh_issues(templates, params, rng, filling=filling, encoding=encoding)
    known = space if filling is None else filling.spectrum(space)

    def hits(guessed: int) -> list[int]:
        return [
            share_recovered(p, known, code, _chosen(code, guessed, sets, rng)) for p, code in stolen
        ]

    def needed(guessed: int, success: float) -> float:
        return guesses_needed(width, alpha, guessed, success)

    found = _foretold([g for g in _FORETOLD if g < alpha], hits, needed, sets)
    return min(filter(None, (found, by_width)), key=lambda one: (one.is_bound, one.trials))


def foretell_by_width(
    params: Params,
    rng: np.random.Generator,
    *,
    encoding: str = helper.DEFAULT_ENCODING,
    sets: int = 24,
) -> Foretold:
    """Foretell `recover_from_width`, from fresh issues of random templates.

    Raises `ParameterError` where the code is not wide.
    """
    if not params.is_wide:
        raise ParameterError(f"the code of {params.describe()} is not wide")
    structure = params.structure
    random = unit_rows(rng.standard_normal((_ISSUES, params.n)), params.n)
    stolen = fresh_issues(random, params, rng, encoding=encoding)

    def hits(guessed: int) -> list[int]:
        return [share_by_width(p, code, guessed, sets, rng, structure) for p, code in stolen]

    def needed(guessed: int, success: float) -> float:
        return guesses_by_width(
            params.code_width, params.alpha, structure, guessed=guessed, success=success
        )

    counts = range(1, min(MOST_GUESSED, params.alpha) + 1)
    return replace(_foretold(counts, hits, needed, sets), by_width=True)


def _foretold(
    counts: Sequence[int],
    hits: Callable[[int], list[int]],
    needed: Callable[[int, float], float],
    sets: int,
) -> Foretold:
    """The number of guessed entries that takes the fewest trials.

    hits: how many of `sets` sets of right entries lead to the codeword, for each issue. needed:
    trials by the number of entries and the success of right ones.
    """
    best: Foretold | None = None
    for guessed, more in zip(counts, [*counts[1:], None], strict=True):
        found = hits(guessed)
        fallen = sum(map(bool, found))
        success = max(sum(found), 1) / (sets * (fallen or len(found)))
        here = Foretold(guessed, needed(guessed, success), fallen / len(found), not fallen)
        # Once something was found, bounds say nothing. Of two bounds the later is the larger one.
        if best is None or best.is_bound or (fallen and here.trials < best.trials):
            best = here
        if not best.is_bound and more and best.trials <= needed(more, 1.0):
            break
    assert best is not None  # noqa: S101
    return best


def _chosen(code: I32, guessed: int, sets: int, rng: np.random.Generator) -> I32:
    """Random sets of a codeword's signed entries, (sets, guessed)."""
    return np.stack([rng.choice(code, guessed, replace=False) for _ in range(sets)])
