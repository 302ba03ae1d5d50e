"""Evaluation as a Prefect flow: compare, report."""

from __future__ import annotations

from typing import Any

from infra import orchestrator

orchestrator.prepare_environment()

from prefect import flow  # noqa: E402

from infra.telemetry import configure_logging  # noqa: E402
from pipelines.api import evaluation  # noqa: E402
from pipelines.evaluation import job  # noqa: E402
from pipelines.evaluation.request import EvaluateRequest  # noqa: E402
from pipelines.flows import notify  # noqa: E402
from pipelines.flows.tasks import as_task, publish  # noqa: E402
from pipelines.report import sheets  # noqa: E402
from pipelines.spec.options import assembled  # noqa: E402


@flow(name="ironmask-evaluate", persist_result=False, **notify.HOOKS)
def evaluate_flow(request: dict[str, Any]) -> list[str]:
    """Evaluate embeddings; the report's addresses. request: the options of `pipelines.evaluate`."""
    asked = assembled(EvaluateRequest, request)
    prepared = job.prepare(asked)
    configure_logging(prepared.settings.log_level, prepared.settings.log_format)
    done = evaluation.carry_out(asked, prepared, take=as_task)
    publish(sheets.sheets(done.results, done.spent))
    return done.files
