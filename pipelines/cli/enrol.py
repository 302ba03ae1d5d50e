"""The command of enrolment: enroll."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli import running
from pipelines.cli.options import (
    ENROL_PANEL,
    AcceptedRisk,
    Agreement,
    AllowRoots,
    Alpha,
    Calibration,
    Centring,
    CodeWidth,
    DetSizes,
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
    Kind,
    MetricsPort,
    Model,
    NewDest,
    NoAgreement,
    Photos,
    Prefect,
    Preset,
    Provider,
    RayAddress,
    Restart,
    ShardSize,
    Source,
    Structure,
    Tolerance,
    Vault,
    VaultKeys,
    Workers,
    asked_agreement,
    chosen,
    console,
    say,
    say_disagreement,
)

if TYPE_CHECKING:
    from pipelines.enrolment.request import CheckedEnrolment, EnrolRequest
    from pipelines.plan.census import Census
    from pipelines.run.summary import Summary


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command(rich_help_panel=ENROL_PANEL)(enroll)


def enroll(
    source: Source,
    dest: NewDest,
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
    kind: Kind = "auto",
    allow_roots: AllowRoots = None,
    agreement: Agreement = None,
    no_agreement: NoAgreement = False,
    det_sizes: DetSizes = None,
    policy: Annotated[
        str,
        typer.Option(
            "--face-policy",
            help="Several faces: dominant, largest, or single (refuse them).",
        ),
    ] = "dominant",
    provider: Provider = None,
    keys: Keys = None,
    kek: Annotated[
        str | None,
        typer.Option(
            help="Key-encryption key of a new table: local: (the default), or a KMS address."
        ),
    ] = None,
    executor: Executor = "ray",
    workers: Workers = None,
    embedders: Embedders = None,
    gpu_fraction: GpuFraction = 1.0,
    ray_address: RayAddress = None,
    metrics_port: MetricsPort = None,
    prefect: Prefect = None,
    max_failures: Annotated[
        int, typer.Option(help="Failed inputs above which the exit code is 3.", min=0)
    ] = 0,
    vault: Vault = False,
    vault_keys: VaultKeys = None,
    pseudonymous: Annotated[
        bool,
        typer.Option(
            "--pseudonymous",
            help="Store subject ids and addresses of inputs keyed, so that the table names nobody. "
            "`verify`, `erase` and `prove` still take the ids themselves.",
        ),
    ] = False,
    plaintext_helpers: Annotated[
        bool,
        typer.Option(
            "--plaintext-helpers",
            help="RESEARCH ONLY: store helpers unencrypted. Whoever reads the table can then match "
            "faces against it, and for common models recover the templates.",
        ),
    ] = False,
    filling: Filling = None,
    calibration: Calibration = None,
    accepted_risk: AcceptedRisk = None,
    restart: Restart = False,
    retry: Annotated[
        str | None,
        typer.Option(
            "--retry-failed",
            metavar="[REASON,...]",
            help="Take only inputs that failed before, all or those of some reasons, of subjects "
            "without a template.",
        ),
    ] = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Turn face images, or stored embeddings, into a table of protected templates.

    An unfinished run is continued; subjects that have a template already are skipped. Exit codes:
    0 complete, 1 error, 2 usage, 3 complete with more failed inputs than --max-failures, or with
    nobody enrolled.
    """
    given = locals()
    from pipelines.api import capacity
    from pipelines.enrolment import request as enrolment_request
    from pipelines.enrolment.request import EnrolRequest
    from pipelines.report.terminal import print_summary
    from pipelines.spec.options import assembled

    given["agreement"] = asked_agreement(agreement, without=no_agreement)
    given["retry"] = retry.split(",") if retry else None
    request = assembled(EnrolRequest, chosen(given, EnrolRequest))
    prepared = running.watched(enrolment_request.prepare(request), metrics_port)
    running.begin(prepared)
    _announce(prepared)
    if dry_run:
        planned = capacity.plan(request, prepared)
        running.forecast(planned.forecast, as_json, capacity.brief(request, prepared, planned))
        return
    warnings: list[str] = []
    summary = _enrol(request, prepared, prefect, max_failures, as_json, warnings)
    running.answer(
        summary, as_json, lambda done: {**asdict(done), "warnings": warnings}, print_summary
    )
    say_disagreement(summary, kept=False)
    running.say_excluded(summary)
    running.end(summary.shortfall(max_failures))


def _announce(prepared: CheckedEnrolment) -> None:
    """Settings with their bits, the model's licence, and what an unusual choice gives up."""
    from pipelines.preflight.judge import FLOOR_BITS
    from pipelines.spec.template_job import DECLARED

    say(f"settings: {prepared.job.describe()}")
    if prepared.offer:
        say(f"chosen by --fmr: {prepared.offer.why}")
    if prepared.pack:
        say(f"model: {prepared.pack.label}, licence: {prepared.pack.licence}")
    if prepared.bar:
        say(f"agreement: from a cosine of {prepared.bar.cosine:g}, {prepared.bar.source}")
    if prepared.job.model.startswith(DECLARED):
        name = prepared.job.model.removeprefix(DECLARED)
        say(
            f"WARNING: no model files of {name!r} at hand. Photos can be verified against these "
            "templates only with a pack of that name: give the right name with --model."
        )
    found = prepared.judged.preflight
    if found and found.row.bits < FLOOR_BITS:
        say(f"NOTE: {found.describe()}. So its keys are what protects this table.")
    if prepared.job.vault:
        say(
            "WARNING: the vault keeps everybody's embedding. Whoever gets it and its keys has them "
            "for good, whatever is re-protected later: keep its keys apart."
        )
    if not prepared.job.sealed:
        say(
            "WARNING: helpers are stored unencrypted. The table itself becomes a face matcher, and "
            "one stolen row of a common model falls in seconds to minutes."
        )


def _enrol(
    request: EnrolRequest,
    prepared: CheckedEnrolment,
    prefect: bool | None,
    max_failures: int,
    as_json: bool,
    warnings: list[str],
) -> Summary:
    from pipelines.api import enrolment
    from pipelines.cli.progress import live
    from pipelines.run.course import Watch

    def told(census: Census) -> None:
        warnings.extend(census.warnings(named=True))
        for line in warnings:
            say(f"WARNING: {line}")

    with live(console(stderr=True), wanted=not as_json) as progress:
        if running.through_prefect(prefect):
            from pipelines.flows.enrol import run_as_flow

            return run_as_flow(request, prepared, Watch(progress, told), max_failures)
        return enrolment.carry_out(request, prepared, Watch(progress, told))
