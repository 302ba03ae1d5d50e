"""Enrolment as a Prefect flow: plan, run, commit, report."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from infra import orchestrator

orchestrator.prepare_environment()

from prefect import flow, task  # noqa: E402
from prefect.artifacts import create_table_artifact  # noqa: E402
from prefect.cache_policies import NO_CACHE  # noqa: E402

from infra.telemetry import configure_logging  # noqa: E402
from ironmask.errors import IronmaskError, StorageError  # noqa: E402
from pipelines import enrol, start  # noqa: E402
from pipelines.face_settings import FaceSettings  # noqa: E402
from pipelines.report.terminal import facts  # noqa: E402


async def _worth_retrying(_task: Any, _run: Any, state: Any) -> bool:
    """A store may recover and a worker may come back; a refusal stays one."""
    try:
        await state.result()
    except IronmaskError as error:
        return isinstance(error, StorageError)
    except Exception:  # noqa: BLE001 - any other failure of the cluster is worth a resume
        return True
    return False


_plan = task(name="plan", cache_policy=NO_CACHE)(enrol.prepare_plan)
_run = task(
    name="run and commit",
    cache_policy=NO_CACHE,
    retries=2,
    retry_delay_seconds=[5, 30],
    retry_condition_fn=_worth_retrying,
)(enrol.run)
_report = task(name="report", cache_policy=NO_CACHE)(enrol.report)


@flow(name="ironmask-enrol", persist_result=False)
def enrol_flow(request: dict[str, Any]) -> dict[str, Any]:
    """Enrol a source into a destination. request: fields of `pipelines.start.Request`."""
    faces = FaceSettings(**request.get("faces", {}))
    asked = start.Request(**{**request, "faces": faces})
    prepared = start.prepare(asked)
    configure_logging(prepared.settings.log_level, prepared.settings.log_format)
    return asdict(_enrol(asked, prepared, enrol.quiet))


def run_as_flow(
    request: start.Request, prepared: start.Prepared, progress: enrol.Progress
) -> enrol.Summary:
    """Do what `enrol_flow` does, with a job that is checked already and a progress display."""

    @flow(name="ironmask-enrol", persist_result=False)
    def enrol_here(source: str, dest: str, settings: str) -> enrol.Summary:  # noqa: ARG001
        return _enrol(request, prepared, progress)

    job = prepared.job
    return enrol_here(job.source, job.dest, job.describe())


def _enrol(
    request: start.Request, prepared: start.Prepared, progress: enrol.Progress
) -> enrol.Summary:
    """Hold the destination and do the job, a Prefect task each step."""
    timer = enrol.Timer()
    with start.opened(request, prepared) as held:
        job, tables, store = held.job, held.tables, held.store
        frozen = _plan(job, tables, store)
        tally, resumed = _run(job, frozen, tables, store, held.executor, progress)
        summary = _report(job, frozen, tally, resumed, tables, store, timer.seconds())
    create_table_artifact(
        key="ironmask-enrolment",
        table=[{"what": name, "value": value} for name, value in facts(summary)],
        description=f"Enrolment into {summary.dest}",
    )
    return summary
