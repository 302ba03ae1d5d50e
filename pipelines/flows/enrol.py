"""Enrolment as a Prefect flow: plan, run, commit, report."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from infra import orchestrator

orchestrator.prepare_environment()

from prefect import flow  # noqa: E402

from infra.telemetry import configure_logging  # noqa: E402
from ironmask.errors import NothingToDoError  # noqa: E402
from pipelines.api import enrolment  # noqa: E402
from pipelines.enrolment import request as enrolment_request  # noqa: E402
from pipelines.enrolment.request import CheckedEnrolment, EnrolRequest  # noqa: E402
from pipelines.flows import notify  # noqa: E402
from pipelines.flows.tasks import PartialError, answered, as_task, counted, show  # noqa: E402
from pipelines.report.terminal import facts  # noqa: E402
from pipelines.run.course import Watch  # noqa: E402
from pipelines.run.summary import Summary  # noqa: E402
from pipelines.spec.options import assembled  # noqa: E402


@flow(name="ironmask-enrol", persist_result=False, **notify.HOOKS)
def enrol_flow(request: dict[str, Any], max_failures: int = 0) -> dict[str, Any]:
    """Enrol a source into a destination. request: the options of `pipelines.enroll`.

    Fails where more inputs failed than `max_failures`, once all others are enrolled, and where
    nobody has a template.
    """
    asked = assembled(EnrolRequest, request)
    prepared = enrolment_request.prepare(asked)
    configure_logging(prepared.settings.log_level, prepared.settings.log_format)
    done = _enrol(asked, prepared, Watch(), max_failures)
    return {"nothing_to_do": str(done)} if isinstance(done, NothingToDoError) else asdict(done)


def run_as_flow(
    request: EnrolRequest, prepared: CheckedEnrolment, watch: Watch, max_failures: int
) -> Summary:
    """Do what `enrol_flow` does, with a job that is checked already and somebody who looks on.

    Raises `WorkerError` where the Prefect server does not answer, `NothingToDoError` after a flow
    that found nothing to do.
    """

    @flow(name="ironmask-enrol", persist_result=False, **notify.HOOKS)
    def enrol_here(
        source: str,  # noqa: ARG001
        dest: str,  # noqa: ARG001
        settings: str,  # noqa: ARG001
        max_failures: int,
    ) -> Summary | NothingToDoError:
        return _enrol(request, prepared, watch, max_failures)

    job = prepared.job
    try:
        with answered():
            done = enrol_here(job.source, job.dest, job.describe(), max_failures)
    except PartialError as partial:
        done = partial.done
    if isinstance(done, NothingToDoError):
        raise done
    return done


def _enrol(
    request: EnrolRequest, prepared: CheckedEnrolment, watch: Watch, max_failures: int
) -> Summary | NothingToDoError:
    """Do the job, a Prefect task each step. That nothing is to be done is a result here.

    Raises `PartialError` after a run in which more inputs failed than `max_failures`, or that
    leaves nobody with a template.
    """
    watch = replace(watch, progress=counted(watch.progress))
    try:
        summary = enrolment.carry_out(request, prepared, watch, as_task)
    except NothingToDoError as nothing:
        return nothing
    show("ironmask-enrolment", facts(summary), f"Enrolment into {summary.dest}")
    if why := summary.shortfall(max_failures):
        raise PartialError(why, summary)
    return summary
