"""The numbers of an audit, as machines read them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from pipelines.auditing.results import AuditResults
from pipelines.job import digest


def audit_tables(found: AuditResults) -> dict[str, pa.Table]:
    """By name of a Parquet file."""
    space = found.space
    links = [
        {
            "function": name,
            "mated": link.mated,
            "non_mated": link.non_mated,
            "bins": link.bins,
            "d_sys": link.d_sys,
            "d_sys_low": link.d_sys_interval.low,
            "d_sys_high": link.d_sys_interval.high,
            "maximal": link.maximal,
            "maximal_low": link.maximal_interval.low,
            "maximal_high": link.maximal_interval.high,
        }
        for name, link in found.links.items()
    ]
    spectrum = [
        {"direction": place, "eigenvalue": value, "beyond": rest}
        for place, (value, rest) in enumerate(
            zip(space.eigenvalues.tolist(), space.beyond.tolist(), strict=False), start=1
        )
    ]
    return {
        "attacks": pa.Table.from_pylist([asdict(cost) for cost in found.costs]),
        "linkability": pa.Table.from_pylist(links),
        "renewability": pa.Table.from_pylist([asdict(one) for one in found.renewals]),
        "spectrum": pa.Table.from_pylist(spectrum),
    }


def run_id(found: AuditResults) -> str:
    """Of the audit: its sample is drawn, so no two are alike."""
    return digest(asdict(found.audit))[:12]


def metrics(found: AuditResults) -> Iterator[dict[str, Any]]:
    """What was found as rows of a table's `metrics`, but for their time."""
    audit = run_id(found)
    values = [("attack_bits", f"{cost.attack}, with {cost.has}", cost.bits) for cost in found.costs]
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
