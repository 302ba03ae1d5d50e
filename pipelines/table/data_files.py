"""Data files: what a commit says of one, reading them back, and their end."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from itertools import islice
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from ironmask.errors import StorageError, TamperedError
from pipelines.ports import DataFile, Store
from pipelines.table import layout

_THREADS: Final = 16
_WINDOW: Final = 64


def columns_of(
    dest: str, store: Store, table: str, paths: Iterable[str], columns: Sequence[str]
) -> Iterator[tuple[str, pa.Table]]:
    """Some columns of data files, in the files' order, of a few files at a time; digests are left
    to whoever reads the rest. Raises `TamperedError` for a damaged one.
    """

    def one(path: str) -> tuple[str, pa.Table]:
        uri = layout.join(dest, table, path)
        try:
            with store.open(uri) as handle:
                return path, pq.read_table(handle, columns=list(columns), use_threads=False)
        except pa.ArrowException as error:
            raise TamperedError(
                f"{uri} cannot be read as Parquet ({type(error).__name__}): restore it"
            ) from None

    with ThreadPoolExecutor(_THREADS) as pool:
        for some in batched(paths, _WINDOW):
            yield from pool.map(one, some)


def destroy_below(store: Store, folder: str, of: str = "", kept: Collection[str] = ()) -> None:
    """Destroy whatever lies below a folder, all versions of it, but for some addresses.

    of: what it is, for the error. Raises `StorageError` where something is left.
    """

    def rest() -> list[str]:
        return [uri for uri in store.remains(folder) if uri not in kept]

    store.abort_uploads(folder)
    store.delete(rest())
    if left := len(rest()):
        raise StorageError(
            f"{folder} still holds {left:,} files or versions{of} after their deletion: check "
            "whether the bucket locks objects or denies s3:DeleteObjectVersion, and run the same "
            "command again"
        )


def batched(items: Iterable[str], size: int) -> Iterator[list[str]]:
    """Items in lists of so many."""
    left = iter(items)
    while some := list(islice(left, size)):
        yield some


def described(
    path: str, size: int, ids: Mapping[str, Sequence[str]], partition: Mapping[str, str]
) -> DataFile:
    """A finished data file that waits for its commit. ids: of each id column, the rows' values."""
    return DataFile(
        path=path,
        size=size,
        rows=len(next(iter(ids.values()))),
        sha256=layout.digest_in(path) or "",
        partition=partition,
        low={name: min(values) for name, values in ids.items()},
        high={name: max(values) for name, values in ids.items()},
    )


def read_data_file(dest: str, store: Store, table: str, path: str) -> pa.Table:
    """The rows of a data file, given by its path in its table.

    Raises `TamperedError` where its content is not what its name says, `StorageError` where it
    cannot be read.
    """
    uri = layout.join(dest, table, path)
    content = store.read(uri)
    if sha256(content).hexdigest() != layout.digest_in(path):
        raise TamperedError(f"{uri} is not what was written: restore it from a backup")
    # A thread of Arrow's that frees a buffer while the interpreter ends aborts the process.
    return pq.ParquetFile(pa.BufferReader(content)).read(use_threads=False)
