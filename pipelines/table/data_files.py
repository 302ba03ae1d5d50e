"""Data files: how a commit describes one, how they are read back, and how they end."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import reduce
from hashlib import sha256
from itertools import islice, repeat
from operator import or_
from typing import Any, Final, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from ironmask.errors import StorageError, TableError, TamperedError
from pipelines.ports import DataFile, Store
from pipelines.table import grouped_files, layout
from pipelines.table.grouped_files import CheckedParts, Footer, RemoteGroups
from pipelines.table.layout import ShardFile

T = TypeVar("T")

_THREADS: Final = 16
_WINDOW: Final = 64
_TOGETHER: Final = 512
_TOGETHER_ROWS: Final = 1 << 16
# Checked bytes are in memory: reading ahead gains nothing.
_IN_MEMORY: Final = pads.ParquetFragmentScanOptions(pre_buffer=False)
_PARQUET: Final = pads.ParquetFileFormat(default_fragment_scan_options=_IN_MEMORY)
_WIDE: Final = frozenset({"helper", "digests"})
# Up to this many row groups are read whole and checked, whatever columns are wanted.
_FEW: Final = 2
_PRUNED: Final = "subject_id"
_KINDS: Final = {"generation": int}
# What the footers of templates, and the paths, say of each row.
_OWNERS: Final = (grouped_files.OWNER, "generation")


def columns_of(
    dest: str,
    store: Store,
    table: str,
    paths: Iterable[str],
    columns: Sequence[str],
    shards: Iterable[int] | None = None,
) -> Iterator[tuple[str, pa.Table]]:
    """Some columns of data files, a few files at a time, in order.

    shards: for each of the files, the one whose rows are wanted, by the column `shard`; None for
    all rows. Raises `TamperedError` for a damaged file. Digests are not checked here: whoever reads
    the rest checks them.
    """

    def one(wanted: tuple[str, int | None]) -> tuple[str, pa.Table]:
        path, shard = wanted
        uri = layout.join(dest, table, path)
        try:
            with store.open(uri) as handle:
                found = pq.read_table(handle, columns=list(columns), use_threads=False)
            return path, found if shard is None else found.filter(pc.equal(found["shard"], shard))
        except pa.ArrowException as error:
            raise TamperedError(
                f"{uri} cannot be read as Parquet ({type(error).__name__}): restore it"
            ) from None

    wanted = zip(paths, repeat(None) if shards is None else shards, strict=False)
    with ThreadPoolExecutor(_THREADS) as pool:
        for some in batched(wanted, _WINDOW):
            yield from pool.map(one, some)


def destroy_below(store: Store, folder: str, of: str = "", kept: Collection[str] = ()) -> None:
    """Destroy everything below a folder, in all versions, except for some addresses.

    of: names the content in the error. Raises `StorageError` where something is left.
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


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Items in lists of up to `size`."""
    left = iter(items)
    while some := list(islice(left, size)):
        yield some


def described(
    path: str, size: int, ids: Mapping[str, Sequence[str]], partition: Mapping[str, str]
) -> DataFile:
    """A finished data file that waits for its commit. ids: each id column's values, row by row.

    Readers prune by subjects alone; ranges of other ids would double what a log takes.
    """
    owners = ids[_PRUNED]
    return DataFile(
        path=path,
        size=size,
        rows=len(owners),
        sha256=layout.digest_in(path) or "",
        partition=partition,
        low={_PRUNED: min(owners)},
        high={_PRUNED: max(owners)},
    )


def named(file: ShardFile, content: bytes | memoryview) -> ShardFile:
    """A shard's file, named by the digest of its content."""
    found = grouped_files.footer_of(content)
    if found is None:
        return replace(file, sha256=sha256(content).hexdigest(), groups=False)
    return replace(file, sha256=found.digest, groups=True)


def is_intact(path: str, content: bytes | memoryview) -> bool:
    """Whether a data file's content has the digest in its name."""
    file = layout.parse_shard_file(path)
    if file and file.groups:
        return grouped_files.is_whole(content, file.sha256)
    return sha256(content).hexdigest() == layout.digest_in(path)


def read_data_file(
    dest: str, store: Store, table: str, path: str, people: int | None = None
) -> pa.Table:
    """The rows of a data file, given by its path in its table. people: rows of a templates file.

    Raises `TableError` where it is missing, `TamperedError` where its content does not have the
    digest in its name, `StorageError` where it cannot be read.
    """
    uri = layout.join(dest, table, path)
    try:
        content = store.read(uri)
    except FileNotFoundError:
        raise TableError(f"{uri} is missing: {remedy(uri, path, people)}") from None
    if not is_intact(path, content):
        raise TamperedError(f"{uri} is not what was written: {remedy(uri, path, people)}")
    # An Arrow thread that frees a buffer while the interpreter ends aborts the process.
    return pq.ParquetFile(pa.BufferReader(content)).read(use_threads=False)


def remedy(uri: str, path: str, people: int | None) -> str:
    """Advice for a lost data file. path: in its table. people: rows of a templates file."""
    if layout.generation_of(path) is None or people is None:
        return "restore it from a backup"
    dest = uri.removesuffix(f"/{path}").rpartition("/")[0]
    return (
        f"it holds the templates of {people:,} people; restore it from a backup, or enrol them "
        f"again with `ironmask repair {dest} --source SRC`"
    )


def together(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Batches as fewer, larger tables, each batch whole: a computation costs the same for a few
    rows as for many.
    """
    some: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        some.append(batch)
        rows += len(batch)
        if len(some) >= _TOGETHER or rows >= _TOGETHER_ROWS:
            yield pa.Table.from_batches(some).combine_chunks()
            some, rows = [], 0
    if some:
        yield pa.Table.from_batches(some).combine_chunks()


@dataclass(frozen=True)
class Wanted:
    """A wish to read a table. columns: None for all. where: the rows. schema: of the table."""

    schema: pa.Schema
    columns: Sequence[str] | None = None
    where: pads.Expression | None = None

    @property
    def is_narrow(self) -> bool:
        """Whether it leaves out the columns that fill nearly all of a file."""
        return self.columns is not None and not _WIDE & set(self.columns)

    @property
    def is_of_owners(self) -> bool:
        """Whether it asks only for the rows' subjects. Decisions rest on them, so check them."""
        return self.columns is not None and set(self.columns) <= set(_OWNERS)


def covers(file: DataFile) -> pads.Expression:
    """What holds for every row of a file: its partition, and the range of its people."""
    covered = pads.scalar(True)
    for name, value in file.partition.items():
        covered = covered & (pads.field(name) == _value(name, value))
    if _PRUNED in file.low and _PRUNED in file.high:
        own = pads.field(_PRUNED)
        covered = covered & (own >= file.low[_PRUNED]) & (own <= file.high[_PRUNED])
    return covered


def _value(name: str, value: str) -> Any:
    return _KINDS[name](value) if name in _KINDS else value


def may_hold(file: DataFile, people: list[str], generation: int) -> list[str]:
    """Those of some people, in order, of whom a file may hold rows of a generation."""
    if file.partition.get("generation") != str(generation):
        return []
    if _PRUNED not in file.low or _PRUNED not in file.high:
        return people
    low, high = file.low[_PRUNED], file.high[_PRUNED]
    return people[bisect_left(people, low) : bisect_right(people, high)]


def of_people(people: Iterable[str], generation: int) -> pads.Expression:
    """The rows of some people in a generation. Statistics cannot prune by a list of values."""
    owner = pads.field(_PRUNED)
    return reduce(or_, (owner == one for one in people)) & (pads.field("generation") == generation)


def rows_of(
    store: Store, uri: str, file: DataFile, covered: pads.Expression, wanted: Wanted
) -> pa.Table:
    """Some rows of a data file, from bytes with the digest that its name gives.

    The subjects of templates are read from the footer. Two kinds of narrow columns are read without
    a check: those of many row groups of templates, and those of older templates files without
    digests of row groups. They feed statistics, and nothing is decided by them. covered: a
    condition that every row meets. Raises `TamperedError`, `StorageError`.
    """
    try:
        found = _scanner(store, uri, file, covered, wanted).to_table()
        # A text that is no UTF-8 would be met only where it is used.
        found.validate(full=True)
        return found
    except FileNotFoundError:
        raise TableError(
            f"{uri} is missing, which the log of its table lists: "
            f"{remedy(uri, file.path, file.rows)}"
        ) from None
    except TamperedError:
        raise TamperedError(
            f"{uri} is not what was written: {remedy(uri, file.path, file.rows)}"
        ) from None
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, StorageError):
            raise
        raise TamperedError(
            f"{uri} cannot be read as Parquet ({type(error).__name__}): "
            f"{remedy(uri, file.path, file.rows)}"
        ) from None


def _scanner(
    store: Store, uri: str, file: DataFile, covered: pads.Expression, wanted: Wanted
) -> pads.Scanner:
    columns = None if wanted.columns is None else list(wanted.columns)
    shard = layout.parse_shard_file(file.path)
    if shard and shard.groups:
        remote = RemoteGroups(store, uri, file.size, shard.sha256)
        footer = remote.footer()
        if wanted.is_of_owners and (found := _owners(footer, file, wanted)):
            return found
        fragment = _checked_groups(remote, footer, covered, wanted)
    else:
        fragment = _whole(store, uri, file, covered, wanted)
    return fragment.scanner(
        schema=wanted.schema,
        columns=columns,
        filter=wanted.where,
        use_threads=False,
        fragment_scan_options=_IN_MEMORY,
    )


def _owners(footer: Footer, file: DataFile, wanted: Wanted) -> pads.Scanner | None:
    """The subjects of a file's rows; None if they do not tell which rows are wanted."""
    owners = [owner for group in footer.owners for owner in group]
    generations = [int(file.partition["generation"])] * len(owners)
    schema = pa.schema([wanted.schema.field(name) for name in _OWNERS])
    rows = pads.dataset(pa.table([owners, generations], schema=schema))
    try:
        return rows.scanner(
            columns=list(wanted.columns or ()), filter=wanted.where, use_threads=False
        )
    except pa.ArrowInvalid:
        return None


def _whole(
    store: Store, uri: str, file: DataFile, covered: pads.Expression, wanted: Wanted
) -> pads.ParquetFileFragment:
    """A file whose name has the digest of the whole file."""
    if layout.generation_of(file.path) is not None and wanted.is_narrow:
        remote = RemoteGroups(store, uri, file.size, "")
        return _made(CheckedParts(file.size, remote.unchecked), covered)
    content = store.read(uri)
    if not is_intact(file.path, content):
        raise grouped_files.not_written(uri)
    return _PARQUET.make_fragment(pa.BufferReader(content), partition_expression=covered)


def _checked_groups(
    remote: RemoteGroups, footer: Footer, covered: pads.Expression, wanted: Wanted
) -> pads.ParquetFileFragment:
    """The row groups that may hold wanted rows, by the statistics of the checked footer."""
    parts = CheckedParts(remote.size)
    parts.add(footer.start, footer.content)
    found = _made(parts, covered)
    if wanted.where is not None:
        found = found.subset(filter=wanted.where, schema=wanted.schema)
    numbers = [group.id for group in found.row_groups]
    if wanted.is_narrow and not wanted.is_of_owners and len(numbers) > _FEW:
        rest = CheckedParts(remote.size, remote.unchecked)
        rest.add(footer.start, footer.content)
        return _made(rest, covered).subset(row_group_ids=numbers)
    for number in numbers:
        parts.add(*remote.group(footer, number))
    return found


def _made(parts: CheckedParts, covered: pads.Expression) -> pads.ParquetFileFragment:
    return _PARQUET.make_fragment(pa.PythonFile(parts, mode="r"), partition_expression=covered)
