"""Sort rows outside of memory.

Rows are sorted in runs of some MiB, which wait as small blocks in a nameless temporary file. A
merge holds one block of each run. Rows that fit into one run are sorted in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.table.listing import rises
from pipelines.table.spool import Blocks, Place, spool

_SUBJECT: Final = "subject_id"
_PLACE: Final = "place"
_RUN_BYTES: Final = 64 << 20
_BLOCK_BYTES: Final = 256 << 10


class Order:
    """Tells whether rows come by subject already, as they pass."""

    def __init__(self) -> None:
        self.is_kept = True
        self._last: str | None = None

    def passing(self, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """Pass rows on, and look at their subjects."""
        for table in tables:
            if self.is_kept and len(table):
                self.is_kept = self._goes_on(table[_SUBJECT].combine_chunks())
            yield table

    def _goes_on(self, subjects: pa.Array) -> bool:
        first, before, self._last = subjects[0].as_py(), self._last, subjects[-1].as_py()
        if subjects.null_count or (before is not None and first < before):
            return False
        return rises(subjects)


def by_subject(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """`sorted_by` for the bytes of `subject_id`."""
    return sorted_by(tables, _SUBJECT)


def sorted_by(tables: Iterable[pa.Table], key: str) -> Iterator[pa.Table]:
    """Yield the same rows, sorted by a column of texts or numbers. Equal ones keep their order.

    Holds one run of 64 MiB, then a quarter of a MiB for each run. Raises `StorageError` where the
    temporary file finds no room.
    """
    runs = _runs(tables, key)
    first, second = next(runs, None), next(runs, None)
    if first is None:
        return
    if second is None:
        yield first.drop_columns([_PLACE])
        return
    with spool() as file:
        blocks = Blocks(file)
        places = [_written(first, blocks), _written(second, blocks)]
        first = second = None
        places += (_written(run, blocks) for run in runs)
        blocks.flush()
        for merged in _merged([_Run(blocks, own, key) for own in places], key):
            yield merged.drop_columns([_PLACE])


def _runs(tables: Iterable[pa.Table], key: str) -> Iterator[pa.Table]:
    """The rows in sorted tables that fit into memory, each row with its place in the source."""
    waiting: list[pa.Table] = []
    size = row = 0
    for table in tables:
        if size + table.nbytes > _RUN_BYTES and waiting:
            run, waiting, size = _sorted(waiting, key), [], 0
            yield run
        places = pa.array(np.arange(row, row + len(table)))
        waiting.append(table.append_column(_PLACE, places))
        size += table.nbytes
        row += len(table)
    if waiting:
        yield _sorted(waiting, key)


def _sorted(parts: list[pa.Table], key: str) -> pa.Table:
    order = [(key, "ascending"), (_PLACE, "ascending")]
    return pa.concat_tables(parts).sort_by(order).combine_chunks()


def _written(run: pa.Table, blocks: Blocks) -> list[Place]:
    rows = max(1, _BLOCK_BYTES * len(run) // max(int(run.nbytes), 1))
    return [blocks.add(run.slice(at, rows)) for at in range(0, len(run), rows)]


class _Run:
    """The rest of a sorted run. Only its first block is in memory."""

    def __init__(self, blocks: Blocks, places: Sequence[Place], key: str) -> None:
        self._blocks = blocks
        self._key = key
        self._places = iter(places)
        self._rows: pa.Table | None = None
        self._load()

    def _load(self) -> None:
        self._rows = None
        with suppress(StopIteration):
            self._rows = self._blocks.read(next(self._places))

    def end(self) -> tuple[Any, int] | None:
        """Key and place of the last row in memory; None at the end of the run."""
        if self._rows is None:
            return None
        return self._rows[self._key][-1].as_py(), self._rows[_PLACE][-1].as_py()

    def up_to(self, key: Any, place: int) -> pa.Table | None:
        """Take the rows in memory that do not come after one row."""
        if self._rows is None:
            return None
        keys = self._rows[self._key]
        own = pc.and_(pc.equal(keys, key), pc.less_equal(self._rows[_PLACE], place))
        count = int(pc.sum(pc.or_(pc.less(keys, key), own)).as_py())
        taken, self._rows = self._rows.slice(0, count), self._rows.slice(count)
        if not len(self._rows):
            self._load()
        return taken


def _merged(runs: list[_Run], key: str) -> Iterator[pa.Table]:
    """All rows in order. No later block has a row before the least of the blocks' last rows."""
    while ends := [end for run in runs if (end := run.end())]:
        bound = min(ends)
        parts = [part for run in runs if (part := run.up_to(*bound)) is not None and len(part)]
        yield _sorted(parts, key)
