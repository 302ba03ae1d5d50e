"""Data files of Delta tables, as they are read without a seal."""

from __future__ import annotations

from typing import Any, Final, TypeVar

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.fs as pafs

from pipelines.ports import DataFile

R = TypeVar("R", pa.Table, pa.RecordBatch)

FORMAT: Final = pads.ParquetFileFormat()


def read_file(
    filesystem: pafs.FileSystem, schema: pa.Schema, columns: list[str], file: DataFile
) -> pa.Table:
    """Some columns of a file of a table, in one chunk. Its footer is not kept."""
    own = {
        f"partition.{name}": pa.scalar(value).cast(schema.field(name).type)
        for name, value in file.partition.items()
    }
    fragment = FORMAT.make_fragment(file.path, filesystem, covers(own))
    found = fragment.to_table(schema=schema, columns=columns, use_threads=False)
    return validated(found).combine_chunks()


def validated(found: R) -> R:
    """What was read. Raises `ArrowInvalid` for text that is no UTF-8, which is damaged."""
    found.validate(full=True)
    return found


def covers(facts: dict[str, Any]) -> pads.Expression:
    """Conditions that every row of a file meets: its partition, and the ranges of its ids."""
    covered = pads.scalar(True)
    for name, value in facts.items():
        kind, _, column = name.partition(".")
        if value is None:
            continue
        field = pads.field(column)
        bound = {"partition": field == value, "min": field >= value, "max": field <= value}
        covered = covered & bound[kind]
    return covered
