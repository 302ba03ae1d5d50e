"""Keep rows together that are read together.

A worker can only read a whole row group of a file of embeddings. Rows sorted by subject would let
each shard of a large shuffled file read all of its row groups. So a window is as many row groups as
a worker keeps, and rows are sorted by subject inside each window.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.plan.sources import embedding_file
from pipelines.ports import Store
from pipelines.table.spool import Blocks, Place, spool

WINDOW_BYTES: Final = 512 << 20
"""Decoded row groups that a worker keeps. A larger row group is a window of its own."""

_SUBJECT: Final = "subject_id"


def starts_of(source: str, store: Store, limit: int) -> list[int]:
    """Cut a Parquet of embeddings into parts of whole row groups: the first row of each part.

    limit: bytes of a part that has several row groups, once they are decoded.
    """
    with store.open(source) as handle:
        metadata = embedding_file(source, handle).metadata
    starts, row, size = [0], 0, 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        if size and size + group.total_byte_size > limit:
            starts.append(row)
            size = 0
        size += group.total_byte_size
        row += group.num_rows
    return starts


def by_window(tables: Iterable[pa.Table], starts: Sequence[int]) -> Iterator[pa.Table]:
    """Yield rows that come by subject, window after window. They stay in order in each of them.

    starts: the first `row` of each window, from 0 on. A subject is in the window in which its first
    row lies. Raises `StorageError` where the temporary file finds no room.
    """
    if len(starts) < 2:
        yield from tables
        return
    with spool() as file:
        blocks = Blocks(file)
        places: list[list[Place]] = [[] for _ in starts]
        for table in _whole_subjects(tables):
            windows = _windows(table, starts)
            for window in np.unique(windows):
                places[window].append(blocks.add(table.filter(pa.array(windows == window))))
        blocks.flush()
        for own in places:
            yield from map(blocks.read, own)


def _windows(table: pa.Table, starts: Sequence[int]) -> NDArray[np.intp]:
    """The window of each row's subject, (k,). Rows of unknown places are in the first one."""
    subjects = table[_SUBJECT].combine_chunks()
    starting = np.concatenate([[True], np.asarray(pc.not_equal(subjects[1:], subjects[:-1]))])
    rows = np.asarray(pc.fill_null(table["row"], 0))
    places = np.nonzero(starting)[0]
    firsts = np.minimum.reduceat(rows, places)
    of_row = np.cumsum(starting) - 1
    found: NDArray[np.intp] = (np.searchsorted(starts, firsts, "right") - 1)[of_row]
    return found


def _whole_subjects(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows, with no subject in two tables."""
    kept: list[pa.Table] = []
    for table in tables:
        subjects = table[_SUBJECT].combine_chunks()
        others = np.nonzero(np.asarray(pc.not_equal(subjects, subjects[-1])))[0]
        end = int(others[-1]) + 1 if len(others) else 0
        if kept and (end or kept[0][_SUBJECT][0].as_py() != subjects[0].as_py()):
            yield pa.concat_tables([*kept, table.slice(0, end)])
            kept = []
        elif end:
            yield table.slice(0, end)
        kept.append(table.slice(end))
    if kept:
        yield pa.concat_tables(kept)
