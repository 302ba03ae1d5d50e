"""What the units of an audit come to: what each attack takes, and the least of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from ironmask.attacks import dictionary_bits, regression_bits, tradeoff_operations
from ironmask.metrics import Linkability, linkability
from ironmask.random import secure_generator
from ironmask.spectrum import Spectrum
from pipelines.auditing.frozen import LINKED, Audit, Finding, Kind
from pipelines.preflight.judge import Preflight

FILES: Final = "the files"
KEYS: Final = "the files and the keys"
"""What a thief has."""

_AES_BITS: Final = 256.0
# No one-dimensional function of chance: bins of an obvious function's scores.
_OBVIOUS_BINS: Final = 6
_TWO: Final = 2


@dataclass(frozen=True)
class Cost:
    """One row of the table of attacks. has: what the thief has. needs: what the attack assumes.
    outcome: what was seen. seconds: median of one search, where one was made. bits: log2 of the
    guesses; is_bound: it takes at least so many, or more were not tried.
    """

    attack: str
    has: str
    needs: str
    outcome: str
    bits: float
    seconds: float | None = None
    is_bound: bool = False


@dataclass(frozen=True)
class Renewal:
    """Live issues of one person, and what became of them. what: how they differ."""

    issues: str
    what: str
    recovered: int
    tried: int
    seconds: float
    bits: float


@dataclass(frozen=True)
class AuditResults:
    """space: of the source's faces. foretold: what a row's search takes on average."""

    audit: Audit
    costs: list[Cost]
    links: dict[str, Linkability]
    renewals: list[Renewal]
    space: Spectrum
    foretold: Preflight
    headline: str

    def least(self, has: str) -> Cost:
        """The cheapest attack of a thief who has this; bounds count where nothing succeeded."""
        costs = [cost for cost in self.costs if cost.has == has]
        known = [cost for cost in costs if not cost.is_bound]
        return min(known or costs, key=lambda cost: cost.bits)


def results(
    audit: Audit,
    findings: Sequence[Finding],
    space: Spectrum,
    foretold: Preflight,
    evaluated: tuple[int, int] | None,
) -> AuditResults:
    """Add the findings up. evaluated: impostors that an evaluation of these templates accepted, and
    all of them.
    """
    costs = list(_costs(audit, findings, evaluated))
    return AuditResults(
        audit=audit,
        costs=costs,
        links=_links(findings),
        renewals=list(_renewals(findings)),
        space=space,
        foretold=foretold,
        headline=_headline(audit, findings),
    )


def _of(findings: Iterable[Finding], kind: Kind) -> list[Finding]:
    return [finding for finding in findings if finding.kind == kind]


def _costs(
    audit: Audit, findings: Sequence[Finding], evaluated: tuple[int, int] | None
) -> Iterable[Cost]:
    sealed = all(target.sealed for target in audit.targets)
    reads = KEYS if sealed else FILES
    params = audit.params
    if sealed:
        yield Cost("key of AES-256-GCM", FILES, "no flaw of AES or of the key service",
                   "not attacked", _AES_BITS, is_bound=True)  # fmt: skip
    lying = _of(findings, Kind.LYING)
    yield _searched("search of what lies there", FILES, "the model's spectrum", lying, sealed)
    rows = _of(findings, Kind.ROW)
    yield _searched("search of one row", reads, "the model's spectrum", rows, False)
    issues = _of(findings, Kind.ISSUES)
    if issues:
        yield _searched("search of several issues", reads, "issues of one person, all readable",
                        issues, False)  # fmt: skip
        both = "two issues of one photo, both readable"
        yield Cost("probabilistic linear regression", reads, both, "by its formula",
                   regression_bits(params.n, params.alpha, 2))  # fmt: skip
        if params.alpha % 2 == 0:
            operations = tradeoff_operations(params.n, params.alpha, 3)
            yield Cost("time-memory trade-off", reads, both, "by its formula",
                       math.log2(operations))  # fmt: skip
    if repaired := sum(target.two_issues for target in audit.targets):
        fresh = [one for one in _of(findings, Kind.RENEWAL) if one.label.startswith(f"{_TWO}|")]
        yield _searched("search of a lost issue and a live one", reads,
                        f"a lost data file of {repaired:,} people who were enrolled again; tried "
                        "on fresh issues", fresh, False)  # fmt: skip
    seeds = _of(findings, Kind.SEEDS)
    yield _searched("seeds of NumPy's generators", reads, "a rotation that can be made again",
                    seeds, False, unless_found=params.bits)  # fmt: skip
    yield _strangers(_of(findings, Kind.FACES), evaluated)
    yield Cost("guessing a codeword", KEYS, "a template that may lie anywhere", "by its formula",
               params.bits)  # fmt: skip


def _searched(
    attack: str,
    has: str,
    needs: str,
    found: Sequence[Finding],
    sealed: bool,
    unless_found: float | None = None,
) -> Cost:
    """A search that was made. Without success: no fewer than what was tried; of encrypted helpers
    and of seeds the search says nothing of how many would do.
    """
    hits = [one for one in found if one.success]
    outcome = f"{len(hits)} of {len(found)} recovered"
    seconds = float(np.median([one.seconds for one in hits or found])) if found else None
    trials = [max(one.trials, 1) for one in hits or found] or [1]
    bits = float(np.log2(np.median(trials)))
    if not hits:
        bits = _AES_BITS if sealed else unless_found or bits
    return Cost(attack, has, needs, outcome, bits, seconds, is_bound=not hits)


def _strangers(found: Sequence[Finding], evaluated: tuple[int, int] | None) -> Cost:
    """-log2(FAR), of the audit's own comparisons or of an evaluation's, which are more."""
    accepted, tried = sum(one.accepted for one in found), sum(one.trials for one in found)
    where = ""
    if evaluated and evaluated[1] > tried:
        accepted, tried = evaluated
        where = " by the evaluation"
    bits, is_measured = dictionary_bits(accepted, tried)
    outcome = f"{accepted:,} of {tried:,} accepted{where}"
    needs = "a collection of faces"
    return Cost("faces of strangers", KEYS, needs, outcome, bits, is_bound=not is_measured)


def _links(findings: Sequence[Finding]) -> dict[str, Linkability]:
    found = _of(findings, Kind.LINK)
    scores: dict[str, dict[str, list[float]]] = {name: {} for name in LINKED}
    for one in found:
        name, _, side = one.label.partition("|")
        scores[name].setdefault(side, []).extend(one.scores)
    bins = {LINKED[0]: _OBVIOUS_BINS, LINKED[1]: None}
    return {
        name: linkability(sides["mated"], sides["non-mated"], secure_generator(), bins=bins[name])
        for name, sides in scores.items()
        if sides
    }


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
    return Renewal(issues, what, len(hits), len(found), seconds, bits)


def _headline(audit: Audit, findings: Sequence[Finding]) -> str:
    """What the table is worth, with its number, and who is worse off."""
    repaired = sum(target.two_issues for target in audit.targets)
    if not repaired:
        return _worth(audit, findings)
    return (
        f"{_worth(audit, findings)} {repaired:,} people have two issues, for a data file with "
        "their rows was lost: re-protect."
    )


def _worth(audit: Audit, findings: Sequence[Finding]) -> str:
    lying, rows = _of(findings, Kind.LYING), _of(findings, Kind.ROW)
    hits = [one for one in rows if one.success]
    claimed = f"{audit.params.bits:.1f} bits of a codeword"
    if hits:
        seconds = float(np.median([one.seconds for one in hits]))
        row = f"gave its template in {len(hits)} of {len(rows)} cases, in {seconds:.1f} s (median)"
    else:
        row = f"withstood the search in {len(rows)} of {len(rows)} cases"
    taken = sum(one.success for one in lying)
    if all(target.sealed for target in audit.targets):
        return (
            f"Of {len(lying)} rows as they lie {taken or 'none'} could be read; with the keys, one "
            f"row {row}: this table is as safe as its keys, whatever the {claimed} promise."
        )
    return f"Helpers lie in the clear: one stolen row {row}, whatever the {claimed} promise."
