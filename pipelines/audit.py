"""An audit from request to results: run unit by unit, added up, recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from ironmask.arrays import unit_rows
from pipelines import evaluate, preflight, profile, wiring
from pipelines.audit_request import Prepared, Request, prepare
from pipelines.auditing.job import Audit, Finding
from pipelines.auditing.results import AuditResults, results
from pipelines.auditing.surroundings import surroundings
from pipelines.auditing.units import Surroundings
from pipelines.evaluation.cost import Spent
from pipelines.evaluation.protocol import TABLE
from pipelines.evaluation.results import Results
from pipelines.profile import Calibration
from pipelines.report.audit_tables import metrics, run_id
from pipelines.run_local import LocalUnits

__all__ = ["Prepared", "Request", "evaluated", "opened", "prepare", "record", "run"]

Progress = Callable[[int, int], None]


def quiet(_done: int, _all: int) -> None:
    """No display."""


class Units(Protocol):
    """What runs units."""

    def run(self, audit: Audit, numbers: Iterable[int]) -> Iterator[Finding]: ...


def run(prepared: Prepared, executor: Units, progress: Progress) -> AuditResults:
    """Run all units, and add their findings up. progress: units done and all."""
    audit = prepared.audit
    findings: list[Finding] = []
    progress(0, len(audit.units))
    for finding in executor.run(audit, range(len(audit.units))):
        findings.append(finding)
        progress(len(findings), len(audit.units))
    around = surroundings(prepared.storage.public(), audit)
    return results(audit, findings, around.space, _foretold(around), _evaluated_fmr(around))


def _evaluated_fmr(around: Surroundings) -> tuple[int, int] | None:
    """Errors and trials of the largest evaluation that the first table knows of its templates."""
    params = around.audit.params
    rows = around.tables[0].table("metrics").rows().to_pylist()
    rates = [
        (row["numerator"], row["denominator"])
        for row in rows
        if row["name"] == "FMR"
        and row["label"].startswith(TABLE)
        and row["label"].endswith(f"tolerance {params.tolerance}")
    ]
    return max(rates, key=lambda rate: rate[1], default=None)


def _foretold(around: Surroundings) -> preflight.Preflight:
    """What the search of a row takes, foretold by fresh issues of the source's own faces."""
    target = around.audit.targets[0]
    vectors = around.faces.vectors
    others = unit_rows(vectors[profile.held_out(len(vectors))], target.params.n)
    measured = profile.Profile("", around.audit.source, around.space)
    return preflight.assess(
        Calibration(measured, others), target.params, target.encoding, target.filling, "the model"
    )


def record(prepared: Prepared, found: AuditResults) -> None:
    """Write what each attack takes into the `metrics` of each table.

    Raises `BusyError` while an enrolment works on one.
    """
    store = wiring.shared_store(prepared.storage.public())
    for target in {target.dest: target for target in found.audit.targets}.values():
        tables = wiring.open_tables(target.dest, prepared.storage)
        keys = wiring.keys(Path(target.keys), target.table_id, target.generation)
        evaluate.add_metrics(tables, store, keys, list(metrics(found)), run_id(found))


def evaluated(prepared: Prepared) -> tuple[Results, Spent] | None:
    """The evaluation that lies where the audit goes, where all of it is there, and its costs."""
    return evaluate.finished(prepared.out, prepared.settings, prepared.storage)


@contextmanager
def opened(request: Request, prepared: Prepared) -> Iterator[Units]:
    """What runs the units: this process, or Ray."""
    public = prepared.storage.public()
    if request.executor == "local":
        yield LocalUnits(public)
        return
    with evaluate.on_ray(request.workers, request.ray_address, prepared.settings) as limits:
        from pipelines.run_ray import RayUnits

        yield RayUnits(public, **limits)
