"""The content of a Delta log: actions that add and remove files; and the library's errors."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Collection, Sequence
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable, Field, Schema
from deltalake.transaction import AddAction, RemoveAction

from ironmask.errors import TableError
from pipelines.ports import DataFile
from pipelines.table.listing import Listing

_PARTITION: Final = "partition."
# What the library calls facts about a file, and what `Listing` calls them.
_NUMBERS: Final = {"size_bytes": "size", "num_records": "rows"}
_KINDS: Final = {"partition": "partition", "min": "low", "max": "high"}
_TEXT: Final = pa.large_string()
# A log file was there when it was listed, but not when it was read.
_GONE: Final = r"_delta_log/\S+ not found|File not found: .*_delta_log/"
_TORN: Final = re.compile(f"{_GONE}|found gap|No files in log segment|No table metadata")
# Errors, in the library's words, that may pass: conflicts, and a store in trouble.
_MAY_PASS: Final = re.compile(
    "conflict|concurrent|already exists|changed since last commit|HTTP error|connection"
    "|timed? ?out|retr(y|ies)|SlowDown|InternalError|50[0-4]",
    re.IGNORECASE,
)
_ERROR_CHARS: Final = 300


def listing(table: DeltaTable) -> pa.Table:
    """The files that a log lists, one row each: path, sizes, partition and statistics."""
    return pa.table(table.get_add_actions(flatten=True))


def data_files(table: DeltaTable) -> Listing:
    """The files that a log lists, with its facts about each. Digests stay empty."""
    found = listing(table)
    columns = {ours: found[theirs] for theirs, ours in _NUMBERS.items()}
    columns["rows"] = pc.fill_null(columns["rows"], 0)
    for name in found.column_names:
        kind, _, column = name.partition(".")
        if kind in _KINDS and found[name].null_count < len(found):
            columns[f"{_KINDS[kind]}.{column}"] = _texts(found[name])
    return Listing(pa.table({"path": _texts(found["path"]), **columns}))


def _texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_string(column.type):
        return pc.cast(column, _TEXT)
    texts = [None if value is None else str(value) for value in column.to_pylist()]
    return pa.chunked_array([texts], _TEXT)


def add_action(file: DataFile) -> AddAction:
    """The action that makes a file visible."""
    stats: dict[str, Any] = {
        "numRecords": file.rows,
        "minValues": dict(file.low),
        "maxValues": dict(file.high),
        "nullCount": dict.fromkeys(file.low, 0),
    }
    return AddAction(
        path=file.path,
        size=file.size,
        partition_values=file.partition,
        modification_time=_now_ms(),
        data_change=True,
        stats=json.dumps(stats),
    )


def remove_actions(table: DeltaTable, paths: Collection[str], uri: str) -> list[RemoveAction]:
    """The actions that hide files again, with paths as the log writes them.

    Raises `TableError` that names a path which is not listed.
    """
    if not paths:
        return []
    listed = listing(table)
    found = listed.filter(pc.is_in(listed["path"], pa.array(paths, listed["path"].type)))
    if missing := sorted(set(paths) - set(found["path"].to_pylist())):
        raise TableError(
            f"{uri}: {missing[0]} cannot be removed, its log does not list it"
            f"{f' (nor {len(missing) - 1:,} others)' if missing[1:] else ''}: another hand removed "
            "it, or it never was there"
        )
    names = [name for name in found.column_names if name.startswith(_PARTITION)]
    now = _now_ms()
    return [
        RemoveAction(
            path=row["path"],
            deletion_timestamp=now,
            data_change=True,
            partition_values={name.removeprefix(_PARTITION): _text(row[name]) for name in names},
            size=row["size_bytes"],
        )
        for row in found.select(["path", "size_bytes", *names]).to_pylist()
    ]


def lacked(table: DeltaTable, schema: pa.Schema) -> list[Field]:
    """The columns of a schema that a log does not name."""
    known = {field.name for field in table.schema().fields}
    return [field for field in Schema.from_arrow(schema).fields if field.name not in known]


def widened(table: DeltaTable, more: Sequence[Field]) -> dict[str, Any]:
    """The `metaData` of a table once it has more columns, which have to be nullable."""
    found = table.metadata()
    return {
        "id": str(found.id),
        "name": found.name,
        "description": found.description,
        "format": {"provider": "parquet", "options": {}},
        "schemaString": Schema([*table.schema().fields, *more]).to_json(),
        "partitionColumns": found.partition_columns,
        "configuration": found.configuration,
    }


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _now_ms() -> int:
    return int(time.time() * 1000)


def may_pass(error: Exception) -> bool:
    """Tell whether another attempt may succeed."""
    return bool(_MAY_PASS.search(brief(error)) or re.search(_GONE, _plain(error)))


def is_torn(error: Exception) -> bool:
    """Tell whether a log lost entries while it was read, or lacks one for good."""
    return _TORN.search(_plain(error)) is not None


def brief(error: Exception) -> str:
    """The beginning of a library error, in one line without colours."""
    return _plain(error)[:_ERROR_CHARS]


def _plain(error: Exception) -> str:
    """An error as text without the library's tree of causes."""
    text = re.sub(r"\x1b\[[0-9;]*m|<\?xml.*", "", str(error), flags=re.DOTALL)
    return " ".join(text.replace("↳", ": ").split())
