"""An audit as a Prefect flow: attack, report."""

from __future__ import annotations

from typing import Any, Literal

from infra import orchestrator

orchestrator.prepare_environment()

from prefect import flow  # noqa: E402

from infra.telemetry import configure_logging  # noqa: E402
from pipelines.api import audit  # noqa: E402
from pipelines.auditing import request as auditing_request  # noqa: E402
from pipelines.auditing.costs import FILES, KEYS  # noqa: E402
from pipelines.auditing.request import AuditRequest  # noqa: E402
from pipelines.flows import notify  # noqa: E402
from pipelines.flows.tasks import as_task, publish  # noqa: E402
from pipelines.report import audit_sheets  # noqa: E402
from pipelines.spec.options import assembled  # noqa: E402


class BelowFloorError(RuntimeError):
    """The cheapest attack takes fewer bits than were asked for, or may do so."""


@flow(name="ironmask-audit", persist_result=False, **notify.HOOKS)
def audit_flow(
    request: dict[str, Any],
    floor_bits: float | None = None,
    threat: Literal["files", "keys"] = "files",
) -> list[str]:
    """Audit tables; the report's addresses. request: the options of `pipelines.audit`.

    Fails where a thief with the files, or with the keys as well, needs fewer bits than the floor,
    or where that is not known since searches ran out of time.
    """
    asked = assembled(AuditRequest, request)
    prepared = auditing_request.prepare(asked)
    configure_logging(prepared.settings.log_level, prepared.settings.log_format)
    done = audit.carry_out(asked, prepared, take=as_task)
    publish(audit_sheets.audit_sheets(done.results))
    why = floor_bits and done.results.below(floor_bits, KEYS if threat == "keys" else FILES)
    if why:
        raise BelowFloorError(why)
    return done.files
