"""The commands of operators: inspect, status, failures, check and vacuum."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer

from ironmask.errors import ParameterError
from pipelines.cli import running
from pipelines.cli.options import EXIT_ERROR, OPERATE_PANEL, Dest, Json, Keys, say, tell


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (inspect, status, failures, check, vacuum):
        app.command(rich_help_panel=OPERATE_PANEL)(command)


def inspect(dest: Dest, as_json: Json = False) -> None:
    """Show what a table holds: parameters, generations, counts, sizes, failures by reason."""
    from pipelines.operations import inventory
    from pipelines.report.terminal import print_inventory

    found = inventory.inspect(dest)
    running.answer(found, as_json, asdict, print_inventory)


def status(
    dest: Dest,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch",
            help="Until the run has ended: a terminal is drawn anew, elsewhere each change is "
            "a line (with --json an object).",
        ),
    ] = False,
    every: Annotated[
        float, typer.Option(help="With --watch: seconds between two looks.", min=0.1)
    ] = 5.0,
    as_json: Json = False,
) -> None:
    """Say how far the newest run is: done, in flight, failed, left, and when it will end.

    Exit codes: 0 said, 1 error, 2 usage. With --watch they are the run's: 0 complete, 3 complete
    with failed inputs or nobody enrolled, 1 given up, or nobody has worked on it for twelve looks.
    """
    from pipelines.cli import following
    from pipelines.operations import job
    from pipelines.report.operations import print_status

    if watch:
        following.until_end(dest, every, as_json)
        return
    found = job.status(dest)
    running.answer(found, as_json, asdict, print_status)


def failures(
    dest: Dest,
    reason: Annotated[
        str | None,
        typer.Option(metavar="REASON[,...]", help="Only those that failed for one of these."),
    ] = None,
    run: Annotated[
        str | None, typer.Option(metavar="ID", help="Only those that failed last in this run.")
    ] = None,
    keys: Annotated[
        str | None,
        typer.Option(
            help="Keyset file, for the details. Default: IRONMASK_KEYS, else the user's "
            "configuration folder; without one, reasons and stored addresses alone."
        ),
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, for a spreadsheet.")] = False,
    as_json: Json = False,
) -> None:
    """List the inputs that failed, and why: those whose newest outcome is a failure.

    On a terminal a long list pages. In CSV a cell that a spreadsheet would compute (it begins with
    =, +, - or @) has an apostrophe before it. Exit codes: 0 listed, 1 error, 2 usage.
    """
    from pipelines.operations import failures as operations_failures
    from pipelines.report import failures as report_failures

    if as_csv and as_json:
        raise ParameterError("--csv and --json are two ways to print one list: choose one")
    reasons = tuple(reason.split(",")) if reason else ()
    found = operations_failures.failures(dest, keys, reasons=reasons, run_id=run)
    shapes = {(True, False): report_failures.as_csv, (False, True): report_failures.as_json}
    lines = shapes.get((as_csv, as_json), report_failures.as_text)(found)
    report_failures.page(lines, sys.stdout)
    if as_csv and found.note:
        say(f"{found.seal}: {found.note}")


def check(
    dest: Dest,
    deep: Annotated[
        bool, typer.Option("--deep", help="Open every helper with the table's keys as well.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(help="Files read at a time. Default: one a core.", min=1)
    ] = None,
    keys: Keys = None,
    as_json: Json = False,
) -> None:
    """Check that a table is what was written: its seal, logs, files, digests, counts and owners.

    Reads every file. Exit codes: 0 sound, 1 something is wrong or cannot be checked.
    """
    from pipelines.operations import job
    from pipelines.report.operations import print_report

    report = job.check(dest, keys, deep=deep, workers=workers)
    running.answer(
        report, as_json, lambda seen: {**asdict(seen), "sound": seen.sound}, print_report
    )
    if not report.sound:
        say(f"error: {report.dest} is not what was written: {len(report.findings):,} findings")
        raise typer.Exit(EXIT_ERROR)


def vacuum(dest: Dest, keys: Keys = None, as_json: Json = False) -> None:
    """Destroy what killed tasks left behind: data files that no log lists, in all their versions.

    Destroys nothing where a log is not what the seal vouches for. Each run does so at its start and
    its end; schedule it where a cluster's lost nodes may still write after a run has ended.
    """
    from pipelines.operations import vacuum as operations_vacuum

    done = operations_vacuum.vacuum(dest, keys)
    if as_json:
        typer.echo(json.dumps(asdict(done)))
    else:
        tell(f"destroyed {done.files:,} files and {done.uploads:,} unfinished uploads")
