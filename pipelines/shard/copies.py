"""Copies of data files with other rows, named after the attempt that wrote the originals."""

from __future__ import annotations

import pyarrow as pa

from pipelines.ports import DataFile
from pipelines.shard.protect import ROW_GROUP, write_rows
from pipelines.table import layout, waves
from pipelines.table.data_files import described, named
from pipelines.table.held import Destination
from pipelines.table.schemas import TABLES, as_parquet


def copied(dest: Destination, name: str, path: str, rows: pa.Table) -> DataFile | None:
    """Write some rows as a file of the same shards and attempts as a table's data file.

    The copy counts once it is committed. None where there is no row.
    """
    if not len(rows):
        return None
    if layout.parse_wave_file(path):
        return waves.copied(dest.tables.dest, dest.store, path, rows)
    content = _as_file(name, rows)
    file = layout.parse_shard_file(path)
    assert file is not None  # noqa: S101
    generation = layout.generation_of(path)
    partition = {} if generation is None else {"generation": str(generation)}
    target = layout.in_partition(partition, named(file, content).name)
    dest.store.write(layout.join(dest.tables.table(name).uri, target), content)
    ids = ("template_id", "subject_id") if name == "templates" else ("subject_id", "uri")
    return described(target, len(content), rows.select(ids).to_pydict(), partition)


def _as_file(name: str, rows: pa.Table) -> memoryview:
    if name != "templates":
        schema, _ = TABLES[name]
        # Older files have other columns, and keep them.
        return as_parquet(rows.cast(schema) if rows.schema.names == schema.names else rows)
    sink = pa.BufferOutputStream()
    write_rows(sink, (part.to_pylist() for part in rows.to_batches(max_chunksize=ROW_GROUP)))
    return memoryview(sink.getvalue())
