"""The commands of template inversion: invert fit and invert evaluate."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.cli import running
from pipelines.cli.options import (
    EVALUATE_PANEL,
    Executor,
    Group,
    Json,
    Keys,
    RayAddress,
    Workers,
    chosen,
    console,
    say,
    tell,
)

if TYPE_CHECKING:
    from rich.console import Console

    from pipelines.api.inversion import Fitting, InversionEvaluation

Faces = Annotated[
    str,
    typer.Argument(
        metavar="FACES",
        help="Folder or zip file of person/photo. Pictures of 112 x 112 pixels are taken as "
        "aligned faces, others go through the detector.",
    ),
]
Out = Annotated[str, typer.Argument(metavar="OUT", help="Folder or s3:// prefix for the results.")]
Seed = Annotated[int, typer.Option(help="Of the split by people, and of a training.", min=0)]
Exclude = Annotated[
    str | None,
    typer.Option(help="File that names photos or people to leave out, one a line."),
]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    group = typer.Typer(
        cls=Group,
        help="Template inversion: the face behind an embedding, and what protection does to that.",
        no_args_is_help=True,
    )
    group.command("fit")(fit)
    group.command("evaluate")(evaluate)
    app.add_typer(group, name="invert", rich_help_panel=EVALUATE_PANEL)


def fit(
    faces: Faces,
    out: Out,
    inverter: Annotated[
        str,
        typer.Option(
            help="linear (NumPy alone), nbnet, hybrid (linear and a network on top), or ascent "
            "(linear, then gradient steps through the recogniser). All but linear need PyTorch: "
            "the extra `attacks`."
        ),
    ] = "linear",
    model: Annotated[
        str | None,
        typer.Option(
            help="Pack or folder of the recogniser whose templates are inverted. Default: "
            "IRONMASK_MODEL."
        ),
    ] = None,
    most: Annotated[
        int, typer.Option("--photos", help="Photos to learn from, at most.", min=1)
    ] = 10_000,
    images: Annotated[
        int,
        typer.Option(
            help="Budget of a training in images, each counted as often as it is seen.", min=1
        ),
    ] = 300_000,
    cpu_seconds: Annotated[
        float, typer.Option(help="Budget of a training in CPU-seconds.", min=1)
    ] = 600.0,
    device: Annotated[str, typer.Option(help="Where PyTorch trains: cpu or cuda.")] = "cpu",
    seed: Seed = 0,
    exclude: Exclude = None,
    executor: Executor = "ray",
    workers: Workers = None,
    ray_address: RayAddress = None,
    as_json: Json = False,
) -> None:
    """Let an inverter learn what embeddings of a model look like.

    It learns from four fifths of the people in FACES, or fewer; the others are left for `invert
    evaluate`. The same command continues a fit that was broken off. OUT gets the inverter, and a
    table of the photos that could not be used. No face is written.
    """
    given = locals()
    from pipelines.api import inversion
    from pipelines.cli.progress import counting
    from pipelines.inversion import request as inversion_request
    from pipelines.spec.options import assembled

    wanted = inversion_request.InvertFitRequest
    request = assembled(wanted, chosen(given, wanted))
    checked = inversion_request.prepare_fit(request)
    running.begin(checked)
    with counting(console(stderr=True), "batches of photos", wanted=not as_json) as progress:
        done = inversion.fit_out(request, checked, progress)
    running.answer(done, as_json, _fitted, lambda done, _: tell(done.result.headline))
    say(f"inverter: {done.files[0]}")


def evaluate(
    faces: Faces,
    out: Out,
    inverters: Annotated[
        list[str],
        typer.Option(
            "--inverter", metavar="FITTED", help="OUT of an `invert fit`. Several: once for each."
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(help="Pack or folder of the attacked recogniser. Default: that of the fit."),
    ] = None,
    other_model: Annotated[
        str | None,
        typer.Option(help="Pack or folder of a second recogniser that is shown the faces as well."),
    ] = None,
    table: Annotated[
        str | None,
        typer.Option(
            metavar="DEST",
            help="Invert the rows of this table, whose subjects are called as the people of FACES. "
            "Default: rows that are made for the evaluation, with the default preset.",
        ),
    ] = None,
    keys: Keys = None,
    people: Annotated[int, typer.Option(help="People to test, at most.", min=10)] = 200,
    each: Annotated[
        int, typer.Option("--photos", help="Photos of a centred template, at most.", min=1)
    ] = 5,
    seed: Seed = 0,
    exclude: Exclude = None,
    contact_sheet: Annotated[
        bool,
        typer.Option(
            "--contact-sheet",
            help="Write a picture of some faces and their reconstructions, in a folder of its own "
            "with a warning. It shows real people.",
        ),
    ] = False,
    executor: Executor = "ray",
    workers: Workers = None,
    ray_address: RayAddress = None,
    as_json: Json = False,
) -> None:
    """Say how many people can be impersonated by faces made of their templates.

    Stored embeddings and protected rows are inverted, and the faces are shown to the recogniser.
    People whom an inverter has learnt from are left out. The same command continues an evaluation
    that was broken off. OUT gets report.html and Parquet files of its tables, and no face unless
    --contact-sheet asks for some.
    """
    given = locals()
    from pipelines.api import inversion
    from pipelines.cli.progress import counting
    from pipelines.inversion import request as inversion_request
    from pipelines.report import inversion_sheets
    from pipelines.report.terminal import print_sheets
    from pipelines.spec.options import assembled

    wanted = inversion_request.InvertEvaluateRequest
    request = assembled(wanted, chosen(given, wanted))
    checked = inversion_request.prepare_evaluation(request)
    running.begin(checked)
    with counting(console(stderr=True), "units", wanted=not as_json) as progress:
        done = inversion.carry_out(request, checked, progress)

    def shown(done: InversionEvaluation, console: Console) -> None:
        print_sheets(inversion_sheets.brief(done.results), console)
        tell(done.results.headline)

    running.answer(done, as_json, _plain, shown)
    say(f"report: {done.files[0]}")


def _fitted(done: Fitting) -> dict[str, Any]:
    return {"headline": done.result.headline, **asdict(done.result), "files": done.files}


def _plain(done: InversionEvaluation) -> dict[str, Any]:
    from pipelines.report import inversion_tables

    made = inversion_tables.inversion_tables(done.results)
    return {
        "headline": done.results.headline,
        "inversion": made["inversion"].to_pylist(),
        "failures": made["failures"].to_pylist(),
        "files": done.files,
    }
