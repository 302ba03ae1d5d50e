"""SIGINT and SIGTERM to runs on Ray, at seeded moments of every stage from the start to the end."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path

from faults.drivers import Job, job
from faults.lines import Line, at_least, exactly
from faults.several_nodes import on_ray
from support.accounting import NOTHING, Counts, committed, counts, uncommitted
from support.command import clean_environment
from support.nodes import Cluster, cluster
from support.table import keys_of

MOMENTS = 20
SUBJECTS = 400
# Runs that make a cluster for themselves, which takes a while.
_ALONE = 5
_PATIENCE_S = 300.0
_USUAL = ("settings: ", "agreement: ", "model: ", "WARNING: ", "NOTE: ")
_GOES_ON = "interrupted; the same command "


@dataclass(frozen=True)
class Stage:
    """A part of a run. begun: whether it has begun, of the process and its destination."""

    name: str
    begun: Callable[[int, Path], bool]


def _answers_signals(pid: int, _dest: Path) -> bool:
    """Before that there is nothing but Python's own start."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


def _shards(dest: Path) -> int:
    return len(list(dest.glob("templates/*/part-*.parquet")))


def stages(shards: int) -> list[Stage]:
    """The stages of a run of so many shards."""
    return [
        Stage("start", _answers_signals),
        Stage("plan", lambda _, dest: (dest / "_ironmask" / "lock").exists()),
        Stage("waves", lambda _, dest: _shards(dest) > 0),
        Stage("commit", lambda _, dest: len(list(dest.glob("templates/_delta_log/*.json"))) > 2),
        Stage("end", lambda _, dest: _shards(dest) >= shards),
    ]


@dataclass
class Seen:
    """What signals have done so far. late: those after whose time the run had ended."""

    moments: int = 0
    late: int = 0
    lost: int = 0
    went_on: int = 0
    codes: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    resumes: list[str] = field(default_factory=list)
    total: Counts = NOTHING

    def lines(self, wanted: int) -> list[Line]:
        named = {
            "exit codes other than 130, 143, or 0 at the end": self.codes,
            "ends that said anything but how to go on": self.said,
            "resumes and deep checks that did not end well": self.resumes,
        }
        return [
            at_least("signals", self.moments, wanted),
            at_least("signals that found a run with committed shards", self.went_on, 1),
            Line("runs that had ended by then", str(self.late), "fewer", self.late < self.moments),
            *(Line(name, "; ".join(v[:2]) or "0", "0", not v) for name, v in named.items()),
            exactly("finished shards that were not committed", self.lost, 0),
            exactly("rows lost after the resume", self.total.lost, 0),
            exactly("rows duplicated", self.total.duplicated, 0),
            exactly("second live issues", self.total.second_issues, 0),
            exactly("stray files after the resume", self.total.stray_files, 0),
        ]


@dataclass(frozen=True)
class Moment:
    """When which signal is sent: a part of a stage's usual length after its begin."""

    stage: Stage
    part: float
    number: signal.Signals
    group: bool


@dataclass(frozen=True)
class Place:
    """Where runs work: on a cluster that is there already, or one that each makes for itself."""

    folder: Path
    where: Cluster | None = None

    def start(self, work: Job, log: Path) -> subprocess.Popen[bytes]:
        words = on_ray(work.arguments, self.where) if self.where else _own(work.arguments)
        prefix = self.where.nodes[0].prefix if self.where else []
        environment = self.where.environment() if self.where else clean_environment(self.folder)
        with log.open("wb") as out:
            return subprocess.Popen(
                [*prefix, str(Path(sys.executable).with_name("ironmask")), *words],
                stdout=out,
                stderr=out,
                cwd=self.folder,
                env=environment,
                start_new_session=True,
                # The background of a shell ignores SIGINT, and hands that on.
                preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
            )


def _own(arguments: Sequence[str]) -> list[str]:
    return [*(word for word in arguments if not word.startswith("--executor")), "--workers=2"]


def lengths(place: Place, work: Job, every: Sequence[Stage]) -> list[float]:
    """Seconds that each stage takes in a run that nobody disturbs."""
    process = place.start(work, place.folder / "undisturbed.log")
    begins = [_wait(stage, process, work.dest) for stage in every]
    if process.wait(_PATIENCE_S):
        raise RuntimeError((place.folder / "undisturbed.log").read_text()[-2000:])
    begins.append(time.monotonic())
    return [after - before for before, after in pairwise(begins)]


def _wait(stage: Stage, process: subprocess.Popen[bytes], dest: Path) -> float:
    deadline = time.monotonic() + _PATIENCE_S
    while process.poll() is None and time.monotonic() < deadline:
        if stage.begun(process.pid, dest):
            break
        time.sleep(0.005)
    return time.monotonic()


def drawn(every: Sequence[Stage], count: int, rng: random.Random) -> list[Moment]:
    """Moments in all stages in turn, of both signals, to the process and to its group."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    return [
        Moment(every[n % len(every)], rng.random(), numbers[rng.randrange(2)], rng.random() < 0.5)
        for n in range(count)
    ]


def strike(place: Place, work: Job, moment: Moment, usual: float, seen: Seen) -> None:
    """Signal one run, judge how it ended, and let the same command end it."""
    told = f"{moment.number.name} in {moment.stage.name}, group {moment.group}"
    log = place.folder / f"{work.dest.name}.log"
    process = place.start(work, log)
    _wait(moment.stage, process, work.dest)
    time.sleep(moment.part * usual)
    seen.moments += 1
    if process.poll() is None:
        (os.killpg if moment.group else os.kill)(process.pid, moment.number)
    code, said = process.wait(_PATIENCE_S), log.read_text(errors="replace")
    _judge(code, said, moment, told, seen)
    seen.lost += uncommitted(work.dest)
    seen.went_on += bool(committed(work.dest))
    _resume(place, work, told, seen)


def _judge(code: int, said: str, moment: Moment, told: str, seen: Seen) -> None:
    seen.late += code == 0
    if code not in (128 + moment.number, *([0] if moment.stage.name == "end" else [])):
        seen.codes.append(f"{told}: {code}, {said.strip()[-300:]}")
    unusual = [line for line in said.splitlines() if not line.startswith(_USUAL)]
    one_line = len(unusual) == 1 and unusual[0].startswith(_GOES_ON)
    if code and not one_line:
        seen.said.append(f"{told}: {' / '.join(unusual)[-300:]}")


def _resume(place: Place, work: Job, told: str, seen: Seen) -> None:
    log = place.folder / f"{work.dest.name}-again.log"
    code = place.start(work, log).wait(_PATIENCE_S)
    check = [str(Path(sys.executable).with_name("ironmask")), "check", str(work.dest), "--deep"]
    words = [*check, f"--keys={keys_of(work.dest)}"]
    sound = subprocess.run(words, check=False, capture_output=True)
    if code or sound.returncode:
        seen.resumes.append(f"{told}: {code} {sound.returncode}, {log.read_text()[-300:]}")
    seen.total += counts(work.dest, work.planned)
    shutil.rmtree(work.dest)


def at_moments(place: Place, work: Job, moments: int, rng: random.Random, seen: Seen) -> None:
    """Signal runs of one job, each into a destination of its own."""
    every = stages(-(-len(work.planned) // work.shard_size))
    usual = lengths(place, work.into(work.dest.with_name("undisturbed")), every)
    for number, moment in enumerate(drawn(every, moments, rng)):
        target = work.into(work.dest.with_name(f"signalled-{number}"))
        strike(place, target, moment, usual[every.index(moment.stage)], seen)


def run(seed: int, folder: Path) -> list[Line]:
    """The whole suite: most on a cluster that is there, some that make one for themselves."""
    rng, seen = random.Random(seed), Seen()
    with cluster(folder / "nodes", 1, cpus=2) as where:
        work = job(folder / "e.parquet", SUBJECTS, folder / "dest")
        at_moments(Place(folder, where), work, MOMENTS - _ALONE, rng, seen)
    own = folder / "own"
    own.mkdir()
    at_moments(Place(own), job(own / "e.parquet", SUBJECTS, own / "dest"), _ALONE, rng, seen)
    return seen.lines(MOMENTS)
