"""Commands that replace what protects a table."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from ironmask.errors import ParameterError
from pipelines.cli.options import (
    EXIT_PARTIAL,
    RENEW_AND_ERASE,
    AcceptRisk,
    Agreement,
    AllowRoot,
    Dest,
    Embedders,
    Executor,
    Json,
    Keys,
    Model,
    NoAgreement,
    Prefect,
    Provider,
    RayAddress,
    RefuseDisagreement,
    Restart,
    VaultKeys,
    Workers,
    asked_agreement,
    console,
    say,
    say_disagreement,
    tell,
)

if TYPE_CHECKING:
    from pipelines.reprotection.job import Renewed
    from pipelines.reprotection.request import CheckedReprotection, ReprotectRequest


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command(rich_help_panel=RENEW_AND_ERASE)(reprotect)
    app.command(rich_help_panel=RENEW_AND_ERASE)(rekey)
    app.command("rotate-mac", rich_help_panel=RENEW_AND_ERASE)(rotate_mac)
    app.command("rotate-kek", rich_help_panel=RENEW_AND_ERASE)(rotate_kek)


def reprotect(
    dest: Dest,
    source: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SRC",
            help="Where the inputs are now, if they have moved. Several: once for each. "
            "Default: where they were.",
        ),
    ] = None,
    allow_root: AllowRoot = None,
    vault: Annotated[
        bool,
        typer.Option("--vault", help="From the vault's embeddings, without any image."),
    ] = False,
    vault_keys: VaultKeys = None,
    model: Model = None,
    preset: Annotated[str | None, typer.Option(help="paper, balanced or strict.")] = None,
    alpha: Annotated[int | None, typer.Option(help="Non-zero entries of a codeword.")] = None,
    tolerance: Annotated[int | None, typer.Option(help="Places that may disagree.")] = None,
    encoding: Annotated[str | None, typer.Option(help="How helpers are written.")] = None,
    centring: Annotated[str | None, typer.Option(help="mean or regression.")] = None,
    shard_size: Annotated[
        int | None, typer.Option(help="Inputs in one unit of work.", min=1)
    ] = None,
    fill: Annotated[
        float | None, typer.Option(help="Share of noise, as for enroll.", min=0, max=0.9)
    ] = None,
    calibration: Annotated[
        str | None, typer.Option(metavar="PARQUET", help="Embeddings of the model, as for enroll.")
    ] = None,
    accept_risk: AcceptRisk = None,
    provider: Provider = None,
    max_lost: Annotated[
        int,
        typer.Option(
            help="People who may lose their template, since nothing is left to make one from.",
            min=0,
        ),
    ] = 0,
    agreement: Agreement = None,
    no_agreement: NoAgreement = False,
    refuse_disagreement: RefuseDisagreement = False,
    abandon: Annotated[
        bool,
        typer.Option(
            "--abandon", help="Give up a re-protection that has not switched: destroy what it made."
        ),
    ] = False,
    restart: Restart = False,
    keys: Keys = None,
    executor: Executor = "ray",
    workers: Workers = None,
    embedders: Embedders = None,
    ray_address: RayAddress = None,
    prefect: Prefect = None,
    as_json: Json = False,
) -> None:
    """Make everybody's template anew under new keys, switch over, and destroy the old ones.

    Settings are those of the live templates unless others are given. Until the switch everybody is
    verified against the old templates, after it against the new ones. The same command continues
    what was broken off. Exit codes: 0 done, 1 error, 2 usage, 3 done and some inputs failed or
    are missing.
    """
    from pipelines.reprotection.request import ReprotectRequest

    if abandon:
        _abandon(dest, keys, as_json)
        return
    request = ReprotectRequest(
        dest=dest,
        source=tuple(source or ()),
        vault=vault,
        vault_keys=vault_keys,
        model=model,
        preset=preset,
        alpha=alpha,
        tolerance=tolerance,
        encoding=encoding,
        centring=centring,
        shard_size=shard_size,
        filling=fill,
        calibration=calibration,
        accepted_risk=accept_risk,
        provider=provider,
        keys=keys,
        executor=executor,
        workers=workers,
        embedders=embedders,
        ray_address=ray_address,
        restart=restart,
        max_lost=max_lost,
        allow_roots=tuple(allow_root or ()),
        agreement=asked_agreement(agreement, without=no_agreement),
        refuse_disagreement=refuse_disagreement,
    )
    _do(request, prefect, as_json)


def rekey(
    dest: Dest,
    restart: Restart = False,
    keys: Keys = None,
    executor: Executor = "ray",
    workers: Workers = None,
    ray_address: RayAddress = None,
    prefect: Prefect = None,
    as_json: Json = False,
) -> None:
    """Seal every row under new data keys, its helper shuffled; needs no image and no embedding.

    This is no renewal: who has seen an old helper knows the new one again, and who knows a codeword
    still does. Use it when data keys may have leaked and the files have not. Exit codes: 0 done,
    1 error.
    """
    place = (keys, executor, workers, ray_address)
    _rewrite("rekey", dest, place, prefect, restart=restart, as_json=as_json)


def rotate_mac(
    dest: Dest,
    restart: Restart = False,
    keys: Keys = None,
    executor: Executor = "ray",
    workers: Workers = None,
    ray_address: RayAddress = None,
    prefect: Prefect = None,
    as_json: Json = False,
) -> None:
    """Put every row's digests under one more MAC key; needs no image and no embedding.

    The old MAC key stays in use below the new one, and alone it is worth nothing. Exit codes: 0
    done, 1 error.
    """
    place = (keys, executor, workers, ray_address)
    _rewrite("rotate-mac", dest, place, prefect, restart=restart, as_json=as_json)


def _rewrite(
    purpose: str,
    dest: str,
    place: tuple[str | None, str, int | None, str | None],
    prefect: bool | None,
    *,
    restart: bool,
    as_json: bool,
) -> None:
    from pipelines.reprotection.request import ReprotectRequest

    keys, executor, workers, ray_address = place
    request = ReprotectRequest(
        dest=dest,
        purpose=purpose,
        keys=keys,
        executor=executor,
        workers=workers,
        embedders=0,
        ray_address=ray_address,
        restart=restart,
    )
    _do(request, prefect, as_json)


def _do(request: ReprotectRequest, prefect: bool | None, as_json: bool) -> None:
    from infra.telemetry import configure_logging
    from pipelines.report.operations import print_renewed
    from pipelines.reprotection import request as reprotection_request

    prepared = reprotection_request.prepare(request)
    configure_logging(prepared.settings.log_level, prepared.settings.log_format)
    say(f"generation {prepared.job.generation}: {prepared.job.describe()}")
    done = _renew(request, prepared, prefect, as_json)
    if as_json:
        typer.echo(json.dumps(asdict(done)))
    else:
        print_renewed(done, console())
    say_disagreement(done.summary, kept=not request.refuse_disagreement)
    if not done.is_whole:
        say(done.shortfall)
        raise typer.Exit(EXIT_PARTIAL)


def _renew(
    request: ReprotectRequest, prepared: CheckedReprotection, prefect: bool | None, as_json: bool
) -> Renewed:
    from infra import orchestrator
    from pipelines.cli.progress import live
    from pipelines.reprotection import job
    from pipelines.reprotection import request as reprotection_request

    with live(console(stderr=True), wanted=not as_json) as progress:
        if prefect if prefect is not None else orchestrator.has_server():
            from pipelines.flows.reprotect import run_as_flow

            return run_as_flow(request, prepared, progress)
        with reprotection_request.opened(request, prepared) as held:
            return job.reprotect(held, progress)


def _abandon(dest: str, keys: str | None, as_json: bool) -> None:
    from pipelines.reprotection import abandon as reprotection_abandon

    proof = reprotection_abandon.abandon(dest, keys)
    if as_json:
        typer.echo(json.dumps(proof.as_dict()))
    else:
        tell(f"generation {proof.generation} is given up, and its keys are destroyed")


def rotate_kek(
    dest: Dest,
    kek: Annotated[
        str | None,
        typer.Option(
            help="The new key-encryption key: local: (a fresh one), or a KMS address. Default: the "
            "present address, whose key has changed there."
        ),
    ] = None,
    vault: Annotated[
        bool, typer.Option("--vault", help="The keys of the table's vault, not its own.")
    ] = False,
    keys: Keys = None,
    as_json: Json = False,
) -> None:
    """Wrap a table's keys with another key-encryption key; no data file is touched.

    Older copies of the keyset file still open with the old one: destroy them, and that key.
    """
    from pipelines.setup import places

    if kek == "":
        raise ParameterError("--kek is empty: local:, or the address of a KMS key")
    done = places.rotate_kek(dest, kek, keys, vault=vault)
    if as_json:
        typer.echo(json.dumps(asdict(done)))
    else:
        tell(f"{done.keysets} keysets: from {done.old_uri} to {done.new_uri}")
