"""The command of verification: verify."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from ironmask.errors import ParameterError
from pipelines.cli.options import (
    ENROL_PANEL,
    EXIT_PARTIAL,
    EXIT_REJECTED,
    AllowRoots,
    Dest,
    Json,
    Keys,
    console,
)

if TYPE_CHECKING:
    from pipelines.verification.answers import Answered


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command(rich_help_panel=ENROL_PANEL)(verify)


def verify(
    dest: Dest,
    images: Annotated[
        list[str] | None, typer.Argument(metavar="[IMAGE]...", help="Probe images of one subject.")
    ] = None,
    subject: Annotated[
        str | None, typer.Option(help="Whose template the probes claim to match.")
    ] = None,
    manifest: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Probes of many subjects: .csv or .parquet with subject_id and uri, or a Parquet "
            "of embeddings (subject_id, embedding).",
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.parquet",
            help="Where the answers to --manifest go: subject_id, uri, accepted, reason, detail.",
        ),
    ] = None,
    allow_roots: AllowRoots = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Model pack's name, or a folder that holds its ONNX files. Default: "
            "IRONMASK_MODEL, else the pack on this machine that made the templates."
        ),
    ] = None,
    keys: Keys = None,
    as_json: Json = False,
) -> None:
    """Tell for each image whether it matches a subject's template: yes or no, never a score.

    Exit codes: 0 all accepted, 4 some rejected, 3 some without an answer (no face, say), 1 error,
    2 usage.
    """
    if manifest is None:
        _refuse_options_of_manifests(out, allow_roots)
        _one(dest, _named(subject), _some(images), model, keys, as_json=as_json)
    else:
        if images or subject is not None:
            raise ParameterError("--manifest names subjects and images: leave them out beside it")
        if out is None:
            raise ParameterError("--manifest needs --out: the file for the answers")
        _many(dest, (manifest, out), tuple(allow_roots or ()), model, keys, as_json=as_json)


def _refuse_options_of_manifests(out: str | None, allow_roots: list[str] | None) -> None:
    for name, value in (("--out", out), ("--allow-root", allow_roots)):
        if value:
            raise ParameterError(f"{name} goes with --manifest: leave it out, or name a manifest")


def _named(subject: str | None) -> str:
    if subject is None:
        raise ParameterError("whose template? name a --subject, or a --manifest of many")
    return subject


def _some(images: list[str] | None) -> list[str]:
    if not images:
        raise ParameterError("no probe: name an image, or a --manifest of many")
    return images


def _one(
    dest: str,
    subject: str,
    images: list[str],
    model: str | None,
    keys: str | None,
    *,
    as_json: bool,
) -> None:
    from pipelines.report.terminal import print_verdicts
    from pipelines.verification.verifier import Verifier

    with Verifier(dest, keys, model) as verifier:
        verdicts = verifier.verify(subject, images)
    if as_json:
        typer.echo(json.dumps([asdict(verdict) for verdict in verdicts]))
    else:
        print_verdicts(subject, verdicts, console())
    _end(
        unanswered=any(verdict.accepted is None for verdict in verdicts),
        rejected=any(verdict.accepted is False for verdict in verdicts),
    )


def _many(
    dest: str,
    files: tuple[str, str],
    allow_roots: tuple[str, ...],
    model: str | None,
    keys: str | None,
    *,
    as_json: bool,
) -> None:
    from pipelines.cli.progress import counting
    from pipelines.report.terminal import print_answered
    from pipelines.verification.manifest import verify_manifest
    from pipelines.verification.verifier import Verifier

    with (
        Verifier(dest, keys, model) as verifier,
        counting(console(stderr=True), "probes", wanted=not as_json) as progress,
    ):
        done: Answered = verify_manifest(verifier, *files, allow_roots, progress)
    if as_json:
        typer.echo(json.dumps(asdict(done)))
    else:
        print_answered(done, console())
    _end(unanswered=bool(done.unanswered), rejected=bool(done.rejected))


def _end(*, unanswered: bool, rejected: bool) -> None:
    if unanswered:
        raise typer.Exit(EXIT_PARTIAL)
    if rejected:
        raise typer.Exit(EXIT_REJECTED)
