"""Arrange the inputs of a source as shards of sorted subjects, in few passes and little memory.

The first pass settles inputs that the destination knows already. It writes the rows to a nameless
temporary file, and keeps eight bytes for each content. These bytes tell the second pass which
contents come again. Both passes go in the order of the source. Then rows are sorted by subject, so
that the ranges of ids of two shards do not overlap, and shards are numbered. Temporary files hold
names, addresses and keyed identities only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.plan.naming import Known, named
from pipelines.plan.sorting import Order, by_subject
from pipelines.plan.sources import COLUMNS
from pipelines.plan.spool import explained, spool
from pipelines.plan.windows import by_window
from pipelines.spec.outcomes import Outcome, Reason
from pipelines.table.text_set import Mask, TextSet

_PLANNED: Final = COLUMNS.remove(COLUMNS.get_field_index("before"))
SCHEMA: Final = _PLANNED.append(pa.field("shard", pa.int32()))
_LATER: Final = SCHEMA.get_field_index("address")
SCHEMA_OF_BEFORE: Final = SCHEMA.remove(_LATER)
"""Columns of plans that are older than pseudonyms."""
_HASH: Final = "hash"
_SPOOLED: Final = _PLANNED.append(pa.field(_HASH, pa.int64()))
_ROWS: Final = 1 << 16

Hashes = NDArray[np.int64]


def arrange(
    batches: Iterable[pa.Table],
    live: TextSet,
    used: Known,
    shard_size: int,
    windows: Sequence[int] = (),
) -> Iterator[pa.Table]:
    """Yield the inputs of a source as tables of `SCHEMA`, ordered by shard, subject and source.

    Inputs of the subjects in `live` are skipped. Of equal contents the first in the source is kept,
    and the others are duplicates. A content in `used` already serves another subject's template:
    one photo under two subjects would be two issues of one person. A subject is in the shard in
    which its first input falls. windows: as `windows.by_window` takes them; shards of a source
    whose subjects come in order need none. Raises `StorageError` where a temporary file finds no
    room.
    """
    with spool() as file:
        order = Order()
        originals = _Originals(_first_pass(order.passing(batches), live, used, file))
        rows: Iterator[pa.Table] = map(originals.mark, _spooled(file))
        if not order.is_kept:
            rows = by_window(by_subject(rows), windows)
        numbers = _Numbers(shard_size)
        for table in rows:
            yield table.append_column(SCHEMA.field("shard"), numbers.of(table["subject_id"]))


def _spooled(file: IO[bytes]) -> Iterator[pa.Table]:
    with explained():
        file.seek(0)
        with pa.ipc.open_stream(file) as stream:
            for batch in stream:
                yield pa.Table.from_batches([batch])


def rows_of_file(rows: pa.Table, shard: int, detail: str, content: str | None = None) -> pa.Table:
    """One shard as a table of `SCHEMA`: inputs that lie together in a file. rows: names them."""
    named = {name: rows[name].combine_chunks() for name in ("subject_id", "uri")}
    fixed = {"shard": shard, "detail": detail, "content": content}
    columns = [
        pc.cast(named[field.name], field.type)
        if field.name in named
        else pa.repeat(pa.scalar(fixed.get(field.name), field.type), len(rows))
        for field in SCHEMA
    ]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def _first_pass(batches: Iterable[pa.Table], live: TextSet, used: Known, file: IO[bytes]) -> Hashes:
    """Spool the rows; return the sorted hashes of contents that come more than once."""
    seen: list[Hashes] = []
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with explained(), pa.ipc.new_stream(file, _SPOOLED, options=options) as stream:
        for table in batches:
            settled = named(_settle_known(table.combine_chunks(), live, used), used.identities)
            hashes = _hashes(settled)
            seen.append(hashes[_may_repeat(settled)])
            spooled = settled.append_column(_SPOOLED.field(_HASH), pa.array(hashes))
            for batch in spooled.to_batches(_ROWS):
                stream.write_batch(batch)
    everything = np.sort(np.concatenate(seen)) if seen else np.empty(0, np.int64)
    again = everything[1:] == everything[:-1]
    return np.unique(everything[1:][again])


def _hashes(table: pa.Table) -> Hashes:
    """Hashes of contents. They are valid in this process only."""
    contents = table["content"].to_pylist()
    return np.fromiter(map(hash, contents), np.int64, len(contents))


def _may_repeat(table: pa.Table) -> Mask:
    """Rows of known content that need work."""
    return np.asarray(pc.and_(pc.is_null(table["outcome"]), pc.is_valid(table["content"])))


def _settle_known(table: pa.Table, live: TextSet, used: Known) -> pa.Table:
    is_open = np.asarray(pc.is_null(table["outcome"]))
    enrolled = is_open & live.has(table["subject_id"])
    table = _settle(table, enrolled, Outcome.SKIPPED, Reason.ALREADY_ENROLLED, "")
    taken = is_open & ~enrolled & used.has(table)
    detail = "another subject's live template was made from the same content"
    return _settle(table, taken, Outcome.DUPLICATE, Reason.DUPLICATE_OTHER_SUBJECT, detail)


def _settle(table: pa.Table, mask: Mask, outcome: Outcome, reason: Reason, detail: Any) -> pa.Table:
    """Give the rows under a mask their outcome. detail: a text for all, or one for each row."""
    if not mask.any():
        return table
    for name, value in (("outcome", outcome.value), ("reason", reason.value), ("detail", detail)):
        field = COLUMNS.field(name)
        chosen = pa.scalar(value, field.type) if isinstance(value, str) else value
        column = pc.if_else(pa.array(mask), chosen, table[name].combine_chunks())
        table = table.set_column(table.schema.get_field_index(name), field, column)
    return table


class _Originals:
    """The first input of each repeated content, as its subject and address."""

    def __init__(self, repeated: Hashes) -> None:
        self._repeated = repeated
        self._first: dict[str, tuple[str, str]] = {}

    def mark(self, table: pa.Table) -> pa.Table:
        """Settle the duplicates among the next rows. Drops the column of hashes."""
        hashes = np.asarray(table[_HASH])
        table = table.drop_columns([_HASH])
        if not len(self._repeated):
            return table
        places = np.searchsorted(self._repeated, hashes)
        places = np.minimum(places, len(self._repeated) - 1)
        mask = (self._repeated[places] == hashes) & _may_repeat(table)
        if not mask.any():
            return table
        return self._settled(table, np.nonzero(mask)[0])

    def _settled(self, table: pa.Table, places: NDArray[np.intp]) -> pa.Table:
        rows = table.select(["content", "subject_id", "uri"]).take(pa.array(places)).to_pylist()
        details: list[str | None] = [None] * len(table)
        own, others = np.zeros((2, len(table)), bool)
        for place, row in zip(places, rows, strict=True):
            if row["content"] not in self._first:
                self._first[row["content"]] = row["subject_id"], row["uri"]
                continue
            subject, uri = self._first[row["content"]]
            same = subject == row["subject_id"]
            (own if same else others)[place] = True
            words = "same content as " if same else "another subject has the same content: "
            details[place] = words + uri
        texts = pa.array(details, COLUMNS.field("detail").type)
        table = _settle(table, own, Outcome.DUPLICATE, Reason.DUPLICATE_CONTENT, texts)
        return _settle(table, others, Outcome.DUPLICATE, Reason.DUPLICATE_OTHER_SUBJECT, texts)


class _Numbers:
    """Numbers shards without gaps. A subject is in the shard in which its first input falls."""

    def __init__(self, shard_size: int) -> None:
        self._size = shard_size
        self._rows = 0
        self._subject: str | None = None
        self._first = 0
        self._number = -1
        self._raw = -1

    def of(self, subjects: pa.ChunkedArray) -> pa.Array:
        """Number the next rows. All rows of a subject come together."""
        codes = np.asarray(pc.dictionary_encode(subjects.combine_chunks()).indices)
        starts = np.concatenate([[subjects[0].as_py() != self._subject], codes[1:] != codes[:-1]])
        places = self._rows + np.arange(len(codes))
        firsts = np.maximum.accumulate(np.where(starts, places, self._first))
        raw = firsts // self._size
        steps = np.concatenate([[raw[0] != self._raw], raw[1:] != raw[:-1]])
        numbers = self._number + np.cumsum(steps)
        self._rows += len(codes)
        self._subject = subjects[-1].as_py()
        self._first, self._raw, self._number = int(firsts[-1]), int(raw[-1]), int(numbers[-1])
        return pa.array(numbers, pa.int32())
