"""Look up a subject's row in a destination, and count templates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads

from ironmask.errors import KeyStoreError, TableError, WrongKeyError
from pipelines.ports import GenerationKeys, Tables
from pipelines.table import generations
from pipelines.table.sealed import SealedTables


def find_row(tables: Tables, subject: str, generation: int | None = None) -> dict[str, Any]:
    """Return a subject's row of a generation, the live one if none is named.

    Raises `TableError` where there is none, or more than one.
    """
    own = pads.field("subject_id") == subject
    if generation is None:
        generation = generations.live(tables)
    where = own & (pads.field("generation") == generation)
    live: list[dict[str, Any]] = tables.table("templates").rows(where=where).to_pylist()
    if not live:
        raise TableError(f"{tables.dest} holds no template of subject {subject!r}")
    if len(live) > 1:
        raise TableError(
            f"{tables.dest} holds {len(live)} live templates of subject {subject!r}: two issues "
            "of one person can be broken together; remove one and re-protect the other"
        )
    return live[0]


Row = tuple[dict[str, Any], GenerationKeys]


def open_live(tables: SealedTables, subject: str, opener: Callable[[int], GenerationKeys]) -> Row:
    """A subject's live row and the keys of its generation, even while that is being replaced.

    opener: opens the keys of a generation. Raises `TableError` where there is no such row,
    `KeyStoreError` where its keys are not at hand, or did not encrypt it.
    """
    while True:
        before = generations.live(tables)
        try:
            row = find_row(tables, subject, before)
            keys = opener(row["generation"])
        except (TableError, KeyStoreError):
            # Since the look-up, the live generation may have been replaced and destroyed.
            if not tables.refresh() and generations.live(tables) == before:
                raise
            continue
        if keys.key_id != row["key_id"]:
            raise WrongKeyError(
                f"the keys at hand are {keys.key_id}; subject {subject!r} was sealed under "
                f"{row['key_id']}"
            )
        return row, keys


def templates_by(tables: Tables, columns: list[str]) -> list[tuple[dict[str, Any], int]]:
    """The number of templates by the values of some columns, in order of first appearance."""
    # Sum over batches: the rows of a large table do not fit in memory. Helpers stay unread.
    counts = [
        batch.group_by(columns).aggregate([([], "count_all")])
        for batch in map(_table, tables.table("templates").batches(columns))
    ]
    if not counts:
        return []
    grouped = pa.concat_tables(counts).group_by(columns).aggregate([("count_all", "sum")])
    rows = grouped.sort_by(columns[0]).to_pylist()
    return [(row, row.pop("count_all_sum")) for row in rows]


def _table(batch: pa.RecordBatch) -> pa.Table:
    return pa.Table.from_batches([batch])
