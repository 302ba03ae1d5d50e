"""Settle the inputs of a source whose content came before in it, outside of memory.

Rows of contents that come more than once are sorted by content, so that the first one and all that
follow it lie together. What is found of each is sorted by its row, and joins the source again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.plan.sorting import sorted_by
from pipelines.table.text_set import TextSet

_CONTENT: Final = "content"
_FIRST: Final = ["subject_id", "uri"]
_NUMBER: Final = "number"

Later = tuple[int, bool, str]
"""An input whose content came before: its row in a table, whether the first input of the content is
of the same subject, and the first one's address."""


def may_repeat(table: pa.Table) -> pa.Array:
    """Rows of known content that need work."""
    return pc.and_(pc.is_null(table["outcome"]), pc.is_valid(table[_CONTENT])).combine_chunks()


def found(
    source: Callable[[], Iterable[pa.Table]], repeated: TextSet
) -> Iterator[tuple[pa.Table, list[Later]]]:
    """Yield the tables of a source, each with its inputs whose content came before.

    source: gives the tables, twice. repeated: the contents that come more than once. Errors are
    those of `sorting.sorted_by`.
    """
    if not len(repeated):
        yield from ((table, []) for table in source())
        return
    later = _Later(sorted_by(_later(sorted_by(_of(source(), repeated), _CONTENT)), _NUMBER))
    start = 0
    for table in source():
        yield table, later.of(start, len(table))
        start += len(table)


def _of(tables: Iterable[pa.Table], repeated: TextSet) -> Iterator[pa.Table]:
    """Rows of repeated contents, with their numbers in the source."""
    start = 0
    for table in tables:
        numbers = pa.array(np.arange(start, start + len(table)))
        start += len(table)
        mask = pc.and_(pa.array(repeated.has(table[_CONTENT])), may_repeat(table))
        chosen = table.select([_CONTENT, *_FIRST]).append_column(_NUMBER, numbers).filter(mask)
        if len(chosen):
            yield chosen.combine_chunks()


def _later(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """All but the first row of each content, with what is told of the first one.

    tables: rows in the order of their contents and numbers.
    """
    last = None
    for table in tables:
        rows = table if last is None else pa.concat_tables([last, table])
        rows = rows.combine_chunks()
        contents = rows[_CONTENT].combine_chunks()
        goes_on = np.asarray(pc.equal(contents[1:], contents[:-1]))
        places = np.arange(len(rows))
        places[1:][goes_on] = 0
        firsts = np.maximum.accumulate(places)
        told = rows.select(_FIRST).take(pa.array(firsts))
        same = pc.equal(rows["subject_id"], told["subject_id"])
        made = pa.table({_NUMBER: rows[_NUMBER], "same": same, "uri": told["uri"]})
        # The row that was carried over is a first one, so it is not told of again.
        yield made.filter(pa.array(firsts != np.arange(len(rows))))
        last = rows.slice(int(firsts[-1]), 1)


class _Later:
    """Inputs whose content came before, in the order of the source."""

    def __init__(self, tables: Iterator[pa.Table]) -> None:
        self._tables = tables
        self._rest: pa.Table | None = next(tables, None)

    def of(self, start: int, count: int) -> list[Later]:
        """Those of the next rows, from one number on."""
        taken: list[Later] = []
        while self._rest is not None:
            numbers = np.asarray(self._rest[_NUMBER])
            end = int(np.searchsorted(numbers, start + count))
            some = self._rest.slice(0, end).to_pydict()
            rows = (number - start for number in some[_NUMBER])
            taken += zip(rows, some["same"], some["uri"], strict=True)
            if end < len(numbers):
                self._rest = self._rest.slice(end)
                break
            self._rest = next(self._tables, None)
        return taken
