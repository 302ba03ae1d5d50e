"""SIGKILL of the process that runs the job: at any moment, at every step, twenty times in a row."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

from faults.drivers import KILLED, Driver, Ended, Job, driver, job
from faults.kill_driver import AFTER, BEFORE, Point
from faults.lines import Line, at_least, at_most, exactly
from support.accounting import DATA_TABLES as DATA
from support.accounting import NOTHING, Counts, committed, counts, row_set, uncommitted
from support.enrolling import ALPHA
from support.table import keys_of

from pipelines.run.steps import WAVE_SHARDS

SMALL_WAVE = 4
_DATA_FILES = tuple(f"write file of {name}" for name in DATA)
_MANY_ERRORS = 3
# Steps of a run's start and of its next two waves, and how often they come there.
_EARLY = (
    ("create table inputs", 1),
    *((f"{verb} file of templates", 2 * WAVE_SHARDS) for verb in ("write", "rename")),
    *((f"{verb} file of inputs", 2) for verb in ("write", "rename")),
    *((f"commit {name}", 2) for name in DATA),
    ("write seal", 2),
)


@dataclass
class Seen:
    """What the kills of one kind have done so far."""

    kills: int = 0
    wave: int = 0
    rework: int = 0
    total: Counts = NOTHING
    errors: list[str] = field(default_factory=list)
    unsound: list[str] = field(default_factory=list)

    def killed(self, dest: Path, wave: int) -> None:
        """Count a kill, and the finished work that it lost, in shards."""
        self.kills += 1
        self.wave = wave
        self.rework = max(self.rework, uncommitted(dest))

    def finished(self, runs: Driver, ended: Ended, work: Job, after: str) -> None:
        """Count what a destination holds after a resume, which must have ended well."""
        checked = runs.run(["check", str(work.dest), "--deep", f"--keys={keys_of(work.dest)}"])
        for found, errors in ((ended, self.errors), (checked, self.unsound)):
            if found.code:
                last = found.said.strip().splitlines()[-1:] or ["nothing was said"]
                errors.append(f"{after}: exit code {found.code}, {last[0]}")
        self.total += counts(work.dest, work.planned)

    def lines(self, what: str, kills: int) -> list[Line]:
        return [
            at_least(f"{what}: kills", self.kills, kills),
            _all(f"{what}: resumes", "ended well", self.errors),
            _all(f"{what}: deep checks after them", "found nothing", self.unsound),
            exactly(f"{what}: rows lost", self.total.lost, 0),
            exactly(f"{what}: rows duplicated", self.total.duplicated, 0),
            exactly(f"{what}: second live issues", self.total.second_issues, 0),
            exactly(f"{what}: stray files after the resume", self.total.stray_files, 0),
            at_most(f"{what}: largest rework in shards (a wave)", self.rework, self.wave),
        ]


def _all(what: str, wanted: str, errors: Sequence[str]) -> Line:
    return Line(what, "; ".join(errors[:_MANY_ERRORS]) or wanted, wanted, not errors)


def at_random(runs: Driver, work: Job, kills: int, rng: random.Random) -> Seen:
    """Kill at moments drawn over the whole of an undisturbed run, resume, until a run ends first.

    Every tenth run is the installed command from its first instruction on. After as many kills as
    were asked for a run goes on to its end: on a machine that is busier by then, none might.
    """
    ways = (runs.run, runs.run_installed)
    usual = [_undisturbed(way, work, f"undisturbed-{n}").seconds for n, way in enumerate(ways)]
    seen, destinations = Seen(), 0
    while seen.kills < kills and len(seen.errors) < _MANY_ERRORS:
        destinations += 1
        target = work.into(work.dest.with_name(f"random-{destinations}"))
        code = KILLED
        while code == KILLED:
            way = int(rng.random() < 0.1)
            moment = rng.uniform(0, usual[way]) if seen.kills < kills else None
            ended = ways[way](target.arguments, kill_after=moment)
            code = ended.code
            if code == KILLED:
                seen.killed(target.dest, WAVE_SHARDS)
        seen.finished(runs, ended, target, f"kills at random moments, destination {destinations}")
        shutil.rmtree(target.dest)
    return seen


def _undisturbed(way: Callable[[list[str]], Ended], work: Job, name: str) -> Ended:
    return _sound(way(work.into(work.dest.with_name(name)).arguments))


def _sound(ended: Ended) -> Ended:
    if ended.code:
        raise RuntimeError(f"a run that nobody killed ended with {ended.code}: {ended.said}")
    return ended


@dataclass(frozen=True)
class Stage:
    """A destination in some state, and a command whose steps are killed there."""

    name: str
    work: Job
    more: tuple[str, ...] = ()

    def copy(self, name: str) -> Stage:
        """The same in a copy of the destination; where there is none, one that is not there."""
        dest = self.work.dest.with_name(name)
        there = self.work.dest.exists()
        return replace(self, work=self.work.copy(dest) if there else self.work.into(dest))

    def run(self, runs: Driver, **named: Any) -> Ended:
        return runs.run([*self.work.arguments, *self.more], wave=SMALL_WAVE, **named)


def stages(runs: Driver, work: Job) -> list[Stage]:
    """A destination that is not there, one with orphans, and one with half of a wave."""
    named = {n: Stage(n, work.into(work.dest.with_name(n))) for n in ("absent", "orphans", "half")}
    before = {
        "orphans": Point("rename file of templates", AFTER, SMALL_WAVE + 2),
        "half": Point("commit inputs", BEFORE, 2),
    }
    for name, point in before.items():
        ended = named[name].run(runs, point=point)
        if ended.code != KILLED:
            raise RuntimeError(f"{point} was not reached ({ended.code}): {ended.said}")
    return [*named.values(), replace(named["half"], name="restart", more=("--restart",))]


def points(runs: Driver, stage: Stage) -> list[Point]:
    """Both sides of the first, a middle and the last time of every step of a full run from here.

    Where a destination is there already, only of the steps up to its first new data file: the
    others are those of a new one.
    """
    target = stage.copy(f"trace-{stage.name}")
    trace = target.work.dest.with_suffix(".trace")
    _sound(target.run(runs, trace=trace))
    steps = trace.read_text().splitlines()
    if stage.work.dest.exists():
        steps = list(takewhile(lambda step: step not in _DATA_FILES, steps))
        steps = [step for step in steps if not step.startswith("create table")]
    return [
        Point(step, side, nth)
        for step, count in Counter(steps).items()
        for nth in sorted({1, (count + 1) // 2, count})
        for side in (BEFORE, AFTER)
    ]


def at_steps(runs: Driver, chosen: Iterable[tuple[Stage, Point]]) -> Seen:
    """Kill at each point, resume by the plain command, account."""
    seen = Seen()
    for number, (stage, point) in enumerate(chosen):
        target = stage.copy(f"step-{number}")
        told = f"{point.side} {point.step} ({point.nth}) from {stage.name}"
        ended = target.run(runs, point=point)
        if ended.code == KILLED:
            seen.killed(target.work.dest, SMALL_WAVE)
        else:
            seen.errors.append(f"{told}: not reached, exit code {ended.code}")
        seen.finished(runs, runs.run(target.work.arguments), target.work, told)
        shutil.rmtree(target.work.dest)
    return seen


@dataclass(frozen=True)
class Streak:
    """Kills of one job in a row. committed: shards, of all, that were committed by the last."""

    seen: Seen
    committed: int
    shards: int
    same_rows: bool
    refused: int

    def lines(self, kills: int) -> list[Line]:
        same = "the same" if self.same_rows else "others"
        return [
            *self.seen.lines("in a row", kills),
            Line(
                "in a row: shards committed at the last kill",
                f"{self.committed:,} of {self.shards:,}",
                "some, not all",
                0 < self.committed < self.shards,
            ),
            Line("in a row: rows", same, "the same as undisturbed", self.same_rows),
            exactly("in a row: resumes with other settings refused by name", self.refused, 3),
        ]


def in_a_row(runs: Driver, work: Job, kills: int, rng: random.Random) -> Streak:
    """Kill one job again and again within its next two waves; then let it end."""
    whole = work.into(work.dest.with_name("undisturbed"))
    _sound(runs.run(whole.arguments))
    seen, code = Seen(), KILLED
    while seen.kills < kills and code == KILLED:
        step, most = rng.choice(_EARLY)
        point = Point(step, rng.choice((BEFORE, AFTER)), rng.randint(1, most))
        code = runs.run(work.arguments, point=point).code
        if code == KILLED:
            seen.killed(work.dest, WAVE_SHARDS)
    done, refused = committed(work.dest), refusals(runs, work)
    seen.finished(runs, runs.run(work.arguments), work, f"{seen.kills} kills in a row")
    same = row_set(work.dest) == row_set(whole.dest)
    return Streak(seen, done, committed(whole.dest), same, refused)


def refusals(runs: Driver, work: Job) -> int:
    """Resume an unfinished job with another shard size, alpha and model; count the refusals.

    A refusal is exit code 1 and one error line, which names the setting and both its values.
    """
    size, other = work.shard_size, work.shard_size + 2
    changes = {
        f"--shard-size={other}": f"shard_size: {size} then, {other} now",
        f"--alpha={ALPHA + 2}": f"alpha is {ALPHA} there and {ALPHA + 2} here",
        "--model=other": "model is declared:unknown there and declared:other here",
    }
    return sum(_is_refused(runs.run([*work.arguments, k]), v) for k, v in changes.items())


def _is_refused(ended: Ended, named: str) -> bool:
    errors = [line for line in ended.said.splitlines() if line.startswith("error: ")]
    return ended.code == 1 and len(errors) == 1 and named in errors[0]


def run(seed: int, folder: Path) -> list[Line]:
    """The whole suite: 100 kills at random moments, every step from both sides, 20 in a row."""
    rng = random.Random(seed)
    with driver(folder / "logs") as runs:
        moments = at_random(runs, job(folder / "random.parquet", 192, folder / "random"), 100, rng)
        found = stages(runs, job(folder / "steps.parquet", 24, folder / "steps"))
        chosen = [(stage, point) for stage in found for point in points(runs, stage)]
        steps = at_steps(runs, chosen)
        one = job(folder / "row.parquet", 400, folder / "row", shard_size=2)
        streak = in_a_row(runs, one, 20, rng)
    return [
        *moments.lines("at random moments", 100),
        *steps.lines("at every step", len(chosen)),
        *streak.lines(20),
    ]
