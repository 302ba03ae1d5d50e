"""The verbs that replace what protects a table."""

from __future__ import annotations

from typing import Any, Literal, Unpack, overload

from pipelines.api.options import ReprotectOptions, RewriteOptions, refuse_others
from pipelines.reprotection import hold
from pipelines.reprotection import request as reprotection_request
from pipelines.reprotection.job import STEPS, Renewed
from pipelines.reprotection.request import CheckedReprotection, ReprotectRequest
from pipelines.run.begin import Forecast
from pipelines.run.course import Take, Watch, directly, follow
from pipelines.spec.options import assembled
from pipelines.spec.template_job import Purpose


@overload
def reprotect(
    dest: str, *, dry_run: Literal[True], **options: Unpack[ReprotectOptions]
) -> Forecast: ...


@overload
def reprotect(
    dest: str, *, dry_run: Literal[False] = False, **options: Unpack[ReprotectOptions]
) -> Renewed: ...


def reprotect(
    dest: str, *, dry_run: bool = False, **options: Unpack[ReprotectOptions]
) -> Forecast | Renewed:
    """Make everybody's template anew under new keys, switch over, and destroy the old ones.

    Settings are those of the live templates unless others are given. What was broken off is
    continued. dry_run: say what would be done, and write nothing.

    Raises `SourceError` where more people than `max_lost` would lose their template, and the others
    of `ironmask.errors`.

    >>> reprotect("table/", model="buffalo_sc").is_whole  # doctest: +SKIP
    """
    refuse_others(options, ReprotectOptions)
    request = assembled(ReprotectRequest, {"dest": dest, **options})
    prepared = reprotection_request.prepare(request)
    return hold.foresee(request, prepared) if dry_run else carry_out(request, prepared)


def rekey(dest: str, **options: Unpack[RewriteOptions]) -> Renewed:
    """Encrypt every row under new data keys, its helper shuffled; needs no image, no embedding.

    This is no renewal: who has seen an old helper knows the new one again.

    >>> rekey("table/").generation  # doctest: +SKIP
    """
    return _rewrite(dest, Purpose.REKEY, options)


def rotate_mac(dest: str, **options: Unpack[RewriteOptions]) -> Renewed:
    """Put every row's digests under one more MAC key; needs no image and no embedding.

    >>> rotate_mac("table/").generation  # doctest: +SKIP
    """
    return _rewrite(dest, Purpose.ROTATE_MAC, options)


def _rewrite(dest: str, purpose: Purpose, options: Any) -> Renewed:
    refuse_others(options, RewriteOptions)
    flat = {"dest": dest, "purpose": purpose.value, "embedders": 0, **options}
    request = assembled(ReprotectRequest, flat)
    return carry_out(request, reprotection_request.prepare(request))


def carry_out(
    request: ReprotectRequest,
    prepared: CheckedReprotection,
    watch: Watch | None = None,
    take: Take = directly,
) -> Renewed:
    """Do a re-protection that is checked already. take: takes each of its steps."""
    with hold.opened(request, prepared, watch) as run:
        return follow(STEPS, run, take).done
