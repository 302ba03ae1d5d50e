"""The tables of an evaluation's report, for people."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version

from ironmask.metrics import far, frr, gfar, gfrr
from ironmask.params import SCHEME_VERSION
from pipelines.evaluation.cost import Spent
from pipelines.evaluation.frozen import Case, Evaluation
from pipelines.evaluation.results import CaseResults, ProtectedRow, Results
from pipelines.report.rate_texts import chance_text, difference_text, rate_text, tar_text


@dataclass(frozen=True)
class Sheet:
    """One table. note: how to read it. strong: the places of rows in bold."""

    title: str
    note: str
    columns: list[str]
    rows: list[list[str]] = field(default_factory=list)
    strong: frozenset[int] = frozenset()


def sheets(found: Results, spent: Spent) -> list[Sheet]:
    """All tables of the report, in its order."""
    made = [_tested(found, spent.machine), _population(found), _failures(found), _recogniser(found)]
    made += [_protected(found), _folded(found)]
    made += [_groups(found)] if any(case.groups for case in found.cases) else []
    return [*made, _cost(spent)]


def brief(found: Results) -> list[Sheet]:
    """The tables for a terminal."""
    cosine = [
        [*of, f"{row.target:g}", f"{row.point.threshold:.4f}", f"{1 - row.fnmr.value:.4f}"]
        for of, case in _named(found)
        for row in case.cosine
    ]
    protected = [
        [
            *of,
            row.setting,
            str(row.params.tolerance),
            f"{row.params.bits:.1f}",
            f"{1 - row.fnmr.value:.4f}",
            f"{frr(row.fnmr.value, found.folded(case).fta):.4f}",
            f"{row.fmr.errors:,}",
            f"{row.fmr.value:.2g}" if row.fmr.supported else f"at most {row.fmr.bound:.2g}",
        ]
        for of, case in _named(found)
        for row in case.protected
    ]
    note = " ".join([f"{_comparisons(found)} comparisons.", *left_out(found)])
    columns = ["setting", "tolerance", "bits", "TAR", "FRR", "impostors accepted", "FMR"]
    of = _heading(found)
    return [
        Sheet("The unprotected recogniser", "", [*of, "FMR at most", "threshold", "TAR"], cosine),
        Sheet("Protected templates", note, [*of, *columns], protected),
    ]


def left_out(found: Results) -> Iterator[str]:
    """The parts that were not compared, one sentence each."""
    if found.unlabelled:
        yield f"{found.unlabelled:,} faces without a subject are left out."
    case = found.listed
    if case is None or case.uncompared is None:
        return
    lost = case.uncompared
    if lost.total:
        yield (
            f"{lost.total:,} of {case.asked:,} pairs of the list could not be compared "
            f"({lost.total_genuine:,} genuine, {lost.total_impostor:,} impostor): the genuine ones "
            "count as rejected in FRR, the others as not accepted in FAR."
        )
    if lost.excluded:
        yield f"{lost.excluded:,} lines of the list name faces that are left out on purpose."
    if lost.repeated:
        yield f"{lost.repeated:,} lines of the list say what others have said, and do not count."


def _comparisons(found: Results) -> str:
    genuine = sum(case.genuine for case in found.cases)
    impostor = sum(case.impostor for case in found.cases)
    return f"{genuine:,} genuine and {impostor:,} impostor"


def _heading(found: Results) -> list[str]:
    return ["templates"] if len(found.cases) > 1 else []


def _named(found: Results) -> Iterator[tuple[list[str], CaseResults]]:
    """Each case with its cell, which a single case does not need."""
    for case in found.cases:
        yield ([case.case.name] if len(found.cases) > 1 else []), case


def _tested(found: Results, machine: str) -> Sheet:
    evaluation, issued = found.evaluation, found.evaluation.issued
    rows = [["source", f"{evaluation.source} ({evaluation.version})"]]
    if issued:
        rows += [
            ["table", f"{issued.dest}, {issued.table_id}"],
            ["templates", f"{issued.templates:,} of generation {issued.generation}"],
        ]
    else:
        rows += [["protocol", ", ".join(evaluation.protocols)]]
    rows += [
        ["comparisons", _comparisons(found)],
        ["model", evaluation.model],
        ["scheme", f"version {_version(evaluation)}, n {evaluation.n}"],
        ["settings", "; ".join(setting.name for setting in evaluation.settings)],
        ["centring", ", ".join(evaluation.centrings)],
        ["code", f"ironmask {version('ironmask')}"],
        ["machine", machine],
    ]
    return Sheet("What was tested", "", ["what", "value"], rows)


def _version(evaluation: Evaluation) -> int:
    return evaluation.issued.params.version if evaluation.issued else SCHEME_VERSION


def _population(found: Results) -> Sheet:
    each = sorted(found.faces_a_subject)
    rows = [
        ["subjects", f"{found.subjects:,}"],
        ["faces", f"{found.faces:,}"],
        ["faces a subject", f"{each[0]} to {each[-1]}, median {each[len(each) // 2]}"],
        ["excluded by the list", f"{found.excluded:,}"],
        ["left out without a subject", f"{found.unlabelled:,}"],
        ["demographic labels", ", ".join(found.evaluation.groups) or "none given"],
    ]
    counts = {of[0]: _templates(case) for of, case in _named(found) if of}
    if len(set(counts.values())) > 1:
        rows += [[f"templates, {name}", text] for name, text in counts.items()]
    else:
        name = "templates of each kind" if counts else "templates"
        rows.append([name, _templates(found.cases[0])])
    if found.evaluation.issued:
        rows.append(["repeated faces, which are no probes", f"{found.duplicates:,}"])
    return Sheet("Population", "", ["what", "value"], rows)


def _templates(case: CaseResults) -> str:
    return f"{case.templates:,}, {case.genuine:,} genuine comparisons"


def _failures(found: Results) -> Sheet:
    failed, issued = found.failures, found.evaluation.issued
    origin = (
        "Faces: what the table enrolled or failed to, and the probes."
        if issued
        else "Faces: rows of the source. What was lost before it was written is not in it."
    )
    note = (
        f"{origin} FTA {failed.fta:.4g}: {failed.not_acquired:,} sound ones of "
        f"{failed.attempts:,} gave no embedding that can be compared. FTE {failed.fte:.4g}: "
        f"{failed.without:,} of {failed.subjects:,} subjects have none."
    )
    rows = [[reason, f"{count:,}", "faces"] for reason, count in failed.reasons.items()]
    rows += _uncompared(found)
    rows += [["template whose faces are not in the source", f"{found.missing:,}", "templates"]]
    why = "digests do not confirm its faces" if issued else "its faces have no common direction"
    rows += [
        [", ".join([*of, f"template left out: {why}"]), f"{case.lost:,}", "templates"]
        for of, case in _named(found)
        if case.lost or issued
    ]
    if not issued:
        rows = [row for row in rows if row[1] != "0"] or [["none", "0", "faces"]]
    return Sheet("Failures to acquire and to enrol", note, ["reason", "count", "of"], rows)


def _uncompared(found: Results) -> list[list[str]]:
    lost = found.listed.uncompared if found.listed else None
    if lost is None:
        return []
    sides = (("genuine pairs", lost.genuine), ("impostor pairs", lost.impostor))
    rows = [
        [f"pair not compared: {reason}", f"{count:,}", of]
        for of, reasons in sides
        for reason, count in reasons.items()
    ]
    rows.append(["pair left out with a face", f"{lost.excluded:,}", "lines"])
    return [*rows, ["pair again", f"{lost.repeated:,}", "lines"]]


def _recogniser(found: Results) -> Sheet:
    note = (
        "Cosine similarity of the embeddings. Intervals: 95 %, Wilson's with the variance by "
        "identity clusters; [..] by a bootstrap over subjects. A rate of fewer than 30 errors is "
        "unsupported, and its one-sided 95 % bound is given, which knows that errors of the same "
        "people come together. EER: where FMR and FNMR are alike."
    )
    rows = [
        [
            *of,
            f"{row.target:g}",
            f"{row.point.threshold:.4f}",
            rate_text(row.fmr) if row.fmr else f"{row.point.fmr:.3g}",
            rate_text(row.fnmr),
            f"{1 - row.fnmr.value:.4f}",
            f"{case.scores.eer:.4f}",
        ]
        for of, case in _named(found)
        for row in case.cosine
    ]
    columns = [*_heading(found), "FMR at most", "threshold", "FMR", "FNMR", "TAR", "EER"]
    return Sheet("The unprotected recogniser", note, columns, rows)


def _protected(found: Results) -> Sheet:
    note = (
        "Bits: work to guess an accepted codeword of one stolen row and key, for a template "
        "without structure. TAR: 1 - FNMR. Difference: TAR less the recogniser's own at no higher "
        "an FMR, with McNemar's p for comparisons that share subjects; not supported where the "
        "recogniser's threshold rests on fewer than 30 accepted impostors. AF: one codeword digest "
        "(tolerance 0); AF+I: tolerance, by digests of its subsets; C: centring of several faces; "
        "W: a code wider than the embedding. N: its width."
    )
    columns = ["setting", "tolerance", "bits", "digests", "TAR", "FMR", "difference", "p"]
    rows = [
        [
            *of,
            f"{_paper(row, case.case)} {row.setting}",
            str(row.params.tolerance),
            f"{row.params.bits:.1f}",
            f"{row.params.digest_count:,}",
            tar_text(row.fnmr),
            rate_text(row.fmr),
            difference_text(row.against),
            chance_text(row.against),
        ]
        for of, case in _named(found)
        for row in case.protected
    ]
    return Sheet("Protected templates", note, [*_heading(found), *columns], rows)


def _paper(row: ProtectedRow, case: Case) -> str:
    marks = {"+W": row.params.is_wide, "+C": case.centring, "+I": row.params.tolerance}
    return "AF" + "".join(mark for mark, is_so in marks.items() if is_so)


def _folded(found: Results) -> Sheet:
    note = (
        f"{_failure_rates(found)} FAR = FMR (1 - FTA), FRR = FTA + FNMR (1 - FTA), "
        "GFAR = FAR (1 - FTE), GFRR = FTE + FRR (1 - FTE). Unsupported rates are bounds (<)."
    )
    rows = []
    for of, case in _named(found):
        lost = found.folded(case)
        for row in case.protected:
            fmr = row.fmr.value if row.fmr.supported else row.fmr.bound
            fnmr = row.fnmr.value if row.fnmr.supported else row.fnmr.bound
            signs = ["" if one.supported else "< " for one in (row.fmr, row.fnmr)]
            values = [
                far(fmr, lost.impostor_fta),
                gfar(fmr, lost.impostor_fta, lost.fte),
                frr(fnmr, lost.fta),
                gfrr(fnmr, lost.fta, lost.fte),
            ]
            texts = [f"{signs[at // 2]}{value:.3g}" for at, value in enumerate(values)]
            rows.append([*of, row.setting, str(row.params.tolerance), *texts])
    columns = [*_heading(found), "setting", "tolerance", "FAR", "GFAR", "FRR", "GFRR"]
    return Sheet("Failures folded in", note, columns, rows)


def _failure_rates(found: Results) -> str:
    texts = []
    if any(case.uncompared is None for case in found.cases):
        texts.append(f"FTA {found.failures.fta:.4g}, FTE {found.failures.fte:.4g}.")
    if found.listed:
        lost = found.folded(found.listed)
        texts.append(
            f"Of a list, FTA is the share of its pairs that could not be compared, {lost.fta:.4g} "
            f"of the genuine and {lost.impostor_fta:.4g} of the impostor ones, for want of a "
            "template or of a probe."
        )
    return " ".join(texts)


def _groups(found: Results) -> Sheet:
    note = "Both faces of an impostor comparison belong to the group. Cosine: at an FMR of 1e-4."
    columns = [*_heading(found), "label", "group", "subjects", "what", "FMR", "FNMR"]
    rows = [
        [*of, g.label, g.group, f"{g.subjects:,}", g.what, rate_text(g.fmr), rate_text(g.fnmr)]
        for of, case in _named(found)
        for g in case.groups
    ]
    return Sheet("Demographic groups", note, columns, rows)


def _cost(spent: Spent) -> Sheet:
    first = spent.costs[0]
    note = (
        "A row: its helper and digests; identifiers take some hundred bytes more. Times: one core "
        f"of the machine that wrote this report, p50 and p99 of {first.protect.rounds} rounds or "
        "fewer, at the largest tolerance; smaller ones take no longer."
    )
    if spent.images_per_second:
        note += f" The table's newest enrolment took {spent.images_per_second:,.1f} inputs/s."
    rows = [
        [
            cost.setting,
            str(cost.params.tolerance),
            f"{cost.row_bytes:,}",
            f"{cost.protect.p50:.2f} / {cost.protect.p99:.2f}",
            f"{cost.verify.p50:.2f} / {cost.verify.p99:.2f}",
            f"{cost.protect.per_second:,.0f}",
            f"{cost.core_hours_a_million:.2f}",
            f"{cost.gib_a_million:,.1f}",
        ]
        for cost in spent.costs
    ]
    columns = [
        "setting", "tolerance", "bytes a row", "protect ms", "verify ms", "rows/s a core",
        "core hours a million", "GiB a million",
    ]  # fmt: skip
    return Sheet("Cost", note, columns, rows)
