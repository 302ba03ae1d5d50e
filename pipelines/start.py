"""Where the `ironmask` command begins: signals are answered before anything large is loaded."""

from __future__ import annotations

from typing import NoReturn

from pipelines.run import stop


def main() -> NoReturn:
    """Run the command line, and end with its exit code."""
    stop.guarded(_command)


def _command() -> None:
    from pipelines import cli

    cli.main()
