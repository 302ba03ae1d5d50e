"""Arrange the inputs of a source as shards of sorted subjects, in few passes and little memory.

The first pass settles inputs that the destination knows already, and writes the rows to a nameless
temporary file. A sorted list of contents beside it tells which of them come again; these are
settled next. Both passes go in the order of the source. Then rows are sorted by subject, so that
the ranges of ids of two shards do not overlap, and shards are numbered. Temporary files hold names,
addresses and keyed identities only. Memory does not grow with the source.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import starmap
from typing import IO, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.plan import repeats
from pipelines.plan.naming import Known, named
from pipelines.plan.repeats import Later
from pipelines.plan.sorting import Order, by_subject
from pipelines.plan.sources import COLUMNS
from pipelines.plan.windows import by_window
from pipelines.spec.outcomes import Outcome, Reason
from pipelines.table.spool import explained, spool
from pipelines.table.text_set import Mask, Sorter, TextSet, hashes

_PLANNED: Final = COLUMNS.remove(COLUMNS.get_field_index("before"))
SCHEMA: Final = _PLANNED.append(pa.field("shard", pa.int32()))
_LATER: Final = SCHEMA.get_field_index("address")
SCHEMA_OF_BEFORE: Final = SCHEMA.remove(_LATER)
"""Columns of plans that are older than pseudonyms."""
_ROWS: Final = 1 << 16


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
        repeated = _first_pass(order.passing(batches), live, used, file)
        found = repeats.found(partial(_spooled, file), repeated)
        rows: Iterator[pa.Table] = starmap(_settled, found)
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


def _first_pass(
    batches: Iterable[pa.Table], live: TextSet, used: Known, file: IO[bytes]
) -> TextSet:
    """Spool the rows; return the contents that come more than once."""
    seen = Sorter(repeats=True)
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with explained(), pa.ipc.new_stream(file, _PLANNED, options=options) as stream:
        for table in batches:
            settled = named(_settle_known(table.combine_chunks(), live, used), used.identities)
            seen.add(hashes(settled["content"].filter(repeats.may_repeat(settled))))
            for batch in settled.to_batches(_ROWS):
                stream.write_batch(batch)
    return TextSet.of(seen.repeated())


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


def _settled(table: pa.Table, later: list[Later]) -> pa.Table:
    """Settle the inputs of a table whose content came before."""
    if not later:
        return table
    details: list[str | None] = [None] * len(table)
    own, others = np.zeros((2, len(table)), bool)
    for row, same, uri in later:
        (own if same else others)[row] = True
        words = "same content as " if same else "another subject has the same content: "
        details[row] = words + uri
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
