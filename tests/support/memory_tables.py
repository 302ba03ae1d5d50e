"""Tables in memory: Parquet files, and a log of entries in the words of Delta, in a memory store.

Whatever reads files and logs from a store reads these as well.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from ironmask.errors import StorageError, TableError
from pipelines.ports import DataFile
from pipelines.table.layout import is_of, join
from pipelines.table.schemas import TABLES
from support.memory import MemoryStore

_LOG: Final = "_delta_log"
_POINTER: Final = "_last_checkpoint"
_FORMAT: Final = pads.ParquetFileFormat()
_ADD: Final = pa.struct(
    [
        ("path", pa.string()),
        ("size", pa.int64()),
        ("partitionValues", pa.map_(pa.string(), pa.string())),
        ("stats", pa.string()),
    ]
)
_CHECKPOINT: Final = pa.schema(
    [
        ("add", _ADD),
        ("txn", pa.struct([("appId", pa.string()), ("version", pa.int64())])),
        ("metaData", pa.struct([("id", pa.string()), ("schemaString", pa.string())])),
    ]
)


@dataclass
class _State:
    """What a log says up to a version; -1 before the first."""

    version: int = -1
    identity: str = ""
    about: dict[str, Any] = field(default_factory=dict)
    files: dict[str, DataFile] = field(default_factory=dict)
    sequences: dict[str, int] = field(default_factory=dict)

    def take(self, actions: Iterator[dict[str, Any]]) -> None:
        for action in actions:
            ((kind, body),) = action.items()
            if kind == "add":
                self.files[body["path"]] = _data_file(body)
            elif kind == "remove":
                self.files.pop(body["path"], None)
            elif kind == "txn":
                self.sequences[body["appId"]] = body["version"]
            elif kind == "metaData":
                self.identity = body["id"]
                self.about = body


class MemoryTable:
    """One table; see `pipelines.ports.StoredTable`."""

    def __init__(self, store: MemoryStore, uri: str, name: str) -> None:
        self.uri = uri
        self._store = store
        self._schema, self._partition_by = TABLES[name]

    def _entry(self, version: int) -> str:
        return join(self.uri, _LOG, f"{version:020d}.json")

    def _checkpoint(self, version: int) -> str:
        return join(self.uri, _LOG, f"{version:020d}.checkpoint.parquet")

    def _state(self, wanted: int | None = None) -> _State:
        """What the log says at a version, the newest if none is named."""
        if not self.exists():
            raise StorageError(f"{self.uri} is not a table: its log is missing")
        try:
            return self._replayed(wanted)
        except (ValueError, LookupError, FileNotFoundError) as error:
            at = "" if wanted is None else f" at version {wanted} of its log"
            raise StorageError(f"{self.uri} cannot be read{at}: {type(error).__name__}") from None

    def _replayed(self, wanted: int | None) -> _State:
        names = self._store.after(join(self.uri, _LOG), "")
        ends = [int(n[:20]) for n in names if n.endswith(".json")]
        bases = [int(n[:20]) for n in names if n.endswith(".checkpoint.parquet")]
        last = max([*ends, *bases]) if wanted is None else wanted
        state = _State()
        if base := [number for number in bases if number <= last]:
            state.take(self._kept(max(base)))
            state.version = max(base)
        while state.version < last:
            content = self._store.read(self._entry(state.version + 1))
            state.take(json.loads(line) for line in content.splitlines())
            state.version += 1
        return state

    def _kept(self, version: int) -> Iterator[dict[str, Any]]:
        """The actions that a checkpoint stands for."""
        content = pa.BufferReader(self._store.read(self._checkpoint(version)))
        for row in pq.read_table(content).to_pylist():
            yield {kind: body for kind, body in row.items() if body}

    def exists(self) -> bool:
        return self._store.is_dir(join(self.uri, _LOG))

    def widen(self, begin: Callable[[Mapping[str, object]], None]) -> bool:
        state = self._state()
        known = json.loads(state.about["schemaString"])
        more = [{"name": n} for n in self._schema.names if {"name": n} not in known]
        if not more:
            return False
        about = {**state.about, "schemaString": json.dumps(known + more)}
        begin(about)
        self._store.create(self._entry(state.version + 1), _lines([{"metaData": about}]))
        return True

    def create(self) -> None:
        schema = [{"name": name} for name in self._schema.names]
        about = {
            "id": str(uuid.uuid4()),
            "schemaString": json.dumps(schema),
            "partitionColumns": self._partition_by,
        }
        protocol = {"minReaderVersion": 1, "minWriterVersion": 2}
        if not self.exists():
            said = [{"protocol": protocol}, {"metaData": about}]
            self._store.create(self._entry(0), _lines(said))

    def identity(self) -> str:
        return self._state().identity

    def files(self) -> dict[str, int]:
        return {path: file.size for path, file in self._state().files.items()}

    def counts(self) -> dict[str, int]:
        return {path: file.rows for path, file in self._state().files.items()}

    def listed(self, version: int) -> list[DataFile]:
        return list(self._state(version).files.values())

    def let_go(self) -> None:
        """Nothing is kept."""

    def sequence(self, application: str) -> int:
        return self._state().sequences.get(application, 0)

    def commit(
        self,
        files: Sequence[DataFile],
        application: str,
        sequence: int,
        removed: Sequence[str] = (),
    ) -> None:
        while files or removed:
            state = self._state()
            if state.sequences.get(application, 0) >= sequence:
                return
            if missing := sorted(set(removed) - state.files.keys()):
                raise TableError(f"{self.uri}: {missing[0]} cannot be removed, it is not listed")
            said = [{"commitInfo": {}}, {"txn": {"appId": application, "version": sequence}}]
            said += [{"add": _added(file)} for file in files]
            said += [{"remove": {"path": path, "dataChange": True}} for path in removed]
            if self._store.create(self._entry(state.version + 1), _lines(said)):
                return

    def checkpoint(self) -> int:
        state = self._state()
        rows = [
            {"metaData": {name: state.about[name] for name in ("id", "schemaString")}},
            *({"txn": {"appId": n, "version": v}} for n, v in state.sequences.items()),
            *({"add": _added(file)} for file in state.files.values()),
        ]
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(rows, _CHECKPOINT), sink)
        self._store.write(self._checkpoint(state.version), memoryview(sink.getvalue()))
        pointer = json.dumps({"version": state.version, "size": len(rows)}).encode()
        self._store.write(join(self.uri, _LOG, _POINTER), pointer)
        return state.version

    def rows(
        self,
        columns: Sequence[str] | None = None,
        where: pads.Expression | None = None,
        people: Collection[str] | None = None,
    ) -> pa.Table:
        names = self._schema.names if columns is None else list(columns)
        schema = pa.schema([self._schema.field(name) for name in names])
        files = self._state().files.values()
        found = [self._read(file, names, where) for file in files]
        return pa.concat_tables([schema.empty_table(), *found])

    def batches(
        self, columns: Sequence[str], runs: Collection[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        for file in self._state().files.values():
            if is_of(file.path, runs):
                yield from self._read(file, list(columns), None).combine_chunks().to_batches()

    def _read(self, file: DataFile, names: list[str], where: pads.Expression | None) -> pa.Table:
        """Some rows of a data file; its partition gives the columns that it has not."""
        covered = pads.scalar(True)
        for name, value in file.partition.items():
            covered = covered & (pads.field(name) == pa.scalar(int(value), pa.int32()))
        try:
            content = pa.BufferReader(self._store.read(join(self.uri, file.path)))
            fragment = _FORMAT.make_fragment(content, partition_expression=covered)
            return fragment.scanner(
                schema=self._schema, columns=names, filter=where, use_threads=False
            ).to_table()
        except (pa.ArrowException, OSError) as error:
            raise TableError(
                f"{self.uri}: a data file that its log lists is missing or damaged "
                f"({type(error).__name__})"
            ) from None


class MemoryTables:
    """The tables of one destination; see `pipelines.ports.StoredTables`."""

    def __init__(self, dest: str, store: MemoryStore) -> None:
        self.dest = dest
        self._tables = {name: MemoryTable(store, join(dest, name), name) for name in TABLES}

    def table(self, name: str) -> MemoryTable:
        return self._tables[name]

    def exist(self) -> bool:
        return self.table("templates").exists()

    def create(self) -> None:
        for table in reversed(self._tables.values()):
            table.create()

    @property
    def table_id(self) -> str:
        return self.table("templates").identity()


def _lines(actions: Sequence[dict[str, Any]]) -> bytes:
    return "\n".join(map(json.dumps, actions)).encode()


def _added(file: DataFile) -> dict[str, Any]:
    stats = {"numRecords": file.rows, "minValues": dict(file.low), "maxValues": dict(file.high)}
    return {
        "path": file.path,
        "size": file.size,
        "partitionValues": dict(file.partition),
        "dataChange": True,
        "stats": json.dumps(stats),
    }


def _data_file(body: dict[str, Any]) -> DataFile:
    stats = json.loads(body["stats"])
    return DataFile(
        path=body["path"],
        size=body["size"],
        rows=stats["numRecords"],
        sha256="",
        partition=dict(body["partitionValues"]),
        low=stats["minValues"],
        high=stats["maxValues"],
    )
