"""The command of security evaluators: audit."""

from __future__ import annotations

import json
from dataclasses import asdict
from enum import StrEnum
from typing import Annotated

import typer

from pipelines.cli.options import (
    EXIT_PARTIAL,
    Executor,
    Json,
    RayAddress,
    Workers,
    console,
    say,
    tell,
)


class Threat(StrEnum):
    """What the thief of a floor has."""

    FILES = "files"
    KEYS = "keys"


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(audit)


def audit(
    tables: Annotated[
        list[str],
        typer.Argument(metavar="DEST...", help="Tables; of each, every generation is audited."),
    ],
    calibration: Annotated[
        str,
        typer.Option(
            metavar="PARQUET",
            help="Embeddings of the model that enrolled (subject_id, embedding), as a thief would "
            "collect them. People whose rows are attacked are left out of what is measured on it.",
        ),
    ],
    out: Annotated[
        str,
        typer.Option(
            help="Folder or s3:// prefix for the report; an evaluation's, for one report of both."
        ),
    ],
    keys: Annotated[
        list[str] | None,
        typer.Option(help="Keyset file of each table, in their order. Default: as for `verify`."),
    ] = None,
    sample: Annotated[
        int, typer.Option(help="Rows of each generation that are attacked.", min=1)
    ] = 8,
    pairs: Annotated[
        int, typer.Option(help="Mated pairs for linkability, and as many others.", min=10)
    ] = 16,
    seconds: Annotated[
        float, typer.Option(help="Time for all searches together, about.", min=1)
    ] = 600,
    floor_bits: Annotated[
        float | None,
        typer.Option(
            help="Exit with 3 where the cheapest attack takes fewer bits, or where one that ran "
            "out of time might."
        ),
    ] = None,
    threat: Annotated[
        Threat, typer.Option(help="Of which thief: one with the files, or with the keys as well.")
    ] = Threat.FILES,
    executor: Executor = "ray",
    workers: Workers = None,
    ray_address: RayAddress = None,
    as_json: Json = False,
) -> None:
    """Attack a table as a thief would, and say what each attack takes.

    Who has the keys and embeddings of the same model attacks a sample of its rows: as they lie, and
    as whoever has stolen the keys as well. Exit codes: 0 done, 1 error, 2 usage, 3 below the
    floor, or not known to be above it.
    """
    from infra.telemetry import configure_logging
    from pipelines.auditing import job
    from pipelines.auditing import request as auditing_request
    from pipelines.auditing.request import AuditRequest
    from pipelines.auditing.results import FILES, KEYS
    from pipelines.cli.progress import counting
    from pipelines.evaluation.job import finished as evaluation_of
    from pipelines.report import audit_sheets, page
    from pipelines.setup import ports

    request = AuditRequest(
        tables=tuple(tables),
        source=calibration,
        out=out,
        keys=tuple(keys or ()),
        sample=sample,
        pairs=pairs,
        seconds=seconds,
        executor=executor,
        workers=workers,
        ray_address=ray_address,
    )
    prepared = auditing_request.prepare(request)
    configure_logging(prepared.settings.log_level, prepared.settings.log_format)
    with (
        counting(console(stderr=True), "attacks", wanted=not as_json) as progress,
        job.opened(request, prepared) as executor_of_units,
    ):
        found = job.run(prepared, executor_of_units, progress)
    store = ports.shared_store(prepared.storage.public())
    written = page.write_audit(
        found, prepared.out, evaluation_of(prepared.out, prepared.settings, prepared.storage), store
    )
    job.write_rates(prepared, found)
    if as_json:
        costs = [asdict(cost) for cost in found.costs]
        typer.echo(json.dumps({"headline": found.headline, "attacks": costs, "files": written}))
    else:
        from pipelines.report.terminal import print_sheets

        print_sheets(audit_sheets.audit_sheets(found)[:3], console())
        tell(found.headline)
    say(f"report: {written[0]}")
    why = floor_bits and found.below(floor_bits, FILES if threat is Threat.FILES else KEYS)
    if why:
        say(why)
        raise typer.Exit(EXIT_PARTIAL)
