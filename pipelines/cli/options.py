"""What the parts of the command line share: exit codes, common options, where words go."""

from __future__ import annotations

from typing import Annotated, Final

import typer
from rich.console import Console

EXIT_ERROR: Final = 1
EXIT_USAGE: Final = 2
EXIT_PARTIAL: Final = 3
EXIT_REJECTED: Final = 4
EXIT_INTERRUPTED: Final = 130

Dest = Annotated[str, typer.Argument(metavar="DEST", help="The table.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Keys = Annotated[
    str | None,
    typer.Option(help="Keyset file. Default: IRONMASK_KEYS, else the user's configuration folder."),
]
Model = Annotated[
    str | None, typer.Option(help="Model pack's name, or a folder that holds its ONNX files.")
]

Executor = Annotated[str, typer.Option(help="ray, or local (this process alone).")]
Workers = Annotated[int | None, typer.Option(help="CPU workers. Default: all cores.", min=1)]
RayAddress = Annotated[
    str | None, typer.Option(help="A running cluster. Default: one made for this run.")
]
AllowRoot = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FOLDER",
        help="Where inputs may lie, beside SRC's own folder. Several: once for each.",
    ),
]
Prefect = Annotated[
    bool | None,
    typer.Option(
        "--prefect/--no-prefect",
        help="Run as a Prefect flow. Default: where PREFECT_API_URL is set.",
    ),
]


def say(text: str) -> None:
    """A line for people, beside the output."""
    typer.echo(text, err=True)


def console(*, stderr: bool = False) -> Console:
    """Names come from files: nothing in them is markup."""
    return Console(stderr=stderr, markup=False, emoji=False)
