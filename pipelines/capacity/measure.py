"""Work that is measured where it is done: what a process has taken before it, and what it takes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any, Final

import numpy as np

from ironmask.errors import ImageError
from pipelines.capacity.figures import Cost
from pipelines.plan.plans import Plan
from pipelines.run.work import Engine, Standing, Work
from pipelines.setup import worker
from pipelines.setup.hosted import shard_work
from pipelines.setup.ports import shared_store
from pipelines.setup.worker import WorkerSpec
from pipelines.setup.workplace import ShardExecutor
from pipelines.shard.context import ShardResult
from pipelines.spec.template_job import TemplateJob
from pipelines.table import identities

PHOTOS_A_UNIT: Final = 16


@dataclass(frozen=True)
class Told:
    """One unit of work. before: CPU seconds of its process until then. at: when it came back."""

    result: Any = field(repr=False)
    process: int
    before: float
    cost: Cost
    at: float = 0.0


def told(function: Callable[..., Any], *common_and_unit: Any) -> Told:
    """A unit of work, and what it took."""
    before, begun = time.process_time(), time.monotonic()
    result = function(*common_and_unit)
    cost = Cost(time.process_time() - before, time.monotonic() - begun)
    return Told(result, os.getpid(), before, cost)


def measured(work: Work) -> Work:
    """The same work, whose units come back as `Told`."""
    return replace(work, function=told, common=(work.function, *work.common), hosted=None)


@dataclass
class Measuring:
    """An executor of a plan's shards that keeps what each took."""

    inner: ShardExecutor
    told: list[Told] = field(default_factory=list)

    @property
    def standing(self) -> Standing:
        return self.inner.standing

    def run(self, job: TemplateJob, plan: Plan, shards: Iterable[int]) -> Iterator[ShardResult]:
        """Yield what each shard gave, in any order."""
        work = measured(shard_work(self.inner.spec, job, plan))
        for one in self.inner.engine.run(work, shards):
            self.told.append(replace(one, result=None, at=time.monotonic()))
            yield one.result


@dataclass(frozen=True)
class Steady:
    """What work takes once it is under way. unit: the mean cost of a unit. first: CPU seconds of a
    process before its first unit, and what that took beyond the others. start: seconds by the clock
    until the first unit was begun, where they are known, and what that took beyond the others.
    """

    unit: Cost
    first: float
    start: float = 0.0

    def each(self, count: float) -> Cost:
        """The cost of one of `count` equal things in a unit."""
        return Cost(self.unit.cpu / count, self.unit.wall / count)


def steady(done: Sequence[Told], begun: float | None = None) -> Steady:
    """What units take, the first of each process apart unless there are no others. begun: when they
    were asked for, by `time.monotonic`.
    """
    firsts: dict[int, Told] = {}
    for one in done:
        known = firsts.setdefault(one.process, one)
        if one.before < known.before:
            firsts[one.process] = one
    later = [one for one in done if one is not firsts[one.process]] or list(done)
    unit = Cost(fmean(o.cost.cpu for o in later), fmean(o.cost.wall for o in later))
    begin = done[0].at - unit.wall - begun if begun is not None else 0.0
    # This process has done other things before.
    others = [one for one in firsts.values() if one.process != os.getpid()]
    starts = [one.before + max(0.0, one.cost.cpu - unit.cpu) for one in others]
    return Steady(unit, fmean(starts) if starts else 0.0, max(0.0, begin))


def embed_some(
    spec: WorkerSpec, job: TemplateJob, addresses: tuple[str, ...], each: int, unit: int
) -> int:
    """Read, decode, align and embed some photos as a shard would; what comes out is dropped.

    Returns how many had a face.
    """
    store = shared_store(spec.storage)
    chosen = [addresses[place % len(addresses)] for place in range(unit * each, (unit + 1) * each)]

    def contents() -> Iterator[tuple[int, bytes]]:
        found = store.read_many(chosen, job.faces.max_bytes, job.source)
        for number, content in enumerate(found):
            if not isinstance(content, OSError):
                identities.of_file(content)
                yield number, content

    faces = [face for _, face in worker.aligner(spec, job).align_many(contents())]
    crops = [face.crop for face in faces if not isinstance(face, ImageError)]
    if crops:
        worker.recogniser(spec, job).embed(np.stack(crops))
    return len(crops)


def photos(
    engine: Engine, spec: WorkerSpec, job: TemplateJob, addresses: tuple[str, ...], units: int
) -> list[Told]:
    """Measure photos of a source in so many units of `PHOTOS_A_UNIT`."""
    work = measured(Work(embed_some, (spec, job, addresses, PHOTOS_A_UNIT)))
    return [replace(one, at=time.monotonic()) for one in engine.run(work, range(units))]
