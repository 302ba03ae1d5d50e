"""The tables of an audit's report, for people."""

from __future__ import annotations

from contextlib import suppress

from ironmask.attacks import Foretold
from ironmask.errors import ParameterError
from ironmask.params import Params
from ironmask.spectrum import Spectrum
from pipelines.auditing.costs import FILES, KEYS, Cost
from pipelines.auditing.results import LEAST_SCORES, AuditResults, Renewal
from pipelines.auditing.unfinished import lasting
from pipelines.report.sheets import Sheet

_BEYOND = (0.5, 0.25, 0.125, 0.0625, 0.02, 0.005, 0.0005)
_SETTINGS = ((8, 0), (12, 0), (12, 1), (16, 0), (16, 4), (20, 0), (20, 4), (24, 0), (32, 0))


def audit_sheets(found: AuditResults) -> list[Sheet]:
    """All tables of the audit, in the report's order."""
    return [_irreversibility(found), _unlinkability(found), _renewability(found), _spectrum(found)]


def _irreversibility(found: AuditResults) -> Sheet:
    audit = found.audit
    note = (
        f"{_targets(found)} Each attack with what it assumes; seconds: median of "
        "one search on one core; bits: log2 of the guesses. Bold: the cheapest way of a thief who "
        f"has so much. A search had {audit.seconds:.1f} s, and time to end what it had begun. "
        "Those that ran out of time are inconclusive, and count neither for nor against."
    )
    least = [found.least(has) for has in (FILES, KEYS) if any(c.has == has for c in found.costs)]
    rows = [
        [
            cost.attack,
            cost.has,
            cost.needs,
            cost.outcome,
            "" if cost.seconds is None else f"{cost.seconds:.2f}",
            _bits(cost),
        ]
        for cost in found.costs
    ]
    columns = ["attack", "the thief has", "and it takes", "outcome", "seconds", "bits"]
    strong = frozenset(place for place, cost in enumerate(found.costs) if cost in least)
    return Sheet("Irreversibility", note, columns, rows, strong)


def _targets(found: AuditResults) -> str:
    texts = [
        f"{target.dest}, generation {target.generation}: {target.templates:,} templates, "
        f"{target.params.describe()}, helpers {'encrypted' if target.sealed else 'IN THE CLEAR'}"
        + (f", filled {target.filling:g}" if target.filling else "")
        + (f", {target.two_issues:,} people with two issues" if target.two_issues else "")
        for target in found.audit.targets
    ]
    return "; ".join(texts) + "."


def _bits(cost: Cost) -> str:
    if not cost.is_cost:
        return ""
    return f"{'at least ' if cost.is_bound else ''}{cost.bits:.1f}"


def _unlinkability(found: AuditResults) -> Sheet:
    note = (
        "Fresh issues with the table's settings, of one face (mated) and of two people's, helpers "
        "readable. D_sys: 0 where a function tells nothing, 1 where everything. Maximal "
        "linkability: bits of one. [..]: 95 % by a bootstrap over scores. Pairs whose attack ran "
        f"out of time have no score; fewer than {LEAST_SCORES} scores of a kind are inconclusive."
    )
    rows = [
        [
            name,
            f"{link.mated:,}",
            f"{link.non_mated:,}",
            str(link.bins),
            f"{link.d_sys:.3f} [{link.d_sys_interval.low:.3f} to {link.d_sys_interval.high:.3f}]",
            f"{link.maximal:.3f} "
            f"[{link.maximal_interval.low:.3f} to {link.maximal_interval.high:.3f}]",
        ]
        for name, link in found.links.items()
    ]
    for row in rows:
        late = found.unlinked.get(row[0])
        row.append(late.describe() if late else "none")
    rows += [
        [name, "", "", "", "inconclusive", "", late.describe()]
        for name, late in found.unlinked.items()
        if name not in found.links
    ]
    columns = ["linkage function", "mated", "non-mated", "bins", "D_sys", "maximal linkability"]
    columns.append("out of time")
    return Sheet("Unlinkability", note, columns, rows)


def _renewability(found: AuditResults) -> Sheet:
    note = (
        "Readable issues of one person, and how often their templates were recovered from them: "
        "why at most one may live. Rows of several issues are fresh ones, of one photo and of "
        "several; angles: between two photos of one person. A readable copy of a row from before "
        "it was renewed at a match is a further issue of the same template."
    )
    rows = [
        [one.issues, one.what, f"{one.recovered} of {one.tried}", _late(one), f"{one.seconds:.1f}",
         f"{one.bits:.1f}" if one.recovered else f"more than {one.bits:.1f}"]
        for one in found.renewals
    ]  # fmt: skip
    columns = ["live issues", "of what", "recovered", "inconclusive", "seconds", "bits"]
    return Sheet("Renewability", note, columns, rows)


def _photos(found: AuditResults) -> str:
    photos = found.audit.targets[0].photos
    return "one photo" if photos == 1 else f"{photos} photos or as many as there are"


def _late(one: Renewal) -> str:
    if one.seconds_needed is None:
        return "none"
    least = "about" if one.tried else "at least"
    return f"{one.inconclusive}; one takes {least} {lasting(one.seconds_needed)}"


def _guessed(ahead: Foretold) -> str:
    how = "by the width of the code" if ahead.by_width else "by the spectrum"
    return f"{ahead.guessed} {'entry' if ahead.guessed == 1 else 'entries'} {how}"


def _left(space: Spectrum, params: Params) -> str:
    return f"{space.bits_left(params):.1f} of {params.bits:.1f}"


def _spectrum(found: AuditResults) -> Sheet:
    space, ahead = found.space, found.foretold
    bound = "at least " if ahead.row.is_bound else "about "
    note = (
        f"Of the templates of {space.count:,} people, each of {_photos(found)}. Effective rank "
        f"{space.effective_rank:.0f} of {space.n}. "
        f"With the table's settings a search of one row is foretold to take "
        f"{bound}{ahead.row.trials:,.0f} guesses ({ahead.row.bits:.1f} bits), guessing "
        f"{_guessed(ahead.row)}. Bits left: what directions do not give away, to a thief "
        "without a limit of computing."
    )
    rows = [
        [f"directions that hold all but {share:g} of the energy", f"{space.strongest(share)}"]
        for share in _BEYOND
    ]
    own = found.audit.params
    rows.append([f"bits left, as enrolled: {own.describe()}", _left(space, own)])
    for alpha, tolerance in _SETTINGS:
        with suppress(ParameterError):
            params = Params(space.n, alpha, tolerance)
            what = f"bits left, square, alpha {alpha}, tolerance {tolerance}"
            rows.append([what, _left(space, params)])
    return Sheet("Spectrum of the embeddings", note, ["what", "value"], rows)
