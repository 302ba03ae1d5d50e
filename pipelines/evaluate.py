"""An evaluation from request to results: prepared, run block by block, resumed where it stopped."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Protocol

import pyarrow as pa

from infra.lease import lease
from infra.machine import machine
from infra.ray_cluster import cluster, cluster_size
from infra.settings import Settings, StorageSettings
from infra.settings import load as load_settings
from infra.storage import is_inside, normalise
from ironmask.errors import MismatchError, ParameterError
from pipelines import layout, wiring
from pipelines.destination import Destination
from pipelines.evaluate_request import Request as Request
from pipelines.evaluate_request import asked, shape_of
from pipelines.evaluation import blocks, cost
from pipelines.evaluation.blocks import Sources
from pipelines.evaluation.cost import Spent
from pipelines.evaluation.job import Evaluation
from pipelines.evaluation.results import Results, results
from pipelines.records import METRICS
from pipelines.report.tables import metrics, run_id
from pipelines.run_local import LocalBlocks
from pipelines.seal import Seal

Progress = Callable[[int, int], None]
FILE = "evaluation.json"
# Drawn or measured when an evaluation begins; a resume takes what it finds.
_SETTLED = ("seed", "floor", "block")


def quiet(_done: int, _all: int) -> None:
    """No display."""


class Blocks(Protocol):
    """What runs blocks."""

    def run(self, evaluation: Evaluation, blocks: Iterable[int]) -> Iterator[int]: ...


@dataclass(frozen=True)
class Prepared:
    """An evaluation that is written down, and what it needs."""

    evaluation: Evaluation
    settings: Settings
    storage: StorageSettings
    sources: Sources


def prepare(request: Request) -> Prepared:
    """Check the request, and freeze the evaluation or find the one that it continues.

    Raises `ParameterError`, `SourceError` and `ProtocolError` for what cannot be evaluated,
    `MismatchError` where the output folder holds another evaluation.
    """
    settings, storage = load_settings()
    storage.export()
    source, out = normalise(request.source), normalise(request.out)
    if is_inside(source, out) or is_inside(out, source):
        raise ParameterError(f"SRC {source} and OUT {out} lie in one another: keep them apart")
    if request.executor not in ("ray", "local"):
        raise ParameterError(f"unknown executor {request.executor!r}; it is ray or local")
    # The sources that blocks use here too, so that a plan is made once.
    public = storage.public()
    shape = shape_of(request, settings, storage) if request.table else None
    if shape and is_inside(out, shape.issued.dest):
        raise ParameterError(
            f"OUT {out} lies inside the table {shape.issued.dest}: keep them apart"
        )
    sources = wiring.sources(public, shape.issued if shape else None)
    wanted = asked(request, source, out, sources.store, settings, shape)
    address = layout.join(out, FILE)
    if sources.store.exists(address):
        found = Evaluation.from_json(sources.store.read(address))
        evaluation = _continued(wanted, found, request, out)
    else:
        evaluation = wanted
    blocks.plan(evaluation, sources)
    if evaluation is wanted:
        sources.store.write(address, evaluation.to_json())
    return Prepared(evaluation, settings, storage, sources)


def measure(prepared: Prepared) -> Spent:
    """What protection costs on this machine."""
    access = prepared.sources.access
    tables = access.tables if access else None
    return cost.measure(prepared.evaluation, tables, machine())


def record(prepared: Prepared, found: Results) -> None:
    """Write the rates into the `metrics` of the table that was evaluated, if one was; once.

    Raises `BusyError` while a run works on the table.
    """
    access, store = prepared.sources.access, prepared.sources.store
    if access is None:
        return
    now = datetime.now(UTC)
    rows = [{**row, "at": now} for row in metrics(found)]
    with lease(access.issued.dest, store) as check:
        keys = access.keys()
        seal = Seal(access.tables, store, keys)
        seal.begin()
        dest = Destination(access.tables, store, keys, check, seal)
        dest.append("metrics", pa.Table.from_pylist(rows, METRICS), f"{run_id(found)}/metrics")
        seal.end()


def run(prepared: Prepared, executor: Blocks, progress: Progress) -> Results:
    """Run what is left, and add everything up. progress: blocks done and all."""
    evaluation, sources = prepared.evaluation, prepared.sources
    every = blocks.plan(evaluation, sources).blocks
    done = blocks.done(evaluation, sources.store)
    progress(len(done), len(every))
    for number in executor.run(evaluation, [b for b in every if b not in done]):
        done.add(number)
        progress(len(done), len(every))
    return results(evaluation, sources)


@contextmanager
def opened(request: Request, prepared: Prepared) -> Iterator[Blocks]:
    """What runs the blocks: this process, or Ray."""
    public = prepared.storage.public()
    if request.executor == "local":
        yield LocalBlocks(public)
        return
    address = request.ray_address or prepared.settings.ray_address
    with cluster(address, request.workers or os.cpu_count() or 1) as check:
        from pipelines.run_ray import RayBlocks

        workers = request.workers or max(1, cluster_size().cpus)
        yield RayBlocks(public, workers=workers, check=check)


def _continued(asked: Evaluation, found: Evaluation, request: Request, out: str) -> Evaluation:
    """The evaluation that is there already, where it is the one that was asked for."""
    new, old = asdict(asked), asdict(found)
    settled = {name for name in _SETTLED if name != "seed" or request.seed is None}
    differing = [name for name in new if name not in settled and new[name] != old[name]]
    if differing:
        raise MismatchError(
            f"{out} holds another evaluation: {', '.join(differing)} differ; name another OUT, or "
            "remove it"
        )
    return found
