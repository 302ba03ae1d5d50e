"""Sealed tables: each log read at its sealed version, with its list of files checked.

A reader checks the list of files once for each version, and the content of files that it reads
whole. Of templates files it reads row groups, and checks each against its own digest. The subjects
of all rows come from the checked footers. A scan of many row groups for other small columns feeds
statistics only, and is not checked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Protocol, TypeVar

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.fs as pafs

from ironmask.errors import StorageError, TableError, TamperedError
from pipelines.ports import DataFile, Store, StoredTables
from pipelines.table import layout, log_chain, log_seal_file
from pipelines.table.data_files import Wanted, batched, rows_of
from pipelines.table.log_entries import Log, Said, digest_of, line, parsed
from pipelines.table.log_seal_file import Chain, KeyOf, State, Written
from pipelines.table.schemas import TABLES

T = TypeVar("T")

_THREADS: Final = 16
_WINDOW: Final = 64
# Small tables, kept in memory: each question needs them.
_KEPT: Final = frozenset({"generations", "runs"})
_PRUNED: Final = "subject_id"
_FORMAT: Final = pads.ParquetFileFormat()
_KINDS: Final = {"generation": int}


class Source(Protocol):
    """Knows the current content of the seal."""

    def version(self, name: str) -> int:
        """The last sealed version of a log; -1 before the first."""
        ...

    def list_digest(self, name: str) -> str:
        """The digest of the files that a log lists at that version."""
        ...

    def ahead(self, name: str) -> Said | None:
        """The content of the next entry, if it was announced and has come."""
        ...

    def renew(self) -> bool:
        """Look again. Returns whether the seal's content has changed."""
        ...

    def explain(self, name: str) -> None:
        """Raise `TableError` where an unreadable log was changed."""
        ...


class SealReader:
    """The seal of a destination, for a reader."""

    def __init__(
        self,
        tables: StoredTables,
        store: Store,
        key_of: KeyOf,
        written: Written,
        *,
        goes_on: bool = False,
    ) -> None:
        """written: tells whether seals with lists were written before. goes_on: the caller is about
        to finish the run that left the seal open.

        Raises `TableError` where the seal or the logs were changed, and what `key_of` raises.
        """
        self._goes_on = goes_on
        self._tables = tables
        self._store = store
        self._key_of = key_of
        self._written = written
        self._logs: dict[str, Log] = {}
        self._content = log_seal_file.read_content(tables.dest, store)
        self._state = self._checked()

    def version(self, name: str) -> int:
        if self._is_old:
            return self._log(name).chain.version
        return self._state.logs.get(name, Chain()).version

    def list_digest(self, name: str) -> str:
        return self._log(name).list_digest() if self._is_old else self._state.lists[name]

    @property
    def _is_old(self) -> bool:
        """Whether the seal is older than digests of lists. Its chain then gives them."""
        return self._content is not None and not self._state.lists

    def _log(self, name: str) -> Log:
        """A log under an old seal, with the entries that followed while it was open."""
        if name not in self._logs:
            log = log_chain.read_log(self._tables, self._store, self._state, name)
            if self._state.open:
                log_chain.follow(self._tables, self._store, log, name)
            self._logs[name] = log
        return self._logs[name]

    def ahead(self, name: str) -> Said | None:
        found = log_chain.came(self._tables, self._store, self._state, self.version)
        if all(name != announced for announced, _ in self._state.announced):
            return None
        return next((parsed(content) for came, content in found if came == name), None)

    def explain(self, name: str) -> None:
        log_chain.read_log(self._tables, self._store, self._state, name)

    def renew(self) -> bool:
        found = log_seal_file.read_content(self._tables.dest, self._store)
        if found == self._content:
            return False
        self._content = found
        self._logs.clear()
        self._state = self._checked()
        return True

    def _checked(self) -> State:
        """The seal's content, after a check that no log continues where it must not."""
        dest = self._tables.dest
        while True:
            if self._content is None:
                if state := self._nothing():
                    return state
                continue
            state = log_seal_file.authenticated(self._content, dest, self._key_of, self._written)
            if state.open:
                return self._with_what_followed(state)
            versions = {name: state.logs.get(name, Chain()).version for name in TABLES}
            later = log_chain.beyond(self._tables, self._store, versions)
            if not later:
                return state
            now = log_seal_file.read_content(dest, self._store)
            if now == self._content:
                name, files = next(iter(later.items()))
                raise log_chain.changed(dest, log_chain.goes_on(name, versions[name], files))
            # Meanwhile a run has begun.
            self._content = now

    def _with_what_followed(self, state: State) -> State:
        """Take in entries after an older release's open seal, for the run that left it open."""
        if state.lists or not self._goes_on:
            return state
        logs = {}
        for name in TABLES:
            log = log_chain.read_log(self._tables, self._store, state, name)
            log_chain.follow(self._tables, self._store, log, name)
            logs[name] = log.chain
        return replace(state, logs=logs)

    def _nothing(self) -> State | None:
        """The content before the first run: empty. None where a run has begun meanwhile."""
        try:
            log_chain.refuse_missing_seal(self._tables, self._store, self._written)
        except TableError:
            self._content = log_seal_file.read_content(self._tables.dest, self._store)
            if self._content is None:
                raise
            return None
        return State(self._tables.table_id, "", open=True)


class SealedTables:
    """The sealed part of a destination's tables; see `pipelines.ports.Tables`."""

    def __init__(self, stored: StoredTables, store: Store, source: Source) -> None:
        self.dest = stored.dest
        self.stored = stored
        self.store = store
        self.source = source
        self._known: dict[str, SealedTable] = {}

    @property
    def table_id(self) -> str:
        return self.stored.table_id

    def table(self, name: str) -> SealedTable:
        if name not in self._known:
            self._known[name] = SealedTable(self, name)
        return self._known[name]

    def refresh(self) -> bool:
        """Look for a newer seal. Returns whether its content has changed."""
        return self.source.renew()


@dataclass(frozen=True)
class _Listing:
    """The files of a table at a version, and a dataset of them for pruning.

    seal: the version of the log in the seal at that moment.
    """

    seal: int
    version: int
    files: dict[str, DataFile]
    pruned: pads.FileSystemDataset


class SealedTable:
    """One table; see `pipelines.ports.Table`. Failed steps are tried again under a newer seal."""

    def __init__(self, owner: SealedTables, name: str) -> None:
        self._owner = owner
        self._name = name
        self._schema, _ = TABLES[name]
        self._seen: _Listing | None = None
        self._kept: tuple[int, pa.Table] | None = None
        self.uri = owner.stored.table(name).uri

    def files(self) -> dict[str, int]:
        return {path: file.size for path, file in self._steadily(self._listing).files.items()}

    def counts(self) -> dict[str, int]:
        return {path: file.rows for path, file in self._steadily(self._listing).files.items()}

    def rows(
        self, columns: Sequence[str] | None = None, where: pads.Expression | None = None
    ) -> pa.Table:
        return self._steadily(partial(self._rows, columns, where))

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        listing = self._steadily(self._listing)
        try:
            wanted = Wanted(self._schema, columns)
            for found in self._read(list(listing.files.values()), wanted):
                yield from found.to_batches()
        except (TableError, StorageError, TamperedError):
            if not self._owner.refresh():
                raise
            raise TableError(f"{self.uri} was changed while it was read: run it again") from None

    def _steadily(self, once: Callable[[], T]) -> T:
        """Repeat a step under a newer seal: files and entries missing there are no damage."""
        while True:
            try:
                return once()
            except (TableError, StorageError, TamperedError) as error:
                if self._owner.refresh():
                    continue
                if isinstance(error, StorageError):
                    self._owner.source.explain(self._name)
                raise

    def _listing(self) -> _Listing:
        version = self._owner.source.version(self._name)
        if self._seen is None or self._seen.seal != version:
            files = {file.path: file for file in self._sealed(version)}
            ahead = self._owner.source.ahead(self._name)
            if ahead:
                files = {path: file for path, file in files.items() if path not in ahead.removed}
                files |= {file.path: file for file in ahead.added}
            files = dict(sorted(files.items()))
            pruned = self._pruned(list(files.values()))
            self._seen = _Listing(version, version + (ahead is not None), files, pruned)
        return self._seen

    def _sealed(self, version: int) -> list[DataFile]:
        """The files that the log lists at a sealed version, if their digest was sealed."""
        if version < 0:
            return []
        found = self._owner.stored.table(self._name).listed(version)
        if digest_of(map(line, found)) != self._owner.source.list_digest(self._name):
            raise log_chain.changed(
                self._owner.dest,
                f"{self._name}: its log shows other files at version {version} than were sealed",
            )
        return found

    def _pruned(self, found: list[DataFile]) -> pads.FileSystemDataset:
        """A dataset that is never read. It tells which files may hold certain rows."""
        nowhere = pafs.LocalFileSystem()
        fragments = [_FORMAT.make_fragment(f.path, nowhere, covers(f)) for f in found]
        return pads.FileSystemDataset(fragments, self._schema, _FORMAT, nowhere)

    def _rows(self, columns: Sequence[str] | None, where: pads.Expression | None) -> pa.Table:
        if self._name in _KEPT:
            found = self._all()
            found = found if where is None else found.filter(where)
            return found if columns is None else found.select(list(columns))
        return self._chosen(columns, where)

    def _all(self) -> pa.Table:
        """All rows of a small table, read once for each version."""
        version = self._listing().version
        if self._kept is None or self._kept[0] != version:
            self._kept = version, self._chosen(None, None)
        return self._kept[1]

    def _chosen(self, columns: Sequence[str] | None, where: pads.Expression | None) -> pa.Table:
        listing = self._listing()
        files = list(listing.files.values())
        if where is not None:
            # Keep the order of all files.
            some = {fragment.path for fragment in listing.pruned.get_fragments(filter=where)}
            files = [file for file in files if file.path in some]
        found = list(self._read(files, Wanted(self._schema, columns, where)))
        names = self._schema.names if columns is None else columns
        fields = [self._schema.field(name) for name in names]
        return pa.concat_tables([pa.schema(fields).empty_table(), *found])

    def _read(self, files: list[DataFile], wanted: Wanted) -> Iterator[pa.Table]:
        """Some files, a few at a time, in their order."""

        def one(file: DataFile) -> pa.Table:
            address = layout.join(self.uri, file.path)
            return rows_of(self._owner.store, address, file, covers(file), wanted)

        if len(files) < 2:
            yield from map(one, files)
            return
        with ThreadPoolExecutor(_THREADS) as pool:
            for some in batched(files, _WINDOW):
                yield from pool.map(one, some)


def covers(file: DataFile) -> pads.Expression:
    """A condition that every row of a file meets: its partition, and the range of its subjects."""
    covered = pads.scalar(True)
    for name, value in file.partition.items():
        covered = covered & (pads.field(name) == _value(name, value))
    if _PRUNED in file.low and _PRUNED in file.high:
        own = pads.field(_PRUNED)
        covered = covered & (own >= file.low[_PRUNED]) & (own <= file.high[_PRUNED])
    return covered


def _value(name: str, value: str) -> Any:
    return _KINDS[name](value) if name in _KINDS else value
