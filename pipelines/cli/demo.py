"""The command of newcomers: demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.options import ENROL_PANEL, EXIT_ERROR, console


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command(rich_help_panel=ENROL_PANEL)(demo)


def demo(
    out: Annotated[
        Path, typer.Option(help="Folder for the model, the photos, the table and its keys.")
    ] = Path("demo-out"),
) -> None:
    """Enrol five people's photos from a public package, and verify their other photos.

    Exit codes: 0 where every impostor is rejected and everybody is recognised, 1 otherwise.
    """
    from pipelines.cli import demonstration
    from pipelines.cli.print_demo import print_demo
    from pipelines.cli.progress import live

    with live(console(stderr=True), wanted=True) as progress:
        done = demonstration.run(out, progress)
    print_demo(done, console())
    if not done.convincing:
        raise typer.Exit(EXIT_ERROR)
