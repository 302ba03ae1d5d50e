"""An evaluation from request to results: prepared, run block by block, resumed where it stopped."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import pyarrow as pa

from infra.lease import lease
from infra.machine import machine
from infra.ray_cluster import cluster, cluster_size
from infra.settings import Settings, StorageSettings
from infra.settings import load as load_settings
from infra.storage import is_inside, normalise
from ironmask.errors import MismatchError, ParameterError
from pipelines import layout, start, wiring
from pipelines.destination import Destination
from pipelines.evaluate_request import Request as Request
from pipelines.evaluate_request import asked, shape_of
from pipelines.evaluation import blocks, cost
from pipelines.evaluation.blocks import Sources
from pipelines.evaluation.cost import Spent
from pipelines.evaluation.job import Evaluation
from pipelines.evaluation.results import Results, results
from pipelines.ports import GenerationKeys, Store, Tables
from pipelines.records import METRICS
from pipelines.report.tables import metrics, run_id
from pipelines.run_local import LocalBlocks
from pipelines.seal import Seal

Progress = Callable[[int, int], None]
_FILE = "evaluation.json"
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
    start.check_executor(request.executor)
    # The sources that blocks use here too, so that a plan is made once.
    public = storage.public()
    shape = shape_of(request, settings, storage) if request.table else None
    if shape and is_inside(out, shape.issued.dest):
        raise ParameterError(
            f"OUT {out} lies inside the table {shape.issued.dest}: keep them apart"
        )
    sources = wiring.sources(public, shape.issued if shape else None)
    wanted = asked(request, source, out, sources.store, settings, shape)
    address = layout.join(out, _FILE)
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
    """Write the rates into the `metrics` of the table that was evaluated, if one was; once."""
    access = prepared.sources.access
    if access:
        rows = list(metrics(found))
        add_metrics(access.tables, prepared.sources.store, access.keys(), rows, run_id(found))


def add_metrics(
    tables: Tables, store: Store, keys: GenerationKeys, rows: list[dict[str, Any]], run: str
) -> None:
    """Add rows to the `metrics` of a table, those of one run once; they get their time here.

    Raises `BusyError` while an enrolment works on the table.
    """
    now = datetime.now(UTC)
    content = pa.Table.from_pylist([{**row, "at": now} for row in rows], METRICS)
    with lease(tables.dest, store) as check:
        seal = Seal(tables, store, keys)
        seal.begin()
        Destination(tables, store, keys, check, seal).append("metrics", content, f"{run}/metrics")
        seal.end()


def finished(
    out: str, settings: Settings, storage: StorageSettings
) -> tuple[Results, Spent] | None:
    """The evaluation that lies in a folder, where all of it is there, and its costs."""
    public = storage.public()
    store, address = wiring.shared_store(public), layout.join(out, _FILE)
    if not store.exists(address):
        return None
    evaluation = Evaluation.from_json(store.read(address))
    sources = wiring.sources(public, evaluation.issued)
    if blocks.done(evaluation, store) != set(blocks.plan(evaluation, sources).blocks):
        return None
    spent = measure(Prepared(evaluation, settings, storage, sources))
    return results(evaluation, sources), spent


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
    with on_ray(request.workers, request.ray_address, prepared.settings) as limits:
        from pipelines.run_ray import RayBlocks

        yield RayBlocks(public, **limits)


@contextmanager
def on_ray(
    workers: int | None, address: str | None, settings: Settings
) -> Iterator[dict[str, Any]]:
    """A cluster, and how many workers of it are used, with its check: as executors take them."""
    with cluster(address or settings.ray_address, workers or os.cpu_count() or 1) as check:
        yield {"workers": workers or max(1, cluster_size().cpus), "check": check}


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
