"""A run that is watched until it ends, on a terminal or line by line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import typer
from rich.live import Live

from pipelines.cli.options import EXIT_ERROR, EXIT_PARTIAL, console, say, tell
from pipelines.spec.outcomes import Outcome
from pipelines.table.run_records import RunState

if TYPE_CHECKING:
    from pipelines.operations.status import Status

Shown = Callable[["Status"], None]


def until_end(dest: str, every: float, as_json: bool) -> None:
    """Show a destination's newest run until it ends; end with an exit code that says how."""
    from pipelines.operations.watching import watched

    found = None
    with _shown(as_json) as show:
        for found in watched(dest, every):
            show(found)
    if found:
        _end(found)


@contextmanager
def _shown(as_json: bool) -> Iterator[Shown]:
    from pipelines.report.operations import status_line, status_table

    out = console()
    if as_json:
        yield _on_change(lambda found: typer.echo(json.dumps(asdict(found), default=str)))
    elif out.is_terminal and out.file.isatty():
        with Live(console=out, auto_refresh=False) as live:
            yield lambda found: live.update(status_table(found), refresh=True)
    else:
        yield _on_change(lambda found: tell(f"{_now()} {status_line(found)}"))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _on_change(show: Shown) -> Shown:
    """Shows what is new; the clock alone makes nothing new."""
    last: Status | None = None

    def changed(found: Status) -> None:
        nonlocal last
        still = replace(found, per_second=None, ends_at=None, oldest_seconds=0.0)
        if still != last:
            show(found)
        last = still

    return changed


def _end(found: Status) -> None:
    if found.state == RunState.RUNNING:
        say("nobody works on this run: the same command as then continues it")
        raise typer.Exit(EXIT_ERROR)
    if found.state == RunState.CLOSED:
        say("this run was given up; what it had committed stays")
        raise typer.Exit(EXIT_ERROR)
    served = found.outcomes.get(Outcome.USED, 0) + found.outcomes.get(Outcome.SKIPPED, 0)
    if found.failed or not served:
        raise typer.Exit(EXIT_PARTIAL)
