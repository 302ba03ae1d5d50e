"""Waves of finished shards become visible; what no commit lists is destroyed.

A shard is done if and only if the `inputs` log lists a file that covers it. Outcomes of many shards
are one file, which is written before anything of its wave is announced. Templates are committed
first, so a kill between the two leaves templates without their inputs: the next start finds the
files that cover these attempts, and commits them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Final

import pyarrow as pa

from ironmask.errors import TableError, TamperedError
from pipelines.ports import DataFile
from pipelines.run.events import HERE
from pipelines.shard.context import ShardResult
from pipelines.shard.transit import Channel
from pipelines.table import layout, waves
from pipelines.table.data_files import described, read_data_file
from pipelines.table.held import Destination
from pipelines.table.layout import Attempt
from pipelines.table.log_entries import Commit
from pipelines.table.orphans import DATA_TABLES, FOLLOWING, committed_templates

MOST_SHARDS: Final = 256
MOST_BYTES: Final = 4 << 20
"""A file of outcomes ends with the shard that reaches one of these: whoever needs the rows of one
shard reads the file, and a driver holds no more. The bytes are those in memory."""


@dataclass
class Outcomes:
    """Outcomes of finished shards of one run, on their way into files that wait for their commit.

    written: bytes of such files.
    """

    dest: Destination
    run_id: str
    written: int = field(default=0, init=False)
    _attempts: list[Attempt] = field(default_factory=list, init=False)
    _rows: list[pa.Table] = field(default_factory=list, init=False)
    _size: int = field(default=0, init=False)
    _files: list[DataFile] = field(default_factory=list, init=False)

    def add(self, result: ShardResult) -> None:
        """Take over a shard's. Raises `TamperedError` where they are not those of the shard."""
        channel = Channel(self.dest.keys, self.run_id, result.shard)
        rows = channel.rows(result.rows)
        self._attempts.append((self.run_id, result.shard, result.attempt))
        self._rows.append(rows)
        self._size += rows.nbytes
        if len(self._rows) >= MOST_SHARDS or self._size >= MOST_BYTES:
            self._write()

    def files(self) -> list[DataFile]:
        """The files of all that were added since the last call."""
        if self._rows:
            self._write()
        files, self._files = self._files, []
        return files

    def _write(self) -> None:
        rows = pa.concat_tables(self._rows)
        dest, key = self.dest.tables.dest, self.dest.keys.log_seal_key()
        file = waves.write(dest, self.dest.store, self._attempts, rows, key)
        self._files.append(file)
        self.written += file.size
        HERE.wrote("inputs", file.size)
        self._attempts, self._rows, self._size = [], [], 0


@dataclass
class Committer:
    """The only writer of one run's data files into the log. waiting: shards that wait for it."""

    dest: Destination
    run_id: str
    waiting: int = field(default=0, init=False)
    _sequence: int = field(default=0, init=False)
    _files: dict[str, list[DataFile]] = field(init=False)

    def __post_init__(self) -> None:
        self._files = {name: [] for name in DATA_TABLES}
        self._outcomes = Outcomes(self.dest, self.run_id)

    @property
    def written(self) -> int:
        """Bytes of outcomes that were written here."""
        return self._outcomes.written

    def done(self) -> set[int]:
        """Shards of this run that the log lists as complete; repairs an interrupted wave."""
        # Sequence numbers only ever grow, also over the resumes of one run.
        self._sequence = max(
            self.dest.sequence(name, self._application(name)) for name in DATA_TABLES
        )
        found = waves.listed(self.dest.tables, self.dest.store, [self.run_id])
        covered = {attempt for _, own in found for attempt in own}
        wanted = committed_templates(self.dest.tables, [self.run_id]) - covered
        return {shard for _, shard, _ in covered | self._roll_forward(wanted)}

    def add(self, result: ShardResult) -> None:
        """Take a finished shard into the next wave."""
        self._outcomes.add(result)
        for name, file in result.files.items():
            self._files[name].append(file)
        self.waiting += 1

    def commit(self) -> None:
        """Make all that wait visible: their templates in one commit, then their inputs in one."""
        if not self.waiting:
            return
        self._sequence += 1
        self._files["inputs"] = self._outcomes.files()
        self.dest.commit(*(self._commit(name, self._files[name]) for name in DATA_TABLES))
        self.dest.log_seal.bound()
        self._files = {name: [] for name in DATA_TABLES}
        self.waiting = 0

    def _application(self, name: str) -> str:
        return f"{self.run_id}/{name}"

    def _commit(self, name: str, files: list[DataFile]) -> Commit:
        return Commit(name, files, self._application(name), self._sequence)

    def _roll_forward(self, wanted: set[Attempt]) -> set[Attempt]:
        """Commit what follows templates that are committed; returns all attempts that it covers.

        wanted: those of the templates.
        """
        covered: set[Attempt] = set()
        if not wanted:
            return covered
        self._sequence += 1
        for name in FOLLOWING:
            found = dict(self._waiting(name, wanted))
            covered = {attempt for own in found.values() for attempt in own}
            if len(covered) != sum(map(len, found.values())):
                raise TableError(
                    f"{self.dest.tables.table(name).uri}: two files are of one attempt of run "
                    f"{self.run_id}, and no log says which was written: remove the other one"
                )
            if name == "inputs" and (missing := wanted - covered):
                raise TableError(
                    f"{self.dest.tables.table(name).uri}: the inputs of {len(missing)} committed "
                    f"shards of run {self.run_id} are missing: restore their files from a backup"
                )
            files = [self._file(name, path) for path in found]
            self.dest.commit(self._commit(name, files))
        return covered

    def _waiting(
        self, name: str, wanted: Collection[Attempt]
    ) -> Iterator[tuple[str, list[Attempt]]]:
        """Files of some attempts that no log lists: paths, and the attempts that each covers."""
        table = self.dest.tables.table(name)
        key = self.dest.keys.log_seal_key()
        listed, base = table.files(), table.uri.rstrip("/") + "/"
        for entry in self.dest.store.entries(table.uri):
            path = entry.uri.removeprefix(base)
            if layout.run_of(path) != self.run_id or path in listed:
                continue
            try:
                own = waves.attempts_in(self.dest.store, entry.uri, key)
            except TamperedError:
                # What it covers is missing then.
                continue
            if any(one in wanted for one in own):
                yield path, own

    def _file(self, name: str, path: str) -> DataFile:
        rows = read_data_file(self.dest.tables.dest, self.dest.store, name, path)
        size = self.dest.store.size(layout.join(self.dest.tables.table(name).uri, path))
        return described(path, size, {"subject_id": rows["subject_id"].to_pylist()}, {})
