"""The command that says what an enrolment would take: plan-capacity."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from pipelines.cli import running
from pipelines.cli.options import (
    ENROL_PANEL,
    AllowRoots,
    Alpha,
    Centring,
    CodeWidth,
    DetSizes,
    Encoding,
    Executor,
    Json,
    Keys,
    Kind,
    Model,
    NewDest,
    Preset,
    ShardSize,
    Source,
    Structure,
    Tolerance,
    Vault,
    Workers,
    chosen,
)


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command(name="plan-capacity", rich_help_panel=ENROL_PANEL)(plan_capacity)


def plan_capacity(
    source: Source,
    dest: NewDest,
    figures: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="What work costs, as --save or `make bench` wrote it. Default: it is measured "
            "here, in a minute or two.",
        ),
    ] = None,
    save: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Write what was measured here to a file for --figures."),
    ] = None,
    prices: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Kinds of nodes and what they and a store cost, as TOML or JSON. Default: nodes "
            "like this machine, whose price is not known.",
        ),
    ] = None,
    nodes: Annotated[
        int | None, typer.Option(help="Nodes of each kind. Default: 1, 10 and 100.", min=1)
    ] = None,
    hours: Annotated[
        float | None,
        typer.Option(help="Instead: say how many nodes end within so many hours.", min=0.001),
    ] = None,
    model: Model = None,
    preset: Preset = None,
    alpha: Alpha = None,
    tolerance: Tolerance = None,
    code_width: CodeWidth = None,
    structure: Structure = None,
    encoding: Encoding = None,
    centring: Centring = None,
    shard_size: ShardSize = None,
    kind: Kind = "auto",
    allow_roots: AllowRoots = None,
    det_sizes: DetSizes = None,
    vault: Vault = False,
    keys: Keys = None,
    executor: Executor = "ray",
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Say what an enrolment would take: hours, nodes, storage, requests, cost. Nothing is written.

    Counts are those of a dry run. What work costs is measured on this machine, with random vectors
    in the place of people and with some photos of SRC. Exit codes: 0 said, 1 error, 2 usage.
    """
    given = locals()
    from pipelines.api import capacity
    from pipelines.enrolment.request import EnrolRequest
    from pipelines.report.capacity import print_capacity

    asked = chosen(given, EnrolRequest)
    for name in ("source", "dest"):
        del asked[name]
    found = capacity.plan_capacity(
        source, dest, figures=figures, save=save, prices=prices, nodes=nodes, hours=hours, **asked
    )
    running.answer(found, as_json, asdict, print_capacity)
