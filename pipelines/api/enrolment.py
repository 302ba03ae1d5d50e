"""Enrolment as a verb."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Unpack, overload

from ironmask.errors import NothingToDoError
from pipelines.api.options import EnrolOptions, refuse_others
from pipelines.enrolment import hold
from pipelines.enrolment import request as enrolment_request
from pipelines.enrolment.request import CheckedEnrolment, EnrolRequest
from pipelines.run.begin import Forecast
from pipelines.run.course import Take, Watch, directly, follow
from pipelines.run.summary import Summary
from pipelines.run.template_run import STEPS
from pipelines.spec.options import assembled


@dataclass(frozen=True)
class NothingToDo:
    """No input that failed before is left to be retried. why: in one line."""

    why: str


@overload
def enroll(
    source: str, dest: str, *, dry_run: Literal[True], **options: Unpack[EnrolOptions]
) -> Forecast | NothingToDo: ...


@overload
def enroll(
    source: str, dest: str, *, dry_run: Literal[False] = False, **options: Unpack[EnrolOptions]
) -> Summary | NothingToDo: ...


def enroll(
    source: str, dest: str, *, dry_run: bool = False, **options: Unpack[EnrolOptions]
) -> Forecast | Summary | NothingToDo:
    """Turn face images, or stored embeddings, into a table of protected templates.

    source: a folder or `s3://` prefix of `<subject>/<image>`, a manifest, or a Parquet of
    embeddings. dest: a folder or `s3://` prefix. An unfinished run is continued, and subjects that
    have a template already are skipped. dry_run: say what would be done, and write nothing. With
    `retry`, returns `NothingToDo` where nothing failed for one of these reasons.

    Raises `ParameterError` for options that cannot be used, `SourceError`, `ModelError`,
    `KeyStoreError`, `TableError`, `BusyError` and the others of `ironmask.errors`.

    >>> enroll("photos/", "table/", model="buffalo_sc").subjects_enrolled  # doctest: +SKIP
    """
    refuse_others(options, EnrolOptions)
    request = assembled(EnrolRequest, {"source": source, "dest": dest, **options})
    prepared = enrolment_request.prepare(request)
    try:
        if dry_run:
            return hold.foresee(request, prepared)
        return carry_out(request, prepared)
    except NothingToDoError as nothing:
        return NothingToDo(str(nothing))


def carry_out(
    request: EnrolRequest,
    prepared: CheckedEnrolment,
    watch: Watch | None = None,
    take: Take = directly,
) -> Summary:
    """Do an enrolment that is checked already. take: takes each of its steps.

    Raises `NothingToDoError` where nothing is left to do.
    """
    with hold.opened(request, prepared, watch) as run:
        return follow(STEPS, run, take).summary
