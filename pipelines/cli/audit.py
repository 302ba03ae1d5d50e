"""The command of security evaluators: audit."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.cli import running
from pipelines.cli.options import (
    EVALUATE_PANEL,
    Executor,
    Json,
    RayAddress,
    Workers,
    chosen,
    console,
    say,
    tell,
)

if TYPE_CHECKING:
    from rich.console import Console

    from pipelines.api.audit import Audit


class Threat(StrEnum):
    """What the thief of a floor has."""

    FILES = "files"
    KEYS = "keys"


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command(rich_help_panel=EVALUATE_PANEL)(audit)


def audit(
    tables: Annotated[
        list[str],
        typer.Argument(metavar="DEST...", help="Tables; of each, every generation is audited."),
    ],
    source: Annotated[
        str,
        typer.Option(
            "--calibration",
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
    given = locals()
    from pipelines.api import audit as verb
    from pipelines.auditing import request as auditing_request
    from pipelines.auditing.costs import FILES, KEYS
    from pipelines.cli.progress import counting
    from pipelines.report import audit_sheets
    from pipelines.report.terminal import print_sheets
    from pipelines.spec.options import assembled

    wanted = auditing_request.AuditRequest
    request = assembled(wanted, chosen(given, wanted))
    prepared = auditing_request.prepare(request)
    running.begin(prepared)
    with counting(console(stderr=True), "attacks", wanted=not as_json) as progress:
        done = verb.carry_out(request, prepared, progress)

    def shown(done: Audit, console: Console) -> None:
        print_sheets(audit_sheets.audit_sheets(done.results)[:3], console)
        tell(done.results.headline)

    running.answer(done, as_json, _plain, shown)
    say(f"report: {done.files[0]}")
    floor = FILES if threat is Threat.FILES else KEYS
    running.end((floor_bits and done.results.below(floor_bits, floor)) or "")


def _plain(done: Audit) -> dict[str, Any]:
    costs = [asdict(cost) for cost in done.results.costs]
    return {"headline": done.results.headline, "attacks": costs, "files": done.files}
