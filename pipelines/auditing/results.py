"""The results of an audit's units: the cost of each attack, and the lowest of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np

from ironmask.attacks import Foretold
from ironmask.metrics import Linkability, linkability
from ironmask.random import secure_generator
from ironmask.spectrum import Spectrum
from pipelines.auditing.costs import Cost, by_spectrum, costs, foretold_seconds, of, unended
from pipelines.auditing.frozen import LINKED, Audit, Finding, Kind
from pipelines.auditing.unfinished import Unfinished
from pipelines.preflight.judge import Preflight

LEAST_SCORES: Final = 5
"""Of mated and of non-mated pairs each; fewer tell nothing about a linkage function."""

# Bins of an obvious function's scores: few, because more bins show more chance.
_OBVIOUS_BINS: Final = 6
_NO_WIDTHS: Final[Mapping[str, Foretold]] = MappingProxyType({})


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
        where all searches ran out of time. Bits that are no cost never do.
        """
        costs = [
            cost for cost in self.costs if cost.has == has and cost.is_cost and not cost.is_open
        ]
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
    widths: Mapping[str, Foretold] = _NO_WIDTHS,
) -> AuditResults:
    """Add the findings up. evaluated: of an evaluation of these templates, its accepted impostors,
    all its impostors, and the upper end of the rate's interval. widths: of wide rows, the search by
    their width as foretold, by `width_label`.
    """
    links, unlinked = _links(findings)
    return AuditResults(
        audit=audit,
        costs=list(costs(audit, findings, evaluated, foretold.row, widths)),
        links=links,
        unlinked=unlinked,
        renewals=list(_renewals(findings, by_spectrum(foretold.row))),
        space=space,
        foretold=foretold,
        headline=_headline(audit, findings, by_spectrum(foretold.row)),
    )


def _links(
    findings: Sequence[Finding],
) -> tuple[dict[str, Linkability], dict[str, Unfinished]]:
    """Linkability from pairs whose attack ended, where these are enough; and the other pairs."""
    found = of(findings, Kind.LINK)
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


def _renewals(findings: Sequence[Finding], guesses: float) -> Iterable[Renewal]:
    rows = of(findings, Kind.ROW)
    if rows:
        yield _renewal("1", "stored rows", rows, guesses)
    if wide := of(findings, Kind.WIDTH):
        yield _renewal("1", "stored rows, by the code's width", wide)
    for kind in (Kind.RENEWAL, Kind.PHOTOS):
        found = of(findings, kind)
        for label in dict.fromkeys(one.label for one in found):
            issues, _, what = label.partition("|") if kind is Kind.RENEWAL else ("2", "", label)
            yield _renewal(issues, what, [one for one in found if one.label == label])


def _renewal(issues: str, what: str, found: Sequence[Finding], guesses: float = 0.0) -> Renewal:
    hits = [one for one in found if one.success]
    seconds = float(np.median([one.seconds for one in hits or found]))
    bits = float(np.log2(np.median([max(one.trials, 1) for one in hits or found])))
    late = Unfinished.among(found, foretold_seconds(found, guesses))
    ended = len(found) - (late.count if late else 0)
    return Renewal(issues, what, len(hits), ended, seconds, bits, **unended(late))


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
    lying = of(findings, Kind.LYING)
    claimed = f"{audit.params.bits:.1f} bits of a codeword"
    read = max(map(_hits, (lying, of(findings, Kind.LYING_WIDTH))))
    one = _row_worth(findings, guesses)
    if all(target.sealed for target in audit.targets):
        return (
            f"Of {len(lying)} rows as they lie {read or 'none'} could be read; with the keys, one "
            f"row {one}: this table is as safe as its keys, whatever the {claimed} promise."
        )
    return f"Helpers lie in the clear: one stolen row {one}, whatever the {claimed} promise."


def _row_worth(findings: Sequence[Finding], guesses: float) -> str:
    """What became of single readable rows, by the search that gave more of them."""
    rows, wide = of(findings, Kind.ROW), of(findings, Kind.WIDTH)
    if _hits(wide) >= max(_hits(rows), 1):
        rows, guesses = wide, 0.0
    late = Unfinished.among(rows, foretold_seconds(rows, guesses))
    if not _hits(rows):
        return f"was searched without an end ({late.describe() if late else 'not at all'})"
    seconds = float(np.median([one.seconds for one in rows if one.success]))
    ended = len(rows) - (late.count if late else 0)
    told = f"gave its template in {_hits(rows)} of {ended} cases, in {seconds:.1f} s (median)"
    return f"{told} ({late.describe()})" if late else told


def _hits(found: Sequence[Finding]) -> int:
    return sum(one.success for one in found)
