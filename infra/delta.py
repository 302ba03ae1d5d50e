"""Delta Lake tables through `deltalake`: plain Parquet files and a transaction log."""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.fs as pafs
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import DeltaError, TableNotFoundError
from deltalake.fs import DeltaStorageHandler
from deltalake.transaction import AddAction, RemoveAction

from infra.storage import is_s3, join
from ironmask.errors import StorageError, TableError
from pipelines.ports import DataFile
from pipelines.records import TABLES

T = TypeVar("T")

_FORMAT: Final = pads.ParquetFileFormat()
_PRUNED: Final = ("subject_id",)
_ATTEMPTS: Final = 8
_FIRST_PAUSE_S: Final = 0.05
_ERROR_CHARS: Final = 300
# What another attempt may change, as the library words it: conflicts, and a store in trouble.
_MAY_PASS: Final = re.compile(
    "conflict|concurrent|already exists|changed since last commit|HTTP error|connection"
    "|timed? ?out|retr(y|ies)|SlowDown|InternalError|50[0-4]",
    re.IGNORECASE,
)
# The seal is a chain over every entry of the log.
_PROPERTIES: Final = {"delta.enableExpiredLogCleanup": "false"}


class DeltaTableHandle:
    """One Delta table; see `pipelines.ports.Table`."""

    def __init__(self, uri: str, name: str, options: dict[str, str]) -> None:
        self.uri = uri
        self._schema, self._partition_by = TABLES[name]
        self._options = options
        self._known: DeltaTable | None = None

    def _open(self) -> DeltaTable:
        """The table as its log is now.

        Raises `StorageError` where there is none, or the store does not let it be read.
        """
        try:
            return _patiently(self._opened, f"{self.uri} cannot be read")
        except TableNotFoundError:
            raise StorageError(f"{self.uri} is not a table: its log is missing") from None

    def _opened(self) -> DeltaTable:
        """What was read of the log is kept, and only what came since is asked for."""
        known, self._known = self._known, None
        if known is None:
            known = DeltaTable(self.uri, storage_options=self._options)
        else:
            known.update_incremental()
        self._known = known
        return known

    def files(self) -> dict[str, int]:
        actions = self._open().get_add_actions(flatten=True)
        paths, sizes = (actions[name].to_pylist() for name in ("path", "size_bytes"))
        return dict(zip(paths, sizes, strict=True))

    def counts(self) -> dict[str, int]:
        actions = self._open().get_add_actions(flatten=True)
        paths, rows = (actions[name].to_pylist() for name in ("path", "num_records"))
        return dict(zip(paths, rows, strict=True))

    def commit(self, files: Sequence[DataFile], application: str, sequence: int) -> None:
        if not files:
            return
        actions: list[AddAction | RemoveAction] = [_add_action(file) for file in files]
        properties = CommitProperties(app_transactions=[Transaction(application, sequence)])

        def once() -> None:
            table = self._opened()
            # A commit may report failure after it succeeded: the log decides, not the answer.
            if (table.transaction_version(application) or 0) < sequence:
                table.create_write_transaction(
                    actions,
                    "append",
                    self._schema,
                    self._partition_by,
                    commit_properties=properties,
                )

        _patiently(once, f"{self.uri} refused {_ATTEMPTS} attempts to commit")

    def sequence(self, application: str) -> int:
        return int(self._open().transaction_version(application) or 0)

    def rows(
        self, columns: Sequence[str] | None = None, where: pads.Expression | None = None
    ) -> pa.Table:
        with self._readable():
            chosen = None if columns is None else list(columns)
            return self._dataset().to_table(columns=chosen, filter=where)

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        with self._readable():
            yield from self._dataset().to_batches(columns=list(columns))

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            raise TableError(
                f"{self.uri}: a data file that its log lists is missing or damaged "
                f"({type(error).__name__}): restore it from a backup"
            ) from None

    def _dataset(self) -> pads.Dataset:
        # deltalake's own dataset prunes by columns without statistics, which loses their rows.
        actions = self._open().get_add_actions(flatten=True)
        names = [f"partition.{name}" for name in self._partition_by]
        names += [f"{end}.{name}" for name in _PRUNED for end in ("min", "max")]
        names = [name for name in names if name in actions.schema.names]
        facts = [actions[name].to_pylist() for name in names]
        rows = zip(actions["path"].to_pylist(), *facts, strict=True)
        filesystem = self._filesystem()
        fragments = [
            _FORMAT.make_fragment(path, filesystem, _covers(dict(zip(names, values, strict=True))))
            for path, *values in rows
        ]
        return pads.FileSystemDataset(fragments, self._schema, _FORMAT, filesystem)

    def _filesystem(self) -> pafs.FileSystem:
        if is_s3(self.uri):
            return pafs.PyFileSystem(DeltaStorageHandler(self.uri, self._options))
        return pafs.SubTreeFileSystem(self.uri, pafs.LocalFileSystem())

    def create(self) -> None:
        def once() -> None:
            # A creation may report failure after it succeeded.
            if not DeltaTable.is_deltatable(self.uri, self._options):
                DeltaTable.create(
                    self.uri,
                    self._schema,
                    mode="ignore",
                    partition_by=self._partition_by,
                    configuration=_PROPERTIES,
                    storage_options=self._options,
                )

        _patiently(once, f"{self.uri} cannot be made a table")

    def exists(self) -> bool:
        def once() -> bool:
            return bool(DeltaTable.is_deltatable(self.uri, self._options))

        return _patiently(once, f"{self.uri} cannot be reached")

    def identity(self) -> str:
        return str(self._open().metadata().id)


class DeltaTables:
    """The tables of one destination; see `pipelines.ports.Tables`."""

    def __init__(self, dest: str, options: dict[str, str]) -> None:
        self.dest = dest
        self._handles = {name: DeltaTableHandle(join(dest, name), name, options) for name in TABLES}

    def table(self, name: str) -> DeltaTableHandle:
        return self._handles[name]

    def exist(self) -> bool:
        return self.table("templates").exists()

    def create(self) -> None:
        # Templates come last: where they exist, all the others do.
        for name in reversed(TABLES):
            self.table(name).create()

    @property
    def table_id(self) -> str:
        return self.table("templates").identity()


def _patiently(once: Callable[[], T], failure: str) -> T:
    """Do a step of a log until it has been done, with growing pauses between two attempts.

    Raises `StorageError` that begins with `failure` after the last one, at once where another would
    end the same: access denied, a full disk, a log that is damaged or not there.
    """
    for attempt in range(_ATTEMPTS):
        try:
            return once()
        except TableNotFoundError:
            raise
        except (DeltaError, OSError) as error:
            brief = _brief(error)
            if attempt == _ATTEMPTS - 1 or not _MAY_PASS.search(brief):
                raise StorageError(f"{failure}: {brief}") from None
        time.sleep(_FIRST_PAUSE_S * 2**attempt * random.uniform(0.5, 1.5))  # noqa: S311
    raise AssertionError


def _brief(error: Exception) -> str:
    """An error of the library in one line without colours; it prints a tree of causes."""
    text = re.sub(r"\x1b\[[0-9;]*m|<\?xml.*", "", str(error), flags=re.DOTALL)
    return " ".join(text.replace("↳", ": ").split())[:_ERROR_CHARS]


def _covers(facts: dict[str, Any]) -> pads.Expression:
    """What holds for every row of a file: its partition, and the ranges of its ids."""
    covered = pads.scalar(True)
    for name, value in facts.items():
        kind, _, column = name.partition(".")
        if value is None:
            continue
        field = pads.field(column)
        bound = {"partition": field == value, "min": field >= value, "max": field <= value}
        covered = covered & bound[kind]
    return covered


def _add_action(file: DataFile) -> AddAction:
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
        modification_time=int(time.time() * 1000),
        data_change=True,
        stats=json.dumps(stats),
    )
