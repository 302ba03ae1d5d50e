"""What an evaluation measured, as rows of a table's `metrics`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ironmask.metrics import Rate
from pipelines.evaluation import frozen
from pipelines.evaluation.results import Results
from pipelines.spec.template_job import digest


def run_id(found: Results) -> str:
    """Of the evaluation, wherever its results go."""
    return digest({**frozen.plain(found.evaluation), "out": ""})[:12]


def metrics(found: Results) -> Iterator[dict[str, Any]]:
    """Every rate as a row of a table's `metrics`, but for its time."""
    evaluation = run_id(found)
    for label, name, rate in _rates(found):
        yield {
            "run_id": evaluation,
            "name": name,
            "label": label,
            "value": rate.value,
            "numerator": rate.errors,
            "denominator": rate.trials,
            "low": rate.interval.low,
            "high": rate.interval.high,
        }


def _rates(found: Results) -> Iterator[tuple[str, str, Rate]]:
    for case in found.cases:
        rates = [(f"cosine FMR {row.target:g}", "FNMR", row.fnmr) for row in case.cosine]
        rates += [(f"cosine FMR {row.target:g}", "FMR", row.fmr) for row in case.cosine if row.fmr]
        for row in case.protected:
            label = f"{row.setting} tolerance {row.params.tolerance}"
            rates += [(label, "FNMR", row.fnmr), (label, "FMR", row.fmr)]
        for group in case.groups:
            label = f"{group.label} {group.group}, {group.what}"
            rates += [(label, "FNMR", group.fnmr), (label, "FMR", group.fmr)]
        yield from ((f"{case.case.name}: {label}", name, rate) for label, name, rate in rates)
