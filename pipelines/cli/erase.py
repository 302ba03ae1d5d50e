"""Commands that destroy what a table holds of people, and that prove it gone: erase and prove."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ironmask.errors import ParameterError
from pipelines.cli import running
from pipelines.cli.options import (
    EXIT_ERROR,
    RENEW_PANEL,
    Dest,
    DryRun,
    Json,
    Keys,
    say,
    tell,
)

if TYPE_CHECKING:
    from pipelines.table.erasing import Erased

_SHOWN: Final = 20


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command(rich_help_panel=RENEW_PANEL)(erase)
    app.command(rich_help_panel=RENEW_PANEL)(prove)


def erase(
    dest: Dest,
    subject: Annotated[
        list[str] | None,
        typer.Option(help="Id of a person to be forgotten. Several: once for each."),
    ] = None,
    subjects: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Ids of people to be forgotten, one a line, in UTF-8; blank lines are left out.",
        ),
    ] = None,
    keys: Keys = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do not ask. Needed where no terminal can be asked.")
    ] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Destroy everything that a table holds of some people, in every file and version.

    Only the outcomes of a person's inputs stay, under a pseudonym. Photos and embeddings outside
    the table are not touched: delete them as well, or the next enrolment takes them again. The same
    command finishes what was broken off. Exit codes: 0 done, 1 error, nothing was there of one of
    them, or the answer was no, 2 usage.
    """
    from pipelines.operations import job as operations_job

    if bool(subject) == (subjects is not None):
        raise ParameterError("name people either by --subject or in a file with --subjects")
    asks = not (yes or dry_run)
    # Where it is closed there is none.
    if asks and not (sys.stdin and sys.stdin.isatty()):
        raise ParameterError(
            "nobody can be asked here whether to erase for good: add --yes, or see with --dry-run "
            "what would go"
        )
    people = subject or operations_job.subjects_in(subjects or "")
    if asks:
        _ask(operations_job.erase(dest, people, keys, dry_run=True))
    done = operations_job.erase(dest, people, keys, dry_run=dry_run)
    if as_json:
        typer.echo(json.dumps([{"subject": who, **asdict(one)} for who, one in done.items()]))
    elif dry_run:
        for line in _forecast(done):
            tell(line)
    else:
        for one in done.values():
            tell(
                f"erased {one.templates} templates and {one.embeddings} embeddings; "
                f"{one.outcomes} outcomes are kept as {one.pseudonym}"
            )


def _ask(found: dict[str, Erased]) -> None:
    """Go on only where a person says yes to what would go."""
    lines = _forecast(found)
    for line in lines[:_SHOWN]:
        say(line)
    if len(lines) > _SHOWN:
        say(f"and {len(lines) - _SHOWN:,} people more")
    # Nothing of the question is output.
    typer.echo("erase them for good? [y/N] ", nl=False, err=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        say("nothing was erased")
        raise typer.Exit(EXIT_ERROR)


def _forecast(found: dict[str, Erased]) -> list[str]:
    return [
        f"would erase {who}: {one.templates} templates, {one.embeddings} embeddings, and what "
        f"{one.outcomes} outcomes tell"
        for who, one in found.items()
    ]


def prove(
    dest: Dest,
    generation: Annotated[
        int | None, typer.Option(help="Number of a generation that was destroyed.")
    ] = None,
    subject: Annotated[str | None, typer.Option(help="Id of a person who was erased.")] = None,
    keys: Keys = None,
    as_json: Json = False,
) -> None:
    """Look for what a destroyed generation, or an erased person, must not have left.

    Exit codes: 0 nothing speaks against it, 1 something does.
    """
    from pipelines.api import operations
    from pipelines.report.operations import print_evidence

    if (generation is None) == (subject is None):
        raise ParameterError("name either a --generation or a --subject")
    found = operations.prove(dest, keys=keys, generation=generation, subject=subject)
    running.answer(
        found, as_json, lambda seen: {**asdict(seen), "holds": seen.holds}, print_evidence
    )
    if not found.holds:
        say(f"error: {found.what} of {found.dest} is not proven to be gone")
        raise typer.Exit(EXIT_ERROR)
