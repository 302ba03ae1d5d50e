"""Data files of a Delta table whose rows are as small as they can be."""

from __future__ import annotations

from hashlib import sha256

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from infra.store.delta import DeltaTableHandle
from infra.store.objects import FsspecStore
from pipelines.ports import DataFile
from pipelines.table.layout import join
from pipelines.table.schemas import INPUTS


def put(handle: DeltaTableHandle, store: FsspecStore, name: str, subjects: list[str]) -> DataFile:
    """Write a data file of `inputs`, which no log lists yet."""
    rows = [
        {
            "uri": f"{name}/{subject}",
            "subject_id": subject,
            "outcome": "used",
            "reason": "",
            "detail": "",
            "shard": 0,
            "run_id": "r",
        }
        for subject in subjects
    ]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, INPUTS), sink)
    data = sink.getvalue().to_pybytes()
    store.write(join(handle.uri, name), data)
    bounds = {"subject_id": min(subjects)}, {"subject_id": max(subjects)}
    return DataFile(name, len(data), len(rows), sha256(data).hexdigest(), {}, *bounds)


def subjects(handle: DeltaTableHandle, wanted: pads.Expression | None = None) -> list[str]:
    return sorted(handle.rows(where=wanted)["subject_id"].to_pylist())
