"""Tables of inputs, CSV or Parquet, read in parts of bounded size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from ironmask.errors import SourceError, StorageError
from pipelines.ports import Store

TABULAR: Final = (".parquet", ".csv")
# The most bytes of one text: no path, key or id is longer.
MOST_TEXT: Final = 32 << 10
# The most bytes of a text column in one row group, before its repetitions are counted.
_MOST_GROUP: Final = 512 << 20
_BLANK: Final = r"^[\s\p{Z}]*$"
_CSV_BLOCK: Final = 1 << 20
_READ_BUFFER: Final = 1 << 20
_PART_BYTES: Final = 4 << 20
_PART_ROWS: Final = 4096


def parquet_file(source: str, handle: object) -> pq.ParquetFile:
    """Open a Parquet file. Repeated texts are held once. Raises `SourceError`."""
    with sound(source):
        schema = pq.ParquetFile(handle).schema_arrow
        texts = [field.name for field in schema if _is_text(field.type)]
        return pq.ParquetFile(handle, read_dictionary=texts, buffer_size=_READ_BUFFER)


@contextmanager
def sound(source: str) -> Iterator[None]:
    """Turn the errors of a damaged Parquet file into `SourceError`."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(error, StorageError):
            raise
        coded = isinstance(error, UnicodeDecodeError)
        brief = "it holds text that is not UTF-8" if coded else str(error).partition("\n")[0]
        raise SourceError(f"{source} cannot be read as Parquet: {brief}") from None


def refuse_columns(
    source: str, schema: pa.Schema, once: Sequence[str], optional: Sequence[str] = ()
) -> None:
    """Raise `SourceError` unless a table has some columns once, and others at most once."""
    found = list(schema.names)
    missing = [name for name in once if name not in found]
    if missing:
        raise SourceError(
            f"{source} lacks the column {' and '.join(missing)}; found {', '.join(found)}"
        )
    twice = [name for name in (*once, *optional) if found.count(name) > 1]
    if twice:
        raise SourceError(
            f"{source} has the column {twice[0]} more than once: which one counts cannot be told; "
            "leave the others out"
        )


def refuse_no_text(source: str, name: str, kind: pa.DataType) -> None:
    """Raise `SourceError` for a column type that holds no names: neither texts nor numbers."""
    known, kind = pa.types, written_out(kind)
    if not (
        _is_text(kind)
        or known.is_integer(kind)
        or known.is_floating(kind)
        or known.is_decimal(kind)
        or known.is_temporal(kind)
        or known.is_null(kind)
    ):
        raise SourceError(
            f"{source}: the column {name} holds no text ({kind}): write it as text or integers"
        )


def holds_names(schema: pa.Schema, name: str) -> bool:
    """Whether a table has a column of texts or integers with this name. Pictures do not count."""
    if name not in schema.names:
        return False
    known, kind = pa.types, written_out(schema.field(name).type)
    return bool(
        known.is_string(kind)
        or known.is_large_string(kind)
        or known.is_string_view(kind)
        or known.is_integer(kind)
    )


def written_out(kind: pa.DataType) -> pa.DataType:
    """The type of a column's values without a dictionary."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def texts(source: str, name: str, column: pa.Array | pa.ChunkedArray) -> Any:
    """A column as text. A missing value becomes the empty text: null, NaN, nothing but blanks.

    Raises `SourceError` for another type, for a number that text cannot represent exactly, and for
    a text that is longer than `MOST_TEXT` or not UTF-8.
    """
    refuse_no_text(source, name, column.type)
    kind = written_out(column.type)
    try:
        if pa.types.is_string_view(kind):
            column = pc.cast(column, pa.large_string())
        _refuse_long(source, name, column)
        if pa.types.is_floating(kind):
            column = _exact(source, name, pc.cast(column, kind))
        found = pc.fill_null(pc.cast(column, pa.large_string()), "")
        found.validate(full=True)
    except pa.ArrowException:
        raise SourceError(
            f"{source}: the column {name} holds text that is not UTF-8: write it as UTF-8"
        ) from None
    blank = pc.match_substring_regex(found, _BLANK)
    return pc.if_else(blank, "", found) if pc.any(blank).as_py() else found


def refuse_inexact(source: str, name: str, parquet: pq.ParquetFile) -> None:
    """Raise `SourceError` where a column of floats holds values that `texts` refuses. Reads all."""
    schema = parquet.schema_arrow
    if schema.names.count(name) == 1 and pa.types.is_floating(schema.field(name).type):
        with sound(source):
            for batch in parquet.iter_batches(_PART_ROWS, columns=[name]):
                texts(source, name, batch[name])


def _exact(source: str, name: str, column: Any) -> Any:
    """Floats as the integers that they represent. NaN becomes null."""
    column = pc.if_else(pc.is_nan(column), None, column)
    written = pc.cast(column, pa.large_string())
    # From here on the type lacks some integers: a neighbour may have been rounded to this one.
    end = 2.0 ** (np.finfo(column.type.to_pandas_dtype()).nmant + 1)
    doubtful = pc.or_(
        pc.invert(pc.match_substring_regex(written, "^-?[0-9]+$")),
        pc.greater_equal(pc.abs(pc.cast(column, pa.float64())), end),
    )
    if pc.any(doubtful).as_py():
        raise SourceError(
            f"{source}: the column {name} holds floats ({column.type}) that do not say exactly "
            "which integer is meant: they have a fraction, or are too large; write it as text or "
            "integers"
        )
    return pc.cast(column, pa.int64())


def text_parts(source: str, columns: Sequence[str], store: Store) -> Iterator[pa.Table]:
    """The text of some columns, in parts of some thousand rows and a few MiB.

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
    # Only an empty field is a missing value: NA or null may be somebody's id.
    convert = pyarrow.csv.ConvertOptions(
        column_types={name: pa.string() for name in columns},
        include_columns=list(columns),
        null_values=[""],
        strings_can_be_null=True,
    )
    with _sound_csv(source):
        with store.open(source) as handle:
            # Only the first block is needed; it cuts no row.
            start = pa.BufferReader(handle.read(2 * _CSV_BLOCK))
        with pyarrow.csv.open_csv(start, read, parse) as reader:
            refuse_columns(source, reader.schema, columns)
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
        refuse_columns(source, parquet.schema_arrow, columns)
        _refuse_large_groups(source, columns, parquet.metadata)
        with sound(source):
            yield from parquet.iter_batches(_PART_ROWS, columns=list(columns))


def _refuse_large_groups(source: str, columns: Sequence[str], found: pq.FileMetaData) -> None:
    """Raise `SourceError` for a large dictionary or page: they are decoded whole."""
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
    """Bytes of each text; null for numbers and the like, which are short."""
    if _is_text(values.type):
        return pc.binary_length(values)
    return pa.nulls(len(values), pa.int64())


def _is_text(kind: pa.DataType) -> bool:
    known = pa.types
    return bool(
        known.is_string(kind)
        or known.is_large_string(kind)
        or known.is_string_view(kind)
        or known.is_binary(kind)
        or known.is_large_binary(kind)
    )


def _small(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """A batch in parts that stay small when each text is written out."""
    sizes = sum(_decoded(column) for column in batch.columns)
    rows = max(1, min(_PART_ROWS, _PART_BYTES * len(batch) // max(sizes, 1)))
    for start in range(0, len(batch), rows):
        yield batch.slice(start, rows)


def _decoded(column: pa.Array) -> int:
    """An upper limit of the bytes of a column's texts, written out for each row."""
    if not pa.types.is_dictionary(column.type):
        return int(column.nbytes)
    return len(column) * int(pc.max(_lengths(column.dictionary)).as_py() or 0)
