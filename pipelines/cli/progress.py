"""A live line of progress on a terminal; nothing elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from pipelines.plan.plans import Plan
from pipelines.run.course import Progress as Shown
from pipelines.run.course import quiet
from pipelines.run.summary import Tally
from pipelines.spec.outcomes import Outcome


@contextmanager
def live(console: Console, wanted: bool) -> Iterator[Shown]:
    """Yield a progress callback that shows inputs, subjects, failures, rate and time left.

    What is committed, and stays whatever happens, has a line of its own.
    """
    if not (wanted and console.is_terminal and console.file.isatty()):
        yield quiet
        return
    display = Progress(
        MofNCompleteColumn(),
        TextColumn("{task.description}, left"),
        TimeRemainingColumn(compact=True),
        console=console,
    )
    with display:
        done = display.add_task("inputs", total=None)
        committed = display.add_task("committed", total=None)

        def update(plan: Plan, tally: Tally) -> None:
            speed = display.tasks[done].speed
            rate = f", {speed:,.1f}/s" if speed else ""
            failed = tally.of(Outcome.FAILED)
            said = f"inputs{rate}, {tally.enrolled:,} enrolled, {failed:,} failed"
            total = plan.inputs - tally.before
            display.update(done, total=total, completed=tally.inputs, description=said)
            display.update(committed, total=total, completed=tally.committed)

        yield update


@contextmanager
def counting(console: Console, what: str, wanted: bool) -> Iterator[Callable[[int, int], None]]:
    """Yield a callback that shows how many of all there are are done, and the time left."""
    if not (wanted and console.is_terminal and console.file.isatty()):
        yield lambda _done, _all: None
        return
    columns = (MofNCompleteColumn(), TextColumn(f"{what}, left"), TimeRemainingColumn(compact=True))
    with Progress(*columns, console=console) as display:
        bar = display.add_task("", total=None)
        yield lambda done, every: display.update(bar, total=every, completed=done)
