"""The frozen plan: every input once, in shards of whole subjects, with one digest over all.

A plan is a folder. Its parts are Parquet files of 512 shards, one row group for each. `plan.json`,
written last, describes it and has the SHA-256 of every part. A folder without it is no plan.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from hashlib import sha256
from itertools import pairwise
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ironmask.errors import StorageError, TableError
from pipelines.plan.arrange import SCHEMA, SCHEMA_OF_BEFORE
from pipelines.ports import Store
from pipelines.table import layout

_FORMAT: Final = "ironmask-plan/1"
PART_SHARDS: Final = 512
_CHUNK: Final = 8 << 20


@dataclass(frozen=True)
class Plan:
    """A plan as its runs see it: its place and its counts, without the inputs themselves."""

    run_id: str
    uri: str
    digest: str
    shards: int
    inputs: int
    subjects: int
    todo: int
    source_version: str = ""

    def shard(self, number: int, store: Store) -> list[dict[str, Any]]:
        """The inputs of one shard, as rows of `SCHEMA`.

        Raises `TableError` where the plan was changed since it was frozen.
        """
        part, group = divmod(number, PART_SHARDS)
        content, metadata = _part(self, part, store)
        # Threads must not share a reader.
        parquet = pq.ParquetFile(pa.BufferReader(content), metadata=metadata)
        rows: list[dict[str, Any]] = parquet.read_row_group(group, use_threads=False).to_pylist()
        return rows


@dataclass(frozen=True)
class Part:
    """One part of a plan. first: its first shard."""

    name: str
    size: int
    sha256: str
    first: int
    shards: int


def write(
    tables: Iterable[pa.Table],
    run_id: str,
    uri: str,
    facts: dict[str, Any],
    store: Store,
    source_version: str = "",
) -> Plan:
    """Freeze a plan in a folder while its rows come, tables of `SCHEMA`; return what it holds."""
    writer = _Writer(uri, store)
    for table in tables:
        writer.add(table)
    writer.end()
    plan = Plan(
        run_id=run_id,
        uri=uri,
        digest=_digest(writer.parts),
        shards=sum(part.shards for part in writer.parts),
        inputs=writer.inputs,
        subjects=writer.subjects,
        todo=writer.todo,
        source_version=source_version,
    )
    parts = [asdict(part) for part in writer.parts]
    header = {"format": _FORMAT, "plan": asdict(plan), "facts": facts, "parts": parts}
    store.write(layout.plan_file(uri), json.dumps(header).encode())
    return plan


class _Writer:
    """Cuts a stream of rows into shards and parts, and counts."""

    def __init__(self, uri: str, store: Store) -> None:
        self.parts: list[Part] = []
        self.inputs = self.subjects = self.todo = 0
        self._uri = uri
        self._store = store
        self._last: str | None = None
        self._shard: list[pa.Table] = []
        self._number = 0
        self._done = 0
        self._sink = pa.BufferOutputStream()
        self._parquet: pq.ParquetWriter | None = None

    def add(self, table: pa.Table) -> None:
        self.inputs += len(table)
        self.todo += int(pc.sum(pc.is_null(table["outcome"])).as_py() or 0)
        self._count_subjects(table["subject_id"])
        shards = np.asarray(table["shard"])
        bounds = [0, *(np.nonzero(np.diff(shards))[0] + 1), len(table)]
        for begin, end in pairwise(bounds):
            if shards[begin] != self._number:
                self._end_shard(int(shards[begin]))
            self._shard.append(table.slice(begin, end - begin))

    def end(self) -> None:
        if self._shard:
            self._end_shard(self._number + 1)
        self._end_part()

    def _count_subjects(self, subjects: pa.ChunkedArray) -> None:
        """A subject's inputs come together, but two tables may share them."""
        codes = np.asarray(pc.dictionary_encode(subjects.combine_chunks()).indices)
        changes = np.count_nonzero(codes[1:] != codes[:-1])
        self.subjects += int(changes) + (subjects[0].as_py() != self._last)
        self._last = subjects[-1].as_py()

    def _end_shard(self, following: int) -> None:
        if self._parquet is None:
            self._sink = pa.BufferOutputStream()
            self._parquet = pq.ParquetWriter(
                self._sink, SCHEMA, compression="zstd", write_page_checksum=True
            )
        rows = pa.concat_tables(self._shard).cast(SCHEMA)
        self._parquet.write_table(rows, row_group_size=len(rows))
        self._shard, self._number, self._done = [], following, self._done + 1
        if self._done == PART_SHARDS:
            self._end_part()

    def _end_part(self) -> None:
        if self._parquet is None:
            return
        self._parquet.close()
        content = memoryview(self._sink.getvalue())
        name = layout.plan_part(len(self.parts))
        self._store.write(layout.join(self._uri, name), content)
        first = len(self.parts) * PART_SHARDS
        digest = sha256(content).hexdigest()
        self.parts.append(Part(name, len(content), digest, first, self._done))
        self._parquet, self._done = None, 0


def load(uri: str, store: Store) -> tuple[Plan, dict[str, Any]]:
    """Read the description of a frozen plan, and the facts stored with it."""
    header = _header(uri, store)
    with _sound(uri):
        return Plan(**{**header["plan"], "uri": uri}), dict(header["facts"])


def tables(frozen: Plan, store: Store) -> Iterator[pa.Table]:
    """All rows of a frozen plan, one part at a time."""
    for part in _parts(frozen.uri, store):
        with _opened(layout.join(frozen.uri, part.name), store) as parquet:
            rows = parquet.read()
        yield _whole(rows)


def _whole(rows: pa.Table) -> pa.Table:
    """Rows with all columns of a plan. Older plans lack one."""
    lacking = [field for field in SCHEMA if field.name not in rows.schema.names]
    for field in lacking:
        rows = rows.append_column(field, pa.nulls(len(rows), field.type))
    return rows.select(SCHEMA.names).cast(SCHEMA)


def digest_of(frozen: Plan, store: Store) -> str:
    """The digest of a frozen plan from its present parts."""
    found = []
    for part in _parts(frozen.uri, store):
        size, digest = _hashed(layout.join(frozen.uri, part.name), store)
        found.append(Part(part.name, size, digest, part.first, part.shards))
    return _digest(found)


def verify(frozen: Plan, store: Store) -> list[str]:
    """Problems of a plan's parts, one line for each."""
    wrong = []
    for part in _parts(frozen.uri, store):
        uri = layout.join(frozen.uri, part.name)
        try:
            found = _hashed(uri, store)
        except StorageError as error:
            wrong.append(str(error))
            continue
        if found != (part.size, part.sha256):
            wrong.append(f"{uri} is not what was frozen")
    return wrong


def _hashed(uri: str, store: Store) -> tuple[int, str]:
    size, hasher = 0, sha256()
    with store.open(uri) as handle:
        while chunk := handle.read(_CHUNK):
            size += len(chunk)
            hasher.update(chunk)
    return size, hasher.hexdigest()


def _digest(parts: Iterable[Part]) -> str:
    """SHA-256 over the parts' digests: so over all subjects, addresses, contents and shards."""
    facts = [[part.size, part.sha256, part.first, part.shards] for part in parts]
    return sha256(json.dumps(facts, separators=(",", ":")).encode()).hexdigest()


def _header(uri: str, store: Store) -> dict[str, Any]:
    file = layout.plan_file(uri)
    content = store.read(file)
    with _sound(file):
        header: dict[str, Any] = json.loads(content)
        if header["format"] != _FORMAT:
            raise TypeError("another format")
    return header


def _parts(uri: str, store: Store) -> list[Part]:
    header = _header(uri, store)
    with _sound(uri):
        return [Part(**part) for part in header["parts"]]


def _address(uri: str, part: int) -> str:
    return layout.join(uri, layout.plan_part(part))


@lru_cache(maxsize=4)
def _frozen_parts(frozen: Plan, store: Store) -> tuple[Part, ...]:
    """The parts that a plan's digest covers. Other files beside them do not count."""
    found = _parts(frozen.uri, store)
    if _digest(found) != frozen.digest:
        raise _not_frozen(layout.plan_file(frozen.uri))
    return tuple(found)


@lru_cache(maxsize=2)
def _part(frozen: Plan, number: int, store: Store) -> tuple[bytes, pq.FileMetaData]:
    """One part, checked. It is cached, because neighbouring shards share it."""
    parts = _frozen_parts(frozen, store)
    uri = _address(frozen.uri, number)
    content = store.read(uri)
    if number >= len(parts) or sha256(content).hexdigest() != parts[number].sha256:
        raise _not_frozen(uri)
    with _sound(uri):
        return content, pq.read_metadata(pa.BufferReader(content))


def _not_frozen(uri: str) -> TableError:
    return TableError(
        f"{uri} is not what was frozen: its run cannot go on with it; restore the file, or add "
        "--restart to plan the rest afresh"
    )


@contextmanager
def _opened(uri: str, store: Store) -> Iterator[pq.ParquetFile]:
    with store.open(uri) as handle, _sound(uri):
        parquet = pq.ParquetFile(handle, page_checksum_verification=True)
        if not any(parquet.schema_arrow.equals(one) for one in (SCHEMA, SCHEMA_OF_BEFORE)):
            raise TypeError("not the columns of a plan")
        yield parquet


@contextmanager
def _sound(uri: str) -> Iterator[None]:
    """Turn the errors of damaged files into `TableError`."""
    try:
        yield
    except (pa.ArrowException, OSError, LookupError, TypeError, ValueError) as error:
        if isinstance(error, StorageError):
            raise
        raise TableError(
            f"{uri} cannot be read as a plan ({type(error).__name__}): its run cannot go on "
            "without it; restore the file, or add --restart to plan the rest afresh"
        ) from None
