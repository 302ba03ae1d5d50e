"""Delta Lake tables through `deltalake`: plain Parquet files and a transaction log."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice
from typing import Final, TypeVar

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.fs as pafs
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import DeltaError, TableNotFoundError
from deltalake.fs import DeltaStorageHandler

from infra.store.addresses import is_s3
from infra.store.delta_files import FORMAT, covers, read_file, validated
from infra.store.delta_log import (
    add_action,
    brief,
    data_files,
    is_torn,
    lacked,
    listing,
    may_pass,
    remove_actions,
    widened,
)
from ironmask.errors import StorageError, TableError
from pipelines.ports import DataFile
from pipelines.table.layout import is_of, join
from pipelines.table.listing import Listing
from pipelines.table.schemas import TABLES

T = TypeVar("T")

_PRUNED: Final = ("subject_id",)
_ATTEMPTS: Final = 8
_FIRST_PAUSE_S: Final = 0.05
_THREADS: Final = 16
_WINDOW: Final = 64
_CREATED: Final = 0
# The seal is a chain over the log's entries. They may only go after the seal was told.
_PROPERTIES: Final = {"delta.enableExpiredLogCleanup": "false"}
# The library keeps a place in memory for each column of a file that may have statistics. What any
# release wrote of a file is part of the sealed list, so it must be listed.
_STATISTICS: Final = "delta.dataSkippingStatsColumns"
_IDS: Final = ("template_id", "subject_id", "uri")


class DeltaTableHandle:
    """One Delta table; see `pipelines.ports.StoredTable`."""

    def __init__(self, uri: str, name: str, options: dict[str, str]) -> None:
        self.uri = uri
        self._schema, self._partition_by = TABLES[name]
        self._options = options
        self._known: DeltaTable | None = None

    def _open(self) -> DeltaTable:
        """The table at the current end of its log.

        Raises `StorageError` where there is none, or where the store lets nobody read it.
        """
        try:
            return _patiently(self._opened, f"{self.uri} cannot be read")
        except TableNotFoundError:
            raise StorageError(f"{self.uri} is not a table: its log is missing") from None

    def _opened(self) -> DeltaTable:
        """Keep the entries read before, and ask only for later ones."""
        known, self._known = self._known, None
        try:
            if known is None:
                known = self._afresh()
            else:
                known.update_incremental()
        except DeltaError as error:
            if known is None and not is_torn(error):
                raise
            # The log may have dropped the entries known so far: a checkpoint has replaced them.
            known = self._afresh()
        self._known = known
        return known

    def _afresh(self, version: int | None = None) -> DeltaTable:
        return DeltaTable(self.uri, version=version, storage_options=self._options)

    def files(self) -> dict[str, int]:
        return _listed(self._open(), "size_bytes")

    def counts(self) -> dict[str, int]:
        return _listed(self._open(), "num_records")

    def listed(self, version: int) -> Listing:
        failure = f"{self.uri} cannot be read at version {version} of its log"
        try:
            return data_files(_patiently(lambda: self._at(version), failure))
        except TableNotFoundError:
            raise StorageError(f"{self.uri} is not a table: its log is missing") from None

    def let_go(self) -> None:
        self._known = None

    def _at(self, version: int) -> DeltaTable:
        """The table at one version of its log. A newer table may stay known."""
        known = self._known
        if known is not None and known.version() < version:
            with suppress(DeltaError):
                known = self._opened()
        if known is None or known.version() != version:
            known = self._afresh(version)
            self._known = self._known or known
        return known

    def commit(
        self,
        files: Sequence[DataFile],
        application: str,
        sequence: int,
        removed: Sequence[str] = (),
    ) -> None:
        if not (files or removed):
            return
        added = [add_action(file) for file in files]
        properties = CommitProperties(app_transactions=[Transaction(application, sequence)])

        def once() -> None:
            table = self._opened()
            # A commit may report failure although it succeeded: the log decides.
            if (table.transaction_version(application) or 0) < sequence:
                table.create_write_transaction(
                    [*added, *remove_actions(table, removed, self.uri)],
                    "append",
                    self._schema,
                    self._partition_by,
                    commit_properties=properties,
                )

        _patiently(once, f"{self.uri} refused {_ATTEMPTS} attempts to commit")

    def widen(self, begin: Callable[[Mapping[str, object]], None]) -> bool:
        table = self._open()
        if not (more := lacked(table, self._schema)):
            return False
        begin(widened(table, more))

        def once() -> None:
            table = self._opened()
            # A change may report failure although it succeeded.
            if more := lacked(table, self._schema):
                table.alter.add_columns(more)

        _patiently(once, f"{self.uri}: its log takes no further columns")
        return True

    def checkpoint(self) -> int:
        self._open()

        def once() -> tuple[int, pa.Table]:
            table = self._opened()
            table.create_checkpoint()
            return int(table.version()), _sizes(table)

        version, sizes = _patiently(once, f"{self.uri}: a checkpoint cannot be written")
        # Two of them at a time would be most of what a driver holds.
        self.let_go()
        read = _patiently(lambda: self._afresh(version), f"{self.uri} cannot be read")
        if not _sizes(read).equals(sizes):
            raise StorageError(f"{self.uri}: its checkpoint does not say what its log says")
        self._known = read
        return version

    def sequence(self, application: str) -> int:
        return int(self._open().transaction_version(application) or 0)

    def rows(
        self,
        columns: Sequence[str] | None = None,
        where: pads.Expression | None = None,
        people: Collection[str] | None = None,  # noqa: ARG002
    ) -> pa.Table:
        chosen = None if columns is None else list(columns)
        while True:
            table = self._open()
            version = table.version()
            try:
                with self._readable():
                    return validated(self._dataset(table).to_table(columns=chosen, filter=where))
            except TableError:
                # Meanwhile a listed file may have been taken out and destroyed.
                if self._open().version() == version:
                    raise

    def batches(
        self, columns: Sequence[str], runs: Collection[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        table = self._open()
        version = table.version()
        files = iter([file for file in data_files(table) if is_of(file.path, runs)])
        read = partial(read_file, self._filesystem(), self._schema, list(columns))
        with self._unchanged(version), self._readable(), ThreadPoolExecutor(_THREADS) as pool:
            while some := list(islice(files, _WINDOW)):
                for found in pool.map(read, some):
                    yield from found.to_batches()

    @contextmanager
    def _unchanged(self, version: int) -> Iterator[None]:
        """If the log moved on meanwhile, missing files are no damage."""
        try:
            yield
        except TableError:
            if self._open().version() == version:
                raise
            raise TableError(f"{self.uri} was changed while it was read: run it again") from None

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            raise TableError(
                f"{self.uri}: a data file that its log lists is missing or damaged "
                f"({type(error).__name__}): `ironmask check` names it, and says what to do"
            ) from None

    def _dataset(self, table: DeltaTable) -> pads.Dataset:
        # deltalake's own dataset prunes by columns without statistics, and so loses rows.
        actions = listing(table)
        names = [f"partition.{name}" for name in self._partition_by]
        names += [f"{end}.{name}" for name in _PRUNED for end in ("min", "max")]
        names = [name for name in names if name in actions.column_names]
        facts = [actions[name].to_pylist() for name in names]
        rows = zip(actions["path"].to_pylist(), *facts, strict=True)
        filesystem = self._filesystem()
        fragments = [
            FORMAT.make_fragment(path, filesystem, covers(dict(zip(names, values, strict=True))))
            for path, *values in rows
        ]
        return pads.FileSystemDataset(fragments, self._schema, FORMAT, filesystem)

    def _filesystem(self) -> pafs.FileSystem:
        if is_s3(self.uri):
            return pafs.PyFileSystem(DeltaStorageHandler(self.uri, self._options))
        return pafs.SubTreeFileSystem(self.uri, pafs.LocalFileSystem())

    def create(self) -> None:
        def once() -> None:
            # A creation may report failure although it succeeded.
            if not DeltaTable.is_deltatable(self.uri, self._options):
                DeltaTable.create(
                    self.uri,
                    self._schema,
                    mode="ignore",
                    partition_by=self._partition_by,
                    configuration=_properties(self._schema),
                    storage_options=self._options,
                )

        _patiently(once, f"{self.uri} cannot be made a table")

    def exists(self) -> bool:
        def once() -> bool:
            return bool(DeltaTable.is_deltatable(self.uri, self._options))

        return _patiently(once, f"{self.uri} cannot be reached")

    def identity(self) -> str:
        try:
            return str(self._open().metadata().id)
        except StorageError as error:
            # A damaged later log must not hide the id: it never changes.
            with suppress(DeltaError):
                return str(self._afresh(_CREATED).metadata().id)
            raise error


class DeltaTables:
    """The tables of one destination; see `pipelines.ports.StoredTables`."""

    def __init__(self, dest: str, options: dict[str, str]) -> None:
        self.dest = dest
        self._handles = {name: DeltaTableHandle(join(dest, name), name, options) for name in TABLES}

    def table(self, name: str) -> DeltaTableHandle:
        return self._handles[name]

    def exist(self) -> bool:
        return self.table("templates").exists()

    def create(self) -> None:
        # Create templates last: where they exist, all the other tables do.
        for name in reversed(TABLES):
            self.table(name).create()

    @property
    def table_id(self) -> str:
        return self.table("templates").identity()


def _properties(schema: pa.Schema) -> dict[str, str]:
    """The configuration of a new table."""
    ids = [name for name in _IDS if name in schema.names]
    return {**_PROPERTIES, _STATISTICS: ",".join(ids)} if ids else _PROPERTIES


def _listed(table: DeltaTable, column: str) -> dict[str, int]:
    """One column of what a log says of its files, by path."""
    files = listing(table).select(["path", column])
    return dict(zip(*(files[name].to_pylist() for name in files.column_names), strict=True))


def _sizes(table: DeltaTable) -> pa.Table:
    """The files that a log lists, and their sizes, in the order of their paths."""
    return listing(table).select(["path", "size_bytes"]).sort_by("path").combine_chunks()


def _patiently(once: Callable[[], T], failure: str) -> T:
    """Repeat a step of a log until it succeeds, with growing pauses between attempts.

    Raises `StorageError` that begins with `failure`, after the last attempt. It raises at once
    where attempts cannot help: access denied, a full disk, a damaged or missing log.
    """
    for attempt in range(_ATTEMPTS):
        try:
            return once()
        except TableNotFoundError:
            raise
        except (DeltaError, OSError) as error:
            if attempt == _ATTEMPTS - 1 or not may_pass(error):
                raise StorageError(f"{failure}: {brief(error)}") from None
        time.sleep(_FIRST_PAUSE_S * 2**attempt * random.uniform(0.5, 1.5))  # noqa: S311
    raise AssertionError
