"""The frozen plan: every input once, in shards of whole subjects, with a digest of it all."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ironmask.errors import TableError
from pipelines.ports import Store
from pipelines.records import Outcome, Reason
from pipelines.sources import COLUMNS

_META = b"ironmask.plan"
_DIGESTED = ("shard", "subject_id", "uri", "row", "content", "reason")
_ROWS = 4096
SCHEMA = COLUMNS.append(pa.field("shard", pa.int32()))


@dataclass(frozen=True)
class Plan:
    """A plan as its runs see it: where it lies and what it holds, not the inputs themselves."""

    run_id: str
    uri: str
    digest: str
    shards: int
    inputs: int
    subjects: int
    todo: int
    source_version: str = ""

    def shard(self, number: int, store: Store) -> list[dict[str, Any]]:
        """The inputs of one shard, as rows of `SCHEMA`."""
        with _opened(self.uri, store, _metadata(self, store)) as parquet:
            rows: list[dict[str, Any]] = parquet.read_row_group(number).to_pylist()
        return rows


def build(batches: Iterable[pa.Table], live: pa.Array, used: pa.Array, shard_size: int) -> pa.Table:
    """Arrange the inputs of a source: `SCHEMA`, ordered by shard.

    Inputs of the subjects in `live` are skipped. Of equal contents the first is kept and the
    others are duplicates; contents in `used` already serve another subject's template, and one
    photo under two subjects would be two issues of one person.
    """
    table = pa.concat_tables([COLUMNS.empty_table(), *batches]).combine_chunks()
    table = _skip_live(table, live)
    table = _skip_used(table, used)
    table = _mark_duplicates(table)
    return table.append_column("shard", _shards(table["subject_id"], shard_size))


def _skip_live(table: pa.Table, live: pa.Array) -> pa.Table:
    known = pc.and_(
        pc.is_in(table["subject_id"], value_set=live.cast(pa.large_string())),
        pc.is_null(table["outcome"]),
    )
    return _settle(table, known, Outcome.SKIPPED, Reason.ALREADY_ENROLLED, "")


def _skip_used(table: pa.Table, used: pa.Array) -> pa.Table:
    known = pc.and_(
        pc.is_in(table["content"], value_set=used.cast(pa.large_string()), skip_nulls=True),
        pc.is_null(table["outcome"]),
    )
    detail = "another subject's live template was made from the same content"
    return _settle(table, known, Outcome.DUPLICATE, Reason.DUPLICATE_OTHER_SUBJECT, detail)


def _mark_duplicates(table: pa.Table) -> pa.Table:
    """Keep the first input of each content; mark the others by whose the first one is."""
    open_rows = np.asarray(pc.and_(pc.is_null(table["outcome"]), pc.is_valid(table["content"])))
    places = np.nonzero(open_rows)[0]
    if not len(places):
        return table
    codes = pc.dictionary_encode(table["content"].take(pa.array(places)).combine_chunks()).indices
    # Codes number the contents by first appearance, so the first place of code c is firsts[c].
    _, firsts, inverse = np.unique(np.asarray(codes), return_index=True, return_inverse=True)
    original = np.arange(len(table))
    original[places] = places[firsts[inverse]]
    repeated = original != np.arange(len(table))
    owners = table["subject_id"].take(pa.array(original)).combine_chunks()
    same = np.asarray(pc.equal(owners, table["subject_id"].combine_chunks()))
    uris = table["uri"].take(pa.array(original)).combine_chunks()
    table = _settle(
        table,
        repeated & same,
        Outcome.DUPLICATE,
        Reason.DUPLICATE_CONTENT,
        _after("same content as ", uris),
    )
    return _settle(
        table,
        repeated & ~same,
        Outcome.DUPLICATE,
        Reason.DUPLICATE_OTHER_SUBJECT,
        _after("another subject has the same content: ", uris),
    )


def _after(words: str, texts: pa.Array) -> pa.Array:
    before, between = (pa.scalar(text, pa.large_string()) for text in (words, ""))
    return pc.binary_join_element_wise(before, texts, between)


def _settle(table: pa.Table, where: Any, outcome: Outcome, reason: Reason, detail: Any) -> pa.Table:
    """Give the rows under a mask their outcome."""
    mask = pa.array(np.asarray(where, dtype=bool))
    for name, value in (("outcome", outcome.value), ("reason", reason.value), ("detail", detail)):
        field = COLUMNS.field(name)
        chosen = pa.scalar(value, field.type) if isinstance(value, str) else value
        column = pc.if_else(mask, chosen, table[name].combine_chunks())
        table = table.set_column(table.schema.get_field_index(name), field, column)
    return table


def _shards(subjects: pa.ChunkedArray, shard_size: int) -> pa.Array:
    """Number the shards: a subject belongs where its first input falls; numbers have no gaps."""
    codes = np.asarray(pc.dictionary_encode(subjects.combine_chunks()).indices)
    starts = np.concatenate([[True], codes[1:] != codes[:-1]])
    first = np.maximum.accumulate(np.where(starts, np.arange(len(codes)), 0))
    _, dense = np.unique(first // shard_size, return_inverse=True)
    return pa.array(dense, pa.int32())


def write(
    table: pa.Table,
    run_id: str,
    uri: str,
    facts: dict[str, Any],
    store: Store,
    source_version: str = "",
) -> Plan:
    """Freeze a plan as Parquet, one row group a shard, and describe it."""
    plan = Plan(
        run_id=run_id,
        uri=uri,
        digest=_digest(table.to_batches(_ROWS)),
        source_version=source_version,
        shards=pc.max(table["shard"]).as_py() + 1,
        inputs=len(table),
        subjects=pc.count_distinct(table["subject_id"]).as_py(),
        todo=int(pc.sum(pc.is_null(table["outcome"])).as_py()),
    )
    header = {"plan": plan.__dict__, "facts": facts}
    sink = pa.BufferOutputStream()
    schema = SCHEMA.with_metadata({_META: json.dumps(header).encode()})
    bounds = np.searchsorted(np.asarray(table["shard"]), np.arange(plan.shards + 1))
    with pq.ParquetWriter(sink, schema, compression="zstd", write_page_checksum=True) as writer:
        for begin, end in pairwise(bounds):
            part = table.slice(begin, end - begin).cast(schema)
            writer.write_table(part, row_group_size=max(1, len(part)))
    store.write(uri, memoryview(sink.getvalue()))
    return plan


def load(uri: str, store: Store) -> tuple[Plan, dict[str, Any]]:
    """Read back the description of a frozen plan, and the facts stored with it."""
    with _opened(uri, store) as parquet:
        header = json.loads(parquet.schema_arrow.metadata[_META])
        return Plan(**{**header["plan"], "uri": uri}), header["facts"]


def table(frozen: Plan, store: Store) -> pa.Table:
    """All rows of a frozen plan."""
    with _opened(frozen.uri, store) as parquet:
        return parquet.read().cast(SCHEMA)


def digest_of(frozen: Plan, store: Store) -> str:
    """The digest of a frozen plan as its file is now."""
    with _opened(frozen.uri, store) as parquet:
        return _digest(parquet.iter_batches(_ROWS))


@lru_cache(maxsize=2)
def _metadata(frozen: Plan, store: Store) -> pq.FileMetaData:
    """A footer grows with the plan: no process reads it for every shard."""
    with _opened(frozen.uri, store) as parquet:
        return parquet.metadata


@contextmanager
def _opened(
    uri: str, store: Store, metadata: pq.FileMetaData | None = None
) -> Iterator[pq.ParquetFile]:
    """A plan's file; a damaged one is a `TableError`."""
    with store.open(uri) as handle:
        try:
            parquet = pq.ParquetFile(handle, metadata=metadata, page_checksum_verification=True)
            if not parquet.schema_arrow.equals(SCHEMA):
                raise TypeError("not the columns of a plan")
            yield parquet
        except (pa.ArrowException, OSError, LookupError, TypeError, ValueError) as error:
            raise TableError(
                f"{uri} cannot be read as a plan ({type(error).__name__}): its run cannot go on "
                "without it; restore the file, or add --restart to plan the rest afresh"
            ) from None


def _digest(batches: Iterable[pa.RecordBatch]) -> str:
    """SHA-256 over every row: whose input, where, and with what content."""
    hasher = sha256()
    for batch in batches:
        columns = [batch[name].to_pylist() for name in _DIGESTED]
        for row in zip(*columns, strict=True):
            hasher.update(json.dumps(row, ensure_ascii=True).encode())
    return hasher.hexdigest()
