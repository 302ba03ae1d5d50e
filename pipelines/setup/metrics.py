"""Rows that a job adds to the `metrics` of a table it holds only for that."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from infra.keys.key_file import KeyFile
from infra.store.lease import lease
from pipelines.ports import Store, StoredTables
from pipelines.setup import ports
from pipelines.table.held import Destination
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
    keys = file.generation(generation)
    with lease(tables.dest, store) as check:
        seal = ports.log_seal(tables, store, keys, file)
        dest = Destination(seal.tables, store, keys, check, seal)
        dest.append("metrics", content, f"{run}/metrics")
        seal.end()
