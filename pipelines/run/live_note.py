"""What a run says about itself while it works, for whoever asks from another process."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Final

from pipelines.plan.plans import Plan
from pipelines.ports import Store
from pipelines.run.events import HERE
from pipelines.run.summary import Tally
from pipelines.spec.outcomes import Outcome
from pipelines.table import layout
from pipelines.table.held import Destination

_PAUSE_S: Final = 5.0


class Counted:
    """An iterator over shards that knows how many it has handed out."""

    def __init__(self, shards: Iterable[int]) -> None:
        self._shards = iter(shards)
        self.count = 0

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        shard = next(self._shards)
        self.count += 1
        HERE.handed_out(shard)
        return shard


# Flat, since it is written as JSON field by field, and releases of before wrote the first eight.
@dataclass(frozen=True)
class Note:
    """The last word of a run. at: seconds since 1970. seconds: since this call of it began.

    settled: inputs of the run that have an outcome. inputs: those that this call settled.
    in_flight: shards that are being worked on. waiting: finished ones that wait for their commit.
    failed: this call's failed inputs by reason. committed: inputs of the run whose outcome is in
    the log. shards_committed: its shards that are. oldest: seconds since the oldest shard in flight
    was handed out. resubmitted: how often this call handed a lost shard out again. excluded: how
    many nodes get no more work from it.
    """

    run_id: str
    at: float
    seconds: float
    settled: int
    inputs: int
    in_flight: int
    waiting: int
    failed: dict[str, int]
    committed: int = 0
    shards_committed: int = 0
    oldest: float = 0.0
    resubmitted: int = 0
    excluded: int = 0


class Journal:
    """Writes a note every few seconds."""

    def __init__(self, dest: Destination, frozen: Plan, tally: Tally) -> None:
        self._dest = dest
        self._frozen = frozen
        self._tally = tally
        self._start = self._last = time.monotonic()

    def note(self, handed: int, waiting: int) -> None:
        """handed: shards handed out so far; waiting: finished ones that are not committed."""
        now = time.monotonic()
        if now - self._last < _PAUSE_S:
            return
        self._last = now
        failed = Counter[str]()
        for (outcome, reason), count in self._tally.outcomes.items():
            if outcome == Outcome.FAILED:
                failed[reason] += count
        seen = HERE.figures()
        note = Note(
            run_id=self._frozen.run_id,
            at=time.time(),
            seconds=now - self._start,
            settled=self._tally.before + self._tally.inputs,
            inputs=self._tally.inputs,
            in_flight=handed - self._tally.shards,
            waiting=waiting,
            failed=dict(failed),
            committed=self._tally.before + self._tally.committed,
            shards_committed=seen.run.shards_committed,
            oldest=round(seen.oldest, 1),
            resubmitted=seen.run.resubmitted,
            excluded=len(seen.run.excluded),
        )
        uri = layout.progress_file(self._dest.tables.dest)
        self._dest.store.write(uri, json.dumps(asdict(note)).encode())


def last_note(dest: str, store: Store) -> Note | None:
    """The last note of a destination's run; None where there is none, or it is damaged."""
    try:
        return Note(**json.loads(store.read(layout.progress_file(dest))))
    except (FileNotFoundError, ValueError, TypeError, RecursionError):
        return None
