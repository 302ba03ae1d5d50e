"""Repair as a verb."""

from __future__ import annotations

from typing import Literal, Unpack, overload

from pipelines.api.options import RepairOptions, refuse_others
from pipelines.repairing import job
from pipelines.repairing import request as repair_request
from pipelines.repairing.job import Outlook, Repaired
from pipelines.repairing.request import CheckedRepair, RepairRequest
from pipelines.run.course import Watch
from pipelines.spec.options import assembled


@overload
def repair(
    dest: str, source: str, *, dry_run: Literal[True], **options: Unpack[RepairOptions]
) -> Outlook: ...


@overload
def repair(
    dest: str, source: str, *, dry_run: Literal[False] = False, **options: Unpack[RepairOptions]
) -> Repaired: ...


def repair(
    dest: str, source: str, *, dry_run: bool = False, **options: Unpack[RepairOptions]
) -> Outlook | Repaired:
    """Enrol again the people whose rows lay in lost or damaged data files; nobody else is touched.

    source: inputs of these people, as for `enroll`. Settings are those of the live templates.
    dry_run: say what is lost and whom the source has, and write nothing.

    Raises `TableError` where something is lost that cannot be made anew, `SourceError` where the
    source has nobody of those who would be taken out; then nothing is changed.

    >>> repair("table/", "photos/", model="buffalo_sc").without  # doctest: +SKIP
    """
    refuse_others(options, RepairOptions)
    request = assembled(RepairRequest, {"dest": dest, "source": source, **options})
    prepared = repair_request.prepare(request)
    return foresee(prepared) if dry_run else carry_out(request, prepared)


def foresee(prepared: CheckedRepair) -> Outlook:
    """Say what a repair would do."""
    return job.foresee(prepared.job, prepared.tables, prepared.store, prepared.keys)


def carry_out(
    request: RepairRequest, prepared: CheckedRepair, watch: Watch | None = None
) -> Repaired:
    """Do a repair that is checked already."""
    with repair_request.opened(request, prepared, watch) as run:
        return job.repair(run)
