"""The one sentence of an evaluation, about the enrolled setting or the one asked for.

Of many settings tried on the same data, the best looks better than it is. So results never choose
the setting of this sentence.
"""

from __future__ import annotations

from ironmask.metrics import gfrr
from ironmask.params import DEFAULT_PRESET, preset
from pipelines.evaluation.results import ProtectedRow, Results
from pipelines.report.rate_texts import NOT_SUPPORTED, tar_percent


def headline(found: Results) -> str:
    """The result for the first kind of templates, with intervals."""
    first = found.cases[0]
    row, why = _chosen(found)
    if row is None:
        return why
    of = f"Templates {first.case.name}: " if len(found.cases) > 1 else ""
    params = row.params
    return (
        f"{of}{row.setting} with tolerance {params.tolerance} ({params.bits:.1f} bits), {why}, "
        f"accepts {tar_percent(row.fnmr)} of genuine comparisons at {_fmr(row)}."
        f"{_lost(found, row)} {_same(row)}"
    )


def _chosen(found: Results) -> tuple[ProtectedRow | None, str]:
    """The setting, and why it was chosen."""
    evaluation, rows = found.evaluation, found.cases[0].protected
    if evaluation.issued:
        return rows[0], "as enrolled"
    if len(evaluation.settings) == 1 and len(evaluation.settings[0].only) < 2:
        return rows[-1], "as asked for"
    usual = preset(DEFAULT_PRESET, evaluation.n)
    for row in rows:
        if row.params == usual and row.encoding == evaluation.encodings[0]:
            return row, f"the default preset ({DEFAULT_PRESET})"
    return None, "Several settings were asked for, and none of them is singled out: see the table."


def _fmr(row: ProtectedRow) -> str:
    fmr = row.fmr
    counts = f"{fmr.errors:,} of {fmr.trials:,} impostor comparisons accepted"
    if not fmr.supported:
        return f"an FMR of at most {fmr.bound:.2g} (unsupported: {counts})"
    low, high = fmr.interval.low, fmr.interval.high
    return f"an FMR of {fmr.value:.2g} ({low:.2g} to {high:.2g}; {counts})"


def _lost(found: Results, row: ProtectedRow) -> str:
    """The cost of failures besides rejections."""
    lost = found.folded(found.cases[0])
    rate = gfrr(row.fnmr.value, lost.fta, lost.fte)
    if not (lost.fta or lost.fte):
        return ""
    return f" With failures to acquire and to enrol, {100 * rate:.1f} % are rejected (GFRR)."


def _same(row: ProtectedRow) -> str:
    if row.against is None:
        return f"The difference to the recogniser itself is {NOT_SUPPORTED}."
    tar = 100 * (1 - row.same.fnmr)
    return f"The recogniser itself accepts {tar:.1f} % at no higher an FMR."
