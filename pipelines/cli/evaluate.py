"""The command of evaluators: evaluate."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from pipelines.cli.options import Executor, Json, Keys, RayAddress, Workers, console, say, tell


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(evaluate)


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
    protocol: Annotated[
        list[str] | None,
        typer.Option(
            help="all (the default: every face against every other one), first:K (a subject's "
            "first K faces against all others), first:A-B (first A, ..., first B, with the same "
            "probes), a list of image, role (enrol or probe) and template, or one of pairs like "
            "LFW's pairs.txt. Several are evaluated in one pass."
        ),
    ] = None,
    alpha: Annotated[
        list[int] | None, typer.Option(help="Weights of codewords. Default: 12, 16 and 20.")
    ] = None,
    tolerance: Annotated[int, typer.Option(help="The largest tolerance to look at.", min=0)] = 4,
    encoding: Annotated[
        list[str] | None, typer.Option(help="Encodings of helpers. Default: int8.")
    ] = None,
    centring: Annotated[
        list[str] | None,
        typer.Option(help="How several faces become one template: mean (the default), regression."),
    ] = None,
    exclude: Annotated[
        str | None,
        typer.Option(
            help="File that names images or subjects to leave out, one a line; what begins with # "
            "is a comment, unless it is in quotation marks."
        ),
    ] = None,
    demographics: Annotated[
        list[str] | None, typer.Option(help="Columns of SRC that label demographic groups.")
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
    from infra.telemetry import configure_logging
    from pipelines.cli.progress import counting
    from pipelines.evaluation import job as evaluation
    from pipelines.evaluation.request import EvaluateRequest
    from pipelines.report import page, sheets, tables
    from pipelines.report.headline import headline

    lists: dict[str, Any] = {
        "protocols": protocol, "alphas": alpha, "encodings": encoding, "centrings": centring,
        "groups": demographics,
    }  # fmt: skip
    request = EvaluateRequest(
        source=source,
        out=out,
        table=table,
        keys=keys,
        model=model,
        tolerance=tolerance,
        exclude=exclude,
        seed=seed,
        executor=executor,
        workers=workers,
        ray_address=ray_address,
        **{name: tuple(values) for name, values in lists.items() if values},
    )
    prepared = evaluation.prepare(request)
    configure_logging(prepared.settings.log_level, prepared.settings.log_format)
    with (
        counting(console(stderr=True), "blocks", wanted=not as_json) as progress,
        evaluation.opened(request, prepared) as executor_of_blocks,
    ):
        found = evaluation.run(prepared, executor_of_blocks, progress)
    spent = evaluation.measure(prepared)
    written = page.write(found, spent, prepared.sources.store)
    evaluation.write_rates(prepared, found)
    if as_json:
        made = {name: table.to_pylist() for name, table in tables.tables(found).items()}
        some = {name: made[name] for name in ("recogniser", "protected", "failures")}
        typer.echo(json.dumps({"headline": headline(found), **some, "files": written}))
    else:
        from pipelines.report.terminal import print_sheets

        print_sheets(sheets.brief(found), console())
        tell(headline(found))
    say(f"report: {written[0]}")
