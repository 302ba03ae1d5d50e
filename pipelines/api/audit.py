"""An audit as a verb: attack, report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Unpack

from pipelines.api.options import AuditOptions, refuse_others
from pipelines.auditing import job
from pipelines.auditing import request as auditing_request
from pipelines.auditing.request import AuditRequest, CheckedAudit
from pipelines.auditing.results import AuditResults
from pipelines.evaluation.job import finished as evaluation_of
from pipelines.report import page
from pipelines.run.course import Counting, Step, Take, directly, follow, uncounted
from pipelines.setup import ports
from pipelines.spec.options import assembled


@dataclass
class Audit:
    """An audit under way, or one that is done.

    results: what each attack takes; their `headline` says what the tables are worth. files:
    addresses of the report, first, and of its tables.
    """

    request: AuditRequest = field(repr=False)
    prepared: CheckedAudit = field(repr=False)
    progress: Counting = field(default=uncounted, repr=False)
    results: AuditResults = field(init=False, repr=False)
    files: list[str] = field(init=False)

    def attack(self) -> None:
        """Run all units, and add their findings up."""
        with job.opened(self.request, self.prepared) as engine:
            self.results = job.run(self.prepared, engine, self.progress)

    def report(self) -> None:
        """Write the report, with that of an evaluation that lies there, and each table's rates."""
        held = self.prepared
        store = ports.shared_store(held.storage.public())
        evaluated = evaluation_of(held.out, held.settings, held.storage)
        self.files = page.write_audit(self.results, held.out, evaluated, store)
        job.write_rates(held, self.results)


STEPS: Final = (Step("attack", Audit.attack, again=True), Step("report", Audit.report))


def audit(tables: Sequence[str], source: str, out: str, **options: Unpack[AuditOptions]) -> Audit:
    """Attack tables as a thief would, and say what each attack takes.

    tables: of each, every generation is audited. source: a Parquet of embeddings of the model that
    enrolled. out: a folder or `s3://` prefix for the report.

    Raises `ParameterError`, `SourceError`, `TableError` and `KeyStoreError` for what cannot be
    audited.

    >>> audit(["table/"], "embeddings.parquet", "audit/").results.headline  # doctest: +SKIP
    """
    refuse_others(options, AuditOptions)
    flat = {"tables": tables, "source": source, "out": out, **options}
    request = assembled(AuditRequest, flat)
    return carry_out(request, auditing_request.prepare(request))


def carry_out(
    request: AuditRequest,
    prepared: CheckedAudit,
    progress: Counting = uncounted,
    take: Take = directly,
) -> Audit:
    """Do an audit that is checked already. take: takes each of its steps."""
    return follow(STEPS, Audit(request, prepared, progress), take)
