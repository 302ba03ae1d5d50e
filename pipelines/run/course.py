"""The steps of a job, each with its name, and who takes them one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pipelines.plan.census import Census
from pipelines.plan.plans import Plan
from pipelines.run.summary import Tally
from pipelines.run.work import Engine, Work

T = TypeVar("T")
Progress = Callable[[Plan, Tally], None]
Counting = Callable[[int, int], None]
"""Takes how many units are done, and how many there are."""


def quiet(_plan: Plan, _tally: Tally) -> None:
    """No progress display."""


def uncounted(_done: int, _all: int) -> None:
    """No display."""


def finish(
    engine: Engine, work: Work, every: Sequence[int], done: set[int], progress: Counting
) -> None:
    """Run those of all units that are not done yet. progress: units done and all."""
    progress(len(done), len(every))
    for count, _ in enumerate(engine.run(work, [u for u in every if u not in done]), 1):
        progress(len(done) + count, len(every))


@dataclass(frozen=True)
class Watch:
    """Who looks on. progress: called as inputs are done. told: what the source looks like, called
    once a new run has planned it.
    """

    progress: Progress = quiet
    told: Callable[[Census], None] = Census.log


@dataclass(frozen=True)
class Step(Generic[T]):
    """One step of a job. name: as people read it. take: does it, and keeps in the job what later
    steps need. again: it goes on where it broke off, so that it may be tried again.
    """

    name: str
    take: Callable[[T], object]
    again: bool = False


Take = Callable[[Step[Any], Any], None]
"""Takes one step of a job: in this process, or as a scheduler does it."""


def directly(step: Step[T], job: T) -> None:
    """Take a step here and now."""
    step.take(job)


def follow(steps: Iterable[Step[T]], job: T, take: Take = directly) -> T:
    """Take all steps of a job in their order, and return it."""
    for step in steps:
        take(step, job)
    return job
