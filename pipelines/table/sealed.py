"""Sealed tables: each log read at its sealed version, with its list of files checked.

A reader checks the list of files once for each version, and the content of files that it reads
whole. Of templates files it reads row groups, and checks each against its own digest. The subjects
of all rows come from the checked footers. A scan of many row groups for other small columns feeds
statistics only, and is not checked.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain
from threading import RLock
from typing import Final, Protocol, TypeVar

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.fs as pafs

from ironmask.errors import StorageError, TableError, TamperedError
from pipelines.ports import DataFile, Store, StoredTables
from pipelines.table import layout, log_chain
from pipelines.table.data_files import Wanted, batched, covers, may_hold, of_people, rows_of
from pipelines.table.file_index import FileIndex
from pipelines.table.list_digest import digest_of_columns
from pipelines.table.listing import Listing
from pipelines.table.log_entries import Said
from pipelines.table.log_seal_file import Chain
from pipelines.table.schemas import TABLES

T = TypeVar("T")

_THREADS: Final = 16
_WINDOW: Final = 64
# Small tables, kept in memory: each question needs them.
_KEPT: Final = frozenset({"generations", "runs"})
_FORMAT: Final = pads.ParquetFileFormat()


class Source(Protocol):
    """Knows the current content of the seal."""

    def chain(self, name: str) -> Chain:
        """A log up to its last sealed version, -1 before the first."""
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


class SealedTables:
    """The tables of a destination, as far as they are vouched for; see `pipelines.ports.Tables`.

    Several threads may read them. lock: over what is known of the seal and the logs; data files are
    read outside of it. renewals: how often something else was vouched for.
    """

    def __init__(self, stored: StoredTables, store: Store, source: Source) -> None:
        self.dest = stored.dest
        self.stored = stored
        self.store = store
        self.source = source
        self.lock = RLock()
        self.renewals = 0
        self._known: dict[str, SealedTable] = {}

    @property
    def table_id(self) -> str:
        return self.stored.table_id

    def table(self, name: str) -> SealedTable:
        with self.lock:
            if name not in self._known:
                self._known[name] = SealedTable(self, name)
            return self._known[name]

    def chain(self, name: str) -> Chain:
        """A log as far as it is vouched for."""
        with self.lock:
            return self.source.chain(name)

    def refresh(self) -> bool:
        """Look whether more, or something else, is vouched for by now; tell whether it is."""
        with self.lock:
            renewed = self.source.renew()
            self.renewals += renewed
            return renewed

    def refresh_since(self, seen: int) -> bool:
        """Tell whether anything changed after so many renewals; look again where none came."""
        with self.lock:
            return self.renewals != seen or self.refresh()


@dataclass(frozen=True)
class _Listing:
    """The files of a table at a version.

    chain, sealed: of the log in the seal then, and its files there. files: with what was ahead.
    """

    chain: Chain
    sealed: FileIndex
    version: int
    files: FileIndex


@dataclass(frozen=True)
class _Kept:
    """All rows of some files."""

    files: FileIndex
    rows: pa.Table


class SealedTable:
    """One table; see `pipelines.ports.Table`. Failed steps are tried again under a newer seal."""

    def __init__(self, owner: SealedTables, name: str) -> None:
        self._owner = owner
        self._name = name
        self._schema, _ = TABLES[name]
        self._seen: _Listing | None = None
        self._kept: _Kept | None = None
        self.uri = owner.stored.table(name).uri

    def files(self) -> dict[str, int]:
        return self._steadily(self._listing).files.listing.numbers("size")

    def settle(self) -> None:
        """Read and check the list of files now, not at the first question."""
        self._steadily(self._listing)

    def counts(self) -> dict[str, int]:
        return self._steadily(self._listing).files.listing.numbers("rows")

    def rows(
        self,
        columns: Sequence[str] | None = None,
        where: pads.Expression | None = None,
        people: Collection[str] | None = None,
    ) -> pa.Table:
        return self._steadily(partial(self._rows, columns, where, people))

    def of_people(self, people: Sequence[str], generation: int) -> pa.Table:
        """The rows of some people in a generation, from those files alone that may hold them."""
        return self._steadily(partial(self._of_people, sorted(set(people)), generation))

    def batches(
        self, columns: Sequence[str], runs: Collection[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        listing = self._steadily(self._listing)
        try:
            wanted = Wanted(self._schema, columns)
            files = (file for file in listing.files.listing if layout.is_of(file.path, runs))
            for found in self._read((file, wanted) for file in files):
                yield from found.combine_chunks().to_batches()
        except (TableError, StorageError, TamperedError):
            if not self._owner.refresh():
                raise
            raise TableError(f"{self.uri} was changed while it was read: run it again") from None

    def _steadily(self, once: Callable[[], T]) -> T:
        """Repeat a step under a newer seal: files and entries missing there are no damage."""
        while True:
            seen = self._owner.renewals
            try:
                return once()
            except (TableError, StorageError, TamperedError) as error:
                if self._owner.refresh_since(seen):
                    continue
                if isinstance(error, StorageError):
                    with self._owner.lock:
                        self._owner.source.explain(self._name)
                raise

    def _listing(self) -> _Listing:
        with self._owner.lock:
            return self._newest()

    def _newest(self) -> _Listing:
        chain = self._owner.source.chain(self._name)
        if self._seen is None or self._seen.chain != chain:
            sealed = self._followed(chain)
            # What was known before is let go first: both may be large.
            self._seen = None
            sealed = sealed or FileIndex.of(self._sealed(chain.version))
            ahead = self._owner.source.ahead(self._name)
            files = sealed.changed(ahead.added, ahead.removed) if ahead else sealed
            self._seen = _Listing(chain, sealed, chain.version + (ahead is not None), files)
        return self._seen

    def _followed(self, chain: Chain) -> FileIndex | None:
        """The files at a sealed version, from those known before and the entries in between.

        The chain vouches for each of these entries. None where they do not tell.
        """
        known = self._seen
        if known is None or not 0 <= known.chain.version < chain.version:
            return None
        found, files = self._owner, known.sealed
        said = log_chain.between(found.stored, found.store, self._name, known.chain, chain)
        if said is None:
            return None
        for one in said:
            files = files.changed(one.added, one.removed)
        return files

    def _sealed(self, version: int) -> Listing:
        """The files that the log lists at a sealed version, if their digest was sealed."""
        if version < 0:
            return Listing.of([])
        found = self._owner.stored.table(self._name).listed(version)
        listing = found if isinstance(found, Listing) else Listing.of(found)
        if digest_of_columns(listing.columns) != self._owner.source.list_digest(self._name):
            raise log_chain.changed(
                self._owner.dest,
                f"{self._name}: its log shows other files at version {version} than were sealed",
            )
        return listing

    def _rows(
        self,
        columns: Sequence[str] | None,
        where: pads.Expression | None,
        people: Collection[str] | None,
    ) -> pa.Table:
        if self._name in _KEPT:
            found = self._all()
            found = found if where is None else found.filter(where)
            return found if columns is None else found.select(list(columns))
        return self._chosen(columns, where, people)

    def _all(self) -> pa.Table:
        """All rows of a small table. Each of its files is read once."""
        with self._owner.lock:
            files = self._listing().files
            if self._kept is None or self._kept.files is not files:
                self._kept = self._renewed(files)
            return self._kept.rows

    def _renewed(self, files: FileIndex) -> _Kept:
        """The rows of a small table, of which only files are read that were not there before."""
        before = self._kept
        known = {file.path for file in before.files.listing} if before else set()
        new = [file for file in files.listing if file.path not in known]
        if before is None or len(known) + len(new) != len(files):
            return _Kept(files, self._of_files(files.listing, Wanted(self._schema)))
        rows = self._of_files(new, Wanted(self._schema))
        return _Kept(files, pa.concat_tables([before.rows, rows]))

    def _chosen(
        self,
        columns: Sequence[str] | None,
        where: pads.Expression | None,
        people: Collection[str] | None,
    ) -> pa.Table:
        index = self._listing().files
        files: Iterable[DataFile] = index.listing if people is None else index.holding(people)
        if people is None and where is not None:
            some = [number for number in index.listing.generations() if _may_be(number, where)]
            files = index.listing.of_generations(some)
        return self._of_files(files, Wanted(self._schema, columns, where))

    def _of_files(self, files: Iterable[DataFile], wanted: Wanted) -> pa.Table:
        found = self._read((file, wanted) for file in files)
        names = self._schema.names if wanted.columns is None else wanted.columns
        fields = [self._schema.field(name) for name in names]
        return pa.concat_tables([pa.schema(fields).empty_table(), *found])

    def _of_people(self, people: list[str], generation: int) -> pa.Table:
        files = self._listing().files
        # An expression of many people is slow to match with many files.
        pairs = (
            (file, Wanted(self._schema, None, of_people(own, generation)))
            for file in files.holding(people)
            if (own := may_hold(file, people, generation))
        )
        return pa.concat_tables([self._schema.empty_table(), *self._read(pairs)])

    def _read(self, pairs: Iterable[tuple[DataFile, Wanted]]) -> Iterator[pa.Table]:
        """What is wanted of some files, a few at a time, in their order."""

        def one(pair: tuple[DataFile, Wanted]) -> pa.Table:
            file, wanted = pair
            address = layout.join(self.uri, file.path)
            return rows_of(self._owner.store, address, file, covers(file), wanted)

        parts = batched(pairs, _WINDOW)
        first = next(parts, [])
        if len(first) < 2:
            yield from map(one, first)
            return
        with ThreadPoolExecutor(_THREADS) as pool:
            for some in chain([first], parts):
                yield from pool.map(one, some)


def _may_be(generation: str | None, where: pads.Expression) -> bool:
    """Whether rows of a generation may be wanted. None: of a table that has no generations."""
    if generation is None:
        return True
    covered = pads.field("generation") == int(generation)
    try:
        fragment = _FORMAT.make_fragment("", pafs.LocalFileSystem(), covered)
        some = pads.FileSystemDataset([fragment], TABLES["templates"][0], _FORMAT)
        return bool(list(some.get_fragments(filter=where)))
    except pa.ArrowInvalid:
        return True
