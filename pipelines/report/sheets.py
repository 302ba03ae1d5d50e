"""The tables of an evaluation's report, as people read them and as machines do."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from importlib.metadata import version
from typing import Any

import pyarrow as pa

from ironmask.metrics import Difference, Rate
from ironmask.params import SCHEME_VERSION
from pipelines.evaluation.results import ProtectedRow, Results
from pipelines.records import METRICS


@dataclass(frozen=True)
class Sheet:
    """One table. note: how to read it."""

    title: str
    note: str
    columns: list[str]
    rows: list[list[str]] = field(default_factory=list)


def sheets(found: Results) -> list[Sheet]:
    """All tables of the report, in its order."""
    made = [_tested(found), _population(found), _failures(found), _recogniser(found)]
    made += [_protected(found)]
    made += [_groups(found)] if found.groups else []
    return [*made, _cost(found)]


def brief(found: Results) -> list[Sheet]:
    """What a terminal has room for."""
    cosine = [
        [f"{row.target:g}", f"{row.point.threshold:.4f}", f"{1 - row.fnmr.value:.4f}"]
        for row in found.cosine
    ]
    protected = [
        [
            row.setting,
            str(row.params.tolerance),
            f"{row.params.bits:.1f}",
            f"{1 - row.fnmr.value:.4f}",
            f"{row.fmr.errors:,}",
            f"{row.fmr.value:.2g}" if row.fmr.supported else f"at most {row.fmr.bound:.2g}",
        ]
        for row in found.protected
    ]
    note = f"{found.genuine:,} genuine and {found.impostor:,} impostor comparisons."
    columns = ["setting", "tolerance", "bits", "TAR", "impostors accepted", "FMR"]
    return [
        Sheet("The unprotected recogniser", "", ["FMR at most", "threshold", "TAR"], cosine),
        Sheet("Protected templates", note, columns, protected),
    ]


def _tested(found: Results) -> Sheet:
    evaluation = found.evaluation
    rows = [
        ["source", f"{evaluation.source} ({evaluation.version})"],
        ["protocol", evaluation.protocol],
        ["comparisons", f"{found.genuine:,} genuine, {found.impostor:,} impostor"],
        ["scheme", f"version {SCHEME_VERSION}, n {evaluation.n}"],
        ["alpha", ", ".join(map(str, evaluation.alphas))],
        ["encoding", ", ".join(evaluation.encodings)],
        ["centring", str(evaluation.centring)],
        ["code", f"ironmask {version('ironmask')}"],
        ["machine", f"{platform.machine()}, Python {platform.python_version()}"],
    ]
    return Sheet("What was tested", "", ["what", "value"], rows)


def _population(found: Results) -> Sheet:
    counts = sorted(found.faces_a_subject)
    rows = [
        ["subjects", f"{found.subjects:,}"],
        ["faces", f"{found.faces:,}"],
        ["faces a subject", f"{counts[0]} to {counts[-1]}, median {counts[len(counts) // 2]}"],
        ["templates", f"{found.templates:,}"],
        ["demographic labels", ", ".join(found.evaluation.groups) or "none given"],
    ]
    return Sheet("Population", "", ["what", "value"], rows)


def _failures(found: Results) -> Sheet:
    note = (
        "The source holds embeddings: faces that the recogniser could not acquire are not in it, "
        "so FAR = FMR and TAR = 1 - FNMR below, but for embeddings that cannot be compared."
    )
    rows = [
        ["excluded by the list", f"{found.excluded:,}"],
        ["unusable embedding (zero or not finite)", f"{found.unusable:,}"],
    ]
    return Sheet("Failures and exclusions", note, ["reason", "faces"], rows)


def _recogniser(found: Results) -> Sheet:
    note = (
        "Cosine similarity of the embeddings. Intervals: 95 %, Wilson's with the variance by "
        "identity clusters; [..] by a bootstrap over subjects. A rate of fewer than 30 errors is "
        f"unsupported, and its one-sided 95 % bound is given. EER {found.scores.eer:.4f}."
    )
    columns = ["FMR at most", "threshold", "FMR", "FNMR", "TAR"]
    rows = [
        [
            f"{row.target:g}",
            f"{row.point.threshold:.4f}",
            rate_text(row.fmr) if row.fmr else f"{row.point.fmr:.3g}",
            rate_text(row.fnmr),
            f"{1 - row.fnmr.value:.4f}",
        ]
        for row in found.cosine
    ]
    return Sheet("The unprotected recogniser", note, columns, rows)


def _protected(found: Results) -> Sheet:
    note = (
        "Bits: work to guess an accepted codeword of one stolen row and key, for a template "
        "without structure. Difference: TAR less the recogniser's own at no higher an FMR, with "
        "McNemar's p for comparisons that share subjects. AF: one codeword digest (tolerance 0); "
        "AF+I: tolerance, by digests of its subsets."
    )
    columns = ["setting", "tolerance", "bits", "digests", "TAR", "FMR", "difference", "p"]
    rows = [
        [
            f"{_paper(row)} {row.setting}",
            str(row.params.tolerance),
            f"{row.params.bits:.1f}",
            f"{row.params.digest_count:,}",
            tar_text(row.fnmr),
            rate_text(row.fmr),
            _difference(row.against),
            "< 0.0001" if row.against.p < 1e-4 else f"{row.against.p:.4f}",
        ]
        for row in found.protected
    ]
    return Sheet("Protected templates", note, columns, rows)


def _paper(row: ProtectedRow) -> str:
    return "AF+I" if row.params.tolerance else "AF"


def _groups(found: Results) -> Sheet:
    note = "Both faces of an impostor comparison belong to the group. Cosine: at an FMR of 1e-4."
    columns = ["label", "group", "subjects", "what", "FMR", "FNMR"]
    rows = [
        [g.label, g.group, f"{g.subjects:,}", g.what, rate_text(g.fmr), rate_text(g.fnmr)]
        for g in found.groups
    ]
    return Sheet("Demographic groups", note, columns, rows)


def _cost(found: Results) -> Sheet:
    rows = [
        [row.setting, str(row.params.tolerance), f"{row.row_bytes:,}"] for row in found.protected
    ]
    note = "A helper and its digests; identifiers take some hundred bytes more."
    return Sheet("Cost of a row", note, ["setting", "tolerance", "bytes a row"], rows)


def rate_text(rate: Rate) -> str:
    """A rate with its counts and intervals, or the bound where it is not supported."""
    counts = f"{rate.errors:,} of {rate.trials:,}"
    if not rate.supported:
        return f"at most {rate.bound:.2g}, unsupported ({counts})"
    low, high = rate.interval.low, rate.interval.high
    boot = f"[{rate.bootstrap.low:.3g} to {rate.bootstrap.high:.3g}]"
    return f"{rate.value:.3g} ({low:.3g} to {high:.3g}) {boot}; {counts}"


def tar_text(fnmr: Rate) -> str:
    """TAR and its interval."""
    low, high = 1 - fnmr.interval.high, 1 - fnmr.interval.low
    return f"{1 - fnmr.value:.4f} ({low:.4f} to {high:.4f})"


def _difference(found: Difference) -> str:
    # The difference of false rejects, seen from the accepts.
    low, high = -found.interval.high, -found.interval.low
    return f"{-found.value:+.4f} ({low:+.4f} to {high:+.4f})"


def tables(found: Results) -> dict[str, pa.Table]:
    """The numbers of the report for machines, by name of a Parquet file."""
    cosine = [
        {
            "target_fmr": row.target,
            "threshold": row.point.threshold,
            **_plain("fmr", row.fmr),
            **_plain("fnmr", row.fnmr),
        }
        for row in found.cosine
    ]
    protected = [
        {
            "alpha": row.params.alpha,
            "tolerance": row.params.tolerance,
            "encoding": row.encoding,
            "bits": row.params.bits,
            "digests": row.params.digest_count,
            "row_bytes": row.row_bytes,
            **_plain("fmr", row.fmr),
            **_plain("fnmr", row.fnmr),
            "cosine_threshold": row.same.threshold,
            "cosine_fnmr": row.same.fnmr,
            "difference": row.against.value,
            "difference_low": row.against.interval.low,
            "difference_high": row.against.interval.high,
            "p": row.against.p,
        }
        for row in found.protected
    ]
    groups = [
        {
            "label": g.label, "group": g.group, "what": g.what, "subjects": g.subjects,
            **_plain("fmr", g.fmr), **_plain("fnmr", g.fnmr),
        }
        for g in found.groups
    ]  # fmt: skip
    scores = found.scores
    some = (scores.genuine > 0) | (scores.impostor > 0)
    made = {
        "recogniser": pa.Table.from_pylist(cosine),
        "protected": pa.Table.from_pylist(protected),
        "scores": pa.table(
            {
                "cosine": scores.thresholds[some],
                "genuine": scores.genuine[some],
                "impostor": scores.impostor[some],
            }
        ),
        "agreement": pa.Table.from_pylist(
            [
                {"setting": name, "places": place, "genuine": g, "impostor_sample": i}
                for name, sides in found.agreements.items()
                for place, (g, i) in enumerate(zip(*sides, strict=True))
            ]
        ),
    }
    timeless = METRICS.remove(METRICS.get_field_index("at"))
    made["metrics"] = pa.Table.from_pylist(list(_long(found)), timeless)
    return made | ({"groups": pa.Table.from_pylist(groups)} if groups else {})


def _long(found: Results) -> Iterator[dict[str, Any]]:
    """Every rate as a row of a table's `metrics`, but for its time."""
    rates = [(f"cosine FMR {row.target:g}", "FNMR", row.fnmr) for row in found.cosine]
    rates += [(f"cosine FMR {row.target:g}", "FMR", row.fmr) for row in found.cosine if row.fmr]
    for row in found.protected:
        label = f"{row.setting} tolerance {row.params.tolerance}"
        rates += [(label, "FNMR", row.fnmr), (label, "FMR", row.fmr)]
    for group in found.groups:
        label = f"{group.label} {group.group}, {group.what}"
        rates += [(label, "FNMR", group.fnmr), (label, "FMR", group.fmr)]
    # The same evaluation gives the same file, so neither its place nor its time are in it.
    run_id = sha256(found.evaluation.seed.encode()).hexdigest()[:12]
    for label, name, rate in rates:
        yield {
            "run_id": run_id,
            "name": name,
            "label": label,
            "value": rate.value,
            "numerator": rate.errors,
            "denominator": rate.trials,
            "low": rate.interval.low,
            "high": rate.interval.high,
        }


def _plain(name: str, rate: Rate | None) -> dict[str, Any]:
    """A rate's columns; empty ones where there is none."""
    values = {
        "": rate and rate.value,
        "_errors": rate and rate.errors,
        "_trials": rate and rate.trials,
        "_low": rate and rate.interval.low,
        "_high": rate and rate.interval.high,
        "_bootstrap_low": rate and rate.bootstrap.low,
        "_bootstrap_high": rate and rate.bootstrap.high,
        "_bound": rate and rate.bound,
        "_supported": rate and rate.supported,
    }
    return {name + suffix: value for suffix, value in values.items()}
