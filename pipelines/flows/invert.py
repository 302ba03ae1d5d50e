"""Template inversion as a Prefect flow: fit inverters, then evaluate them."""

from __future__ import annotations

from typing import Any

from infra import orchestrator

orchestrator.prepare_environment()

from prefect import flow  # noqa: E402

from infra.telemetry import configure_logging  # noqa: E402
from pipelines.api import inversion  # noqa: E402
from pipelines.flows import notify  # noqa: E402
from pipelines.flows.tasks import as_task, publish  # noqa: E402
from pipelines.inversion import request as inversion_request  # noqa: E402
from pipelines.inversion.request import InvertEvaluateRequest, InvertFitRequest  # noqa: E402
from pipelines.report import inversion_sheets  # noqa: E402
from pipelines.spec.options import assembled  # noqa: E402


@flow(name="ironmask-invert", persist_result=False, **notify.HOOKS)
def invert_flow(request: dict[str, Any], fits: list[dict[str, Any]] | None = None) -> list[str]:
    """Evaluate inverters; the report's addresses. request: the options of
    `pipelines.invert_evaluate`. fits: those of `pipelines.invert_fit`, done first, one after
    another; one that is done already costs nothing.
    """
    for given in fits or []:
        wanted = assembled(InvertFitRequest, given)
        ready = inversion_request.prepare_fit(wanted)
        configure_logging(ready.settings.log_level, ready.settings.log_format)
        inversion.fit_out(wanted, ready, take=as_task)
    asked = assembled(InvertEvaluateRequest, request)
    checked = inversion_request.prepare_evaluation(asked)
    configure_logging(checked.settings.log_level, checked.settings.log_format)
    done = inversion.carry_out(asked, checked, take=as_task)
    publish(inversion_sheets.inversion_sheets(done.results))
    return done.files
