"""A live line of progress on a terminal; nothing elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from pipelines import enrol
from pipelines.enrol import Tally
from pipelines.plan import Plan
from pipelines.records import Outcome


@contextmanager
def live(console: Console, wanted: bool) -> Iterator[enrol.Progress]:
    """Yield a progress callback that shows inputs, subjects, failures, rate and time left."""
    if not wanted or not console.is_terminal:
        yield enrol.quiet
        return
    display = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(compact=True),
        console=console,
    )
    with display:
        bar = display.add_task("inputs", total=None, note="")

        def update(plan: Plan, tally: Tally) -> None:
            speed = display.tasks[0].speed
            rate = f", {speed:,.1f}/s" if speed else ""
            failed = tally.of(Outcome.FAILED)
            note = f"{tally.enrolled:,} subjects enrolled, {failed:,} inputs failed{rate}"
            display.update(bar, total=plan.inputs, completed=tally.inputs, note=note)

        yield update
