"""What people read on a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from pipelines.enrol import Forecast, Summary
from pipelines.lookup import Inventory, Verdict

if TYPE_CHECKING:
    from infra.models import PackInfo


def facts(summary: Summary) -> list[tuple[str, str]]:
    """A run's summary as (what, value) pairs."""
    rate = summary.inputs / summary.seconds if summary.seconds else 0.0
    rows = [
        ("settings", summary.settings),
        ("inputs", f"{summary.inputs:,}"),
        ("used", f"{summary.used:,}"),
        ("failed", f"{summary.failed:,}"),
        ("duplicate", f"{summary.duplicate:,}"),
        ("skipped", f"{summary.skipped:,}"),
        *((f"  {reason}", f"{count:,}") for reason, count in summary.reasons.items()),
        ("subjects enrolled", f"{summary.subjects_enrolled:,}"),
        ("subjects not enrolled", f"{summary.subjects_not_enrolled:,}"),
        ("written", _bytes(summary.bytes_written)),
        ("time", f"{summary.seconds:,.1f} s ({rate:,.1f} inputs/s)"),
        ("run", summary.run_id),
    ]
    if summary.resumed_shards:
        rows.append(("shards done before", f"{summary.resumed_shards:,}"))
    if summary.orphans_destroyed:
        rows.append(("orphans destroyed", f"{summary.orphans_destroyed:,}"))
    return rows


def print_summary(summary: Summary, console: Console) -> None:
    """Show what a run did."""
    console.print(_pairs(f"Enrolment into {summary.dest}", facts(summary)))


def print_forecast(forecast: Forecast, console: Console) -> None:
    """Show what a run would do."""
    rows = [
        ("settings", forecast.settings),
        ("inputs", f"{forecast.inputs:,} in {forecast.shards:,} shards"),
        ("to process", f"{forecast.todo:,}"),
        *((f"  {reason}", f"{count:,}") for reason, count in forecast.reasons.items()),
        ("subjects to enrol", f"{forecast.subjects:,}"),
        ("templates", f"{_bytes(forecast.template_bytes)} at most"),
    ]
    console.print(_pairs(f"Would enrol into {forecast.dest}", rows))


def print_packs(packs: Iterable[PackInfo], console: Console) -> None:
    """Show the known model packs."""
    table = Table("pack", "here", "licence", "sources")
    for pack in packs:
        here = "yes" if pack.installed else pack.problem or "no"
        table.add_row(pack.name, here, pack.licence, ", ".join(pack.sources))
    console.print(table)


def print_verdicts(subject: str, verdicts: Iterable[Verdict], console: Console) -> None:
    """Show the answer for each probe."""
    table = Table(title=f"Probes against {subject}", title_justify="left")
    table.add_column("probe", overflow="fold")
    table.add_column("answer")
    for verdict in verdicts:
        table.add_row(verdict.probe, _answer(verdict))
    console.print(table)


def _answer(verdict: Verdict) -> str:
    if verdict.accepted is None:
        return f"no answer: {verdict.reason} ({verdict.detail})"
    return "accepted" if verdict.accepted else "rejected"


def print_inventory(found: Inventory, console: Console) -> None:
    """Show what a destination holds."""
    rows = [("table", found.table_id)]
    for g in found.generations:
        seal = "encrypted" if g.sealed else "PLAINTEXT (research mode)"
        rows += [
            (f"generation {g.generation}", f"{g.templates:,} templates"),
            ("  settings", g.settings),
            ("  helpers", f"{seal}, {_bytes(g.row_bytes)} a row with digests"),
            ("  model", g.model),
            ("  key", g.key_id),
        ]
    rows += [(f"{name} on store", _bytes(size)) for name, size in found.data_bytes.items()]
    rows += [(f"inputs {name}", f"{count:,}") for name, count in found.outcomes.items()]
    rows += [(f"  {name}", f"{count:,}") for name, count in found.reasons.items()]
    rows += [(f"run {run['run_id']}", f"{run['kind']}, {run['state']}") for run in found.runs]
    console.print(_pairs(found.dest, rows))


def _pairs(title: str, rows: Iterable[tuple[str, str]]) -> Table:
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column("what", no_wrap=True)
    table.add_column("value", overflow="fold")
    for name, value in rows:
        table.add_row(name, value)
    return table


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:,.0f} bytes" if unit == "bytes" else f"{size:,.1f} {unit}"
        size /= 1024
    return f"{size:,.1f} TiB"
