"""A rehearsal: random vectors are enrolled as a job would enrol people, and thrown away.

Nobody's template is made for it: a second issue of a person, under keys of its own, would be one
more thing to lose.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from infra.machine import machine
from ironmask.random import secure_generator
from ironmask.template import row_bytes
from pipelines.capacity.estimate import Load
from pipelines.capacity.figures import Bytes, Cost, Figures, settings_of
from pipelines.capacity.measure import Measuring, Steady, Told, steady
from pipelines.run.course import Step
from pipelines.run.events import HERE
from pipelines.spec.template_job import TemplateJob
from pipelines.table.schemas import TABLES

# Units of each worker: the first one warms it up.
ROUNDS: Final = 3
_MOST_BYTES: Final = 1 << 30
_LEAST_INPUTS: Final = 16
_MOST_EACH: Final = 8
_NOISE: Final = 0.36
_WAVE_SHARDS: Final = 16


@dataclass(frozen=True)
class Script:
    """What is rehearsed. shard_size: inputs in a shard. each: inputs of a subject."""

    shards: int
    shard_size: int
    each: int

    @classmethod
    def of(cls, job: TemplateJob, load: Load, workers: int) -> Script:
        """Shards like those of a job, some for each worker, as far as a gigabyte goes."""
        each = min(_MOST_EACH, max(1, round(load.todo / max(load.subjects, 1))))
        shards = ROUNDS * workers
        room = _MOST_BYTES // (shards * row_bytes(job.params, job.encoding)) * each
        size = max(_LEAST_INPUTS, min(job.shard_size, room, max(load.todo, 1)))
        return cls(shards, size - size % each or each, each)

    @property
    def subjects(self) -> int:
        return self.shards * (self.shard_size // self.each)

    def write(self, path: Path, n: int) -> None:
        """Embeddings of people who do not exist, (subjects * each, n)."""
        rng = secure_generator()
        schema = pa.schema([("subject_id", pa.string()), ("embedding", pa.list_(pa.float32(), n))])
        with pq.ParquetWriter(path, schema) as writer:
            for shard in range(self.shards):
                people = rng.standard_normal((self.shard_size // self.each, n))
                vectors = np.repeat(people, self.each, axis=0)
                vectors += _NOISE * rng.standard_normal(vectors.shape)
                flat = pa.array(vectors.astype(np.float32).reshape(-1))
                names = [f"{shard}-{row // self.each}" for row in range(len(vectors))]
                column = pa.FixedSizeListArray.from_arrays(flat, n)
                writer.write_table(pa.table([names, column], schema=schema))


@dataclass
class Clock:
    """When the steps of a run began and ended, and what this process took for them."""

    begun: float = field(default_factory=time.monotonic)
    steps: dict[str, tuple[float, float, float]] = field(default_factory=dict)

    def take(self, step: Step[Any], job: Any) -> None:
        """Take a step; keep its begin, its end and the CPU seconds of this process."""
        begun, cpu = time.monotonic(), time.process_time()
        step.take(job)
        self.steps[step.name] = begun, time.monotonic(), time.process_time() - cpu

    def seconds(self, name: str) -> float:
        """By the clock, of a step."""
        begun, ended, _ = self.steps[name]
        return ended - begun


@dataclass(frozen=True)
class Rehearsed:
    """What a rehearsal told. ended: when all was done. stored: bytes of templates, and of all else.
    commits: waves, and seconds that they took.
    """

    script: Script
    clock: Clock
    told: list[Told]
    ended: float
    stored: tuple[int, int]
    commits: tuple[int, float]

    @property
    def units(self) -> Steady:
        return steady(self.told)

    @property
    def start(self) -> float:
        """Seconds until the first shard was begun, without planning."""
        first = self.told[0].at - self.told[0].cost.wall
        return max(0.0, first - self.clock.begun - self.clock.seconds("plan"))

    @property
    def end(self) -> float:
        """Seconds after the last shard."""
        return self.ended - self.told[-1].at

    @property
    def shard(self) -> Cost:
        """What the driving process takes for a shard, and its part of a wave."""
        waves, commits = self.commits
        _, _, cpu = self.clock.steps["run and commit"]
        own = cpu
        if self.told[0].process == os.getpid():
            own -= sum(one.cost.cpu for one in self.told)
        each = max(0.0, own - commits) / self.script.shards
        wave = commits / max(waves, 1) / _WAVE_SHARDS
        return Cost(each + wave, each + wave)


Enrol = Callable[[Clock, Callable[[Any], Any]], None]
"""Enrols; its steps are taken by a clock, and its executor is passed through a function."""


def rehearse(script: Script, dest: Path, enrol: Enrol) -> Rehearsed:
    """Carry a rehearsal out. enrol: into `dest`, what the script has written."""
    before = HERE.figures()
    clock, kept = Clock(), []

    def measuring(executor: Any) -> Measuring:
        kept.append(Measuring(executor))
        return kept[-1]

    enrol(clock, measuring)
    ended = time.monotonic()
    after = HERE.figures()
    commits = after.commits - before.commits, after.commit_seconds - before.commit_seconds
    return Rehearsed(script, clock, kept[0].told, ended, _stored(dest), commits)


def _stored(dest: Path) -> tuple[int, int]:
    """Bytes of data files of templates and the vault, and of all else."""
    large = rest = 0
    for path in dest.rglob("*"):
        if path.is_file():
            size = path.stat().st_size
            part = path.relative_to(dest).parts
            if part[0] in ("templates", "vault") and part[0] in TABLES and "_delta_log" not in part:
                large += size
            else:
                rest += size
    return large, rest


def figures(job: TemplateJob, done: Rehearsed, photographed: Steady | None, each: int) -> Figures:
    """The figures of a rehearsal. photographed: units of `each` photos; None where none was one."""
    script, units = done.script, done.units
    large, rest = done.stored
    photo = photographed.each(each) if photographed else None
    return Figures(
        machine=machine(),
        settings=settings_of(job),
        template=units.each(script.subjects / script.shards),
        shard=done.shard,
        start=max(done.start, photographed.start if photographed else 0.0),
        worker=max(units.first, photographed.first if photographed else 0.0),
        end=done.end,
        stored=Bytes(large / script.subjects, rest / (script.shards * script.shard_size)),
        photo=photo,
    )
