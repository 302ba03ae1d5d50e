"""Tables of inputs, as CSV or Parquet, read a bounded part at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from ironmask.errors import SourceError, StorageError
from pipelines.ports import Store

TABULAR: Final = (".parquet", ".csv")
# What one text may take, encoded: no path, key or id is longer.
MOST_TEXT: Final = 32 << 10
# What a text column of one row group may take before its repetitions are counted.
_MOST_GROUP: Final = 512 << 20
_CSV_BLOCK: Final = 1 << 20
_READ_BUFFER: Final = 1 << 20
_PART_BYTES: Final = 4 << 20
_PART_ROWS: Final = 4096


def parquet_file(source: str, handle: object) -> pq.ParquetFile:
    """Open a Parquet file; texts that come again are held once. Raises `SourceError`."""
    with sound(source):
        schema = pq.ParquetFile(handle).schema_arrow
        texts = [field.name for field in schema if _is_text(field.type)]
        return pq.ParquetFile(handle, read_dictionary=texts, buffer_size=_READ_BUFFER)


@contextmanager
def sound(source: str) -> Iterator[None]:
    """A Parquet file that turns out to be damaged is a `SourceError`."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(error, StorageError):
            raise
        coded = isinstance(error, UnicodeDecodeError)
        brief = "it holds text that is not UTF-8" if coded else str(error).partition("\n")[0]
        raise SourceError(f"{source} cannot be read as Parquet: {brief}") from None


def texts(source: str, name: str, column: pa.Array | pa.ChunkedArray) -> Any:
    """A column as text; an absent value is the empty text.

    Raises `SourceError` for another type, and for a text that is longer than `MOST_TEXT`.
    """
    try:
        _refuse_long(source, name, column)
        found = pc.fill_null(pc.cast(column, pa.large_string()), "")
        found.validate(full=True)
    except pa.ArrowException:
        raise SourceError(f"{source}: the column {name} holds no text ({column.type})") from None
    return found


def text_parts(source: str, columns: Sequence[str], store: Store) -> Iterator[pa.Table]:
    """The text of some columns, some thousand rows and a few MiB at a time.

    Raises `SourceError` for a file that is no such table.
    """
    is_csv = source.lower().endswith(".csv")
    batches = _csv_batches if is_csv else _parquet_batches
    for batch in batches(source, columns, store):
        for part in _small(batch):
            found = [texts(source, name, part[name]) for name in columns]
            yield pa.table(dict(zip(columns, found, strict=True)))


def _csv_batches(source: str, columns: Sequence[str], store: Store) -> Iterator[pa.RecordBatch]:
    parse = pyarrow.csv.ParseOptions(newlines_in_values=True)
    read = pyarrow.csv.ReadOptions(block_size=_CSV_BLOCK)
    # Only an empty field is absent: NA or null may be somebody's id.
    convert = pyarrow.csv.ConvertOptions(
        column_types={name: pa.string() for name in columns},
        include_columns=list(columns),
        null_values=[""],
        strings_can_be_null=True,
    )
    with _sound_csv(source):
        with store.open(source) as handle, pyarrow.csv.open_csv(handle, read, parse) as reader:
            names = reader.schema.names
        _refuse_absent(source, columns, names)
        with (
            store.open(source) as handle,
            pyarrow.csv.open_csv(handle, read, parse, convert) as reader,
        ):
            yield from reader


@contextmanager
def _sound_csv(source: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        brief = str(error)
        if "straddling" in brief:
            brief = f"a row takes more than {_CSV_BLOCK:,} bytes, or a quotation mark is not closed"
        raise SourceError(f"{source} cannot be read as CSV: {brief}") from None


def _parquet_batches(source: str, columns: Sequence[str], store: Store) -> Iterator[pa.RecordBatch]:
    with store.open(source) as handle:
        parquet = parquet_file(source, handle)
        _refuse_absent(source, columns, parquet.schema_arrow.names)
        _refuse_large_groups(source, columns, parquet.metadata)
        with sound(source):
            yield from parquet.iter_batches(_PART_ROWS, columns=list(columns))


def _refuse_absent(source: str, columns: Sequence[str], names: list[str]) -> None:
    wrong = [name for name in columns if names.count(name) != 1]
    if wrong:
        raise SourceError(
            f"{source} lacks the column {' and '.join(wrong)}, or has it twice: a manifest names a "
            f"subject_id and a uri on each row; found {', '.join(names)}"
        )


def _refuse_large_groups(source: str, columns: Sequence[str], found: pq.FileMetaData) -> None:
    """A dictionary, or a page, is decoded whole: its size is known before."""
    for number in range(found.num_row_groups):
        group = found.row_group(number)
        for place in range(group.num_columns):
            chunk = group.column(place)
            size = chunk.total_uncompressed_size
            if chunk.path_in_schema in columns and size > _MOST_GROUP:
                raise SourceError(
                    f"{source}: the column {chunk.path_in_schema} takes {size:,} bytes in row "
                    f"group {number}; at most {_MOST_GROUP:,}: write it with smaller row groups"
                )


def _refuse_long(source: str, name: str, column: pa.Array | pa.ChunkedArray) -> None:
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    for chunk in chunks:
        values = chunk.dictionary if pa.types.is_dictionary(chunk.type) else chunk
        longest = pc.max(_lengths(values)).as_py() or 0
        if longest > MOST_TEXT:
            raise SourceError(
                f"{source}: the column {name} holds a text of {longest:,} bytes, and none may take "
                f"more than {MOST_TEXT:,}: is it the right column?"
            )


def _lengths(values: pa.Array) -> pa.Array:
    """Bytes of each value; of numbers and the like, which are short, none."""
    if _is_text(values.type):
        return pc.binary_length(values)
    return pa.nulls(len(values), pa.int64())


def _is_text(kind: pa.DataType) -> bool:
    known = pa.types
    return bool(
        known.is_string(kind)
        or known.is_large_string(kind)
        or known.is_binary(kind)
        or known.is_large_binary(kind)
    )


def _small(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """A batch in parts that are small once each text is written out."""
    sizes = sum(_decoded(column) for column in batch.columns)
    rows = max(1, min(_PART_ROWS, _PART_BYTES * len(batch) // max(sizes, 1)))
    for start in range(0, len(batch), rows):
        yield batch.slice(start, rows)


def _decoded(column: pa.Array) -> int:
    """At most how many bytes a column's texts take, each row's written out."""
    if not pa.types.is_dictionary(column.type):
        return int(column.nbytes)
    return len(column) * int(pc.max(_lengths(column.dictionary)).as_py() or 0)
