"""The numbers of an audit, for machines."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pyarrow as pa

from ironmask.metrics import Linkability
from pipelines.auditing.results import AuditResults
from pipelines.auditing.unfinished import Unfinished


def audit_tables(found: AuditResults) -> dict[str, pa.Table]:
    """Tables by name of a Parquet file."""
    space = found.space
    links = [
        {"function": name, **_link(found.links.get(name)), **_late(found.unlinked.get(name))}
        for name in dict.fromkeys([*found.links, *found.unlinked])
    ]
    spectrum = [
        {"direction": place, "eigenvalue": value, "beyond": rest}
        for place, (value, rest) in enumerate(
            zip(space.eigenvalues.tolist(), space.beyond.tolist(), strict=False), start=1
        )
    ]
    return {
        "attacks": _typed([asdict(cost) for cost in found.costs]),
        "linkability": _typed(links),
        "renewability": _typed([asdict(one) for one in found.renewals]),
        "spectrum": _typed(spectrum),
    }


def _link(link: Linkability | None) -> dict[str, Any]:
    """Columns of a linkage function; empty ones where it had too few scores."""
    return {
        "mated": link and link.mated,
        "non_mated": link and link.non_mated,
        "bins": link and link.bins,
        "d_sys": link and link.d_sys,
        "d_sys_low": link and link.d_sys_interval.low,
        "d_sys_high": link and link.d_sys_interval.high,
        "maximal": link and link.maximal,
        "maximal_low": link and link.maximal_interval.low,
        "maximal_high": link and link.maximal_interval.high,
    }


def _late(late: Unfinished | None) -> dict[str, Any]:
    return {"inconclusive": late.count if late else 0, "seconds_needed": late and late.needed}


def _typed(rows: list[dict[str, Any]]) -> pa.Table:
    """Rows as a table. A column without any value is a column of numbers."""
    table = pa.Table.from_pylist(rows)
    for place, column in enumerate(table.schema):
        if pa.types.is_null(column.type):
            table = table.set_column(place, column.name, table[column.name].cast(pa.float64()))
    return table
