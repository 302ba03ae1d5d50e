"""SIGKILL of workers, embedding actors and raylets under running jobs, on one cluster."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from faults.drivers import Job, job
from faults.lines import Line, at_least, at_most, exactly
from faults.several_nodes import on_ray
from support.accounting import NOTHING, Counts, counts
from support.nodes import Cluster, cluster
from support.shared import faces_and_model
from support.table import keys_of

NODES = 3
# Shards in flight, two a worker, of a file each: what one kill can cost at most.
FILES_AT_STAKE = 2 * NODES
_PATIENCE_S = 300.0
_RESUMES = 3
_MANY_ERRORS = 3

Strike = Callable[[Cluster, random.Random], bool]


@dataclass(frozen=True)
class Work:
    """A job on the cluster: its arguments, its destination and how many inputs it has."""

    arguments: list[str]
    dest: Path
    inputs: int


@dataclass
class Seen:
    """What the kills of one kind have done so far. rework: files of lost attempts, destroyed."""

    kills: int = 0
    jobs: int = 0
    resumed: int = 0
    rework: int = 0
    total: Counts = NOTHING
    errors: list[str] = field(default_factory=list)

    def lines(self, what: str, kills: int) -> list[Line]:
        ends = "; ".join(self.errors[:_MANY_ERRORS]) or "all ended well"
        most = FILES_AT_STAKE * self.kills
        return [
            at_least(f"{what}: kills", self.kills, kills),
            Line(f"{what}: ends of {self.jobs} jobs", ends, "all ended well", not self.errors),
            at_most(f"{what}: resumes by the same command", self.resumed, self.kills),
            exactly(f"{what}: rows lost", self.total.lost, 0),
            exactly(f"{what}: rows duplicated", self.total.duplicated, 0),
            exactly(f"{what}: second live issues", self.total.second_issues, 0),
            exactly(f"{what}: files that no commit lists", self.total.stray_files, 0),
            at_most(f"{what}: files written in vain and destroyed", self.rework, most),
        ]


def kill_worker(where: Cluster, rng: random.Random) -> bool:
    """Kill a process that runs a task of ours."""
    return _kill_one(where.workers(), rng)


def kill_embedder(where: Cluster, rng: random.Random) -> bool:
    """Kill the process of an embedding actor."""
    return _kill_one(where.embedders(), rng)


def kill_raylet(where: Cluster, rng: random.Random) -> bool:
    """Kill the raylet of a node that is not the head while that node works; start it again."""
    place = rng.randrange(1, len(where.nodes))
    if not where.busy(place):
        return False
    os.kill(where.raylet(place), signal.SIGKILL)
    time.sleep(rng.uniform(0, 2))
    where.nodes[place].kill()
    where.start_node(place)
    return True


def _kill_one(pids: list[int], rng: random.Random) -> bool:
    if not pids:
        return False
    try:
        os.kill(rng.choice(pids), signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def kills(
    where: Cluster,
    make: Callable[[int], Work],
    strike: Strike,
    wanted: int,
    pause: float,
    rng: random.Random,
) -> Seen:
    """Run jobs, each struck again and again at random moments, until there were enough kills.

    pause: seconds between two strikes at most.
    """
    seen = Seen()
    while seen.kills < wanted and len(seen.errors) < _MANY_ERRORS:
        work = make(seen.jobs)
        seen.jobs += 1
        code, said = _struck(where, work, seen, strike, wanted, pause, rng)
        for _ in range(_RESUMES):
            if code == 0:
                break
            seen.resumed += 1
            answer = where.run([*on_ray(work.arguments, where), "--json"])
            code, said = answer.code, answer.out + answer.err
        seen.total += counts(work.dest, work.inputs)
        if code:
            last = said.strip().splitlines()[-1:] or ["nothing was said"]
            seen.errors.append(f"job {seen.jobs}: exit code {code}, {last[0]}")
        shutil.rmtree(work.dest, ignore_errors=True)
    return seen


def _struck(
    where: Cluster,
    work: Work,
    seen: Seen,
    strike: Strike,
    wanted: int,
    pause: float,
    rng: random.Random,
) -> tuple[int, str]:
    """Run one job and strike while it runs; its exit code and what it said."""
    process = where.start([*on_ray(work.arguments, where), "--json"])
    deadline, next_strike = time.monotonic() + _PATIENCE_S, 0.0
    while process.poll() is None and time.monotonic() < deadline:
        if seen.kills < wanted and time.monotonic() >= next_strike and strike(where, rng):
            seen.kills += 1
            next_strike = time.monotonic() + rng.uniform(0, pause)
        time.sleep(rng.uniform(0, 0.02))
    return _ended(process, seen)


def _ended(process: subprocess.Popen[str], seen: Seen) -> tuple[int, str]:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    out, err = process.communicate()
    if process.returncode == 0:
        seen.rework += json.loads(out)["orphans_destroyed"]
    return process.returncode, out + err


def stored(folder: Path, subjects: int) -> Callable[[int], Work]:
    """Jobs over one file of stored embeddings, each into a destination of its own."""
    base: Job = job(folder / "embeddings.parquet", subjects, folder / "embeddings")

    def make(number: int) -> Work:
        one = base.into(folder / f"embeddings-{number}-{time.monotonic_ns()}")
        return Work(one.arguments, one.dest, len(one.planned))

    return make


def photographs(folder: Path, people: int) -> Callable[[int], Work]:
    """Jobs over the photographs of some people, two each. Raises `FileNotFoundError`."""
    faces, model = faces_and_model()
    source = folder / "people"
    for person in sorted(faces.iterdir())[:people]:
        (source / person.name).mkdir(parents=True)
        for photo in sorted(person.iterdir())[:2]:
            shutil.copy(photo, source / person.name)

    def make(number: int) -> Work:
        dest = folder / f"photographs-{number}-{time.monotonic_ns()}"
        words = ["enroll", str(source), str(dest), f"--model={model}", f"--keys={keys_of(dest)}"]
        more = ["--shard-size=2", "--max-failures=1000", f"--embedders={NODES}"]
        return Work([*words, *more], dest, 2 * people)

    return make


def run(seed: int, folder: Path) -> list[Line]:
    """The whole suite: 40 workers, 20 embedding actors, 10 raylets."""
    rng = random.Random(seed)
    with cluster(folder / "nodes", NODES) as where:
        embeddings, images = stored(folder, 600), photographs(folder, 60)
        workers = kills(where, embeddings, kill_worker, 40, 2.0, rng)
        actors = kills(where, images, kill_embedder, 20, 8.0, rng)
        raylets = kills(where, stored_again(folder), kill_raylet, 10, 4.0, rng)
    return [
        *workers.lines("workers", 40),
        *actors.lines("embedding actors", 20),
        *raylets.lines("raylets", 10),
    ]


def stored_again(folder: Path) -> Callable[[int], Work]:
    """Longer jobs, in which a node has the time to come back."""
    (folder / "long").mkdir()
    return stored(folder / "long", 1500)
