"""The numbers of an evaluation's report, for machines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import pyarrow as pa

from ironmask.metrics import Rate, far, frr, gfar, gfrr
from pipelines.evaluation.cost import Spent
from pipelines.evaluation.frozen import Case, Evaluation
from pipelines.evaluation.protocol import photos_enrolled
from pipelines.evaluation.rates import metrics
from pipelines.evaluation.results import CaseResults, Folded, Results
from pipelines.preflight import curves
from pipelines.table.schemas import METRICS

_DIFFERENCE: Final = ("difference", "difference_low", "difference_high", "p")


def tables(found: Results) -> dict[str, pa.Table]:
    """Tables by name of a Parquet file. The same evaluation gives the same bytes."""
    timeless = METRICS.remove(METRICS.get_field_index("at"))
    rows: dict[str, Callable[[CaseResults], Iterator[dict[str, Any]]]] = {
        "recogniser": _recogniser,
        "protected": lambda case: _protected(case, found.folded(case)),
        "curve": lambda case: _curve(found.evaluation, case),
        "scores": _scores,
        "agreement": _agreement,
        "groups": _groups,
    }
    made = {
        name: _typed([{**_case(case.case), **row} for case in found.cases for row in of(case)])
        for name, of in rows.items()
        if name != "groups" or any(case.groups for case in found.cases)
    }
    return {
        **made,
        "failures": pa.Table.from_pylist(list(_failures(found))),
        "metrics": pa.Table.from_pylist(list(metrics(found)), timeless),
    }


def _typed(rows: list[dict[str, Any]]) -> pa.Table:
    """Rows as a table. Differences are numbers even where none is supported."""
    table = pa.Table.from_pylist(rows)
    for place, name in enumerate(table.column_names):
        if name in _DIFFERENCE:
            table = table.set_column(place, name, table[name].cast(pa.float64()))
    return table


def cost_table(spent: Spent) -> pa.Table:
    """The measured cost. It differs between any two evaluations."""
    return pa.Table.from_pylist(
        [
            {
                "setting": cost.setting,
                "tolerance": cost.params.tolerance,
                "row_bytes": cost.row_bytes,
                "protect_ms_p50": cost.protect.p50,
                "protect_ms_p99": cost.protect.p99,
                "verify_ms_p50": cost.verify.p50,
                "verify_ms_p99": cost.verify.p99,
                "rounds": cost.protect.rounds,
                "core_hours_a_million": cost.core_hours_a_million,
                "gib_a_million": cost.gib_a_million,
                "images_per_second": spent.images_per_second,
            }
            for cost in spent.costs
        ]
    )


def _case(case: Case) -> dict[str, Any]:
    return {"protocol": case.protocol, "centring": case.centring and str(case.centring)}


def _recogniser(case: CaseResults) -> Iterator[dict[str, Any]]:
    for row in case.cosine:
        yield {
            "target_fmr": row.target,
            "threshold": row.point.threshold,
            **_plain("fmr", row.fmr),
            **_plain("fnmr", row.fnmr),
        }


def _protected(case: CaseResults, lost: Folded) -> Iterator[dict[str, Any]]:
    for row in case.protected:
        yield {
            "code_width": row.params.code_width,
            "structure": str(row.params.structure),
            "alpha": row.params.alpha,
            "tolerance": row.params.tolerance,
            "encoding": row.encoding,
            "bits": row.params.bits,
            "digests": row.params.digest_count,
            "row_bytes": row.row_bytes,
            **_plain("fmr", row.fmr),
            **_plain("fnmr", row.fnmr),
            "far": far(row.fmr.value, lost.impostor_fta),
            "frr": frr(row.fnmr.value, lost.fta),
            "gfar": gfar(row.fmr.value, lost.impostor_fta, lost.fte),
            "gfrr": gfrr(row.fnmr.value, lost.fta, lost.fte),
            "cosine_threshold": row.same.threshold,
            "cosine_fnmr": row.same.fnmr,
            "difference": row.against and row.against.value,
            "difference_low": row.against and row.against.interval.low,
            "difference_high": row.against and row.against.interval.high,
            "p": row.against and row.against.p,
        }


def _scores(case: CaseResults) -> Iterator[dict[str, Any]]:
    scores = case.scores
    for cosine, genuine, impostor in zip(
        scores.thresholds.tolist(), scores.genuine.tolist(), scores.impostor.tolist(), strict=True
    ):
        if genuine or impostor:
            yield {"cosine": cosine, "genuine": genuine, "impostor": impostor}


def _curve(evaluation: Evaluation, case: CaseResults) -> Iterator[dict[str, Any]]:
    photos = photos_enrolled(case.case.protocol, evaluation.listed)
    for row in curves.rows(case.curve):
        yield {"n": evaluation.n, "photos": photos, **row}


def _agreement(case: CaseResults) -> Iterator[dict[str, Any]]:
    for name, sides in case.agreements.items():
        for place, (genuine, impostor) in enumerate(zip(*sides, strict=True)):
            yield {
                "setting": name, "places": place, "genuine": genuine, "impostor_sample": impostor
            }  # fmt: skip


def _groups(case: CaseResults) -> Iterator[dict[str, Any]]:
    for group in case.groups:
        yield {
            "label": group.label, "group": group.group, "what": group.what,
            "subjects": group.subjects, **_plain("fmr", group.fmr), **_plain("fnmr", group.fnmr),
        }  # fmt: skip


def _failures(found: Results) -> Iterator[dict[str, Any]]:
    failed = found.failures
    counts = {f"failed: {reason}": count for reason, count in failed.reasons.items()}
    counts |= {
        "faces to acquire": failed.attempts,
        "not acquired": failed.not_acquired,
        "subjects to enrol": failed.subjects,
        "not enrolled": failed.without,
        "excluded": found.excluded,
        "without a subject": found.unlabelled,
        "templates without their faces": found.missing,
    }
    counts |= {f"templates left out: {case.case.name}": case.lost for case in found.cases}
    counts |= _uncompared(found)
    yield from ({"what": what, "count": count} for what, count in counts.items())


def _uncompared(found: Results) -> dict[str, int]:
    case = found.listed
    if case is None or case.uncompared is None:
        return {}
    lost = case.uncompared
    sides = (("genuine", lost.genuine), ("impostor", lost.impostor))
    return {
        "pairs of the list": case.asked,
        "genuine pairs not compared": lost.total_genuine,
        "impostor pairs not compared": lost.total_impostor,
        **{
            f"{side} pairs not compared: {reason}": count
            for side, reasons in sides
            for reason, count in reasons.items()
        },
        "lines left out with a face": lost.excluded,
        "lines that repeat others": lost.repeated,
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
