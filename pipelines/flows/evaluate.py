"""Evaluation as a Prefect flow: prepare, compare, report."""

from __future__ import annotations

from typing import Any

from infra import orchestrator

orchestrator.prepare_environment()

from prefect import flow, task  # noqa: E402
from prefect.artifacts import create_table_artifact  # noqa: E402
from prefect.cache_policies import NO_CACHE  # noqa: E402

from infra.telemetry import configure_logging  # noqa: E402
from pipelines import evaluate  # noqa: E402
from pipelines.evaluation.results import Results  # noqa: E402
from pipelines.report import page, sheets  # noqa: E402

_prepare = task(name="prepare", cache_policy=NO_CACHE)(evaluate.prepare)
_compare = task(name="compare", cache_policy=NO_CACHE, retries=2, retry_delay_seconds=[5, 30])(
    evaluate.run
)


@task(name="report", cache_policy=NO_CACHE)
def _report(found: Results, prepared: evaluate.Prepared) -> list[str]:
    for sheet in sheets.sheets(found):
        rows = [dict(zip(sheet.columns, row, strict=True)) for row in sheet.rows]
        create_table_artifact(table=rows, description=f"{sheet.title}. {sheet.note}")
    return page.write(found, prepared.store)


@flow(name="ironmask-evaluate", persist_result=False)
def evaluate_flow(request: dict[str, Any]) -> list[str]:
    """Evaluate embeddings; the report's addresses. request: of `pipelines.evaluate.Request`."""
    lists = {name: tuple(value) for name, value in request.items() if isinstance(value, list)}
    asked = evaluate.Request(**{**request, **lists})
    prepared = _prepare(asked)
    configure_logging(prepared.settings.log_level, prepared.settings.log_format)
    with evaluate.opened(asked, prepared) as executor:
        found = _compare(prepared, executor, evaluate.quiet)
    return _report(found, prepared)
