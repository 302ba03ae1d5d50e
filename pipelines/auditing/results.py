"""The results of an audit's units: the cost of each attack, and the lowest of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ironmask.attacks import (
    dictionary_bits,
    guesses_by_width,
    regression_bits,
    tradeoff_operations,
)
from ironmask.metrics import Linkability, linkability
from ironmask.random import secure_generator
from ironmask.spectrum import Spectrum
from pipelines.auditing.frozen import LINKED, Audit, Finding, Kind
from pipelines.auditing.unfinished import Unfinished
from pipelines.preflight.judge import Preflight

FILES: Final = "the files"
KEYS: Final = "the files and the keys"
"""The things that a thief may hold."""

_AES_BITS: Final = 256.0
LEAST_SCORES: Final = 5
"""Of mated and of non-mated pairs each; fewer tell nothing about a linkage function."""

# Bins of an obvious function's scores: few, because more bins show more chance.
_OBVIOUS_BINS: Final = 6
_TWO: Final = 2
_LYING: Final = (Kind.LYING, Kind.LYING_WIDE)


@dataclass(frozen=True)
class Cost:
    """One row of the table of attacks.

    has: what the thief holds. needs: the attack's assumption. outcome: as seen. seconds: median of
    one search, where there was one. bits: log2 of the guesses; is_bound: it is a lower limit, or
    more guesses were not tried. inconclusive: searches that ran out of time, which are not in the
    outcome. seconds_needed: of one search on average, or a lower limit where none ended.
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

    @property
    def is_open(self) -> bool:
        """Whether no search ended. Then it takes more guesses than its bits, but nobody knows how
        many.
        """
        return self.is_bound and self.inconclusive > 0


@dataclass(frozen=True)
class Renewal:
    """Live issues of one person, and the result. what: how they differ. tried: searches that ended;
    inconclusive: the others. seconds_needed: as in `Cost`.
    """

    issues: str
    what: str
    recovered: int
    tried: int
    seconds: float
    bits: float
    inconclusive: int = 0
    seconds_needed: float | None = None


@dataclass(frozen=True)
class AuditResults:
    """links: linkage functions with enough scores. unlinked: pairs that ran out of time, of each
    function. space: of the source's faces. foretold: the cost of a row's search on average.
    """

    audit: Audit
    costs: list[Cost]
    links: dict[str, Linkability]
    unlinked: dict[str, Unfinished]
    renewals: list[Renewal]
    space: Spectrum
    foretold: Preflight
    headline: str

    def least(self, has: str) -> Cost:
        """The cheapest attack of a thief who has this. Bounds count if nothing succeeded, except
        where all searches ran out of time.
        """
        costs = [cost for cost in self.costs if cost.has == has and not cost.is_open]
        known = [cost for cost in costs if not cost.is_bound]
        return min(known or costs, key=lambda cost: cost.bits)

    def below(self, floor: float, has: str) -> str | None:
        """Why a thief who has this may need fewer bits than the floor; None where no reason exists.

        An inconclusive attack counts against the table if it could have decided.
        """
        least = self.least(has)
        if least.bits < floor:
            return f"below the floor of {floor:g} bits: {least.attack} takes {least.bits:.1f}"
        late = [cost for cost in self.costs if cost.has == has and cost.is_open]
        for cost in (cost for cost in late if cost.bits < floor):
            return (
                f"inconclusive against the floor of {floor:g} bits: {cost.attack} ran out of time "
                f"after {cost.bits:.1f} bits in all {cost.inconclusive} cases, and one takes at "
                f"least {cost.seconds_needed:,.0f} s on average: raise --seconds"
            )
        return None


def results(
    audit: Audit,
    findings: Sequence[Finding],
    space: Spectrum,
    foretold: Preflight,
    evaluated: tuple[int, int, float] | None,
) -> AuditResults:
    """Add the findings up. evaluated: of an evaluation of these templates, its accepted impostors,
    all its impostors, and the upper end of the rate's interval.
    """
    costs = list(_costs(audit, findings, evaluated, foretold.row.trials))
    links, unlinked = _links(findings)
    return AuditResults(
        audit=audit,
        costs=costs,
        links=links,
        unlinked=unlinked,
        renewals=list(_renewals(findings)),
        space=space,
        foretold=foretold,
        headline=_headline(audit, findings, foretold.row.trials),
    )


def _of(findings: Iterable[Finding], kind: Kind) -> list[Finding]:
    return [finding for finding in findings if finding.kind == kind]


def _costs(
    audit: Audit,
    findings: Sequence[Finding],
    evaluated: tuple[int, int, float] | None,
    guesses: float,
) -> Iterable[Cost]:
    """guesses: of the search of one row, as foretold."""
    sealed = all(target.sealed for target in audit.targets)
    reads = KEYS if sealed else FILES
    params = audit.params
    if sealed:
        yield Cost("key of AES-256-GCM", FILES, "no flaw of AES or of the key service",
                   "not attacked", _AES_BITS, is_bound=True)  # fmt: skip
    lying = _of(findings, Kind.LYING)
    yield _searched("search of what lies there", FILES, "the model's spectrum", lying, sealed,
                    guesses=guesses)  # fmt: skip
    rows = _of(findings, Kind.ROW)
    yield _searched("search of one row", reads, "the model's spectrum", rows, False,
                    guesses=guesses)  # fmt: skip
    yield from _by_width(audit, findings, reads, sealed)
    issues = _of(findings, Kind.ISSUES)
    if issues:
        yield _searched("search of several issues", reads, "issues of one person, all readable",
                        issues, False)  # fmt: skip
        both = "two issues of one photo, both readable"
        yield Cost("probabilistic linear regression", reads, both, "by its formula",
                   regression_bits(params.n, params.alpha, 2, params.code_width))  # fmt: skip
        if params.alpha % 2 == 0:
            operations = tradeoff_operations(params.code_width, params.alpha, 3)
            yield Cost("time-memory trade-off", reads, both, "by its formula",
                       math.log2(operations))  # fmt: skip
    if repaired := sum(target.two_issues for target in audit.targets):
        fresh = [one for one in _of(findings, Kind.RENEWAL) if one.label.startswith(f"{_TWO}|")]
        yield _searched("search of a lost issue and a live one", reads,
                        f"a lost data file of {repaired:,} people who were enrolled again; tried "
                        "on fresh issues", fresh, False)  # fmt: skip
    if seeds := _of(findings, Kind.SEEDS):
        yield _searched("seeds of NumPy's generators", reads, "a rotation that can be made again",
                        seeds, False, unless_found=params.bits)  # fmt: skip
    yield _strangers(_of(findings, Kind.FACES), evaluated)
    yield Cost("guessing a codeword", KEYS, "a template that may lie anywhere", "by its formula",
               params.bits)  # fmt: skip


def _by_width(
    audit: Audit, findings: Sequence[Finding], reads: str, sealed: bool
) -> Iterable[Cost]:
    """The search of wide rows that needs no embeddings."""
    rows = _of(findings, Kind.WIDE)
    if not rows:
        return
    some = next(target.params for target in audit.targets if target.params.is_wide)
    guesses = guesses_by_width(some.code_width, some.alpha, some.structure)
    needs = f"a code of {some.code_width:,} for {some.n:,}; about {guesses:,.0f} guesses"
    yield _searched("sparse vector in what lies there", FILES, needs,
                    _of(findings, Kind.LYING_WIDE), sealed, guesses=guesses)  # fmt: skip
    yield _searched("sparse vector of one row", reads, needs, rows, False,
                    guesses=guesses)  # fmt: skip


def _searched(
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
    """
    hits = [one for one in found if one.success]
    late = Unfinished.among(found, _foretold_seconds(found, guesses))
    outcome = f"{len(hits)} of {len(found) - (late.count if late else 0)} recovered"
    outcome += f"; {late.describe()}" if late else ""
    seconds = float(np.median([one.seconds for one in hits or found])) if found else None
    trials = [max(one.trials, 1) for one in hits or found] or [1]
    # If no search succeeded, every one made at least as many trials as the shortest.
    bits = float(np.log2(np.median(trials) if hits else min(trials)))
    if not hits:
        bits = _AES_BITS if sealed else unless_found or bits
    return Cost(
        attack, has, needs, outcome, bits, seconds, is_bound=not hits, **_open(late)
    )  # fmt: skip


def _open(late: Unfinished | None) -> dict[str, Any]:
    return {"inconclusive": late.count, "seconds_needed": late.needed} if late else {}


def _foretold_seconds(found: Sequence[Finding], guesses: float) -> float:
    """The seconds that so many guesses take at the speed of these searches."""
    tried = sum(one.trials for one in found)
    return guesses * sum(one.seconds for one in found) / tried if tried else 0.0


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


def _links(
    findings: Sequence[Finding],
) -> tuple[dict[str, Linkability], dict[str, Unfinished]]:
    """Linkability from pairs whose attack ended, where these are enough; and the other pairs."""
    found = _of(findings, Kind.LINK)
    scores: dict[str, dict[str, list[float]]] = {name: {} for name in LINKED}
    for one in found:
        name, _, side = one.label.partition("|")
        scores[name].setdefault(side, []).extend(one.scores)
    bins = {LINKED[0]: _OBVIOUS_BINS, LINKED[1]: None}
    links = {
        name: linkability(sides["mated"], sides["non-mated"], secure_generator(), bins=bins[name])
        for name, sides in scores.items()
        if sides and min(len(sides["mated"]), len(sides["non-mated"])) >= LEAST_SCORES
    }
    late = {
        name: Unfinished.among([one for one in found if one.label.startswith(f"{name}|")])
        for name in LINKED
    }
    return links, {name: some for name, some in late.items() if some}


def _renewals(findings: Sequence[Finding]) -> Iterable[Renewal]:
    rows = _of(findings, Kind.ROW)
    if rows:
        yield _renewal("1", "stored rows", rows)
    for kind in (Kind.RENEWAL, Kind.PHOTOS):
        found = _of(findings, kind)
        for label in dict.fromkeys(one.label for one in found):
            issues, _, what = label.partition("|") if kind is Kind.RENEWAL else ("2", "", label)
            yield _renewal(issues, what, [one for one in found if one.label == label])


def _renewal(issues: str, what: str, found: Sequence[Finding]) -> Renewal:
    hits = [one for one in found if one.success]
    seconds = float(np.median([one.seconds for one in hits or found]))
    bits = float(np.log2(np.median([max(one.trials, 1) for one in hits or found])))
    late = Unfinished.among(found)
    ended = len(found) - (late.count if late else 0)
    return Renewal(issues, what, len(hits), ended, seconds, bits, **_open(late))


def _headline(audit: Audit, findings: Sequence[Finding], guesses: float) -> str:
    """The worth of the table as one number, and the subjects for whom it is lower."""
    repaired = sum(target.two_issues for target in audit.targets)
    worth = _worth(audit, findings, guesses)
    if not repaired:
        return worth
    return (
        f"{worth} {repaired:,} people have two issues, for a data file with their rows was lost: "
        "re-protect."
    )


def _worth(audit: Audit, findings: Sequence[Finding], guesses: float) -> str:
    lying, rows = _of(findings, Kind.LYING), _of(findings, Kind.ROW)
    if all(target.params.is_wide for target in audit.targets):
        # A wide row falls to its width alone, whatever the model.
        rows, some = _of(findings, Kind.WIDE), audit.params
        guesses = guesses_by_width(some.code_width, some.alpha, some.structure)
    hits = [one for one in rows if one.success]
    claimed = f"{audit.params.bits:.1f} bits of a codeword"
    late = Unfinished.among(rows, _foretold_seconds(rows, guesses))
    if hits:
        seconds, ended = float(np.median([one.seconds for one in hits])), len(rows)
        ended -= late.count if late else 0
        row = f"gave its template in {len(hits)} of {ended} cases, in {seconds:.1f} s (median)"
        row += f" ({late.describe()})" if late else ""
    else:
        row = f"was searched without an end ({late.describe() if late else 'not at all'})"
    taken = max(sum(one.success for one in _of(findings, kind)) for kind in _LYING)
    if all(target.sealed for target in audit.targets):
        return (
            f"Of {len(lying)} rows as they lie {taken or 'none'} could be read; with the keys, one "
            f"row {row}: this table is as safe as its keys, whatever the {claimed} promise."
        )
    return f"Helpers lie in the clear: one stolen row {row}, whatever the {claimed} promise."
