"""Enrolments for tests: stored embeddings in, a real destination out, no face and no mock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from commandline import Answer, ironmask

from infra.keys.key_file import KeyFile
from infra.store.delta import DeltaTableHandle, DeltaTables
from ironmask.arrays import F32
from pipelines.enrolment import hold
from pipelines.enrolment import request as enrolment_request
from pipelines.enrolment.request import EnrolRequest
from pipelines.ports import GenerationKeys, Tables
from pipelines.run.course import follow
from pipelines.run.steps import Executor
from pipelines.run.summary import Summary
from pipelines.run.template_run import STEPS
from pipelines.setup import ports
from pipelines.spec.options import assembled
from pipelines.table.details import decrypted
from pipelines.verification.verifier import Verifier

WIDTH = 64
ALPHA = 12
TOLERANCE = 1


def unit_vectors(count: int, seed: int = 0, width: int = WIDTH) -> F32:
    """(count, width) float32, each of length one."""
    raw = np.random.default_rng(seed).standard_normal((count, width))
    return (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32)


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


def several(path: Path, subjects: int, each: int = 2, seed: int = 0) -> Path:
    """`each` embeddings of each of some subjects, named s000, s001 and so on."""
    names = [f"s{number:03d}" for number in range(subjects) for _ in range(each)]
    return write_embeddings(path, names, captures(unit_vectors(subjects, seed), each, seed + 1))


def request(source: Path, dest: Path, **changes: Any) -> EnrolRequest:
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


def keys_of(dest: Path) -> Path:
    return dest.with_name(f"{dest.name}.keys.json")


def run(
    asked: EnrolRequest,
    executor: Callable[[Executor], Executor] = lambda inner: inner,
    tables: Callable[[Tables], Tables] = lambda inner: inner,
) -> Summary:
    """Enrol; the executor and the tables can be wrapped on the way."""
    with hold.opened(asked, enrolment_request.prepare(asked)) as held:
        dest = replace(held.dest, tables=tables(held.dest.tables))
        return follow(STEPS, replace(held, dest=dest, executor=executor(held.executor))).summary


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

        def run(self, job: Any, plan: Any, shards: Any) -> Iterator[Any]:
            return change(self.inner.run(job, plan, shards))

    return Changed


def open_tables(dest: Path) -> DeltaTables:
    return DeltaTables(str(dest), {})


def rows(dest: Path, name: str) -> list[dict[str, Any]]:
    """The rows that the log lists."""
    found: list[dict[str, Any]] = open_tables(dest).table(name).rows().to_pylist()
    return found


def data_files(dest: Path, name: str) -> list[Path]:
    """Every Parquet file under a table, listed by its log or not."""
    return sorted(p for p in (dest / name).rglob("*.parquet") if "_delta_log" not in p.parts)


def outcomes(dest: Path) -> Counter[tuple[str, str]]:
    return Counter((row["outcome"], row["reason"]) for row in rows(dest, "inputs"))


def generation_keys(dest: Path, generation: int = 1) -> GenerationKeys:
    return ports.keys(keys_of(dest), open_tables(dest).table_id, generation)


def told(dest: Path, row: dict[str, Any]) -> dict[str, Any]:
    """What a row of inputs keeps encrypted."""
    tables = open_tables(dest)
    keys = KeyFile.open(keys_of(dest), tables.table_id).table()
    return decrypted(tables.table_id, row, keys)


def verified(dest: Path, subject: str, probes: Any) -> list[bool]:
    """Whether probes, (k, n), match what is live of a person."""
    return verifier(dest).verify_embeddings(subject, probes)


def verifier(dest: Path) -> Verifier:
    """What answers from the sealed tables of a destination."""
    return Verifier(str(dest), str(keys_of(dest)))


def checked(dest: Path) -> Answer:
    """What a deep check says."""
    return ironmask("check", dest, "--deep", f"--keys={keys_of(dest)}")


def assert_sound(dest: Path, inputs: int | None = None) -> None:
    """What must hold of every destination after a run that ended well."""
    templates, settled = rows(dest, "templates"), rows(dest, "inputs")
    owners = [row["subject_id"] for row in templates]
    assert len(owners) == len(set(owners)), "two live issues of one person"
    assert len({row["template_id"] for row in templates}) == len(templates)
    used = {row["subject_id"] for row in settled if row["outcome"] == "used"}
    assert used == set(owners)
    counted = Counter((row["run_id"], row["uri"]) for row in settled)
    assert set(counted.values()) <= {1}, "an input has two rows"
    if inputs is not None:
        assert len(settled) == inputs
    for name in ("templates", "inputs"):
        listed = {str(dest / name / path) for path in open_tables(dest).table(name).files()}
        assert {str(path) for path in data_files(dest, name)} == listed, "an orphan survives"


def rewrite(path: Path, change: Callable[[list[dict[str, Any]]], None]) -> None:
    """Change the rows of one data file in place, as somebody with write access could."""
    table = pq.ParquetFile(path).read()
    content = table.to_pylist()
    change(content)
    pq.write_table(pa.Table.from_pylist(content, table.schema), path)


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
