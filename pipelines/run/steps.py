"""The steps of a run that every job of templates takes: execute and commit, then report."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from typing import Final, Protocol

from pipelines.plan.plans import Plan
from pipelines.run import stop
from pipelines.run.begin import write_run
from pipelines.run.commit import Committer
from pipelines.run.course import Progress, quiet
from pipelines.run.events import HERE
from pipelines.run.live_note import Counted, Journal
from pipelines.run.summary import Summary, Tally, summarise, write_metrics
from pipelines.run.work import Standing
from pipelines.shard.context import ShardResult
from pipelines.spec.template_job import Purpose, TemplateJob
from pipelines.table import layout
from pipelines.table.data_files import destroy_below
from pipelines.table.held import Destination
from pipelines.table.orphans import destroy_orphans
from pipelines.table.run_records import RunState, rows_of_run

_log = logging.getLogger("ironmask.enrol")
# A commit takes as long as its log is. So a wave grows with what is committed, by this share of it,
# and so do the seconds after which one ends early: commits then take a fiftieth of a run at most.
WAVE_SHARDS: Final = 16
_WAVE_SHARE: Final = 16
WAVE_SECONDS: Final = 30.0
_WAVE_COMMITS: Final = 50
MOST_SECONDS: Final = 600.0
"""Finished work of so many seconds at most is lost with a driver, beside the shards in flight."""


class Executor(Protocol):
    """Runs the stages over shards, anywhere, in any order."""

    @property
    def standing(self) -> Standing: ...

    def run(self, job: TemplateJob, plan: Plan, shards: Iterable[int]) -> Iterator[ShardResult]: ...


class Timer:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def seconds(self) -> float:
        return time.monotonic() - self._start


def run(
    job: TemplateJob,
    frozen: Plan,
    dest: Destination,
    executor: Executor,
    progress: Progress = quiet,
) -> tuple[Tally, int]:
    """Execute the shards that the log does not list yet; commit them in waves.

    Returns this call's totals, and how many shards earlier calls had committed.
    """
    committer = Committer(dest, frozen.run_id)
    done = committer.done()
    orphans = destroy_orphans(dest.tables, dest.store, dest.check)
    started = {"run_id": frozen.run_id, "shards_done": len(done), "orphans_destroyed": orphans}
    _log.info("started", extra=started)
    tally = Tally(before=rows_of_run(dest.tables, "inputs", frozen.run_id))
    todo = Counted(shard for shard in range(frozen.shards) if shard not in done)
    journal = Journal(dest, frozen, tally)
    progress(frozen, tally)
    there = sum(map(layout.shards_in, dest.tables.table("inputs").files()))
    waves = _Waves(committer, tally, there)
    going_on = HERE.of_run(frozen, job.purpose.value, len(done), tally.before)
    with stop.held(), going_on:
        for result in executor.run(job, frozen, todo):
            HERE.finished(result)
            waves.add(result)
            journal.note(todo.count, committer.waiting)
            progress(frozen, tally)
        waves.commit()
        progress(frozen, tally)
    tally.bytes_written += committer.written
    tally.excluded = dict(executor.standing.excluded)
    return tally, len(done)


class _Waves:
    """Finished shards, committed together."""

    def __init__(self, committer: Committer, tally: Tally, shards: int) -> None:
        """shards: how many the table has of all runs."""
        self._committer = committer
        self._tally = tally
        self._shards = shards
        self._last = time.monotonic()
        self._seconds = WAVE_SECONDS

    def add(self, result: ShardResult) -> None:
        self._committer.add(result)
        self._tally.add(result)
        is_full = self._committer.waiting >= full_wave(self._shards)
        if is_full or time.monotonic() - self._last >= self._seconds:
            self.commit()

    def commit(self) -> None:
        shards = self._committer.waiting
        if not shards:
            return
        start = time.monotonic()
        self._committer.commit()
        self._last = time.monotonic()
        self._seconds = seconds_to_wait(self._last - start)
        self._shards += shards
        self._tally.committed = self._tally.inputs
        inputs = self._tally.before + self._tally.committed
        HERE.committed(shards, inputs, self._last - start)


def full_wave(shards: int) -> int:
    """How many shards fill a wave of a table that has so many already."""
    return max(WAVE_SHARDS, shards // _WAVE_SHARE)


def seconds_to_wait(commit: float) -> float:
    """After how many seconds a wave is committed that is not full. commit: seconds of the last."""
    return min(max(WAVE_SECONDS, _WAVE_COMMITS * commit), MOST_SECONDS)


def report(
    job: TemplateJob, frozen: Plan, tally: Tally, resumed: int, dest: Destination, seconds: float
) -> Summary:
    """Check the counts against the plan, record the run, and say what happened."""
    orphans = destroy_orphans(dest.tables, dest.store, dest.check)
    summary = summarise(job, frozen, tally, resumed, orphans, dest.tables, seconds)
    write_metrics(dest, summary)
    counts = {k: v for k, v in asdict(summary).items() if k not in ("stage_seconds", "seconds")}
    timings = {"seconds": seconds, "stages": summary.stage_seconds}
    if job.purpose is Purpose.REKEY:
        # It says which old file became which new one.
        frozen = replace(frozen, digest="")
    write_run(dest, frozen, job, RunState.COMPLETE, counts, timings)
    if not frozen.digest:
        destroy_below(dest.store, layout.plan_folder(dest.tables.dest, frozen.run_id))
    dest.store.delete([layout.progress_file(job.dest)])
    dest.log_seal.end()
    done = {"run_id": frozen.run_id, "inputs": summary.inputs, "failed": summary.failed}
    _log.info("completed", extra=done)
    return summary
