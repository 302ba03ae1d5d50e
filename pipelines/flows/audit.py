"""An audit as a Prefect flow: prepare, attack, report."""

from __future__ import annotations

from typing import Any, Literal

from infra import orchestrator

orchestrator.prepare_environment()

from prefect import flow, task  # noqa: E402
from prefect.cache_policies import NO_CACHE  # noqa: E402

from infra.telemetry import configure_logging  # noqa: E402
from pipelines.auditing import job  # noqa: E402
from pipelines.auditing import request as auditing_request  # noqa: E402
from pipelines.auditing.request import AuditRequest  # noqa: E402
from pipelines.auditing.results import FILES, KEYS, AuditResults  # noqa: E402
from pipelines.evaluation.job import finished as evaluation_of  # noqa: E402
from pipelines.flows import notify  # noqa: E402
from pipelines.flows.evaluate import Opaque, publish  # noqa: E402
from pipelines.report import (  # noqa: E402
    audit_sheets,
    page,
)
from pipelines.setup import ports  # noqa: E402


class BelowFloorError(RuntimeError):
    """The cheapest attack takes fewer bits than were asked for, or may do so."""


@flow(name="ironmask-audit", persist_result=False, **notify.HOOKS)
def audit_flow(
    request: dict[str, Any],
    floor_bits: float | None = None,
    threat: Literal["files", "keys"] = "files",
) -> list[str]:
    """Audit tables; the report's addresses. request: of `AuditRequest`.

    Fails where a thief with the files, or with the keys as well, needs fewer bits than the floor,
    or where that is not known since searches ran out of time.
    """
    lists = {name: tuple(value) for name, value in request.items() if isinstance(value, list)}
    asked = AuditRequest(**{**request, **lists})
    # Prefect walks through what is passed to a task; stores and results are no collections.
    prepared = task(name="prepare", cache_policy=NO_CACHE)(
        lambda: Opaque(auditing_request.prepare(asked))
    )()
    configure_logging(prepared.value.settings.log_level, prepared.value.settings.log_format)

    @task(name="attack", cache_policy=NO_CACHE, retries=2, retry_delay_seconds=[5, 30])
    def attack() -> Opaque[AuditResults]:
        with job.opened(asked, prepared.value) as executor:
            return Opaque(job.run(prepared.value, executor, job.quiet))

    found = attack()

    @task(name="report", cache_policy=NO_CACHE)
    def report() -> list[str]:
        publish(audit_sheets.audit_sheets(found.value))
        store = ports.shared_store(prepared.value.storage.public())
        held = prepared.value
        evaluated = evaluation_of(held.out, held.settings, held.storage)
        written = page.write_audit(found.value, prepared.value.out, evaluated, store)
        job.write_rates(prepared.value, found.value)
        return written

    written = report()
    why = floor_bits and found.value.below(floor_bits, KEYS if threat == "keys" else FILES)
    if why:
        raise BelowFloorError(why)
    return written
