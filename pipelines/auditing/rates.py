"""The findings of an audit, as rows of a table's `metrics`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from pipelines.auditing.results import AuditResults
from pipelines.spec.template_job import digest


def run_id(found: AuditResults) -> str:
    """A new id for each audit: its sample is random, so no two are alike."""
    return digest(asdict(found.audit))[:12]


def metrics(found: AuditResults) -> Iterator[dict[str, Any]]:
    """The findings as rows of a table's `metrics`, without their time."""
    audit = run_id(found)
    values = [
        ("attack_bits", f"{cost.attack}, with {cost.has}", cost.bits)
        for cost in found.costs
        if cost.is_cost
    ]
    values += [
        ("attack_seconds", f"{cost.attack}, with {cost.has}", cost.seconds)
        for cost in found.costs
        if cost.seconds is not None
    ]
    values += [("d_sys", name, link.d_sys) for name, link in found.links.items()]
    values += [("maximal_linkability", name, link.maximal) for name, link in found.links.items()]
    values += [("effective_rank", found.audit.source, found.space.effective_rank)]
    for name, label, value in values:
        yield {"run_id": audit, "name": name, "label": label, "value": value}
