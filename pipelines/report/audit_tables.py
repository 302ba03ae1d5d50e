"""The numbers of an audit, as machines read them."""

from __future__ import annotations

from dataclasses import asdict

import pyarrow as pa

from pipelines.auditing.results import AuditResults


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
