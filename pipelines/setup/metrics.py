"""Rows that a job adds to the `metrics` of a table it holds only for that."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from infra.keys.key_file import KeyFile
from pipelines.ports import Store, StoredTables
from pipelines.setup.hold import OpenKeys, hold
from pipelines.table.schemas import METRICS


def add_metrics(
    tables: StoredTables,
    store: Store,
    file: KeyFile,
    generation: int,
    rows: list[dict[str, Any]],
    run: str,
) -> None:
    """Add rows to the `metrics` of a table, those of one run once; they get their time here.

    generation: the live one.

    Raises `BusyError` while an enrolment works on the table.
    """
    now = datetime.now(UTC)
    content = pa.Table.from_pylist([{**row, "at": now} for row in rows], METRICS)
    keys = OpenKeys(file, file.generation(generation))
    with hold(tables, store, lambda: keys, during_erasure=True) as (dest, _):
        dest.append("metrics", content, f"{run}/metrics")
        dest.log_seal.end()
