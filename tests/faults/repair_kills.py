"""SIGKILL of a repair at every step: nobody ever has two rows, and the same command ends it."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from faults.drivers import KILLED, Driver, Job, driver, job
from faults.kill_driver import Point
from faults.lines import Line, at_least, exactly
from faults.renewal_kills import chosen, every_point, owners_of_every_file
from support.accounting import DATA_TABLES, strays
from support.enrolling import unit_vectors
from support.table import keys_of

from ironmask.errors import IronmaskError
from pipelines.verification.verifier import Verifier

SUBJECTS = 11
KILLS = 44
SHARD_SIZE = 20
# Of ten people in one file, in groups of eight and two, and one in the other one: those whose row
# is sound all the time, and some who lose it.
SOUND = (8, 9)
LOST = (0, 7, 10)
_SHOWN = 3


@dataclass
class Seen:
    """What the kills have done. people: whom something was wrong with, and when."""

    kills: int = 0
    people: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    second_rows: int = 0
    old_files: int = 0
    strays: int = 0

    def lines(self, kills: int) -> list[Line]:
        return [
            at_least("repair: kills", self.kills, kills),
            _none("repair: people who were wrong at some moment", self.people),
            _none("repair: resumes that did not end well", self.errors),
            exactly("repair: people with two rows in any file", self.second_rows, 0),
            exactly("repair: lost files that came back", self.old_files, 0),
            exactly("repair: stray files after the resume", self.strays, 0),
        ]


def _none(what: str, found: list[str]) -> Line:
    return Line(what, "; ".join(found[:_SHOWN]) or "none", "none", not found)


@dataclass(frozen=True)
class Broken:
    """A table of which one file is gone and one is damaged. lost: their paths below it."""

    work: Job
    lost: tuple[str, ...]

    def copy(self, name: str) -> Broken:
        return Broken(self.work.copy(self.work.dest.with_name(name)), self.lost)

    @property
    def keys(self) -> str:
        return f"--keys={keys_of(self.work.dest)}"

    @property
    def arguments(self) -> list[str]:
        source = f"--source={self.work.source}"
        return ["repair", str(self.work.dest), source, "--executor=local", self.keys]


def broken(folder: Path, runs: Driver) -> Broken:
    """Enrol, damage the file of ten people in its first group, delete the other one."""
    work = job(folder / "e.parquet", SUBJECTS, folder / "dest", SHARD_SIZE)
    ended = runs.run(work.arguments)
    if ended.code:
        raise RuntimeError(f"the enrolment ended with {ended.code}: {ended.said}")
    damaged, deleted = sorted((work.dest / "templates").rglob("part-*.parquet"))
    content = bytearray(damaged.read_bytes())
    content[1_000] ^= 1
    damaged.write_bytes(content)
    deleted.unlink()
    return Broken(work, tuple(str(path.relative_to(work.dest)) for path in (damaged, deleted)))


def points(runs: Driver, table: Broken) -> list[Point]:
    """Both sides of every time of every step of a repair."""
    target = table.copy("trace")
    trace = target.work.dest.with_suffix(".trace")
    ended = runs.run(target.arguments, trace=trace, wave=1)
    if ended.code:
        raise RuntimeError(f"a repair that nobody killed ended with {ended.code}: {ended.said}")
    return every_point(trace)


def at_points(runs: Driver, table: Broken, some: Iterable[Point]) -> Seen:
    """Kill at each point, look, repair by the same command, look again."""
    seen = Seen()
    for number, point in enumerate(some):
        target = table.copy(f"repair-{number}")
        told = f"{point.side} {point.step} ({point.nth})"
        ended = runs.run(target.arguments, point=point, wave=1)
        seen.kills += ended.code == KILLED
        if ended.code != KILLED:
            seen.errors.append(f"{told}: not reached, exit code {ended.code}")
        _look(seen, target, f"right after {told}", done=False)
        for words in (target.arguments, ["check", str(target.work.dest), "--deep", target.keys]):
            again = runs.run(words)
            if again.code:
                said = again.said.strip().splitlines()[-1:]
                seen.errors.append(f"{told}: {words[0]} ended with {again.code}, {said}")
        _look(seen, target, f"after the repair of {told}", done=True)
        dest = target.work.dest
        seen.strays += sum(len(strays(dest, name)) for name in DATA_TABLES)
        seen.old_files += sum((dest / path).exists() for path in table.lost)
        owners = Counter(owners_of_every_file(dest))
        seen.second_rows += sum(count - 1 for count in owners.values())
        if len(owners) != SUBJECTS:
            seen.errors.append(f"{told}: {len(owners)} people have a row")
        shutil.rmtree(dest)
    return seen


def _look(seen: Seen, table: Broken, told: str, *, done: bool) -> None:
    """Whether those are verified who must be, and nobody is rejected or has two rows."""
    asked = Verifier(str(table.work.dest), str(keys_of(table.work.dest)))
    for number in (*SOUND, *LOST):
        name, probe = f"s{number:03d}", unit_vectors(SUBJECTS)[[number]]
        try:
            if not asked.verify_embeddings(name, probe)[0]:
                seen.people.append(f"{told}: {name} is rejected")
        except IronmaskError as error:
            # Who is lost has no row, or a file that is.
            is_lost = "holds no template" in str(error) or "ironmask repair" in str(error)
            if done or number in SOUND or not is_lost:
                seen.people.append(f"{told}: {name}: {error}")


def run(seed: int, folder: Path) -> list[Line]:
    rng = random.Random(seed)
    with driver(folder / "logs") as runs:
        table = broken(folder, runs)
        some = chosen(points(runs, table), KILLS, rng)
        return at_points(runs, table, some).lines(KILLS)
