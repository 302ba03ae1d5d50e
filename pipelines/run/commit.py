"""Waves of finished shards become visible; what no commit lists is destroyed.

A shard is done if and only if the `inputs` log lists its file. Templates are committed first, so a
kill between the two leaves templates without their inputs: `roll_forward` finds the inputs file of
the same attempt, which the same call of `protect_shard` wrote, and commits it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow.parquet as pq

from ironmask.errors import TableError
from pipelines.ports import DataFile
from pipelines.shard.context import ShardResult
from pipelines.table import layout
from pipelines.table.data_files import described
from pipelines.table.held import Destination
from pipelines.table.log_entries import Commit
from pipelines.table.orphans import DATA_TABLES, FOLLOWING, Attempt, attempt_of, uncommitted_inputs


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
            self.dest.sequence(name, self._application(name)) for name in DATA_TABLES
        )
        self._roll_forward()
        return self._committed()

    def commit(self, wave: Sequence[ShardResult]) -> None:
        """Make a wave visible: its templates in one commit, then its inputs in one."""
        if not wave:
            return
        self._sequence += 1
        files = {name: [r.files[name] for r in wave if name in r.files] for name in DATA_TABLES}
        self.dest.commit(*(self._commit(name, files[name]) for name in DATA_TABLES))
        self.dest.log_seal.bound()

    def _application(self, name: str) -> str:
        return f"{self.run_id}/{name}"

    def _commit(self, name: str, files: list[DataFile]) -> Commit:
        return Commit(name, files, self._application(name), self._sequence)

    def _committed(self) -> set[int]:
        files = map(layout.parse_shard_file, self.dest.tables.table("inputs").files())
        return {file.shard for file in files if file and file.run_id == self.run_id}

    def _roll_forward(self) -> None:
        wanted = {half for half in uncommitted_inputs(self.dest.tables) if half[0] == self.run_id}
        if not wanted:
            return
        self._sequence += 1
        for name in FOLLOWING:
            found = self._waiting(name, wanted)
            if name == "inputs" and (missing := wanted - found.keys()):
                raise TableError(
                    f"{self.dest.tables.table(name).uri}: the inputs of {len(missing)} committed "
                    f"shards of run {self.run_id} are missing: restore their files from a backup"
                )
            listed = self.dest.tables.table(name).files()
            files = [self._file(uri) for uri in found.values()]
            self.dest.commit(self._commit(name, [f for f in files if f.path not in listed]))

    def _waiting(self, name: str, wanted: set[Attempt]) -> dict[Attempt, str]:
        """Addresses of the files of some attempts."""
        return {
            attempt_of(file): entry.uri
            for entry in self.dest.store.entries(self.dest.tables.table(name).uri)
            if (file := layout.parse_shard_file(entry.uri)) and attempt_of(file) in wanted
        }

    def _file(self, uri: str) -> DataFile:
        name = uri.rpartition("/")[2]
        with self.dest.store.open(uri) as handle:
            ids = pq.read_table(handle, columns=["subject_id", "uri"])
        return described(name, self.dest.store.size(uri), ids.to_pydict(), {})
