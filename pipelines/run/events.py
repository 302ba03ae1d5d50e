"""What happens in a run: each event is counted, for whoever watches, and logged in one line.

The figures are those of this process over all of its runs, so that counts only grow. They hold
numbers, ids of runs, and words of closed lists; nothing of a subject, an input or an address.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from threading import Lock
from typing import Final

from pipelines.plan.plans import Plan
from pipelines.shard.context import ShardResult

_log = logging.getLogger("ironmask.enrol")


@dataclass
class OfRun:
    """The run that this process works on, or has worked on last, by whichever call of it.

    Of this call: waiting: finished shards that are not committed; resubmitted: how often a lost
    shard was handed out again; excluded: nodes that get no more work. begun, committed_at: seconds
    since 1970, 0 before.
    """

    run_id: str = ""
    purpose: str = ""
    inputs: int = 0
    inputs_committed: int = 0
    shards: int = 0
    shards_committed: int = 0
    waiting: int = 0
    begun: float = 0.0
    committed_at: float = 0.0
    resubmitted: int = 0
    excluded: set[str] = field(default_factory=set)


# Flat, since each field is a metric of its own.
@dataclass
class Figures:
    """What this process has done. outcomes, subjects: inputs and subjects by outcome and reason.

    stages: seconds of work by stage. written: bytes of data files by table. handed: when each shard
    in flight was handed out, by `time.monotonic`. excluded: names of nodes that get no more work.
    """

    run: OfRun = field(default_factory=OfRun)
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    subjects: Counter[tuple[str, str]] = field(default_factory=Counter)
    stages: dict[str, float] = field(default_factory=dict)
    written: Counter[str] = field(default_factory=Counter)
    handed: dict[int, float] = field(default_factory=dict)
    shards: int = 0
    resubmitted: int = 0
    commits: int = 0
    commit_seconds: float = 0.0
    excluded: set[str] = field(default_factory=set)

    @property
    def oldest(self) -> float:
        """Seconds since the oldest shard in flight was handed out; 0 where none is."""
        return time.monotonic() - min(self.handed.values()) if self.handed else 0.0


class Events:
    """Takes what happens; may be asked from any thread."""

    def __init__(self) -> None:
        self._figures = Figures()
        self._lock = Lock()

    def figures(self) -> Figures:
        """The figures as of now, which change no more."""
        with self._lock:
            return deepcopy(self._figures)

    @contextmanager
    def of_run(self, plan: Plan, purpose: str, shards: int, inputs: int) -> Iterator[None]:
        """A run goes on. shards, inputs: those that earlier calls of it have committed."""
        run = OfRun(
            plan.run_id, purpose, plan.inputs, inputs, plan.shards, shards, begun=time.time()
        )
        with self._lock:
            self._figures.run = run
        try:
            yield
        finally:
            with self._lock:
                self._figures.handed.clear()
                run.waiting = 0

    def handed_out(self, shard: int) -> None:
        """A shard is given to the engine."""
        with self._lock:
            self._figures.handed[shard] = time.monotonic()

    def finished(self, result: ShardResult) -> None:
        """A shard has ended well, and waits for its commit."""
        with self._lock:
            since = self._figures.handed.pop(result.shard, time.monotonic())
            self._add(result)
        _log.debug(
            "shard finished",
            extra={
                "run_id": self._figures.run.run_id,
                "shard": result.shard,
                "node": result.node,
                "inputs": result.outcomes.total(),
                "enrolled": result.enrolled,
                "seconds": round(time.monotonic() - since, 3),
                "stages": {name: round(value, 3) for name, value in result.timings.items()},
            },
        )

    def _add(self, result: ShardResult) -> None:
        found = self._figures
        found.shards += 1
        found.run.waiting += 1
        found.outcomes.update(result.outcomes)
        found.subjects.update(result.subjects)
        found.written.update({name: file.size for name, file in result.files.items()})
        for name, seconds in result.timings.items():
            found.stages[name] = found.stages.get(name, 0.0) + seconds

    def wrote(self, table: str, size: int) -> None:
        """A data file was written here. size: bytes."""
        with self._lock:
            self._figures.written[table] += size

    def committed(self, shards: int, inputs: int, seconds: float) -> None:
        """A wave is in the log. inputs: of the run that are now, those of earlier calls as well."""
        with self._lock:
            found, run = self._figures, self._figures.run
            found.commits += 1
            found.commit_seconds += seconds
            run.waiting -= shards
            run.shards_committed += shards
            run.inputs_committed = inputs
            run.committed_at = time.time()
        _log.info(
            "wave committed",
            extra={
                "run_id": run.run_id,
                "shards": shards,
                "shards_committed": run.shards_committed,
                "inputs_committed": inputs,
                "seconds": round(seconds, 3),
            },
        )

    def again(self, shard: int, why: str, node: str = "") -> None:
        """A shard is submitted again. why: how it was lost, without names. node: where."""
        with self._lock:
            self._figures.resubmitted += 1
            self._figures.run.resubmitted += 1
        extra = {"run_id": self._figures.run.run_id, "shard": shard, "node": node}
        _log.warning("shard %d is submitted again: %s", shard, why, extra=extra)

    def excluded(self, node: str, why: str) -> None:
        """A node gets no more work. why: what it lacks, without names."""
        with self._lock:
            self._figures.excluded.add(node)
            self._figures.run.excluded.add(node)
        extra = {"run_id": self._figures.run.run_id, "node": node}
        _log.warning("the node %s gets no more work: %s", node, why, extra=extra)


HERE: Final = Events()
"""What happens in this process."""
