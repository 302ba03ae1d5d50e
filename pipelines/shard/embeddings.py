"""Stored embeddings of a shard, read from the row groups that hold them."""

from __future__ import annotations

from collections import OrderedDict
from functools import lru_cache
from threading import Lock
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ironmask.errors import SourceError
from pipelines.plan.tabular import texts
from pipelines.plan.windows import WINDOW_BYTES
from pipelines.ports import F32, Store
from pipelines.shard.context import AlignedShard, Context, clock, input_row, no_crops
from pipelines.spec.outcomes import Outcome, Reason
from pipelines.table.identities import of_vector

_STORED = ["subject_id", "embedding"]

_Group = tuple[str, Store, str, int]
"""A source, its store and version, and the place of a row group in it."""


class _RowGroups:
    """Decoded row groups that were used last, as many as fit. A group can only be decoded whole."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = Lock()
        self._kept: OrderedDict[_Group, tuple[int, pa.Table]] = OrderedDict()

    def rows(self, source: str, store: Store, version: str, group: int) -> pa.Table:
        key = (source, store, version, group)
        with self._lock:
            if key not in self._kept:
                size = _metadata(source, store, version).row_group(group).total_byte_size
                self._make_room(size)
                rows = _decoded(source, store, version, group)
                if size > self._limit:
                    return rows
                self._kept[key] = size, rows
            self._kept.move_to_end(key)
            return self._kept[key][1]

    def _make_room(self, size: int) -> None:
        while self._kept and sum(one for one, _ in self._kept.values()) + size > self._limit:
            self._kept.popitem(last=False)


# Shards of one window share its row groups.
_groups: Final = _RowGroups(WINDOW_BYTES)


def load_embeddings(context: Context, shard: int) -> tuple[AlignedShard, F32]:
    """Read one shard of stored embeddings: the rows, and the usable ones as (k, n) float32."""
    timings: dict[str, float] = {}
    planned = context.plan.shard(shard, context.store)
    rows = [input_row(context, item) for item in planned]
    todo = [place for place, row in enumerate(rows) if not row.outcome]
    with clock(timings, "read"):
        found = _take(context, [planned[place]["row"] for place in todo])
    n = context.job.params.n
    indices, usable = [], []
    for place, (subject, vector) in zip(todo, found, strict=True):
        content = None if vector is None else of_vector(vector)
        rows[place].contents = [content] if content else []
        if subject != rows[place].subject:
            detail = "the row belongs to another subject now"
            rows[place].settle(Outcome.FAILED, Reason.CHANGED_SINCE_PLAN, detail)
            continue
        if vector is None or vector.shape != (n,):
            width = 0 if vector is None else len(vector)
            detail = f"{width} values where the table has {n}"
            rows[place].settle(Outcome.FAILED, Reason.WRONG_WIDTH, detail)
            continue
        indices.append(place)
        usable.append(vector)
    stacked = np.stack(usable) if usable else np.empty((0, n), dtype=np.float32)
    return AlignedShard(rows, indices, no_crops(), timings), stacked


def _take(context: Context, wanted: list[int]) -> list[tuple[str, F32 | None]]:
    """Subjects and embeddings at some rows of the source, from the row groups that hold them.

    Raises `SourceError` where the file has changed since it was planned.
    """
    source, store, version = context.job.source, context.store, context.plan.source_version
    if store.version(source) != version:
        raise SourceError(
            f"{source} was replaced after the run was planned: its rows may belong to others now; "
            "put the planned file back, or add --restart to plan the rest afresh"
        )
    metadata = _metadata(source, store, version)
    found: dict[int, tuple[str, F32 | None]] = {}
    start = 0
    for group in range(metadata.num_row_groups):
        end = start + metadata.row_group(group).num_rows
        inside = [row for row in wanted if start <= row < end]
        if inside:
            rows = _groups.rows(source, store, version, group)
            own = rows.take(pa.array([row - start for row in inside]))
            subjects = own["subject_id"].to_pylist()
            found |= zip(
                inside, zip(subjects, map(_vector, own["embedding"]), strict=True), strict=True
            )
        start = end
    return [found[row] for row in wanted]


@lru_cache(maxsize=2)
def _metadata(source: str, store: Store, _version: str) -> pq.FileMetaData:
    with store.open(source) as handle:
        return pq.ParquetFile(handle).metadata


def _decoded(source: str, store: Store, version: str, group: int) -> pa.Table:
    with store.open(source) as handle:
        parquet = pq.ParquetFile(handle, metadata=_metadata(source, store, version))
        rows = parquet.read_row_group(group, columns=_STORED)
    # Rows cannot be taken from some of the types that texts may have.
    place = rows.schema.get_field_index("subject_id")
    return rows.set_column(place, "subject_id", texts(source, "subject_id", rows["subject_id"]))


def _vector(value: pa.ListScalar) -> F32 | None:
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused
        return np.asarray(value.values, np.float32) if value.is_valid else None
