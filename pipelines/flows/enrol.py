"""Enrolment as a Prefect flow: plan, run, commit, report."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from infra import orchestrator

orchestrator.prepare_environment()

import httpx  # noqa: E402
from prefect import flow, task  # noqa: E402
from prefect.artifacts import (  # noqa: E402
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE  # noqa: E402
from prefect.exceptions import PrefectException  # noqa: E402

from infra.telemetry import configure_logging  # noqa: E402
from ironmask.errors import (  # noqa: E402
    IronmaskError,
    NothingToDoError,
    StorageError,
    WorkerError,
)
from pipelines.enrolment import hold  # noqa: E402
from pipelines.enrolment import request as enrolment_request  # noqa: E402
from pipelines.enrolment.request import (  # noqa: E402
    CheckedEnrolment,
    EnrolRequest,
)
from pipelines.flows import notify  # noqa: E402
from pipelines.plan.census import Census  # noqa: E402
from pipelines.plan.plans import Plan  # noqa: E402
from pipelines.report.terminal import facts  # noqa: E402
from pipelines.run import (  # noqa: E402
    begin,
    steps,
)
from pipelines.run.summary import Summary, Tally  # noqa: E402
from pipelines.spec.faces import FaceSettings  # noqa: E402
from pipelines.spec.template_job import TemplateJob  # noqa: E402
from pipelines.table.held import Destination  # noqa: E402

_log = logging.getLogger("ironmask.enrol")


class PartialError(Exception):
    """A run that is complete, and is not what was asked for. done: what it did."""

    def __init__(self, message: str, done: Any) -> None:
        super().__init__(message)
        self.done = done


async def worth_retrying(_task: Any, _run: Any, state: Any) -> bool:
    """A store may recover and a worker may come back; a refusal stays one."""
    try:
        await state.result()
    except IronmaskError as error:
        return isinstance(error, StorageError | WorkerError)
    except Exception:  # noqa: BLE001 - any other failure of the cluster is worth a resume
        return True
    return False


def _planned(
    job: TemplateJob, dest: Destination, told: Callable[[Census], None], *, restart: bool
) -> Plan | NothingToDoError:
    """That nothing is to be done is a result here: a task that raises counts as failed."""
    try:
        return begin.prepare_plan(job, dest, restart=restart, told=told)
    except NothingToDoError as nothing:
        return nothing


_plan = task(name="plan", cache_policy=NO_CACHE)(_planned)
_run = task(
    name="run and commit",
    cache_policy=NO_CACHE,
    retries=2,
    retry_delay_seconds=[5, 30],
    retry_condition_fn=worth_retrying,
)(steps.run)
_report = task(name="report", cache_policy=NO_CACHE)(steps.report)


@flow(name="ironmask-enrol", persist_result=False, **notify.HOOKS)
def enrol_flow(request: dict[str, Any], max_failures: int = 0) -> dict[str, Any]:
    """Enrol a source into a destination. request: fields of `EnrolRequest`.

    Fails where more inputs failed than `max_failures`, once all others are enrolled, and where
    nobody has a template.
    """
    faces = FaceSettings(**request.get("faces", {}))
    asked = EnrolRequest(**{**request, "faces": faces})
    prepared = enrolment_request.prepare(asked)
    configure_logging(prepared.settings.log_level, prepared.settings.log_format)
    done = _enrol(asked, prepared, steps.quiet, max_failures)
    return {"nothing_to_do": str(done)} if isinstance(done, NothingToDoError) else asdict(done)


def run_as_flow(
    request: EnrolRequest,
    prepared: CheckedEnrolment,
    progress: steps.Progress,
    max_failures: int,
    told: Callable[[Census], None] = Census.log,
) -> Summary:
    """Do what `enrol_flow` does, with a job that is checked already and a progress display.

    told: as `enrolment.job.enrol` takes it. Raises `WorkerError` where the Prefect server does not
    answer, `NothingToDoError` after a flow that found nothing to do.
    """

    @flow(name="ironmask-enrol", persist_result=False, **notify.HOOKS)
    def enrol_here(
        source: str,  # noqa: ARG001
        dest: str,  # noqa: ARG001
        settings: str,  # noqa: ARG001
        max_failures: int,
    ) -> Summary | NothingToDoError:
        return _enrol(request, prepared, progress, max_failures, told)

    job = prepared.job
    try:
        with answered():
            done = enrol_here(job.source, job.dest, job.describe(), max_failures)
    except PartialError as partial:
        done = partial.done
    if isinstance(done, NothingToDoError):
        raise done
    return done


@contextmanager
def answered() -> Iterator[None]:
    """A Prefect server that does not answer is a `WorkerError`."""
    # The command line says itself what went wrong, in one line; the server keeps the rest.
    for name in ("prefect", "prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).propagate = False
    try:
        yield
    except (RuntimeError, httpx.HTTPError) as error:
        if isinstance(error, httpx.HTTPError) or "API" in str(error):
            raise WorkerError(
                f"the Prefect server does not answer ({type(error).__name__}): check "
                "PREFECT_API_URL, or add --no-prefect"
            ) from None
        raise


def _enrol(
    request: EnrolRequest,
    prepared: CheckedEnrolment,
    progress: steps.Progress,
    max_failures: int,
    told: Callable[[Census], None] = Census.log,
) -> Summary | NothingToDoError:
    """Hold the destination and do the job, a Prefect task each step.

    Raises `PartialError` after a run in which more inputs failed than `max_failures`, or that
    leaves nobody with a template.
    """
    timer = steps.Timer()
    with hold.opened(request, prepared) as held:
        job, dest = held.job, held.dest
        frozen = _plan(job, dest, told, restart=request.restart)
        if isinstance(frozen, NothingToDoError):
            return frozen
        tally, resumed = _run(job, frozen, dest, held.executor, counted(progress))
        summary = _report(job, frozen, tally, resumed, dest, timer.seconds())
    show("ironmask-enrolment", facts(summary), f"Enrolment into {summary.dest}")
    if why := summary.shortfall(max_failures):
        raise PartialError(why, summary)
    return summary


def show(key: str, rows: Iterable[tuple[str, str]], description: str) -> None:
    """Show facts in the server; what is done stays done where that fails."""
    with _optional():
        create_table_artifact(
            key=key,
            table=[{"what": name, "value": value} for name, value in rows],
            description=description,
        )


def counted(progress: steps.Progress) -> steps.Progress:
    """A progress display, and an artifact of the flow run that counts what is committed."""
    shown: tuple[Any, int] = None, -1

    def update(plan: Plan, tally: Tally) -> None:
        nonlocal shown
        progress(plan, tally)
        artifact, last = shown
        committed = tally.before + tally.committed
        if committed == last:
            return
        share = 100.0 * committed / max(plan.inputs, 1)
        said = (
            f"{committed:,} of {plan.inputs:,} inputs committed, "
            f"{tally.before + tally.inputs:,} done"
        )
        with _optional():
            if artifact is None:
                artifact = create_progress_artifact(share, "ironmask-progress", said)
            else:
                update_progress_artifact(artifact, share, said)
        shown = artifact, committed

    return update


@contextmanager
def _optional() -> Iterator[None]:
    """An artifact that the server refuses is done without."""
    try:
        yield
    except (RuntimeError, httpx.HTTPError, PrefectException) as error:
        _log.warning("no artifact: the Prefect server refused it (%s)", type(error).__name__)
