"""The rows of a manifest by subject, in memory that does not grow with the manifest.

Rows are sorted in parts of some MiB. The parts wait in a nameless temporary file and are merged.
A manifest that fits into one part is sorted in memory.
"""

from __future__ import annotations

import heapq
import os
import posixpath
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from typing import IO, Final

import pyarrow as pa
import pyarrow.ipc

from pipelines.plan.reach import SECRET, Reach
from pipelines.plan.tabular import text_parts
from pipelines.ports import Store
from pipelines.spec.addresses import AddressError, has_secret, resolved, shown
from pipelines.spec.outcomes import Outcome, Reason
from pipelines.table.spool import explained, spool

_COLUMNS: Final = ("subject_id", "uri")
_RUN_BYTES: Final = 32 << 20
_BLOCK_BYTES: Final = 64 << 10
_LENGTH: Final = struct.Struct("<Q")

Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Listed:
    """A row of a manifest. uri: full, without secrets. outcome: None where it is to be read."""

    subject: str
    uri: str
    outcome: Outcome | None = None
    reason: Reason = Reason.NONE
    detail: str = ""


def listed(source: str, store: Store, reach: Reach) -> Iterator[Listed]:
    """The rows of a CSV or Parquet with `subject_id` and `uri`, a subject's rows together.

    Relative addresses start at its folder. Raises `SourceError` for a file that is no manifest,
    `StorageError` where the temporary file finds no room.
    """
    base = posixpath.dirname(source)
    for subject, address in _sorted_pairs(source, store):
        if subject and address:
            yield _row(subject, address, base, reach)
        elif address:
            uri, detail = _uri(address, base), "the manifest's row names no subject"
            yield Listed("", uri, Outcome.FAILED, Reason.NO_SUBJECT, detail)
        else:
            detail = "the manifest's row names no address"
            yield Listed(subject, source, Outcome.FAILED, Reason.BAD_ADDRESS, detail)


def _row(subject: str, address: str, base: str, reach: Reach) -> Listed:
    uri = _uri(address, base)
    if has_secret(address):
        return Listed(subject, uri, Outcome.FAILED, *SECRET)
    try:
        resolved(address, base)
    except AddressError as error:
        return Listed(subject, uri, Outcome.FAILED, Reason.BAD_ADDRESS, str(error))
    if found := reach.fault(uri):
        return Listed(subject, uri, Outcome.FAILED, *found)
    return Listed(subject, uri)


def _uri(address: str, base: str) -> str:
    try:
        return shown(resolved(address, base))
    except AddressError:
        return shown(address)


def _sorted_pairs(source: str, store: Store) -> Iterator[Pair]:
    runs = _runs(source, store)
    first, second = next(runs, None), next(runs, None)
    if first is None:
        return iter(())
    if second is None:
        return _pairs(first)
    return _merged(chain([first, second], runs))


def _runs(source: str, store: Store) -> Iterator[pa.Table]:
    """The rows in sorted tables that fit into memory."""
    waiting: list[pa.Table] = []
    size = 0
    for part in text_parts(source, _COLUMNS, store):
        if size + part.nbytes > _RUN_BYTES and waiting:
            yield _sorted(waiting)
            waiting, size = [], 0
        waiting.append(part)
        size += part.nbytes
    if waiting:
        yield _sorted(waiting)


def _sorted(parts: list[pa.Table]) -> pa.Table:
    return pa.concat_tables(parts).sort_by([("subject_id", "ascending")])


def _pairs(table: pa.Table) -> Iterator[Pair]:
    for batch in table.to_batches(max_chunksize=_rows(table)):
        columns = (batch[name].to_pylist() for name in _COLUMNS)
        yield from zip(*columns, strict=True)


def _merged(runs: Iterator[pa.Table]) -> Iterator[Pair]:
    with spool() as file:
        places = [_write(run, file) for run in runs]
        with explained():
            file.flush()
        found = [_read(file.fileno(), start, end) for start, end in places]
        yield from heapq.merge(*found, key=itemgetter(0))


def _write(run: pa.Table, file: IO[bytes]) -> tuple[int, int]:
    """Append a part in blocks, each after its length. Returns where it begins and ends."""
    start = file.tell()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    for batch in run.to_batches(max_chunksize=_rows(run)):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, run.schema, options=options) as stream:
            stream.write_batch(batch)
        block = sink.getvalue()
        with explained():
            file.write(_LENGTH.pack(block.size))
            file.write(block)
    return start, file.tell()


def _read(descriptor: int, start: int, end: int) -> Iterator[Pair]:
    while start < end:
        with explained():
            (size,) = _LENGTH.unpack(os.pread(descriptor, _LENGTH.size, start))
            block = os.pread(descriptor, size, start + _LENGTH.size)
        start += _LENGTH.size + size
        with pa.ipc.open_stream(block) as stream:
            yield from _pairs(stream.read_all())


def _rows(table: pa.Table) -> int:
    """The number of a table's rows in one block."""
    return max(1, _BLOCK_BYTES * len(table) // max(int(table.nbytes), 1))
