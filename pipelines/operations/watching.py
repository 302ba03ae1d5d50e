"""The status of a run again and again, at a cost that does not follow the size of its table."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from infra.settings import load as load_settings
from infra.store.lease import holder
from pipelines.operations.status import Status, live_note, status, with_note
from pipelines.ports import Store, Tables
from pipelines.setup import ports
from pipelines.setup.places import existing
from pipelines.table import run_records
from pipelines.table.run_records import RunState

# Looks in a row at a run that nobody works on, after which nobody is waited for.
_ALONE: Final = 12
# The log is counted again once this many times what that took has gone by.
_REST: Final = 20


def watched(dest: str, every: float) -> Iterator[Status]:
    """Say how far the newest run is every few seconds, until it has ended.

    Ends too where nobody works on it for a while. A run that is still planned is waited for. Raises
    `TableError` where there is no table, or no run and nobody who would plan one.
    """
    _, storage = load_settings()
    tables = existing(dest, storage)
    looks = _Looks(tables, ports.open_store(storage))
    alone = 0
    while True:
        found = looks.look()
        if found:
            yield found
            alone = 0 if found.holder else alone + 1
            if found.state != RunState.RUNNING or alone == _ALONE:
                return
        time.sleep(max(every, looks.cost))


@dataclass
class _Looks:
    """Counts what is committed now and then; between, the note of who works on the run tells it.

    cost: seconds that the last counting took. at: when it ended.
    """

    tables: Tables
    store: Store
    cost: float = 0.0
    at: float = 0.0
    counted: Status | None = field(default=None, init=False)

    def look(self) -> Status | None:
        """The status; None while a first run is being planned."""
        working = holder(self.tables.dest, self.store)
        if working and not run_records.runs(self.tables):
            return None
        return self._noted(working) or self._count(working)

    def _noted(self, working: str | None) -> Status | None:
        """What the last note says, while the last counting is recent enough."""
        if self.counted is None or time.monotonic() - self.at > _REST * self.cost:
            return None
        found = replace(self.counted, holder=working)
        note = live_note(self.tables.dest, self.store, found)
        return with_note(found, note) if note else None

    def _count(self, working: str | None) -> Status:
        start = time.monotonic()
        self.counted = status(self.tables, self.store, working)
        self.at = time.monotonic()
        self.cost = self.at - start
        return self.counted
