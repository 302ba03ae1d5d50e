"""The command of evaluators: evaluate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.cli import running
from pipelines.cli.options import (
    EVALUATE_PANEL,
    Executor,
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

    from pipelines.api.evaluation import Evaluation


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command(rich_help_panel=EVALUATE_PANEL)(evaluate)


def evaluate(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SRC",
            help="Parquet of embeddings: subject_id, embedding, and image where faces have names.",
        ),
    ],
    out: Annotated[
        str, typer.Argument(metavar="OUT", help="Folder or s3:// prefix for the results.")
    ],
    table: Annotated[
        str | None,
        typer.Option(
            metavar="DEST",
            help="Compare the templates of this table as they are, with all faces of SRC that did "
            "not go into them; its `metrics` get the rates. SRC must hold what was enrolled.",
        ),
    ] = None,
    keys: Keys = None,
    model: Annotated[
        str | None,
        typer.Option(help="What made the embeddings: a pack or a name, for the report."),
    ] = None,
    protocols: Annotated[
        list[str] | None,
        typer.Option(
            "--protocol",
            help="all (the default: every face against every other one), first:K (a subject's "
            "first K faces against all others), first:A-B (first A, ..., first B, with the same "
            "probes), a list of image, role (enrol or probe) and template, or one of pairs like "
            "LFW's pairs.txt. Several are evaluated in one pass.",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--setting",
            metavar="N,ALPHA,TOLERANCE",
            help="A setting: code width, weight and tolerance, like 1024,16,3, with a structure "
            "behind it if need be (1024,16,3,real), or a preset. Several: once for each. Default: "
            "the presets.",
        ),
    ] = None,
    alphas: Annotated[
        list[int] | None,
        typer.Option(
            "--alpha",
            help="Instead: weights of codewords as wide as the embedding, with every tolerance up "
            "to --tolerance.",
        ),
    ] = None,
    tolerance: Annotated[
        int, typer.Option(help="The largest tolerance to look at with --alpha.", min=0)
    ] = 4,
    encodings: Annotated[
        list[str] | None, typer.Option("--encoding", help="Encodings of helpers. Default: int8.")
    ] = None,
    centrings: Annotated[
        list[str] | None,
        typer.Option(
            "--centring",
            help="How several faces become one template: mean (the default), regression.",
        ),
    ] = None,
    exclude: Annotated[
        str | None,
        typer.Option(
            help="File that names images or subjects to leave out, one a line; what begins with # "
            "is a comment, unless it is in quotation marks."
        ),
    ] = None,
    groups: Annotated[
        list[str] | None,
        typer.Option("--demographics", help="Columns of SRC that label demographic groups."),
    ] = None,
    seed: Annotated[
        str | None,
        typer.Option(help="64 hexadecimal digits, to repeat an evaluation. Default: drawn."),
    ] = None,
    executor: Executor = "ray",
    workers: Workers = None,
    ray_address: RayAddress = None,
    as_json: Json = False,
) -> None:
    """Say what protection costs: genuine and impostor comparisons with it and without.

    An unfinished evaluation is continued. The result is the same for any number of workers. OUT
    gets report.html, Parquet files of its tables, and one small file a block with the cosines of
    genuine comparisons and of the nearest impostors.
    """
    given = locals()
    from pipelines.api import evaluation
    from pipelines.cli.progress import counting
    from pipelines.evaluation import job
    from pipelines.evaluation.request import EvaluateRequest
    from pipelines.report import sheets
    from pipelines.report.terminal import print_sheets
    from pipelines.spec.options import assembled

    request = assembled(EvaluateRequest, chosen(given, EvaluateRequest))
    prepared = job.prepare(request)
    running.begin(prepared)
    with counting(console(stderr=True), "blocks", wanted=not as_json) as progress:
        done = evaluation.carry_out(request, prepared, progress)

    def shown(done: Evaluation, console: Console) -> None:
        print_sheets(sheets.brief(done.results), console)
        tell(done.headline)

    running.answer(done, as_json, _plain, shown)
    say(f"report: {done.files[0]}")


def _plain(done: Evaluation) -> dict[str, Any]:
    from pipelines.report import tables

    made = {name: table.to_pylist() for name, table in tables.tables(done.results).items()}
    some = {name: made[name] for name in ("recogniser", "protected", "failures")}
    return {"headline": done.headline, **some, "files": done.files}
