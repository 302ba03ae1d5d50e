"""Waves of finished shards become visible; what no commit lists is destroyed.

A shard is done if and only if the `inputs` log lists its file. Templates are committed first, so a
kill between the two leaves templates without their inputs: `roll_forward` finds the inputs file of
the same attempt, which the same call of `finish` wrote, and commits it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines import layout
from pipelines.destination import Destination
from pipelines.ports import DataFile
from pipelines.stages import ShardResult

_DATA_TABLES: Final = ("templates", "inputs")


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
        return set(self._committed("inputs"))

    def commit(self, wave: Sequence[ShardResult]) -> None:
        """Make a wave visible: its templates in one commit, then its inputs in one."""
        if not wave:
            return
        self.dest.check()
        self._sequence += 1
        for name in _DATA_TABLES:
            self._commit(name, [result.files[name] for result in wave if name in result.files])

    def _application(self, name: str) -> str:
        return f"{self.run_id}/{name}"

    def _commit(self, name: str, files: list[DataFile]) -> None:
        self.dest.tables.table(name).commit(files, self._application(name), self._sequence)

    def destroy_orphans(self) -> int:
        """Delete every data file that no commit lists; return how many there were.

        Two issues of one person that survive anywhere can be broken together, so what a retried
        or killed task left behind must not stay.
        """
        self.dest.check()
        destroyed = 0
        for name in _DATA_TABLES:
            table = self.dest.tables.table(name)
            listed = set(table.files())
            base = table.uri.rstrip("/") + "/"
            orphans = [
                entry.uri
                for entry in self.dest.store.entries(table.uri)
                if layout.is_ours(entry.uri) and entry.uri.removeprefix(base) not in listed
            ]
            self.dest.store.delete(orphans)
            destroyed += len(orphans)
        return destroyed

    def _committed(self, name: str) -> dict[int, str]:
        """Attempt by shard of this run's committed files."""
        parsed = (layout.parse_data_file(path) for path in self.dest.tables.table(name).files())
        return {found[1]: found[2] for found in parsed if found and found[0] == self.run_id}

    def _roll_forward(self) -> None:
        finished = self._committed("inputs")
        halves = {s: a for s, a in self._committed("templates").items() if s not in finished}
        if not halves:
            return
        base = self.dest.tables.table("inputs").uri
        self._sequence += 1
        self._commit("inputs", [self._inputs_file(base, *half) for half in halves.items()])

    def _inputs_file(self, base: str, shard: int, attempt: str) -> DataFile:
        path = layout.data_file(self.run_id, shard, attempt)
        uri = layout.join(base, path)
        content = self.dest.store.read(uri)
        with self.dest.store.open(uri) as handle:
            ids = pq.read_table(handle, columns=["subject_id", "uri"])
        bounds = {name: pc.min_max(ids[name]).as_py() for name in ids.column_names}
        return DataFile(
            path=path,
            size=len(content),
            rows=len(ids),
            sha256=sha256(content).hexdigest(),
            partition={},
            low={name: bound["min"] for name, bound in bounds.items()},
            high={name: bound["max"] for name, bound in bounds.items()},
        )
