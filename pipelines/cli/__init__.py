"""The `ironmask` command. Heavy modules are imported inside the commands: help answers at once."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, Any, Final, NoReturn

import typer
from typer.main import get_command

from ironmask.errors import IronmaskError, NothingToDoError, ParameterError
from pipelines.cli import (
    audit,
    capacity,
    demo,
    enrol,
    erase,
    evaluate,
    invert,
    models,
    operate,
    repair,
    reprotect,
    settings,
    verify,
)
from pipelines.cli.options import (
    EXIT_ERROR,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    Group,
    guard_terminal,
    say,
)
from pipelines.run import stop

CONTINUED: Final = {
    "enroll", "reprotect", "rekey", "rotate-mac", "erase", "evaluate", "invert", "repair",
}  # fmt: skip
"""Commands that go on where they were broken off."""

app = typer.Typer(
    name="ironmask",
    cls=Group,
    help="IronMask-protected face templates at scale.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for _commands in (
    enrol, verify, capacity, operate, repair, reprotect, erase, evaluate, settings, audit, invert,
    demo, models,
):  # fmt: skip
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


def _read_names_as_utf8() -> None:
    """Start this process anew where its locale has arguments and names of files read otherwise."""
    if sys.getfilesystemencoding() != "utf-8":
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606


def main() -> NoReturn:
    """Entry point: errors made on purpose become one line and an exit code."""
    _read_names_as_utf8()
    guard_terminal()
    # Typer knows no option whose value may be left out.
    sys.argv = ["--retry-failed=all" if a == "--retry-failed" else a for a in sys.argv]
    try:
        code, said = _ended()
    except Exception:
        # Once a signal has come, what breaks is its doing.
        if not stop.asked():
            raise
        code, said = EXIT_ERROR, ""
    if code == EXIT_INTERRUPTED or (stop.asked() and code in (EXIT_ERROR, EXIT_USAGE)):
        code, said = 128 + (stop.asked() or signal.SIGINT), _interrupted()
    if said:
        say(said)
    sys.exit(code)


@lru_cache(maxsize=1)
def _command() -> Callable[[], Any]:
    """The command of all parts: it takes longer to build than most take to run."""
    built: Callable[[], Any] = get_command(app)
    return built


def _ended() -> tuple[int, str]:
    """Run the command; its exit code, and what is left to say."""
    try:
        _command()()
    except SystemExit as ended:
        return int(ended.code or 0), ""
    except NothingToDoError as nothing:
        return 0, str(nothing)
    except ParameterError as error:
        return EXIT_USAGE, f"error: {error}"
    except IronmaskError as error:
        return EXIT_ERROR, f"error: {error}"
    return 0, ""


def _interrupted() -> str:
    if "--watch" in sys.argv:
        # To look away changes nothing.
        return ""
    how = "continues the run" if CONTINUED & set(sys.argv[1:2]) else "starts again"
    return f"interrupted; the same command {how}"
