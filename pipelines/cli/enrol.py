"""The command of enrolment: enroll."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.options import (
    ENROL_AND_VERIFY,
    EXIT_PARTIAL,
    AcceptRisk,
    Agreement,
    AllowRoot,
    Embedders,
    Executor,
    Json,
    Keys,
    Model,
    NoAgreement,
    Prefect,
    RayAddress,
    VaultKeys,
    Workers,
    asked_agreement,
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
    app.command(rich_help_panel=ENROL_AND_VERIFY)(enroll)


def enroll(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SRC",
            help="Folder tree <subject>/<image>, a manifest (.csv or .parquet with subject_id and "
            "uri), or a Parquet of embeddings (subject_id, embedding).",
        ),
    ],
    dest: Annotated[
        str, typer.Argument(metavar="DEST", help="Folder or s3:// prefix of the table.")
    ],
    model: Model = None,
    preset: Annotated[
        str, typer.Option(help="paper (115 bits), balanced (80 bits) or strict (103 bits).")
    ] = "balanced",
    alpha: Annotated[int | None, typer.Option(help="Non-zero entries of a codeword.")] = None,
    tolerance: Annotated[int | None, typer.Option(help="Places that may disagree.")] = None,
    encoding: Annotated[
        str,
        typer.Option(help="How helpers are written: int8, float32, float16, bits6, bits5, bits4."),
    ] = "int8",
    centring: Annotated[
        str, typer.Option(help="How several images become one template: mean or regression.")
    ] = "mean",
    shard_size: Annotated[int, typer.Option(help="Inputs in one unit of work.", min=1)] = 256,
    kind: Annotated[
        str, typer.Option(help="Kind of SRC: auto, folder, manifest or embeddings.")
    ] = "auto",
    allow_root: AllowRoot = None,
    agreement: Agreement = None,
    no_agreement: NoAgreement = False,
    det_size: Annotated[
        list[int] | None,
        typer.Option(help="Detector sizes in pixels; the next is tried where no face was found."),
    ] = None,
    face_policy: Annotated[
        str, typer.Option(help="Several faces: dominant, largest, or single (refuse them).")
    ] = "dominant",
    provider: Annotated[str, typer.Option(help="Where models run: cpu, cuda or tensorrt.")] = "cpu",
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
    ray_address: RayAddress = None,
    prefect: Prefect = None,
    max_failures: Annotated[
        int, typer.Option(help="Failed inputs above which the exit code is 3.", min=0)
    ] = 0,
    vault: Annotated[
        bool,
        typer.Option(
            "--vault",
            help="Keep the embeddings as well, encrypted, so that templates can be made anew "
            "without the photos. Whoever gets them and their keys has everybody for good.",
        ),
    ] = False,
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
    fill: Annotated[
        float,
        typer.Option(
            help="Share of a template's energy that becomes noise where the model's embeddings are "
            "not, against the search of a stolen row. 0.2 costs some points of acceptance.",
            min=0,
            max=0.9,
        ),
    ] = 0,
    calibration: Annotated[
        str | None,
        typer.Option(
            metavar="PARQUET",
            help="Embeddings of the same model, by which the worth of a stolen row is measured; "
            "those of one subject_id are one person's. Default: SRC, where it holds embeddings.",
        ),
    ] = None,
    accept_risk: AcceptRisk = None,
    restart: Annotated[
        bool,
        typer.Option(
            "--restart",
            help="Close an unfinished run as it stands, and plan afresh what it left undone.",
        ),
    ] = False,
    retry_failed: Annotated[
        str | None,
        typer.Option(
            metavar="[REASON,...]",
            help="Take only inputs that failed before, all or those of some reasons, of subjects "
            "without a template.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done; write nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Turn face images, or stored embeddings, into a table of protected templates.

    An unfinished run is continued; subjects that have a template already are skipped. Exit codes:
    0 complete, 1 error, 2 usage, 3 complete with more failed inputs than --max-failures, or with
    nobody enrolled.
    """
    from infra.telemetry import configure_logging
    from pipelines.enrolment import request as enrolment_request
    from pipelines.enrolment.request import EnrolRequest
    from pipelines.preflight.agreement import DEFAULT_FMR
    from pipelines.spec.faces import FaceSettings

    fmr = asked_agreement(agreement, without=no_agreement)
    faces = FaceSettings(
        det_sizes=tuple(det_size) if det_size else FaceSettings().det_sizes,
        policy=face_policy,  # type: ignore[arg-type]
        provider=provider,  # type: ignore[arg-type]
    )
    request = EnrolRequest(
        source=source,
        dest=dest,
        kind=kind,
        model=model,
        preset=preset,
        alpha=alpha,
        tolerance=tolerance,
        encoding=encoding,
        centring=centring,
        shard_size=shard_size,
        plaintext_helpers=plaintext_helpers,
        filling=fill,
        vault=vault,
        vault_keys=vault_keys,
        calibration=calibration,
        accepted_risk=accept_risk,
        pseudonymous=pseudonymous,
        faces=faces,
        keys=keys,
        kek=kek,
        executor=executor,
        workers=workers,
        embedders=embedders,
        ray_address=ray_address,
        restart=restart,
        retry=tuple(retry_failed.split(",")) if retry_failed else (),
        allow_roots=tuple(allow_root or ()),
        agreement=DEFAULT_FMR if fmr is None else fmr,
    )
    prepared = enrolment_request.prepare(request)
    configure_logging(prepared.settings.log_level, prepared.settings.log_format)
    _announce(prepared)
    if dry_run:
        _dry_run(request, prepared, as_json)
        return
    warnings: list[str] = []
    summary = _enrol(request, prepared, prefect, max_failures, as_json, warnings)
    if as_json:
        typer.echo(json.dumps({**asdict(summary), "warnings": warnings}))
    else:
        from pipelines.report.terminal import print_summary

        print_summary(summary, console())
    say_disagreement(summary, kept=False)
    if why := summary.shortfall(max_failures):
        say(why)
        raise typer.Exit(EXIT_PARTIAL)


def _announce(prepared: CheckedEnrolment) -> None:
    """Settings with their bits, the model's licence, and what an unusual choice gives up."""
    from pipelines.preflight.judge import FLOOR_BITS
    from pipelines.spec.template_job import DECLARED

    say(f"settings: {prepared.job.describe()}")
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


def _dry_run(request: EnrolRequest, prepared: CheckedEnrolment, as_json: bool) -> None:
    from pipelines.enrolment import hold
    from pipelines.report import terminal
    from pipelines.run import begin
    from pipelines.setup import ports

    stored = ports.open_tables(prepared.job.dest, prepared.storage)
    known = hold.sealed(request, prepared, stored)
    keys = hold.existing_keys(request, prepared, known) if known else None
    job = hold.settled_job(request, prepared, known)
    own = hold.own_files(request, prepared, stored)
    forecast = begin.forecast(job, known, prepared.store, keys, restart=request.restart, own=own)
    for line in forecast.warnings:
        say(f"WARNING: {line}")
    if as_json:
        typer.echo(json.dumps(asdict(forecast)))
    else:
        terminal.print_forecast(forecast, console())


def _enrol(
    request: EnrolRequest,
    prepared: CheckedEnrolment,
    prefect: bool | None,
    max_failures: int,
    as_json: bool,
    warnings: list[str],
) -> Summary:
    from infra import orchestrator
    from pipelines.cli.progress import live
    from pipelines.enrolment import hold
    from pipelines.enrolment import job as enrolment_job

    def told(census: Census) -> None:
        warnings.extend(census.warnings(named=True))
        for line in warnings:
            say(f"WARNING: {line}")

    with live(console(stderr=True), wanted=not as_json) as progress:
        if prefect if prefect is not None else orchestrator.has_server():
            from pipelines.flows.enrol import run_as_flow

            return run_as_flow(request, prepared, progress, max_failures, told)
        with hold.opened(request, prepared) as held:
            return enrolment_job.enrol(
                held.job, held.dest, held.executor, progress, restart=request.restart, told=told
            )
