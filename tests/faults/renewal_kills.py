"""SIGKILL of a re-protection at every kind of step: what is live stays whole; a resume ends it."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from faults.drivers import KILLED, Driver, Ended, Job, driver, job
from faults.kill_driver import AFTER, BEFORE, Point
from faults.lines import Line, at_least, exactly
from support.accounting import DATA_TABLES, listed, strays
from support.enrolling import unit_vectors
from support.table import keys_of, open_tables

from infra.keys.key_file import KeyFile
from ironmask.errors import IronmaskError
from pipelines.table import generations
from pipelines.table.generations import State
from pipelines.verification.verifier import Verifier

SUBJECTS = 24
KILLS = 100
SMALL_WAVE = 4
_MANY = 3
# Steps from the switch to the proof, each of which is killed at least once.
TURNING = ("commit generations", "destroy keys", "commit templates", "destroy file of templates")


@dataclass
class Seen:
    """What the kills have done. steps: how many kills of each step."""

    kills: int = 0
    steps: Counter[str] = field(default_factory=Counter)
    unreadable: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    two_live: int = 0
    second_rows: int = 0
    strays: int = 0
    old_keys: int = 0

    def lines(self, what: str, kills: int) -> list[Line]:
        return [
            at_least(f"{what}: kills", self.kills, kills),
            exactly(f"{what}: kinds of steps of the turn that were killed", self.turning, 4),
            _none(f"{what}: people not verified right after a kill", self.unreadable),
            _none(f"{what}: resumes that did not end well, or left something", self.errors),
            exactly(f"{what}: more than one live generation, or none", self.two_live, 0),
            exactly(f"{what}: people with two rows that open with the keys", self.second_rows, 0),
            exactly(f"{what}: stray files after the resume", self.strays, 0),
            exactly(f"{what}: keys of a destroyed generation", self.old_keys, 0),
        ]

    @property
    def turning(self) -> int:
        return sum(any(step.startswith(name) for step in self.steps) for name in TURNING)


def _none(what: str, found: Sequence[str]) -> Line:
    return Line(what, "; ".join(found[:_MANY]) or "none", "none", not found)


def arguments(work: Job, command: str = "reprotect") -> list[str]:
    return [command, str(work.dest), "--executor=local", f"--keys={keys_of(work.dest)}"]


def points(runs: Driver, work: Job, command: str) -> list[Point]:
    """Both sides of every time of every step of a re-protection."""
    target = work.copy(work.dest.with_name(f"trace-{command}"))
    trace = target.dest.with_suffix(".trace")
    ended = runs.run(arguments(target, command), trace=trace, wave=SMALL_WAVE)
    if ended.code:
        raise RuntimeError(f"a run that nobody killed ended with {ended.code}: {ended.said}")
    return every_point(trace)


def every_point(trace: Path) -> list[Point]:
    """Both sides of every time of every step of a run that was traced."""
    counted = Counter(trace.read_text().splitlines())
    return [
        Point(step, side, nth)
        for step, count in sorted(counted.items())
        for nth in range(1, count + 1)
        for side in (BEFORE, AFTER)
    ]


def chosen(found: Sequence[Point], kills: int, rng: random.Random) -> list[Point]:
    """So many points, every kind of step among them, and all of the steps of the turn."""
    first: dict[tuple[str, str], Point] = {}
    for point in rng.sample(found, len(found)):
        first.setdefault((point.step, point.side), point)
    picked = list(dict.fromkeys(first.values()))
    others = [point for point in found if point not in set(picked)]
    picked += rng.sample(others, max(0, min(kills - len(picked), len(others))))
    return picked[: max(kills, len(first))]


def at_points(runs: Driver, work: Job, command: str, some: Iterable[Point]) -> Seen:
    """Kill at each point, look, resume by the same command, look again."""
    seen = Seen()
    for number, point in enumerate(some):
        target = work.copy(work.dest.with_name(f"{command}-{number}"))
        told = f"{command}, {point.side} {point.step} ({point.nth})"
        ended = runs.run(arguments(target, command), point=point, wave=SMALL_WAVE)
        if ended.code == KILLED:
            seen.kills += 1
            seen.steps[point.step] += 1
        else:
            seen.errors.append(f"{told}: not reached, exit code {ended.code}")
        _look(seen, target, f"right after {told}")
        _resumed(seen, runs, target, command, told)
        shutil.rmtree(target.dest)
    return seen


def _look(seen: Seen, work: Job, told: str) -> None:
    """Whether everybody is verified by what is live, and one row a person opens at most."""
    tables = open_tables(work.dest)
    try:
        asked = Verifier(str(work.dest), str(keys_of(work.dest)))
        found = generations.read(tables)
        seen.two_live += len(generations.in_state(found, State.LIVE)) != 1
        for number, vector in enumerate(unit_vectors(work.subjects)):
            if not asked.verify_embeddings(f"s{number:03d}", vector[None])[0]:
                seen.unreadable.append(f"{told}: s{number:03d} is rejected")
    except IronmaskError as error:
        seen.unreadable.append(f"{told}: {error}")


def _resumed(seen: Seen, runs: Driver, work: Job, command: str, told: str) -> None:
    tables = open_tables(work.dest)
    # A kill after the last step leaves nothing to resume, and the command would begin another.
    if generations.live(tables) == generations.FIRST or _unfinished(work.dest):
        _ended_well(seen, told, runs.run(arguments(work, command)))
    keys = f"--keys={keys_of(work.dest)}"
    _ended_well(seen, told, runs.run(["check", str(work.dest), "--deep", keys]))
    proved = runs.run(["prove", str(work.dest), "--generation=1", keys])
    _ended_well(seen, f"{told}, proof", proved)
    _look(seen, work, f"after the resume of {told}")
    seen.strays += sum(len(strays(work.dest, name)) for name in DATA_TABLES)
    file = KeyFile.open(keys_of(work.dest), tables.table_id)
    alive = [n for n, record in file.generations().items() if record.state == "live"]
    seen.old_keys += alive != [generations.live(tables)]
    owners = Counter(owners_of_every_file(work.dest))
    seen.second_rows += sum(count - 1 for count in owners.values())
    if len(owners) != work.subjects:
        seen.errors.append(f"{told}: {len(owners)} people have a row")


def _unfinished(dest: Path) -> bool:
    from pipelines.table import run_records

    return any(record.state == "running" for record in run_records.runs(open_tables(dest)))


def _ended_well(seen: Seen, told: str, ended: Ended) -> None:
    if ended.code:
        last = ended.said.strip().splitlines()[-1:] or ["nothing was said"]
        seen.errors.append(f"{told}: exit code {ended.code}, {last[0]}")


def owners_of_every_file(dest: Path) -> list[Any]:
    """The person of each row with a helper in any file below a destination, listed or not."""
    owners: list[Any] = []
    for path in dest.rglob("*"):
        if path.suffix == ".parquet" and "_delta_log" not in path.parts:
            file = pq.ParquetFile(path)
            if "helper" in file.schema_arrow.names:
                owners += file.read(["subject_id"])["subject_id"].to_pylist()
    return owners


def made(folder: Path, runs: Driver, subjects: int = SUBJECTS) -> Job:
    """An enrolled table that is to be re-protected."""
    work = job(folder / "e.parquet", subjects, folder / "dest")
    ended = runs.run(work.arguments)
    if ended.code:
        raise RuntimeError(f"the enrolment ended with {ended.code}: {ended.said}")
    assert len(listed(work.dest, "templates")) == np.ceil(subjects / 2)
    return work


def run(seed: int, folder: Path) -> list[Line]:
    rng = random.Random(seed)
    lines: list[Line] = []
    with driver(folder / "logs") as runs:
        work = made(folder, runs)
        for command, kills in (("reprotect", KILLS), ("rekey", KILLS // 4)):
            found = points(runs, work, command)
            some = chosen(found, kills, rng)
            lines += at_points(runs, work, command, some).lines(command, kills)
        lines.append(_none("erase: what was left of a person", erasure(runs, work, "s003")))
    return lines


def erasure(runs: Driver, work: Job, subject: str, some: Sequence[Point] = ()) -> list[str]:
    """Kill the erasure of a person at some points, or at the first time of every step; finish it.

    Returns what then was left of the person, or did not end well.
    """
    words = ["erase", "--yes", str(work.dest), f"--subject={subject}"]
    words.append(f"--keys={keys_of(work.dest)}")
    left: list[str] = []
    for number, point in enumerate(some or _first_times(runs, work, words)):
        target = work.copy(work.dest.with_name(f"erase-{number}"))
        own = [word.replace(str(work.dest), str(target.dest)) for word in words]
        told = f"erase, {point.side} {point.step} ({point.nth})"
        if runs.run(own, point=point).code != KILLED:
            left.append(f"{told}: not reached")
        again = runs.run(own)
        # Where the kill came after the last step, nothing is there any more.
        if again.code and "holds nothing of subject" not in again.said:
            left.append(f"{told}: {again.said.strip().splitlines()[-1]}")
        checked = runs.run(["check", str(target.dest), "--deep", own[-1]])
        if checked.code:
            left.append(f"{told}: {checked.said[-300:]}")
        left += [f"{told}: {path}" for path in files_with(target.dest, subject)]
        shutil.rmtree(target.dest)
    return left


def _first_times(runs: Driver, work: Job, words: list[str]) -> list[Point]:
    target = work.copy(work.dest.with_name("trace-erase"))
    trace = target.dest.with_suffix(".trace")
    own = [word.replace(str(work.dest), str(target.dest)) for word in words]
    runs.run(own, trace=trace)
    steps = dict.fromkeys(trace.read_text().splitlines())
    return [Point(step, side, 1) for step in steps for side in (BEFORE, AFTER)]


def files_with(dest: Path, text: str) -> list[Path]:
    """Files below a destination that hold a text, in their bytes or in their Parquet values."""
    found = []
    for path in dest.rglob("*"):
        if not path.is_file():
            continue
        content = path.read_bytes()
        if path.suffix == ".parquet":
            content += repr(pq.ParquetFile(path).read().to_pylist()).encode()
        if text.encode() in content:
            found.append(path)
    return found
