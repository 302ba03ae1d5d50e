"""The command that mends a table of which data files were lost: repair."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from pipelines.cli.options import (
    EXIT_PARTIAL,
    AllowRoot,
    Dest,
    Embedders,
    Executor,
    Json,
    Keys,
    Model,
    Provider,
    RayAddress,
    VaultKeys,
    Workers,
    console,
    say,
)


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(repair)


def repair(
    dest: Dest,
    source: Annotated[
        str,
        typer.Option(
            metavar="SRC", help="Inputs of the people whose templates were lost, as for enroll."
        ),
    ],
    model: Model = None,
    allow_root: AllowRoot = None,
    provider: Provider = None,
    vault_keys: VaultKeys = None,
    restart: Annotated[
        bool,
        typer.Option(
            "--restart", help="Close an unfinished repair as it stands, and plan the rest afresh."
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say what is lost and whom SRC has; write nothing."),
    ] = False,
    keys: Keys = None,
    executor: Executor = "ray",
    workers: Workers = None,
    embedders: Embedders = None,
    ray_address: RayAddress = None,
    as_json: Json = False,
) -> None:
    """Enrol again the people whose rows lay in lost or damaged data files; nobody else is touched.

    Reads every data file. Lost files leave the table for good, in all versions; rows of them that
    are still what was written stay. Settings are those of the live templates. The same command
    continues what was broken off. Exit codes: 0 done, 1 error, 2 usage, 3 done, and some people are
    without a template still, some inputs failed, or embeddings of the vault are lost.
    """
    from infra.telemetry import configure_logging
    from pipelines.cli.progress import live
    from pipelines.repair import job
    from pipelines.repair import request as repair_request
    from pipelines.report.operations import print_outlook, print_repaired

    request = repair_request.RepairRequest(
        dest=dest,
        source=source,
        model=model,
        provider=provider,
        keys=keys,
        vault_keys=vault_keys,
        executor=executor,
        workers=workers,
        embedders=embedders,
        ray_address=ray_address,
        restart=restart,
        allow_roots=tuple(allow_root or ()),
    )
    prepared = repair_request.prepare(request)
    configure_logging(prepared.settings.log_level, prepared.settings.log_format)
    if dry_run:
        outlook = job.foresee(prepared.job, prepared.tables, prepared.store, prepared.keys)
        if as_json:
            typer.echo(json.dumps(asdict(outlook)))
        else:
            print_outlook(outlook, console())
        return
    say(f"settings: {prepared.job.describe()}")
    with (
        live(console(stderr=True), wanted=not as_json) as progress,
        repair_request.opened(request, prepared) as held,
    ):
        done = job.repair(held, progress)
    if as_json:
        typer.echo(json.dumps(asdict(done)))
    else:
        print_repaired(done, console())
    failed = done.summary.failed if done.summary else 0
    if done.without or failed or done.embeddings:
        say(
            f"{done.without:,} people are without a template still, {failed:,} inputs failed, "
            f"{done.embeddings:,} embeddings are gone from the vault; "
            f"see `ironmask failures {done.dest}`"
        )
        raise typer.Exit(EXIT_PARTIAL)
