"""An audit from request to results: run unit by unit, added up, recorded."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import pyarrow as pa

from infra.lease import lease
from infra.machine import machine
from infra.ray_cluster import cluster, cluster_size
from ironmask.errors import ParameterError
from pipelines import evaluate, layout, preflight, profile, wiring
from pipelines.audit_request import Prepared, Request, prepare
from pipelines.auditing.job import Audit, Finding
from pipelines.auditing.results import AuditResults, results
from pipelines.auditing.surroundings import surroundings
from pipelines.auditing.units import Surroundings
from pipelines.destination import Destination
from pipelines.evaluation import blocks, cost
from pipelines.evaluation.cost import Spent
from pipelines.evaluation.job import Evaluation
from pipelines.evaluation.protocol import TABLE
from pipelines.evaluation.results import Results
from pipelines.evaluation.results import results as evaluation_results
from pipelines.job import EnrolJob, SourceKind
from pipelines.profile import Calibration
from pipelines.records import METRICS
from pipelines.report.audit_tables import metrics, run_id
from pipelines.run_local import LocalUnits
from pipelines.seal import Seal

__all__ = ["Prepared", "Request", "evaluated", "opened", "prepare", "record", "run"]

Progress = Callable[[int, int], None]
_HELD_OUT: Final = 16


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
    vectors = around.faces.vectors.astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    held = np.linspace(0, len(vectors) - 1, _HELD_OUT).astype(int)
    measured = profile.Profile("", around.audit.source, around.space)
    job = EnrolJob(
        source=around.audit.source, dest=target.dest, kind=SourceKind.EMBEDDINGS, model="",
        params=target.params, encoding=target.encoding, filling=target.filling,
    )  # fmt: skip
    return preflight.assess(job, Calibration(measured, vectors[held]), "the model")


def record(prepared: Prepared, found: AuditResults) -> None:
    """Write what each attack takes into the `metrics` of each table.

    Raises `BusyError` while a run works on one.
    """
    now, once = datetime.now(UTC), run_id(found)
    rows = [{**row, "at": now} for row in metrics(found)]
    for target in {target.dest: target for target in found.audit.targets}.values():
        tables = wiring.open_tables(target.dest, prepared.storage)
        store = wiring.shared_store(prepared.storage.public())
        keys = wiring.keys(Path(target.keys), target.table_id, target.generation)
        with lease(target.dest, store) as check:
            seal = Seal(tables, store, keys)
            seal.begin()
            dest = Destination(tables, store, keys, check, seal)
            dest.append("metrics", pa.Table.from_pylist(rows, METRICS), f"{once}/metrics")
            seal.end()


def evaluated(prepared: Prepared) -> tuple[Results, Spent] | None:
    """The evaluation that lies where the audit goes, where all of it is there, and its costs."""
    public = prepared.storage.public()
    store = wiring.shared_store(public)
    address = layout.join(prepared.out, evaluate.FILE)
    if not store.exists(address):
        return None
    evaluation = Evaluation.from_json(store.read(address))
    sources = wiring.sources(public, evaluation.issued)
    if blocks.done(evaluation, store) != set(blocks.plan(evaluation, sources).blocks):
        return None
    tables = sources.access.tables if sources.access else None
    return evaluation_results(evaluation, sources), cost.measure(evaluation, tables, machine())


@contextmanager
def opened(request: Request, prepared: Prepared) -> Iterator[Units]:
    """What runs the units: this process, or Ray."""
    public = prepared.storage.public()
    if request.executor == "local":
        yield LocalUnits(public)
        return
    if request.executor != "ray":
        raise ParameterError(f"unknown executor {request.executor!r}; it is ray or local")
    address = request.ray_address or prepared.settings.ray_address
    with cluster(address, request.workers or os.cpu_count() or 1) as check:
        from pipelines.run_ray import RayUnits

        workers = request.workers or max(1, cluster_size().cpus)
        yield RayUnits(public, workers=workers, check=check)
