"""The command that lists settings: settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli import running
from pipelines.cli.options import EVALUATE_PANEL, Json, tell

if TYPE_CHECKING:
    from rich.console import Console

    from pipelines.evaluation.offers import Settings


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command(rich_help_panel=EVALUATE_PANEL)(settings)


def settings(
    profile: Annotated[
        str | None,
        typer.Argument(
            metavar="PROFILE",
            help="OUT of an evaluation of the same model. Default: what comes with the package, "
            "measured with w600k_mbf on LFW.",
        ),
    ] = None,
    calibration: Annotated[
        str | None,
        typer.Option(
            metavar="PARQUET",
            help="Instead: embeddings of the model with their subject_id; genuine and impostor "
            "comparisons are made of them.",
        ),
    ] = None,
    fmr: Annotated[
        float | None,
        typer.Option(
            help="Choose the setting that accepts most among those with at most this false match "
            "rate, by its 95 % bound."
        ),
    ] = None,
    photos: Annotated[
        int | None,
        typer.Option(
            help="Photos that are enrolled of a person, typically. Default: 1, or those of "
            "PROFILE. Rates that come with the package go to 5; those stand for more photos too.",
            min=1,
        ),
    ] = None,
    floor_bits: Annotated[float, typer.Option(help="The least bits against guessing.")] = 80,
    most_kib: Annotated[float, typer.Option(help="The most KiB a row.")] = 140,
    encoding: Annotated[str, typer.Option(help="How helpers are written.")] = "int8",
    rows: Annotated[int, typer.Option(help="The most settings to list.", min=1)] = 12,
    as_json: Json = False,
) -> None:
    """List settings with their bits, bytes, acceptance and false match rate; choose one by --fmr.

    Rates are expected ones: a setting's acceptance by angle, times the recogniser's own
    comparisons. `ironmask evaluate` measures them. Exit codes: 0 listed, 1 error, 2 usage, which
    holds what cannot be told or offered.
    """
    from pipelines.api import settings as api
    from pipelines.report import offers
    from pipelines.report.terminal import print_sheets

    found = api.settings(
        profile, calibration=calibration, fmr=fmr, photos=photos, floor_bits=floor_bits,
        most_kib=most_kib, encoding=encoding, rows=rows,
    )  # fmt: skip

    def shown(found: Settings, console: Console) -> None:
        print_sheets([offers.sheet(found)], console)
        if found.chosen:
            tell(offers.answer(found))

    running.answer(found, as_json, offers.plain, shown)
