"""Waves of finished shards become visible; what no commit lists is destroyed.

A shard is done if and only if the `inputs` log lists its file. Templates are committed first, so a
kill between the two leaves templates without their inputs: `roll_forward` finds the inputs file of
the same attempt, which the same call of `finish` wrote, and commits it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import pyarrow.parquet as pq

from ironmask.errors import TableError
from pipelines import layout
from pipelines.data_files import described
from pipelines.destination import Destination
from pipelines.layout import ShardFile
from pipelines.ports import DataFile, Store, Tables
from pipelines.records import TABLES
from pipelines.stages import ShardResult

# In the order of their commits: what comes after templates is of the same attempt.
_DATA_TABLES: Final = ("templates", "vault", "inputs")
_FOLLOWING: Final = _DATA_TABLES[1:]


@dataclass
class Committer:
    """The only writer of one run's data files into the log."""

    dest: Destination
    run_id: str
    _sequence: int = field(default=0, init=False)

    def done(self) -> set[int]:
        """Shards of this run that the log lists as complete; repairs an interrupted wave."""
        # Sequence numbers only ever grow, also over the resumes of one run.
        self._sequence = max(
            self.dest.tables.table(name).sequence(self._application(name)) for name in _DATA_TABLES
        )
        self._roll_forward()
        return {file.shard for file in self._committed("inputs")}

    def commit(self, wave: Sequence[ShardResult]) -> None:
        """Make a wave visible: its templates in one commit, then its inputs in one."""
        if not wave:
            return
        self.dest.check()
        self._sequence += 1
        for name in _DATA_TABLES:
            self._commit(name, [result.files[name] for result in wave if name in result.files])
        self.dest.seal.extend()

    def _application(self, name: str) -> str:
        return f"{self.run_id}/{name}"

    def _commit(self, name: str, files: list[DataFile]) -> None:
        self.dest.tables.table(name).commit(files, self._application(name), self._sequence)

    def _committed(self, name: str) -> Iterator[ShardFile]:
        return _of_run(self.run_id, self.dest.tables.table(name).files())

    def _roll_forward(self) -> None:
        wanted = {half for half in halves(self.dest.tables) if half[0] == self.run_id}
        if not wanted:
            return
        self._sequence += 1
        for name in _FOLLOWING:
            found = self._waiting(name, wanted)
            if name == "inputs" and (missing := wanted - found.keys()):
                raise TableError(
                    f"{self.dest.tables.table(name).uri}: the inputs of {len(missing)} committed "
                    f"shards of run {self.run_id} are missing: restore their files from a backup"
                )
            listed = set(self.dest.tables.table(name).files())
            files = [self._file(uri) for uri in found.values()]
            self._commit(name, [file for file in files if file.path not in listed])

    def _waiting(self, name: str, wanted: set[_Attempt]) -> dict[_Attempt, str]:
        """Addresses of the files of some attempts."""
        return {
            _attempt(file): entry.uri
            for entry in self.dest.store.entries(self.dest.tables.table(name).uri)
            if (file := layout.parse_shard_file(entry.uri)) and _attempt(file) in wanted
        }

    def _file(self, uri: str) -> DataFile:
        name = uri.rpartition("/")[2]
        with self.dest.store.open(uri) as handle:
            ids = pq.read_table(handle, columns=["subject_id", "uri"])
        return described(name, self.dest.store.size(uri), ids.to_pydict(), {})


def _of_run(run_id: str, paths: Iterable[str]) -> Iterator[ShardFile]:
    parsed = map(layout.parse_shard_file, paths)
    return (file for file in parsed if file and file.run_id == run_id)


_Attempt = tuple[str, int, str]


def _attempt(file: ShardFile) -> _Attempt:
    return file.run_id, file.shard, file.attempt


def halves(tables: Tables) -> set[_Attempt]:
    """Attempts whose templates are committed and whose inputs are not: of one wave at most."""
    listed = {
        name: {
            _attempt(file)
            for file in map(layout.parse_shard_file, tables.table(name).files())
            if file
        }
        for name in ("templates", "inputs")
    }
    return listed["templates"] - listed["inputs"]


def orphans(tables: Tables, store: Store) -> Iterator[str]:
    """Addresses of data files that no commit lists, those that survive as older versions too.

    Two issues of one person that survive anywhere can be broken together, so what a retried or
    killed task left behind must not stay. What follows the templates of an interrupted wave is
    none: it waits for its commit.
    """
    waiting = halves(tables)
    for name in TABLES:
        table = tables.table(name)
        listed = set(table.files())
        base = table.uri.rstrip("/") + "/"
        for uri in store.remains(table.uri):
            if not layout.is_ours(uri) or uri.removeprefix(base) in listed:
                continue
            file = layout.parse_shard_file(uri)
            if not (name in _FOLLOWING and file and _attempt(file) in waiting):
                yield uri
    private = store.remains(layout.join(tables.dest, layout.PRIVATE))
    yield from (uri for uri in private if layout.is_partial(uri))


def destroy_orphans(tables: Tables, store: Store, check: Callable[[], None]) -> int:
    """Destroy every data file that no commit lists; return how many there were.

    check: raises `BusyError` where this process does not hold the destination any more.
    """
    check()
    found = list(orphans(tables, store))
    store.delete(found)
    for name in TABLES:
        store.abort_uploads(tables.table(name).uri)
    store.abort_uploads(layout.join(tables.dest, layout.PRIVATE))
    return len(found)
