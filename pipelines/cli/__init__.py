"""The `ironmask` command. Heavy modules are imported inside the commands: help answers at once."""

from __future__ import annotations

import sys
from typing import Annotated, NoReturn

import typer

from ironmask.errors import IronmaskError, NothingToDoError, ParameterError
from pipelines.cli import audit, demo, enrol, evaluate, models, operate, repair, reprotect
from pipelines.cli.options import (
    EXIT_ERROR,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    Group,
    guard_terminal,
    say,
)

app = typer.Typer(
    name="ironmask",
    cls=Group,
    help="IronMask-protected face templates at scale.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for _commands in (enrol, operate, repair, reprotect, evaluate, audit, demo, models):
    _commands.register(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"ironmask {version('ironmask')}")
        raise typer.Exit


@app.callback()
def _main(
    _version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Print the version and stop.",
        ),
    ] = False,
) -> None:
    pass


def main() -> NoReturn:
    """Entry point: errors made on purpose become one line and an exit code."""
    guard_terminal()
    # Typer knows no option whose value may be left out.
    sys.argv = ["--retry-failed=all" if a == "--retry-failed" else a for a in sys.argv]
    try:
        app()
    except SystemExit as stopped:
        if stopped.code == EXIT_INTERRUPTED:
            say("interrupted; the same command continues the run")
        raise
    except NothingToDoError as error:
        say(str(error))
    except ParameterError as error:
        say(f"error: {error}")
        sys.exit(EXIT_USAGE)
    except IronmaskError as error:
        say(f"error: {error}")
        sys.exit(EXIT_ERROR)
    sys.exit(0)
