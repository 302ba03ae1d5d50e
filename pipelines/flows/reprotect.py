"""Re-protection as a Prefect flow: plan, run, switch, destroy, report."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, cast

from infra import orchestrator

orchestrator.prepare_environment()

from prefect import flow, task  # noqa: E402
from prefect.cache_policies import NO_CACHE  # noqa: E402

from infra.telemetry import configure_logging  # noqa: E402
from pipelines.flows import notify  # noqa: E402
from pipelines.flows.enrol import PartialError, answered, counted, show, worth_retrying  # noqa: E402
from pipelines.flows.evaluate import Opaque  # noqa: E402
from pipelines.plan.plans import Plan  # noqa: E402
from pipelines.reprotection import job as reprotection_job  # noqa: E402
from pipelines.reprotection import request as reprotection_request  # noqa: E402
from pipelines.reprotection.job import HeldReprotection, Renewed  # noqa: E402
from pipelines.reprotection.request import CheckedReprotection, ReprotectRequest  # noqa: E402
from pipelines.run import steps  # noqa: E402


@flow(name="ironmask-reprotect", persist_result=False, **notify.HOOKS)
def reprotect_flow(request: dict[str, Any]) -> dict[str, Any]:
    """Make a table's templates anew. request: fields of `ReprotectRequest`.

    Fails where inputs failed or are missing, or people lost their template, once all is done.
    """
    lists = {name: tuple(value) for name, value in request.items() if isinstance(value, list)}
    asked = ReprotectRequest(**{**request, **lists})
    prepared = reprotection_request.prepare(asked)
    configure_logging(prepared.settings.log_level, prepared.settings.log_format)
    return asdict(_reprotect(asked, prepared, steps.quiet))


def run_as_flow(
    request: ReprotectRequest, prepared: CheckedReprotection, progress: steps.Progress
) -> Renewed:
    """Do what `reprotect_flow` does, with a job that is checked already and a progress display.

    Raises `WorkerError` where the Prefect server does not answer.
    """

    @flow(name=f"ironmask-{request.purpose}", persist_result=False, **notify.HOOKS)
    def reprotect_here(dest: str, generation: int, settings: str) -> Opaque[Renewed]:  # noqa: ARG001
        return Opaque(_reprotect(request, prepared, progress))

    job = prepared.job
    try:
        with answered():
            return reprotect_here(job.dest, job.generation, job.describe()).value
    except PartialError as partial:
        return cast(Renewed, partial.done)


def _reprotect(
    request: ReprotectRequest, prepared: CheckedReprotection, progress: steps.Progress
) -> Renewed:
    """Hold the destination and do the job, a Prefect task each step.

    Raises `PartialError` after a re-protection that is not whole.
    """
    timer = steps.Timer()
    with reprotection_request.opened(request, prepared) as held:
        frozen = _step("plan")(_plan)(Opaque(held)).value
        going = _step("run and commit", retries=2)(_run)
        tally, resumed = going(Opaque(held), Opaque(frozen), progress).value
        lost = _step("switch")(_switch)(Opaque(held))
        proof = _step("destroy", retries=2)(_destroy)(Opaque(held)).value
        done = reprotection_job.report(held, frozen, tally, resumed, lost, proof, timer.seconds())
    show("ironmask-reprotection", _facts(done), f"Re-protection of {done.summary.dest}")
    if not done.is_whole:
        raise PartialError(done.shortfall, done)
    return done


def _step(name: str, retries: int = 0) -> Any:
    return task(
        name=name,
        cache_policy=NO_CACHE,
        retries=retries,
        retry_delay_seconds=[5, 30],
        retry_condition_fn=worth_retrying if retries else None,
    )


# Prefect walks through what is passed to a task; keys and stores are no collections.
def _plan(held: Opaque[HeldReprotection]) -> Opaque[Plan]:
    return Opaque(reprotection_job.prepare(held.value))


def _run(
    held: Opaque[HeldReprotection], frozen: Opaque[Plan], progress: steps.Progress
) -> Opaque[Any]:
    return Opaque(reprotection_job.run(held.value, frozen.value, counted(progress)))


def _switch(held: Opaque[HeldReprotection]) -> int:
    return reprotection_job.switch(held.value)


def _destroy(held: Opaque[HeldReprotection]) -> Opaque[Any]:
    return Opaque(reprotection_job.destroy_old(held.value))


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
    }
    return [(name, str(value)) for name, value in rows.items()]
