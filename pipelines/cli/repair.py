"""The command that mends a table of which data files were lost: repair."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from pipelines.cli import running
from pipelines.cli.options import (
    OPERATE_PANEL,
    AllowRoots,
    Dest,
    DryRun,
    Embedders,
    Executor,
    GpuFraction,
    Json,
    Keys,
    MetricsPort,
    Model,
    Provider,
    RayAddress,
    Restart,
    VaultKeys,
    Workers,
    chosen,
    console,
    say,
)


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command(rich_help_panel=OPERATE_PANEL)(repair)


def repair(
    dest: Dest,
    source: Annotated[
        str,
        typer.Option(
            metavar="SRC", help="Inputs of the people whose templates were lost, as for enroll."
        ),
    ],
    model: Model = None,
    allow_roots: AllowRoots = None,
    provider: Provider = None,
    vault_keys: VaultKeys = None,
    restart: Restart = False,
    dry_run: DryRun = False,
    keys: Keys = None,
    executor: Executor = "ray",
    workers: Workers = None,
    embedders: Embedders = None,
    gpu_fraction: GpuFraction = 1.0,
    ray_address: RayAddress = None,
    metrics_port: MetricsPort = None,
    as_json: Json = False,
) -> None:
    """Enrol again the people whose rows lay in lost or damaged data files; nobody else is touched.

    Reads every data file. Lost files leave the table for good, in all versions; rows of them that
    are still what was written stay. Settings are those of the live templates. The same command
    continues what was broken off. Exit codes: 0 done, 1 error, 2 usage, 3 done, and some people are
    without a template still, some inputs failed, or embeddings of the vault are lost.
    """
    given = locals()
    from pipelines.api import repair as verb
    from pipelines.cli.progress import live
    from pipelines.repairing import request as repair_request
    from pipelines.report.operations import print_outlook, print_repaired
    from pipelines.run.course import Watch
    from pipelines.spec.options import assembled

    wanted = repair_request.RepairRequest
    request = assembled(wanted, chosen(given, wanted))
    prepared = running.watched(repair_request.prepare(request), metrics_port)
    running.begin(prepared)
    if dry_run:
        running.answer(verb.foresee(prepared), as_json, asdict, print_outlook)
        return
    say(f"settings: {prepared.job.describe()}")
    with live(console(stderr=True), wanted=not as_json) as progress:
        done = verb.carry_out(request, prepared, Watch(progress))
    running.answer(done, as_json, asdict, print_repaired)
    running.say_excluded(done.summary)
    running.end(done.shortfall)
