"""Commands that replace what protects a table."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ironmask.errors import ParameterError
from pipelines.cli import running
from pipelines.cli.options import (
    RENEW_PANEL,
    AcceptedRisk,
    Agreement,
    AllowRoots,
    Alpha,
    Calibration,
    Centring,
    CodeWidth,
    Dest,
    DryRun,
    Embedders,
    Encoding,
    Executor,
    Filling,
    FloorBits,
    Fmr,
    GpuFraction,
    Json,
    Keys,
    MetricsPort,
    Model,
    NoAgreement,
    Photos,
    Prefect,
    Preset,
    Provider,
    RayAddress,
    Restart,
    ShardSize,
    Structure,
    Tolerance,
    VaultKeys,
    Workers,
    asked_agreement,
    chosen,
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
    add = partial(app.command, rich_help_panel=RENEW_PANEL)
    add()(reprotect)
    add()(rekey)
    add("rotate-mac")(rotate_mac)
    add("rotate-kek")(rotate_kek)


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
    allow_roots: AllowRoots = None,
    vault: Annotated[
        bool,
        typer.Option("--vault", help="From the vault's embeddings, without any image."),
    ] = False,
    vault_keys: VaultKeys = None,
    model: Model = None,
    preset: Preset = None,
    alpha: Alpha = None,
    tolerance: Tolerance = None,
    code_width: CodeWidth = None,
    structure: Structure = None,
    fmr: Fmr = None,
    photos: Photos = None,
    floor_bits: FloorBits = None,
    encoding: Encoding = None,
    centring: Centring = None,
    shard_size: ShardSize = None,
    filling: Filling = None,
    calibration: Calibration = None,
    accepted_risk: AcceptedRisk = None,
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
    refuse_disagreement: Annotated[
        bool,
        typer.Option(
            "--refuse-disagreement",
            help="Leave other faces out of the new templates, and who has no majority without one. "
            "Default: say how many there are, and use them.",
        ),
    ] = False,
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
    gpu_fraction: GpuFraction = 1.0,
    ray_address: RayAddress = None,
    metrics_port: MetricsPort = None,
    prefect: Prefect = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Make everybody's template anew under new keys, switch over, and destroy the old ones.

    Settings are those of the live templates unless others are given. Until the switch everybody is
    verified against the old templates, after it against the new ones. The same command continues
    what was broken off. Exit codes: 0 done, 1 error, 2 usage, 3 done and some inputs failed or
    are missing.
    """
    given = locals()
    if abandon:
        _abandon(dest, keys, as_json)
        return
    given["agreement"] = asked_agreement(agreement, without=no_agreement)
    _do(given, prefect, as_json, dry_run=dry_run)


def rekey(
    dest: Dest,
    restart: Restart = False,
    keys: Keys = None,
    executor: Executor = "ray",
    workers: Workers = None,
    ray_address: RayAddress = None,
    metrics_port: MetricsPort = None,
    prefect: Prefect = None,
    as_json: Json = False,
) -> None:
    """Encrypt every row under new data keys, its helper shuffled; needs no image, no embedding.

    This is no renewal: who has seen an old helper knows the new one again, and who knows a codeword
    still does. Use it when data keys may have leaked and the files have not. Exit codes: 0 done,
    1 error.
    """
    _do({**locals(), "purpose": "rekey", "embedders": 0}, prefect, as_json)


def rotate_mac(
    dest: Dest,
    restart: Restart = False,
    keys: Keys = None,
    executor: Executor = "ray",
    workers: Workers = None,
    ray_address: RayAddress = None,
    metrics_port: MetricsPort = None,
    prefect: Prefect = None,
    as_json: Json = False,
) -> None:
    """Put every row's digests under one more MAC key; needs no image and no embedding.

    The old MAC key stays in use below the new one, and alone it is worth nothing. Exit codes: 0
    done, 1 error.
    """
    _do({**locals(), "purpose": "rotate-mac", "embedders": 0}, prefect, as_json)


def _do(
    given: dict[str, Any], prefect: bool | None, as_json: bool, *, dry_run: bool = False
) -> None:
    from pipelines.report.operations import print_renewed
    from pipelines.reprotection import hold
    from pipelines.reprotection import request as reprotection_request
    from pipelines.reprotection.request import ReprotectRequest
    from pipelines.spec.options import assembled

    request = assembled(ReprotectRequest, chosen(given, ReprotectRequest))
    prepared = reprotection_request.prepare(request)
    prepared = running.watched(prepared, given["metrics_port"])
    running.begin(prepared)
    say(f"generation {prepared.job.generation}: {prepared.job.describe()}")
    if prepared.offer:
        say(f"chosen by --fmr: {prepared.offer.why}")
    if dry_run:
        running.forecast(hold.foresee(request, prepared), as_json)
        return
    done = _renew(request, prepared, prefect, as_json)
    running.answer(done, as_json, asdict, print_renewed)
    say_disagreement(done.summary, kept=not request.losses.refuse_disagreement)
    running.say_excluded(done.summary)
    running.end("" if done.is_whole else done.shortfall)


def _renew(
    request: ReprotectRequest, prepared: CheckedReprotection, prefect: bool | None, as_json: bool
) -> Renewed:
    from pipelines.api import reprotection
    from pipelines.cli.progress import live
    from pipelines.run.course import Watch

    with live(console(stderr=True), wanted=not as_json) as progress:
        if running.through_prefect(prefect):
            from pipelines.flows.reprotect import run_as_flow

            return run_as_flow(request, prepared, Watch(progress))
        return reprotection.carry_out(request, prepared, Watch(progress))


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
    from pipelines.api.operations import rotate_kek as rotate

    if kek == "":
        raise ParameterError("--kek is empty: local:, or the address of a KMS key")
    done = rotate(dest, kek, keys=keys, vault=vault)
    if as_json:
        typer.echo(json.dumps(asdict(done)))
    else:
        tell(f"{done.keysets} keysets: from {done.old_uri} to {done.new_uri}")
