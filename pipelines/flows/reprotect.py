"""Re-protection as a Prefect flow: plan, run, switch, destroy, report."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any, cast

from infra import orchestrator

orchestrator.prepare_environment()

from prefect import flow  # noqa: E402

from infra.telemetry import configure_logging  # noqa: E402
from pipelines.api import reprotection  # noqa: E402
from pipelines.flows import notify  # noqa: E402
from pipelines.flows.tasks import (  # noqa: E402
    Opaque,
    PartialError,
    answered,
    as_task,
    counted,
    show,
)
from pipelines.report.terminal import excluded  # noqa: E402
from pipelines.reprotection import request as reprotection_request  # noqa: E402
from pipelines.reprotection.job import Renewed  # noqa: E402
from pipelines.reprotection.request import CheckedReprotection, ReprotectRequest  # noqa: E402
from pipelines.run.course import Watch  # noqa: E402
from pipelines.spec.options import assembled  # noqa: E402


@flow(name="ironmask-reprotect", persist_result=False, **notify.HOOKS)
def reprotect_flow(request: dict[str, Any]) -> dict[str, Any]:
    """Make a table's templates anew. request: the options of `pipelines.reprotect`.

    Fails where inputs failed or are missing, or people lost their template, once all is done.
    """
    asked = assembled(ReprotectRequest, request)
    prepared = reprotection_request.prepare(asked)
    configure_logging(prepared.settings.log_level, prepared.settings.log_format)
    return asdict(_reprotect(asked, prepared, Watch()))


def run_as_flow(request: ReprotectRequest, prepared: CheckedReprotection, watch: Watch) -> Renewed:
    """Do what `reprotect_flow` does, with a job that is checked already and somebody who looks on.

    Raises `WorkerError` where the Prefect server does not answer.
    """

    @flow(name=f"ironmask-{request.purpose}", persist_result=False, **notify.HOOKS)
    def reprotect_here(dest: str, generation: int, settings: str) -> Opaque[Renewed]:  # noqa: ARG001
        return Opaque(_reprotect(request, prepared, watch))

    job = prepared.job
    try:
        with answered():
            return reprotect_here(job.dest, job.generation, job.describe()).value
    except PartialError as partial:
        return cast(Renewed, partial.done)


def _reprotect(request: ReprotectRequest, prepared: CheckedReprotection, watch: Watch) -> Renewed:
    """Do the job, a Prefect task each step.

    Raises `PartialError` after a re-protection that is not whole.
    """
    watch = replace(watch, progress=counted(watch.progress))
    done = reprotection.carry_out(request, prepared, watch, as_task)
    show("ironmask-reprotection", _facts(done), f"Re-protection of {done.summary.dest}")
    if not done.is_whole:
        raise PartialError(done.shortfall, done)
    return done


def _facts(done: Renewed) -> list[tuple[str, str]]:
    summary, proof = done.summary, done.proof
    rows = {
        "live generation": done.generation,
        "templates": summary.subjects_enrolled,
        "inputs used": summary.used,
        "inputs failed": summary.failed,
        **{f"people with {reason}": count for reason, count in summary.disagreement.items()},
        "people without template": done.lost,
        "inputs that are missing": done.missing,
        "destroyed generation": proof.generation,
        "destroyed keys": proof.key_id,
        "destroyed files": proof.files,
        "SHA-256 of their list": proof.manifest,
        "seconds": round(summary.seconds, 1),
        **dict(excluded(summary)),
    }
    return [(name, str(value)) for name, value in rows.items()]
