"""Enrolments for tests: stored embeddings in, a real destination out, no face and no mock."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from infra.store.delta import DeltaTableHandle
from ironmask.arrays import F32
from ironmask.params import FIRST_VERSION, Params
from pipelines.enrolment import hold
from pipelines.enrolment import request as enrolment_request
from pipelines.enrolment.request import EnrolRequest
from pipelines.ports import Tables
from pipelines.run.course import follow
from pipelines.run.steps import Executor
from pipelines.run.summary import Summary
from pipelines.run.template_run import STEPS
from pipelines.run.work import Standing
from pipelines.spec.options import assembled
from support.command import Answer, ironmask
from support.table import keys_of

WIDTH = 64
ALPHA = 12
TOLERANCE = 1


def unit_vectors(count: int, seed: int = 0, width: int = WIDTH) -> F32:
    """(count, width) float32, each of length one."""
    raw = np.random.default_rng(seed).standard_normal((count, width))
    return (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32)


def unit(vectors: Any) -> F32:
    """(k, n) of any scale to unit rows."""
    wide = np.asarray(vectors, dtype=np.float64)
    return (wide / np.linalg.norm(wide, axis=1, keepdims=True)).astype(np.float32)


def captures(subject_vectors: F32, each: int, seed: int = 1) -> F32:
    """`each` noisy captures of every vector, (count * each, n), about 20 degrees from it."""
    repeated = np.repeat(subject_vectors, each, axis=0)
    noise = unit_vectors(len(repeated), seed, repeated.shape[1])
    return (repeated + 0.36 * noise).astype(np.float32)


def write_embeddings(path: Path, subjects: Sequence[Any], vectors: Sequence[Any]) -> Path:
    """A Parquet of stored embeddings."""
    values = [None if v is None else [float(x) for x in v] for v in vectors]
    column = pa.array(values, pa.list_(pa.float32()))
    pq.write_table(pa.table({"subject_id": list(subjects), "embedding": column}), path)
    return path


def write_vectors(path: Path, subjects: Sequence[str], vectors: Any) -> Path:
    """The same in a column of one width. vectors: (k, n), written as float32."""
    flat = pa.array(np.ascontiguousarray(vectors, dtype=np.float32).reshape(-1))
    column = pa.FixedSizeListArray.from_arrays(flat, len(vectors[0]))
    pq.write_table(pa.table({"subject_id": list(subjects), "embedding": column}), path)
    return path


def several(path: Path, subjects: int, each: int = 2, seed: int = 0) -> Path:
    """`each` embeddings of each of some subjects, named s000, s001 and so on."""
    names = [f"s{number:03d}" for number in range(subjects) for _ in range(each)]
    return write_embeddings(path, names, captures(unit_vectors(subjects, seed), each, seed + 1))


def write_manifest(path: Path, entries: Iterable[tuple[str, Path]]) -> Path:
    """A CSV of (subject, image)."""
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(["subject_id", "uri"])
        writer.writerows(entries)
    return path


def request(source: Path, dest: Path, /, **changes: Any) -> EnrolRequest:
    """A small enrolment in this process; its keys lie beside the destination."""
    flat = {
        "source": str(source),
        "dest": str(dest),
        "alpha": ALPHA,
        "tolerance": TOLERANCE,
        "shard_size": 4,
        "executor": "local",
        "keys": str(keys_of(dest)),
    }
    return assembled(EnrolRequest, {**flat, **changes})


def run(
    asked: EnrolRequest,
    executor: Callable[[Executor], Executor] = lambda inner: inner,
    tables: Callable[[Tables], Tables] = lambda inner: inner,
) -> Summary:
    """Enrol; the executor and the tables can be wrapped on the way."""
    with hold.opened(asked, enrolment_request.prepare(asked)) as held:
        dest = replace(held.dest, tables=tables(held.dest.tables))
        return follow(STEPS, replace(held, dest=dest, executor=executor(held.executor))).summary


def run_as_first_version(asked: EnrolRequest) -> Summary:
    """Enrol as releases did that knew version 1 of the scheme alone: square real helpers."""
    prepared = enrolment_request.prepare(asked)
    params = prepared.job.params
    first = Params(params.n, params.alpha, params.tolerance, version=FIRST_VERSION)
    with hold.opened(asked, replace(prepared, job=replace(prepared.job, params=first))) as held:
        return follow(STEPS, held).summary


def enroll(source: Path, dest: Path, *more: object, keys: Path | None = None) -> Answer:
    """`ironmask enroll` with the settings of `request`."""
    return ironmask(
        "enroll",
        source,
        dest,
        "--executor=local",
        f"--alpha={ALPHA}",
        f"--tolerance={TOLERANCE}",
        f"--keys={keys or keys_of(dest)}",
        *more,
    )


class PowerCutError(Exception):
    """What ends a run here as a power cut would: nothing of it is handled."""


def before_commit_of(name: str) -> Callable[..., None]:
    """`DeltaTableHandle.commit` that ends the run before it commits to a table."""
    commit = DeltaTableHandle.commit

    def cut(self: DeltaTableHandle, *arguments: Any, **named: Any) -> None:
        if self.uri.endswith(f"/{name}"):
            raise PowerCutError
        commit(self, *arguments, **named)

    return cut


def broken_after(shards: int) -> Callable[[Executor], Executor]:
    """An executor that ends after some shards, with one more written and never handed over."""

    def cut(results: Iterator[Any]) -> Iterator[Any]:
        yield from islice(results, shards)
        next(results)
        raise PowerCutError

    return changed(cut)


def after_first(action: Callable[[], object]) -> Callable[[Executor], Executor]:
    """An executor under which something happens once the first shard was handed over."""

    def act(results: Iterator[Any]) -> Iterator[Any]:
        yield next(results)
        action()
        yield from results

    return changed(act)


def changed(change: Callable[[Iterator[Any]], Iterator[Any]]) -> Callable[[Executor], Executor]:
    """An executor whose results pass through a function."""

    @dataclass
    class Changed:
        inner: Executor

        @property
        def standing(self) -> Standing:
            return self.inner.standing

        def run(self, job: Any, plan: Any, shards: Any) -> Iterator[Any]:
            return change(self.inner.run(job, plan, shards))

    return Changed
