"""The cost of each attack on a table: what a thief must hold, how many guesses it takes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ironmask.attacks import Foretold, dictionary_bits, regression_bits, tradeoff_operations
from pipelines.auditing.frozen import Audit, Finding, Kind
from pipelines.auditing.unfinished import Unfinished

FILES: Final = "the files"
KEYS: Final = "the files and the keys"
"""The things that a thief may hold."""

_AES_BITS: Final = 256.0
_TWO: Final = 2
# Sub-tables of the trade-off: three tell all pairs apart at any size that can be built.
_PLACES: Final = 3


@dataclass(frozen=True)
class Cost:
    """One row of the table of attacks.

    has: what the thief holds. needs: the attack's assumption. outcome: as seen. seconds: median of
    one search, where there was one. bits: log2 of the guesses; is_bound: it is a lower limit, or
    more guesses were not tried. inconclusive: searches that ran out of time, which are not in the
    outcome. seconds_needed: of one search on average, or a lower limit where none ended. is_cost:
    False where a thief would never pay these bits, since the attack cannot be made or one that is
    always cheaper can.
    """

    attack: str
    has: str
    needs: str
    outcome: str
    bits: float
    seconds: float | None = None
    is_bound: bool = False
    inconclusive: int = 0
    seconds_needed: float | None = None
    is_cost: bool = True

    @property
    def is_open(self) -> bool:
        """Whether no search ended. Then it takes more guesses than its bits, but nobody knows how
        many.
        """
        return self.is_bound and self.inconclusive > 0


def costs(
    audit: Audit,
    findings: Sequence[Finding],
    evaluated: tuple[int, int, float] | None,
    row: Foretold,
    widths: Mapping[str, Foretold],
) -> Iterator[Cost]:
    """Every attack in the report's order.

    evaluated: see `results`. row: the search of a row, as foretold. widths: the same of wide rows
    by their width, by `width_label`.
    """
    sealed = all(target.sealed for target in audit.targets)
    reads = KEYS if sealed else FILES
    if sealed:
        yield Cost("key of AES-256-GCM", FILES, "no flaw of AES or of the key service",
                   "not attacked", _AES_BITS, is_bound=True)  # fmt: skip
    for kind, attack, has in (
        (Kind.LYING, "search of what lies there", FILES),
        (Kind.ROW, "search of one row", reads),
    ):
        hidden = sealed and kind is Kind.LYING
        yield searched(
            attack, has, "the model's spectrum", of(findings, kind), hidden,
            guesses=by_spectrum(row),
        )  # fmt: skip
    yield from _by_width(findings, widths, reads, sealed)
    yield from _of_issues(audit, findings, reads)
    yield _by_seeds(audit, findings, reads)
    yield _strangers(of(findings, Kind.FACES), evaluated)
    yield _by_guesses(audit)


def of(findings: Iterable[Finding], kind: Kind, label: str | None = None) -> list[Finding]:
    """The findings of a kind; of one label, if it is named."""
    return [one for one in findings if one.kind == kind and label in (None, one.label)]


def searched(
    attack: str,
    has: str,
    needs: str,
    found: Sequence[Finding],
    sealed: bool,
    unless_found: float | None = None,
    guesses: float = 0.0,
) -> Cost:
    """The cost of a search that was made. Without success it takes at least the tried guesses. A
    search of encrypted helpers or of seeds does not tell how many guesses would do.

    guesses: of one search, as foretold.
    """
    hits = [one for one in found if one.success]
    late = Unfinished.among(found, foretold_seconds(found, guesses))
    ended = len(found) - (late.count if late else 0)
    told = [f"{len(hits)} of {ended} recovered"] if ended or not late else []
    told += [late.describe()] if late else []
    seconds = float(np.median([one.seconds for one in hits or found])) if found else None
    trials = [max(one.trials, 1) for one in hits or found] or [1]
    # If no search succeeded, every one made at least as many trials as the shortest.
    bits = float(np.log2(np.median(trials) if hits else min(trials)))
    if not hits:
        bits = _AES_BITS if sealed else unless_found or bits
    return Cost(
        attack, has, needs, "; ".join(told), bits, seconds, is_bound=not hits, **unended(late)
    )  # fmt: skip


def unended(late: Unfinished | None) -> dict[str, Any]:
    """The fields of a result that tell of searches that ran out of time."""
    return {"inconclusive": late.count, "seconds_needed": late.needed} if late else {}


def by_spectrum(row: Foretold) -> float:
    """Guesses by the spectrum that a row is foretold to take; 0 where its width takes fewer."""
    return 0.0 if row.by_width else row.trials


def foretold_seconds(found: Sequence[Finding], guesses: float) -> float:
    """The seconds that so many guesses take at the speed of these searches."""
    tried = sum(one.trials for one in found)
    return guesses * sum(one.seconds for one in found) / tried if tried else 0.0


def _by_width(
    findings: Sequence[Finding], foretold: Mapping[str, Foretold], reads: str, sealed: bool
) -> Iterator[Cost]:
    """Searches of wide rows, which need nothing of a model; a pair for each width."""
    for label, ahead in foretold.items():
        least = "at least" if ahead.is_bound else "about"
        needs = f"a code wider than the embedding: {least} {ahead.trials:,.0f} guesses"
        for kind, attack, has in (
            (Kind.LYING_WIDTH, "sparse vector of what lies there", FILES),
            (Kind.WIDTH, "sparse vector of one row", reads),
        ):
            hidden = sealed and kind is Kind.LYING_WIDTH
            found = of(findings, kind, label)
            yield searched(f"{attack}, {label}", has, needs, found, hidden, guesses=ahead.trials)


def _of_issues(audit: Audit, findings: Sequence[Finding], reads: str) -> Iterator[Cost]:
    params = audit.params
    if issues := of(findings, Kind.ISSUES):
        yield searched("search of several issues", reads, "issues of one person, all readable",
                       issues, False)  # fmt: skip
        both = "two issues of one photo, both readable"
        trials = regression_bits(params.n, params.alpha, _TWO, params.code_width, params.structure)
        yield Cost("probabilistic linear regression", reads, both, "by its formula", trials)
        if params.alpha % 2 == 0:
            operations = tradeoff_operations(params.code_width, params.alpha, _PLACES)
            yield Cost("time-memory trade-off", reads, both, "by its formula",
                       math.log2(operations))  # fmt: skip
    if repaired := sum(target.two_issues for target in audit.targets):
        fresh = [one for one in of(findings, Kind.RENEWAL) if one.label.startswith(f"{_TWO}|")]
        yield searched("search of a lost issue and a live one", reads,
                       f"a lost data file of {repaired:,} people who were enrolled again; tried "
                       "on fresh issues", fresh, False)  # fmt: skip


def _by_seeds(audit: Audit, findings: Sequence[Finding], reads: str) -> Cost:
    attack, needs = "seeds of NumPy's generators", "a rotation that can be made again"
    found, bits = of(findings, Kind.SEEDS), audit.params.bits
    if not found:
        outcome = "does not apply: no helper is a square, real rotation"
        return Cost(attack, reads, needs, outcome, bits, is_bound=True, is_cost=False)
    return searched(attack, reads, needs, found, False, unless_found=bits)


def _by_guesses(audit: Audit) -> Cost:
    """Guesses of codewords. In a wide code they are no thief's cost; see `Cost.is_cost`."""
    params = audit.params
    outcome = "by its formula"
    if params.is_wide:
        outcome += f": {params.bits:.1f} bits; the sparse vector is found sooner"
    needs = "a template that may lie anywhere"
    return Cost(
        "guessing a codeword", KEYS, needs, outcome, params.bits, is_cost=not params.is_wide
    )


def _strangers(found: Sequence[Finding], evaluated: tuple[int, int, float] | None) -> Cost:
    """-log2(FAR), from the audit's own comparisons, or from an evaluation's if it made more."""
    accepted, tried = sum(one.accepted for one in found), sum(one.trials for one in found)
    where, high = "", None
    if evaluated and evaluated[1] > tried:
        accepted, tried, high = evaluated
        where = " by the evaluation"
    bits, is_measured = dictionary_bits(accepted, tried)
    if high and not is_measured:
        # An evaluation's comparisons share subjects. Its interval accounts for that.
        bits = -math.log2(high)
    outcome = f"{accepted:,} of {tried:,} accepted{where}"
    needs = "a collection of faces"
    return Cost("faces of strangers", KEYS, needs, outcome, bits, is_bound=not is_measured)
