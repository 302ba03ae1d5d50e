"""Evaluation as a Prefect flow: prepare, compare, report."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Generic, TypeVar

from infra import orchestrator

orchestrator.prepare_environment()

from prefect import flow, task  # noqa: E402
from prefect.artifacts import create_table_artifact  # noqa: E402
from prefect.cache_policies import NO_CACHE  # noqa: E402

from infra.telemetry import configure_logging  # noqa: E402
from pipelines.evaluation import job  # noqa: E402
from pipelines.evaluation.request import EvaluateRequest  # noqa: E402
from pipelines.evaluation.results import Results  # noqa: E402
from pipelines.flows import notify  # noqa: E402
from pipelines.report import (  # noqa: E402
    page,
    sheets,
)
from pipelines.report.sheets import Sheet  # noqa: E402

T = TypeVar("T")


@flow(name="ironmask-evaluate", persist_result=False, **notify.HOOKS)
def evaluate_flow(request: dict[str, Any]) -> list[str]:
    """Evaluate embeddings; the report's addresses. request: of `EvaluateRequest`."""
    lists = {name: tuple(value) for name, value in request.items() if isinstance(value, list)}
    asked = EvaluateRequest(**{**request, **lists})
    # Prefect walks through what is passed to a task; stores and results are no collections.
    prepared = task(name="prepare", cache_policy=NO_CACHE)(lambda: Opaque(job.prepare(asked)))()
    configure_logging(prepared.value.settings.log_level, prepared.value.settings.log_format)

    @task(name="compare", cache_policy=NO_CACHE, retries=2, retry_delay_seconds=[5, 30])
    def compare() -> Opaque[Results]:
        with job.opened(asked, prepared.value) as executor:
            return Opaque(job.run(prepared.value, executor, job.quiet))

    found = compare()

    @task(name="report", cache_policy=NO_CACHE)
    def report() -> list[str]:
        spent = job.measure(prepared.value)
        publish(sheets.sheets(found.value, spent))
        written = page.write(found.value, spent, prepared.value.sources.store)
        job.write_rates(prepared.value, found.value)
        return written

    return report()


def publish(made: Iterable[Sheet]) -> None:
    """Show tables as artifacts of the run."""
    for sheet in made:
        rows = [dict(zip(sheet.columns, row, strict=True)) for row in sheet.rows]
        create_table_artifact(table=rows, description=f"{sheet.title}. {sheet.note}")


class Opaque(Generic[T]):
    """A value that is handed on as it is."""

    def __init__(self, value: T) -> None:
        self.value = value
