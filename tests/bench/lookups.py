"""What a look-up costs in tables of ever more files: opening, the first answer, and later ones.

A source is planned, in order and mixed. A few shards are enrolled for real. All others are files
that the sealed log lists and nobody opens. Prints milliseconds of CPU and exponents.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final
from unittest.mock import patch

import numpy as np
import pyarrow as pa
from support.enrolling import run, unit_vectors, write_embeddings
from support.table import generation_keys, keys_of, open_tables

from infra.store.objects import FsspecStore
from pipelines.enrolment.request import EnrolRequest
from pipelines.plan import sources
from pipelines.plan.arrange import arrange
from pipelines.plan.naming import Known
from pipelines.ports import F32, DataFile
from pipelines.setup import ports
from pipelines.spec.options import assembled
from pipelines.table import layout, read
from pipelines.table.data_files import batched
from pipelines.table.identities import Identities
from pipelines.table.layout import ShardFile
from pipelines.table.log_entries import Commit
from pipelines.table.log_seal import LogSeal
from pipelines.table.text_set import TextSet
from pipelines.verification import probe
from pipelines.verification.verifier import Verifier

SIZES: Final = (1_000, 10_000)
LARGE: Final = 100_000
_IN_A_SHARD: Final = 4
_WHOLE: Final = 8
_WIDTH: Final = 512
_WAVES: Final = 8
_BATCH: Final = 16_384


@dataclass(frozen=True)
class Table:
    """A table with some people who can be verified, and their embeddings."""

    dest: Path
    files: int
    people: list[str]
    vectors: F32


@dataclass(frozen=True)
class Taken:
    """Milliseconds of CPU; requests and opened files of a later answer; bytes held a file."""

    opening: float
    first: float
    later: float
    kernel: float
    requests: float
    files: float
    held: float


class Counting(FsspecStore):
    """A store that counts its requests, and the data files among what is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.requests = 0
        self.opened: set[str] = set()

    def read(self, uri: str, limit: int | None = None) -> bytes:
        self._count(uri)
        return super().read(uri, limit)

    def part(self, uri: str, start: int, end: int) -> bytes:
        self._count(uri)
        return super().part(uri, start, end)

    def after(self, uri: str, name: str) -> list[str]:
        self._count(uri)
        return super().after(uri, name)

    def _count(self, uri: str) -> None:
        self.requests += 1
        if uri.endswith(".parquet"):
            self.opened.add(uri)

    def reset(self) -> None:
        self.requests = 0
        self.opened.clear()


def made(folder: Path, files: int, *, mixed: bool) -> Table:
    """Plan a source, enrol a few shards of the plan, and list a file for each other one."""
    order = np.arange(files * _IN_A_SHARD)
    if mixed:
        np.random.default_rng(7).shuffle(order)
    shards = list(_shards(order.tolist()))
    whole = {len(shards) * place // _WHOLE for place in range(_WHOLE)}
    people = [name for number in sorted(whole) for name in shards[number]]
    vectors = unit_vectors(len(people), width=_WIDTH)
    dest = folder / "table"
    run(_request(write_embeddings(folder / "e.parquet", people, list(vectors)), dest))
    _list_others(dest, [own for number, own in enumerate(shards) if number not in whole])
    return Table(dest, files, people, vectors)


def _request(source: Path, dest: Path) -> EnrolRequest:
    asked = {"source": str(source), "dest": str(dest), "executor": "local"}
    keys = {"keys": str(keys_of(dest)), "shard_size": _IN_A_SHARD}
    return assembled(EnrolRequest, {**asked, **keys})


def _shards(order: Sequence[int]) -> Iterator[list[str]]:
    """The subjects of each shard of a plan."""
    rows = arrange(_source(order), TextSet(), Known(Identities(bytes(32))), _IN_A_SHARD)
    held: list[str] = []
    for table in rows:
        subjects = [*held, *table["subject_id"].to_pylist()]
        whole = len(subjects) // _IN_A_SHARD * _IN_A_SHARD
        held = subjects[whole:]
        yield from batched(subjects[:whole], _IN_A_SHARD)


def _source(order: Sequence[int]) -> Iterator[pa.Table]:
    for some in batched(order, _BATCH):
        names = [f"person-{number:08d}" for number in some]
        columns = [
            pa.array(names, field.type)
            if field.name in ("subject_id", "uri")
            else pa.nulls(len(names), field.type)
            for field in sources.COLUMNS
        ]
        yield pa.Table.from_arrays(columns, schema=sources.COLUMNS)


def _list_others(dest: Path, shards: Sequence[Sequence[str]]) -> None:
    """Let a sealed log list a file for each of some shards. None of them is there."""
    tables = open_tables(dest)
    seal = LogSeal(tables, FsspecStore(), generation_keys(dest))
    seal.begin()
    every = max(1, len(shards) // _WAVES)
    for wave, some in enumerate(batched(enumerate(shards), every), start=1):
        files = [_file(number, own) for number, own in some]
        seal.commit(Commit("templates", files, "bench", wave))
    seal.end()


def _file(number: int, people: Sequence[str]) -> DataFile:
    partition = {"generation": "1"}
    name = ShardFile("b" * 12, number, f"{number:016x}", "0" * 64, groups=True).name
    low, high = {"subject_id": min(people)}, {"subject_id": max(people)}
    path = layout.in_partition(partition, name)
    return DataFile(path, 1 << 19, len(people), "", partition, low, high)


def looked_up(table: Table, rounds: int = 3) -> Taken:
    """Open the table, answer once, and then for each of its people."""
    store = Counting()
    start = time.process_time()
    with patch.object(ports, "open_store", lambda _: store):
        verifier = Verifier(str(table.dest), str(keys_of(table.dest)))
    opening = time.process_time() - start
    held = pa.total_allocated_bytes()
    first = _cpu(lambda: _answer(verifier, table, 0))
    store.reset()
    answers = rounds * len(table.people)
    later = [_cpu(lambda at=at: _answer(verifier, table, at)) for at in range(answers)]
    kernel = _kernel(table, rounds)
    return Taken(
        1e3 * opening,
        1e3 * first,
        1e3 * median(later),
        1e3 * kernel,
        store.requests / answers,
        len(store.opened),
        held / table.files,
    )


def _answer(verifier: Verifier, table: Table, at: int) -> None:
    place = at % len(table.people)
    assert verifier.verify_embeddings(table.people[place], table.vectors[place][None]) == [True]


def _kernel(table: Table, rounds: int) -> float:
    """Seconds of the bare comparison with an opened row."""
    keys, tables = generation_keys(table.dest), open_tables(table.dest)
    with patch.object(ports, "open_store", lambda _: FsspecStore()):
        verifier = Verifier(str(table.dest), str(keys_of(table.dest)))
    row = read.open_live(verifier._tables, table.people[0], lambda _: keys)[0]
    opened = probe.opened(tables.table_id, row, keys)
    taken = [_cpu(lambda: opened.matches(table.vectors[:1])) for _ in range(8 * rounds)]
    return median(taken)


def _cpu(once: Callable[[], object]) -> float:
    start = time.process_time()
    once()
    return time.process_time() - start


def lookups(sizes: Sequence[int] = SIZES) -> str:
    """The table of what look-ups cost, as Markdown."""
    lines = [
        "| source | files | opening, ms | first answer | later answers | kernel | requests "
        "| files opened | Arrow bytes a file |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for mixed in (False, True):
        found: dict[int, Taken] = {}
        name = "mixed" if mixed else "in order"
        for size in sizes:
            with tempfile.TemporaryDirectory(prefix="lookups-") as folder:
                found[size] = taken = looked_up(made(Path(folder), size, mixed=mixed))
            lines.append(
                f"| {name} | {size:,} | {taken.opening:.0f} | {taken.first:.1f} "
                f"| {taken.later:.1f} | {taken.kernel:.1f} | {taken.requests:.1f} "
                f"| {taken.files} of {size:,} | {taken.held:.0f} |"
            )
            print(lines[-1], flush=True)
        lines.append(f"| {name} | exponent | {_exponents(found)} | | | |")
    return "\n".join(lines) + "\n"


def _exponents(found: dict[int, Taken]) -> str:
    """How the times grow from the least to the greatest size."""
    least, greatest = min(found), max(found)
    pairs = [
        (getattr(found[least], name), getattr(found[greatest], name))
        for name in ("opening", "first", "later", "kernel")
    ]
    return " | ".join(f"{math.log(b / a, greatest / least):.2f}" for a, b in pairs)
